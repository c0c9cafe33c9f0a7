// The file that a class was loaded from: V8 knows it, and tells it through the inspector of this thread.
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { CustomCodeError } from "../errors/index.ts";

/** A class, whatever its constructor takes. */
export type AnyClass = { readonly name: string; readonly prototype: object };

const known = new WeakMap<object, string>();

interface Inspector {
  post(method: string, params?: object): unknown;
}

/**
 * The path of the file that defines a class.
 *
 * Throws `CustomCodeError` for a class that no file of its own defines: one of the REPL, of `eval`, or of a bundle that has
 * this library in it.
 */
export async function sourceFileOf(cls: AnyClass): Promise<string> {
  const found = known.get(cls);
  if (found !== undefined) return found;
  const url = await locationOf(cls);
  const file = url?.startsWith("file:") ? fileURLToPath(url.replace(/[?#].*$/, "")) : undefined;
  if (file === undefined || !existsSync(file)) {
    throw new CustomCodeError(
      `${cls.name} is defined in no file (${url || "typed in, or evaluated"}), so its code cannot be shared.`,
      { hint: "Put the class into a module of its own, and import it." },
    );
  }
  if (file === fileURLToPath(import.meta.url)) {
    throw new CustomCodeError(
      `${cls.name} is part of a bundle (${file}), which cannot be shared as its code.`,
      {
        hint: "Run the module itself, with torchformers as a package beside it.",
      },
    );
  }
  known.set(cls, file);
  return file;
}

/** The library's own folder of modules. */
export const libraryFolder = (): string => path.dirname(path.dirname(fileURLToPath(import.meta.url)));

export const isInside = (file: string, folder: string): boolean => {
  const relative = path.relative(folder, file);
  return relative !== "" && !relative.startsWith("..") && !path.isAbsolute(relative);
};

/** Whether a file is the script that was started: to import it would run it. */
export const isMainScript = (file: string): boolean => {
  const [, main] = process.argv;
  if (main === undefined) return false;
  const candidates = [main, `${main}.js`, `${main}.mjs`, `${main}.ts`, path.join(main, "index.js")];
  return candidates.some((candidate) => path.resolve(candidate) === file);
};

async function locationOf(cls: AnyClass): Promise<string | undefined> {
  let Session: typeof import("node:inspector").Session;
  try {
    ({ Session } = await import("node:inspector"));
  } catch (error) {
    throw new CustomCodeError("This Node was built without its inspector, so no class's file can be found.", {
      cause: error,
    });
  }
  const session = new Session();
  session.connect();
  const slot = Symbol.for("torchformers.class");
  const holder = globalThis as Record<symbol, unknown>;
  try {
    const urls = new Map<string, string>();
    session.on("Debugger.scriptParsed", ({ params }) => urls.set(params.scriptId, params.url));
    const post = sync(session as never);
    post("Debugger.enable");
    holder[slot] = cls;
    const { result } = post("Runtime.evaluate", {
      expression: 'globalThis[Symbol.for("torchformers.class")]',
    }) as { result: { objectId: string } };
    const { internalProperties = [] } = post("Runtime.getProperties", {
      objectId: result.objectId,
      ownProperties: true,
    }) as { internalProperties?: { name: string; value?: { value?: { scriptId: string } } }[] };
    const location = internalProperties.find(({ name }) => name === "[[FunctionLocation]]")?.value?.value;
    return location && urls.get(location.scriptId);
  } finally {
    delete holder[slot];
    session.disconnect();
  }
}

/** In the thread that a session belongs to, its answers come before `post` returns. */
function sync(session: {
  post(method: string, params: object, done: (error: Error | null, result?: object) => void): void;
}): Inspector["post"] {
  return (method, params = {}) => {
    let answer: object | undefined;
    let failure: Error | null = null;
    session.post(method, params, (error, result) => {
      failure = error;
      answer = result;
    });
    if (failure !== null) throw failure;
    return answer;
  };
}
