// The rules of the house that a machine can hold: which room may import which, no class-field initializers in modules and
// configurations, banners on generated files, no second place that loads native code, what native parsers and kernels may
// include, rooms that the docs do not name, an open changelog. Lists what is wrong, and files that have grown long. Ends with
// `N passed, N failed`, one per rule.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import ts from "typescript";
import { isMain, root } from "./support.mjs";

const LONG = 500; // lines

/** Each line may import only from the lines above it. Rooms on one line do not know each other. */
const ORDER = [
  ["errors"],
  ["json"],
  ["addon"],
  ["setup"],
  ["hub"],
  ["custom_code"],
  ["configuration"],
  ["torch"],
  ["safetensors"],
  ["pickle"],
  ["compile"],
  ["placement"],
  ["nn"],
  ["optim"],
  ["adapters"],
  ["big_modeling"],
  ["modeling"],
  ["processing"],
  ["generation"],
  ["timm"],
  ["models"],
  ["auto"],
  ["pipelines", "trainer"],
  ["server"],
  ["cli"],
];
const level = new Map(ORDER.flatMap((rooms, i) => rooms.map((room) => [room, i])));
/** Classes whose own properties are their state: a field initializer would overwrite what `super(...)` stored. */
const STATEFUL = ["Module", "PretrainedConfig", "PreTrainedConfig"];

function sources(folder, kind = /\.ts$/) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? sources(path, kind) : kind.test(entry.name) ? [path] : [];
  });
}

const isGenerated = (path) => path.endsWith(".generated.ts");
const roomOf = (path) => relative(join(root, "lib"), path).split("/")[0];
const modelOf = (path) => /^lib\/models\/([^/]+)\//.exec(relative(root, path))?.[1];

function load(path) {
  const text = readFileSync(path, "utf8");
  return { path, name: relative(root, path), text, lines: text.split("\n").length };
}

const IMPORT =
  /^(?:import|export)\s(?:[^;'"=]*?\bfrom\s)?\s*["'](\.[^"']+)["']|\bimport\(\s*["'](\.[^"']+)["']/gm;

/** Relative imports of a file: where they lead, whether they are lazy. */
function* imports({ path, text }) {
  for (const match of text.matchAll(IMPORT)) {
    const target = resolve(dirname(path), match[1] ?? match[2]);
    const line = text.slice(0, match.index).split("\n").length;
    yield { target, lazy: match[2] !== undefined, typeOnly: /^(import|export) type\b/.test(match[0]), line };
  }
}

function* importDirections(files) {
  for (const file of files) {
    if (file.name === "lib/index.ts") continue;
    for (const { target, lazy, typeOnly, line } of imports(file)) {
      const [from, to] = [roomOf(file.path), roomOf(target)];
      const where = `${file.name}:${line}`;
      // The commands are a program like any other: they use the public list.
      if (from === "cli" && to === "index.ts") continue;
      if (!level.has(from) || !level.has(to))
        yield `${where}: a room that is not in scripts/check.mjs: ${level.has(from) ? to : from}`;
      else if (from !== to && level.get(to) >= level.get(from))
        yield `${where}: ${from} may not import ${to}`;
      else if (
        ["hub", "configuration"].includes(from) &&
        to === "addon" &&
        !/(loader|collect_young)\.ts$/.test(target)
      )
        yield `${where}: ${from} knows no tensor; of addon it may import loader.ts and collect_young.ts only`;
      else if (from === "auto" && to === "models" && !lazy && !typeOnly)
        yield `${where}: auto reaches models by import() only`;
      else if (from === "models" && to === "models") {
        const modular = /\/modular_[^/]+\.ts$/.test(file.path);
        if (modelOf(file.path) !== modelOf(target) && !modular)
          yield `${where}: a model imports another one only in modular_<name>.ts`;
      }
    }
  }
}

function* nativeLoading(files) {
  for (const { name, text } of files) {
    if (!name.startsWith("lib/addon/") && /node-gyp-build|process\.dlopen|\.node["']/.test(text))
      yield `${name}: only lib/addon loads native code`;
  }
}

/** Every class by name: what it extends and the fields it declares. Names are unique enough across the library. */
function classes(files) {
  const found = new Map();
  for (const { path, name, text } of files.filter(({ path }) => !isGenerated(path))) {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, true);
    const visit = (node) => {
      if (ts.isClassLike(node) && node.name) {
        const heritage = node.heritageClauses?.find(({ token }) => token === ts.SyntaxKind.ExtendsKeyword);
        const parent = heritage?.types[0]?.expression.getText(source).replace(/^.*\./, "");
        const fields = node.members.filter(ts.isPropertyDeclaration).filter((field) => !isOutside(field));
        found.set(node.name.text, { file: name, source, parent, fields });
      }
      ts.forEachChild(node, visit);
    };
    visit(source);
  }
  return found;
}

/** Statics and #private fields are no state; `declare` emits nothing. */
function isOutside(field) {
  const modifiers = field.modifiers?.map(({ kind }) => kind) ?? [];
  return (
    ts.isPrivateIdentifier(field.name) ||
    modifiers.includes(ts.SyntaxKind.StaticKeyword) ||
    modifiers.includes(ts.SyntaxKind.DeclareKeyword)
  );
}

function* classFields(files) {
  const all = classes(files);
  const ancestors = (name) => {
    const chain = [];
    for (
      let parent = all.get(name)?.parent;
      parent && !chain.includes(parent);
      parent = all.get(parent)?.parent
    )
      chain.push(parent);
    return chain;
  };
  for (const [name, { file, source, fields }] of all) {
    const chain = ancestors(name);
    if (!chain.some((ancestor) => STATEFUL.includes(ancestor))) continue;
    for (const field of fields) {
      const line = source.getLineAndCharacterOfPosition(field.getStart(source)).line + 1;
      const key = field.name.getText(source);
      if (field.initializer)
        yield `${file}:${line}: ${name}.${key} has an initializer, which overwrites what super(...) stored`;
      const owner = chain.find((ancestor) =>
        all.get(ancestor)?.fields.some((other) => other.name.getText() === key),
      );
      if (owner) yield `${file}:${line}: ${name}.${key} hides ${owner}.${key}; write "declare"`;
    }
  }
}

/** Code that parses bytes from outside is fuzzed alone; kernels are registered with libtorch and know no JavaScript. */
const NATIVE_LIMITS = [
  [/^native\/io\/(json_reader|safetensors_header|mapping|atomic_file)\./, /<(ATen|c10|torch|node_api|napi)/],
  [/^native\/kernels\//, /<(node_api|napi)|"native\/addon\.h"/],
];

function* nativeIncludes() {
  for (const path of sources(join(root, "native"), /\.(cc|h)$/)) {
    const name = relative(root, path);
    const text = readFileSync(path, "utf8");
    for (const [files, refused] of NATIVE_LIMITS) {
      const include = text.match(/^#include .*$/gm)?.find((line) => refused.test(line));
      if (files.test(name) && include) yield `${name}: may not ${include.slice(1)}`;
    }
  }
}

function* namedRooms() {
  const text = readFileSync(join(root, "docs/architecture.md"), "utf8");
  for (const place of ["native", "lib"]) {
    const section = text.slice(text.indexOf(`\n${place}/`));
    for (const entry of readdirSync(join(root, place), { withFileTypes: true })) {
      if (entry.isDirectory() && !section.includes(`\n  ${entry.name}/`))
        yield `docs/architecture.md: does not name ${place}/${entry.name}`;
    }
  }
}

function* banners(files) {
  for (const { name, path, text } of files.filter(({ path }) => isGenerated(path))) {
    if (!/^(\/\/|\/\*).*generate/im.test(text.slice(0, 1000)))
      yield `${name}: no banner that names its generator (${path})`;
  }
}

/** What a package's subpath exports, by the file that it is compiled from: names, and those behind `export *`. */
function exportsOf(path, cache = new Map()) {
  if (cache.has(path)) return cache.get(path);
  const names = new Set();
  cache.set(path, names);
  const source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.ES2023, false);
  for (const node of source.statements) {
    if (ts.isExportDeclaration(node)) {
      const clause = node.exportClause;
      const from = node.moduleSpecifier?.text;
      if (clause && ts.isNamedExports(clause)) for (const { name } of clause.elements) names.add(name.text);
      else if (clause) names.add(clause.name.text);
      else if (from?.startsWith("."))
        for (const name of exportsOf(resolve(dirname(path), from), cache)) names.add(name);
    } else if (node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) {
      if (node.name) names.add(node.name.text);
      for (const { name } of node.declarationList?.declarations ?? [])
        for (const each of ts.isIdentifier(name) ? [name] : name.elements.map((element) => element.name))
          names.add(each.text);
    }
  }
  return names;
}

/** Each subpath of the package is what `torchformers eject` makes of the room of the same name. */
const subpaths = () => {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const entries = Object.entries(exports).filter(([, target]) => typeof target === "object");
  return new Map(
    entries.map(([name, { default: file }]) => [
      name.slice(2),
      join(root, file.replace(/^\.\/dist\//, "lib/").replace(/\.js$/, ".ts")),
    ]),
  );
};

/** A copy of a model outside of the package can import only what is public. */
function* publicImports(files) {
  const known = subpaths();
  const cache = new Map();
  const models = files.filter(({ name }) =>
    /^lib\/models\/[^/]+\/(modeling|configuration)_\w+\.ts$/.test(name),
  );
  for (const { path, name, text } of models) {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, true);
    for (const node of source.statements.filter(ts.isImportDeclaration)) {
      const from = node.moduleSpecifier.text;
      if (!from.startsWith("../../")) continue;
      const where = `${name}:${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}`;
      const [room, ...rest] = from.slice(6).replace(/\.ts$/, "").split("/");
      const barrel = known.get(room);
      if (barrel === undefined) {
        yield `${where}: the package has no subpath "./${room}", from which a copy could import this`;
        continue;
      }
      const bindings = node.importClause?.namedBindings;
      const isWhole = bindings && ts.isNamespaceImport(bindings);
      if (isWhole && rest.join("/") === "index") continue;
      const names = isWhole
        ? [rest.at(-1)]
        : (bindings?.elements ?? []).map(({ propertyName, name }) => (propertyName ?? name).text);
      for (const each of names)
        if (!exportsOf(barrel, cache).has(each))
          yield `${where}: '${each}' is not public; export it from ${relative(root, barrel)}`;
    }
  }
}

function* changelog() {
  const text = readFileSync(join(root, "CHANGELOG.md"), "utf8");
  if (!/^## .*Unreleased/im.test(text)) yield 'CHANGELOG.md: no open "Unreleased" section';
  const changed = spawnSync("git", ["diff", "--name-only", "origin/main...HEAD"], {
    cwd: root,
    encoding: "utf8",
  });
  if (changed.status !== 0) return; // no git, or no upstream to compare with
  const names = changed.stdout.split("\n");
  if (names.some((name) => /^(lib|native)\//.test(name)) && !names.includes("CHANGELOG.md"))
    yield "CHANGELOG.md: lib/ or native/ changed, it did not";
}

/** `npm ci` refuses a lockfile that lacks a platform's package; an address in it would bind it to one registry. */
function* lockfile() {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const has = (path, name) => {
    for (let base = path; ; base = base.replace(/(^|\/)node_modules\/[^/]+(\/[^/]+)?$/, "")) {
      if (packages[join(base, "node_modules", name)]) return true;
      if (base === "") return false;
    }
  };
  for (const [path, { resolved, dependencies, optionalDependencies }] of Object.entries(packages)) {
    if (resolved !== undefined)
      yield `package-lock.json: ${path} has "resolved"; npm install --omit-lockfile-registry-resolved`;
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      if (!has(path, name)) yield `package-lock.json: ${path} needs ${name}, which has no entry`;
    }
  }
}

/** Not a rule: told, so that it is seen. A header of more than one line is taken as the reason. */
function tellLong(files) {
  const long = files
    .filter(({ path, lines }) => lines > LONG && !isGenerated(path))
    .sort((a, b) => b.lines - a.lines);
  if (long.length > 0)
    console.log(
      `Files above ${LONG} lines: ${long.map(({ name, lines }) => `${name} (${lines})`).join(", ")}`,
    );
}

export function check() {
  const files = sources(join(root, "lib")).map(load);
  const rules = {
    "import directions": importDirections,
    "native loading": nativeLoading,
    "native includes": nativeIncludes,
    "rooms in docs/architecture.md": namedRooms,
    "class fields": classFields,
    "public imports of models": publicImports,
    banners,
    lockfile,
    changelog,
  };
  let failed = 0;
  for (const [name, rule] of Object.entries(rules)) {
    const problems = [...rule(files)];
    if (problems.length === 0) continue;
    failed++;
    console.log([`${name}:`, ...problems.map((problem) => `  ${problem}`)].join("\n"));
  }
  tellLong(files);
  console.log(`${Object.keys(rules).length - failed} passed, ${failed} failed`);
  return failed === 0;
}

if (isMain(import.meta.url)) process.exitCode = check() ? 0 : 1;
