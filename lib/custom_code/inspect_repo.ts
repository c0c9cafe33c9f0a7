// What a repository could make run, listed before anybody trusts it: code and its imports, native code, pickles, and what the
// hub's own scans say. Nothing of it is run, and only code is downloaded.
import { createHash } from "node:crypto";
import { lstat, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { hubFetch } from "../hub/api.ts";
import { endpoint } from "../hub/environment.ts";
import { findFile, type HubOptions, pin } from "../hub/files.ts";
import { hubJson } from "../hub/http.ts";
import { listFiles } from "../hub/listing.ts";
import { tokenFor } from "../hub/token.ts";
import { isRecord } from "../json/json.ts";
import { lexModule, stripTypes } from "./modules.ts";
import { CodeReader, type CodeSource, isDirectory } from "./snapshot.ts";

const CODE = /\.(js|mjs|cjs|jsx|ts|mts|cts|tsx|py|sh)$/;
const NATIVE = /\.(node|so|dll|dylib|exe|wasm|pyd)(\.\d+)*$/;
const PICKLES = /\.(bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz|dill)$/;
const MAPS = ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"];
/** Parts of JavaScript that reach beyond computing. */
const REACHES: readonly (readonly [RegExp, string])[] = [
  [/\bprocess\s*\.\s*env\b/, "process.env"],
  [/\bprocess\s*\.\s*(binding|dlopen)\b/, "native bindings"],
  [/\b(eval\s*\(|new\s+Function\b|Function\s*\()/, "eval"],
  [/\brequire\s*\(|\bcreateRequire\b/, "require"],
  [/\bfetch\s*\(|\bWebSocket\b|\bXMLHttpRequest\b/, "network"],
  [/\bglobalThis\b/, "globalThis"],
];

/** One file of code. */
export interface InspectedCode {
  readonly path: string;
  readonly size: number;
  readonly sha256: string | undefined;
  /** Modules and packages that it names; "import(…)" is one that is computed. */
  readonly imports: readonly string[];
  /** What in it reaches beyond computing, found by name: a hint, no proof of innocence. */
  readonly reaches: readonly string[];
  /** Why it could not be read, or what it is. */
  readonly note?: string | undefined;
  readonly verdict?: string | undefined;
}

/** A file that Python's pickle would read, which can run anything there. */
export interface InspectedFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 where it is known without a download. */
  readonly sha256: string | undefined;
  readonly verdict?: string | undefined;
  /** Names that it imports, as the hub's scan found them. */
  readonly imports?: readonly string[] | undefined;
}

export interface Inspection {
  readonly source: string;
  readonly commit: string | undefined;
  /** File → Auto class → reference, as written. */
  readonly auto_map: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly code: readonly InspectedCode[];
  readonly native: readonly InspectedFile[];
  readonly pickles: readonly InspectedFile[];
  /** Symbolic links of a directory. */
  readonly links: readonly string[];
  /** What the hub's scans found; undefined for a directory, null when the hub does not say. */
  readonly scans:
    | {
        readonly done: boolean;
        readonly issues: readonly { readonly path: string; readonly level: string }[];
      }
    | null
    | undefined;
}

interface Listed {
  readonly path: string;
  readonly size: number;
  readonly sha256: string | undefined;
}

/**
 * Lists what a directory or repository could make run.
 *
 * @example
 * const { code, pickles, scans } = await inspect_repo("org/name");
 */
export async function inspect_repo(dirOrRepo: string, options: HubOptions = {}): Promise<Inspection> {
  const isFolder = await isDirectory(dirOrRepo);
  const pinned = isFolder ? { name: dirOrRepo, options } : await pin(dirOrRepo, options);
  const source: CodeSource = { name: pinned.name, options: pinned.options, isDirectory: isFolder };
  const links: string[] = [];
  const files = isFolder ? await filesOf(dirOrRepo, links) : await listed(source);
  const named = (pattern: RegExp) => files.filter(({ path }) => pattern.test(path));
  const verdicts = isFolder
    ? new Map<string, Verdict>()
    : await verdictsOf(source, [...named(CODE), ...named(NATIVE), ...named(PICKLES)]);
  const reader = new CodeReader(source);
  const code: InspectedCode[] = [];
  for (const file of named(CODE))
    code.push({ ...(await inspectCode(file, reader)), verdict: verdicts.get(file.path)?.status });
  const withVerdict = (list: readonly Listed[]): InspectedFile[] =>
    list.map(({ path, size, sha256 }) => {
      const { status, imports } = verdicts.get(path) ?? {};
      return { path, size, sha256, verdict: status, imports };
    });
  return {
    source: pinned.name,
    commit: isFolder ? undefined : pinned.options.revision,
    auto_map: await autoMaps(source, files),
    code,
    native: withVerdict(named(NATIVE)),
    pickles: withVerdict(named(PICKLES)),
    links,
    scans: isFolder ? undefined : await scansOf(source),
  };
}

async function listed({ name, options }: CodeSource): Promise<Listed[]> {
  const found = (await listFiles(name, options.revision as string, options)) ?? new Map();
  return [...found.values()].map(({ path, size, sha256 }) => ({ path, size, sha256 }));
}

async function filesOf(folder: string, links: string[]): Promise<Listed[]> {
  const found: Listed[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    const name = path.relative(folder, file).split(path.sep).join("/");
    if (entry.isSymbolicLink()) links.push(name);
    // A link to a file is listed as one: in the hub's cache all are links.
    const size = entry.isDirectory() ? undefined : (await lstat(file).catch(() => undefined))?.size;
    if (size !== undefined) found.push({ path: name, size, sha256: undefined });
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function inspectCode(file: Listed, reader: CodeReader): Promise<InspectedCode> {
  const { path: name, size } = file;
  const nothing = { path: name, size, sha256: file.sha256, imports: [], reaches: [] };
  try {
    const bytes = await reader.read(name);
    if (bytes === undefined) return { ...nothing, note: "cannot be read" };
    const text = bytes.toString("utf8");
    const facts = {
      ...nothing,
      size: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    };
    if (name.endsWith(".py")) return { ...facts, imports: pythonImports(text), note: "Python: not run here" };
    if (!/\.m?[jt]s$/.test(name)) return { ...facts, note: "not run here" };
    const script = /\.m?ts$/.test(name) ? await stripTypes(text, name) : text;
    const { imports } = await lexModule(script, name);
    return {
      ...facts,
      imports: [...new Set(imports.map(({ specifier }) => specifier ?? "import(…)"))],
      reaches: REACHES.flatMap(([pattern, what]) => (pattern.test(script) ? [what] : [])),
    };
  } catch (error) {
    return { ...nothing, note: (error as Error).message.split("\n")[0] };
  }
}

function pythonImports(text: string): string[] {
  const found = new Set<string>();
  for (const [, from, list] of text.matchAll(/^\s*(?:from\s+(\S+)\s+import\b|import\s+([^#\n]+))/gm)) {
    if (from !== undefined) found.add(from);
    else for (const one of (list as string).split(",")) found.add(one.trim().split(/\s+/)[0] as string);
  }
  return [...found];
}

async function autoMaps(source: CodeSource, files: readonly Listed[]): Promise<Inspection["auto_map"]> {
  const maps: Record<string, Record<string, unknown>> = {};
  for (const name of MAPS) {
    if (!files.some((file) => file.path === name)) continue;
    const file = await findFile(source.name, name, source.options);
    if (file === undefined) continue;
    const content: unknown = await readFile(file, "utf8")
      .then(JSON.parse)
      .catch(() => undefined);
    const auto_map = isRecord(content) ? content.auto_map : undefined;
    if (isRecord(auto_map)) maps[name] = auto_map;
    else if (Array.isArray(auto_map)) maps[name] = { AutoTokenizer: auto_map };
  }
  return maps;
}

interface Verdict {
  readonly status: string | undefined;
  readonly imports?: readonly string[] | undefined;
}

/** What the hub says of files, by their names. */
async function verdictsOf(
  { name, options }: CodeSource,
  files: readonly Listed[],
): Promise<Map<string, Verdict>> {
  const verdicts = new Map<string, Verdict>();
  const hub = await import("@huggingface/hub");
  const token = await tokenFor(options.token);
  for (let i = 0; i < files.length; i += 100) {
    const infos = await hub.pathsInfo({
      repo: name,
      paths: files.slice(i, i + 100).map(({ path }) => path),
      expand: true,
      revision: options.revision as string,
      hubUrl: endpoint(),
      fetch: hubFetch({ token, repo: name, signal: options.signal }),
    });
    for (const { path, securityFileStatus } of infos) {
      if (!isRecord(securityFileStatus)) continue;
      const { status, pickleImportScan } = securityFileStatus as Record<string, unknown>;
      const scanned = isRecord(pickleImportScan) ? pickleImportScan.pickleImports : undefined;
      const imports = Array.isArray(scanned)
        ? scanned.filter(isRecord).map(({ module, name, safety }) => `${module}.${name} (${safety})`)
        : undefined;
      verdicts.set(path, { status: typeof status === "string" ? status : undefined, imports });
    }
  }
  return verdicts;
}

async function scansOf({ name, options }: CodeSource): Promise<Inspection["scans"]> {
  const address = `${endpoint()}/api/models/${name}/revision/${options.revision}?securityStatus=true`;
  const token = await tokenFor(options.token);
  const { value } = await hubJson(address, { token, repo: name, signal: options.signal });
  const status = isRecord(value) ? value.securityRepoStatus : undefined;
  if (!isRecord(status)) return null;
  const issues = Array.isArray(status.filesWithIssues) ? status.filesWithIssues : [];
  return {
    done: status.scansDone === true,
    issues: issues.filter(isRecord).map(({ path, level }) => ({ path: String(path), level: String(level) })),
  };
}
