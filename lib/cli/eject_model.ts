// Copying a model out of the installed package: its files with imports of public subpaths, a registration, a test.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { suggest } from "../errors/suggest.ts";
import { UsageError } from "./support.ts";

/** The root of the installed package, which ships its sources. */
const packageRoot = fileURLToPath(new URL("../../", import.meta.url));
const modelsFolder = path.join(packageRoot, "lib/models");

/** The names of the models that can be copied. */
export const ejectableModels = (): string[] =>
  readdirSync(modelsFolder).filter((name) =>
    existsSync(path.join(modelsFolder, name, `modeling_${name}.ts`)),
  );

/** A file to write: its name in the folder, and its text. */
export interface EjectedFile {
  readonly name: string;
  readonly text: string;
}

/** Biome's form of an import; each stands at the start of a line. */
const IMPORT = /^import (?:type )?(?:\{[^}]*\}|\* as \w+|\w+) from "([^"]+)";$/gm;

/**
 * A model's files as they stand outside of the package.
 *
 * @param name the `model_type` of the copy.
 * @throws UsageError for a model that is not there, or a name that is taken.
 */
export function ejectModel(model: string, name: string): EjectedFile[] {
  const known = ejectableModels();
  if (!known.includes(model)) {
    const near = suggest(model, known);
    throw new UsageError(
      `There is no model '${model}'.${near === undefined ? "" : ` Did you mean '${near}'?`}`,
      `Models: ${known.join(", ")}`,
    );
  }
  if (!/^[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*$/.test(name))
    throw new UsageError(`'${name}' cannot be a model_type: use small letters, digits, - and _.`);
  if (known.includes(name))
    throw new UsageError(`'${name}' is the library's own.`, "Give the copy another --name.");

  const sources = new Map<string, string>();
  const take = (file: string) => {
    if (sources.has(file)) return;
    const text = readFileSync(path.join(modelsFolder, model, file), "utf8");
    sources.set(file, text);
    for (const [, from] of text.matchAll(IMPORT)) if (from?.startsWith("./")) take(from.slice(2));
  };
  take(`configuration_${model}.ts`);
  take(`modeling_${model}.ts`);
  const files = [...sources].map(([file, text]) => ({
    name: file,
    text: renamed(outside(text), model, name),
  }));
  const classes = autoClasses(model);
  return [
    ...files,
    { name: "index.ts", text: registration(model, name, classes, [...sources.keys()]) },
    { name: "parity.test.ts", text: parityTest(model, classes, sources) },
  ];
}

/** Imports of other rooms become imports of the package's subpaths, one statement for each. */
function outside(text: string): string {
  const named = new Map<string, Set<string>>();
  const whole: string[] = [];
  const local: string[] = [];
  let first = -1;
  const rest = text.replaceAll(IMPORT, (statement, from: string, at: number) => {
    if (first < 0) first = at;
    if (from.startsWith("./")) {
      local.push(statement);
      return "\0";
    }
    const target = /^\.\.\/\.\.\/(\w+)\/(?:.*\/)?(\w+)\.ts$/.exec(from);
    if (target === null) return statement;
    const [, room, file] = target as unknown as [string, string, string];
    const as = /^import (?:type )?\* as (\w+)/.exec(statement)?.[1];
    if (as !== undefined && file === "index") {
      whole.push(`import * as ${as} from "torchformers/${room}";`);
      return "\0";
    }
    const names = named.get(room) ?? new Set();
    named.set(room, names);
    if (as !== undefined) names.add(`${file} as ${as}`);
    const isType = statement.startsWith("import type");
    for (const each of (/\{([^}]*)\}/.exec(statement)?.[1] ?? "").split(",")) {
      const name = each.trim();
      if (name !== "") names.add(isType && !name.startsWith("type ") ? `type ${name}` : name);
    }
    return "\0";
  });
  const bare = (name: string) => name.replace(/^type /, "");
  const statements = [...named].map(([room, names]) => {
    const sorted = [...names].sort((a, b) => (bare(a).toLowerCase() < bare(b).toLowerCase() ? -1 : 1));
    const line = sorted.every((name) => name.startsWith("type "))
      ? `import type { ${sorted.map(bare).join(", ")} } from "torchformers/${room}";`
      : `import { ${sorted.join(", ")} } from "torchformers/${room}";`;
    if (line.length <= 110) return line;
    return `import {\n${sorted.map((name) => `  ${name},\n`).join("")}} from "torchformers/${room}";`;
  });
  const from = (statement: string) => /from "(.*)"/.exec(statement)?.[1] ?? "";
  const all = [...statements, ...whole].sort((a, b) => (from(a) < from(b) ? -1 : 1));
  const imports = [...all, ...local].join("\n");
  const body = rest.replaceAll(/\0\n/g, "");
  return `${body.slice(0, first)}${imports}\n${body.slice(first)}`;
}

/** The copy has a `model_type` of its own: in its configuration, and where the original is registered under its name. */
function renamed(text: string, model: string, name: string): string {
  const typed = text.replaceAll(
    /(static override readonly model_type(?:: string)? = )"(.*?)"/g,
    (whole, start: string, type: string) => (type === model ? `${start}"${name}"` : whole),
  );
  // Conversions are found by `model_type` or by the name of a class, which the original has too.
  return typed.replaceAll(
    /^register_checkpoint_conversion_mapping\("(\w+)"([\s\S]*?)(,?\s*)\);$/gm,
    (_, key: string, rest: string, end: string) =>
      key === model
        ? `register_checkpoint_conversion_mapping("${name}"${rest}${end});`
        : `register_checkpoint_conversion_mapping("${key}"${rest}, { overwrite: true });`,
  );
}

/** Auto class → the model's class for it, as the generated mappings have them. */
function autoClasses(model: string): Map<string, string> {
  const text = readFileSync(path.join(packageRoot, "lib/auto/mappings.generated.ts"), "utf8");
  const found = new Map<string, string>();
  for (const [, auto, body] of text.matchAll(/^ {2}(Auto\w+): \{\n([\s\S]*?)^ {2}\},$/gm)) {
    if (!/^Auto(Model|Backbone|Config)/.test(auto as string)) continue;
    const entry = new RegExp(`^ {4}"?${model}"?:[\\s\\S]*?\\)\\)\\s*\\.(\\w+)`, "m").exec(body as string);
    if (entry?.[1] !== undefined) found.set(auto as string, entry[1]);
  }
  return found;
}

const list = (names: readonly string[]) => [...new Set(names)].sort().join(", ");

function registration(
  model: string,
  name: string,
  classes: ReadonlyMap<string, string>,
  files: readonly string[],
): string {
  const config = classes.get("AutoConfig") as string;
  const autos = [...classes].filter(([auto]) => auto !== "AutoConfig");
  const lines = [
    `// A copy of torchformers' ${model} under the name "${name}". It is yours: change what you like.`,
    "// Importing this file makes the Auto classes know it.",
    `import { ${list([...classes.keys()])} } from "torchformers";`,
    `import { ${config} } from "./configuration_${model}.ts";`,
    `import { ${list(autos.map(([, cls]) => cls))} } from "./modeling_${model}.ts";`,
    "",
    `AutoConfig.register("${name}", ${config});`,
    ...autos.map(([auto, cls]) => `${auto}.register(${config}, ${cls});`),
    "",
    ...[...files].sort().map((file) => `export * from "./${file}";`),
  ];
  return `${lines.join("\n")}\n`;
}

/** Sizes at which a model is built in no time; those that its configuration has are used. */
const SMALL: Readonly<Record<string, unknown>> = {
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  image_size: 32,
  patch_size: 8,
  num_channels: 3,
  embedding_size: 16,
  hidden_sizes: [16, 32],
  depths: [1, 1],
};

function parityTest(
  model: string,
  classes: ReadonlyMap<string, string>,
  sources: ReadonlyMap<string, string>,
): string {
  const configText = sources.get(`configuration_${model}.ts`) as string;
  const isComposite = /static override readonly sub_configs/.test(configText);
  const sizes = Object.entries(SMALL).filter(([field]) =>
    new RegExp(`^ {2}declare ${field}[?!]?:`, "m").test(configText),
  );
  const takesImages = /main_input_name[^=]*= "pixel_values"/.test(
    sources.get(`modeling_${model}.ts`) as string,
  );
  const config = classes.get("AutoConfig") as string;
  const cls =
    classes.get("AutoModelForCausalLM") ??
    classes.get("AutoModelForImageClassification") ??
    classes.get("AutoModel") ??
    ([...classes.values()][1] as string);
  const literal = `{ ${sizes.map(([field, value]) => `${field}: ${JSON.stringify(value).replaceAll(",", ", ")}`).join(", ")} }`;
  const body = isComposite
    ? `  // The models of this kind are large: their parts are compared without memory behind them.
  const device = torch.get_default_device();
  torch.set_default_device("meta");
  try {
    const [theirs, ours] = [new original.${cls}(new original.${config}()), new copy.${cls}(new copy.${config}())];
    const shapes = (state: Record<string, Tensor>) => Object.entries(state).map(([name, { shape }]) => [name, shape]);
    assert.deepEqual(shapes(ours.state_dict()), shapes(theirs.state_dict()));
  } finally {
    torch.set_default_device(device);
  }`
    : `  const theirs = new original.${cls}(new original.${config}(sizes)).eval();
  const ours = new copy.${cls}(new copy.${config}(sizes)).eval();
  ours.load_state_dict(theirs.state_dict());
  const inputs = { ${takesImages ? "pixel_values: torch.randn([2, 3, 32, 32])" : "input_ids: torch.tensor([[1, 5, 9, 20], [3, 3, 7, 2]])"} };
  const [a, b] = torch.no_grad(() => [theirs.forward(inputs).to_tuple()[0], ours.forward(inputs).to_tuple()[0]]);
  assert.ok(torch.equal(a as Tensor, b as Tensor));`;
  return `// The copy computes what the original does with the same weights. Once you have changed that on purpose, say here what
// it computes instead. Run it with \`node --test\` (Node 20: compile first).
import assert from "node:assert/strict";
import { test } from "node:test";
import * as original from "torchformers";
import { type Tensor, torch } from "torchformers";
import * as copy from "./index.ts";
${isComposite ? "" : `\nconst sizes = ${literal};\n`}
test("${cls} is what the original is", () => {
${body}
});
`;
}
