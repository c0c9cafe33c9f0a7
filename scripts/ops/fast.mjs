// Straight-line code for the hottest operators: the usual ways to call them go to the addon at once, by the number and
// the types of the arguments. Options objects and everything unusual go to resolve.ts.

const HOT = new Set(
  `add sub mul div add_ sub_ mul_ div_ neg exp log sqrt rsqrt pow abs cos sin tanh sigmoid relu silu gelu softmax log_softmax matmul mm bmm
  linear layer_norm rms_norm embedding sum mean argmax max cat stack view reshape permute transpose t unsqueeze squeeze expand contiguous
  flatten select narrow index_select gather where masked_fill clone detach copy_ zero_ fill_ eq ne lt le gt ge cumsum addmm baddbmm
  scaled_dot_product_attention`.split(/\s+/),
);
/** Optional places that are spelled out; calls with more are rare. */
const OPTIONAL_PLACES = 3;
/** Sizes given one by one, as in view(2, 3). */
const VARARGS = 4;

const number = (x) => [`typeof ${x} === "number"`, x];
const CHECKS = {
  Tensor: (x) => [`${x} instanceof Tensor`, `${x}._handle`],
  Scalar: number,
  int: number,
  float: number,
  bool: (x) => [`typeof ${x} === "boolean"`, x],
  ScalarType: (x) => [`typeof ${x} === "string"`, x],
};

/** How one argument is recognized and crosses; undefined when it is left to resolve.ts. */
function check(parameter, x) {
  const { type, list, size, nullable } = parameter;
  if (list) {
    if (type !== "int") return undefined;
    return [size > 0 ? `(typeof ${x} === "number" || Array.isArray(${x}))` : `Array.isArray(${x})`, x];
  }
  const known = CHECKS[type]?.(x);
  if (!known) return undefined;
  if (!nullable) return known;
  return [
    `(${x} === null || ${known[0]})`,
    type === "Tensor" ? `${x} === null ? null : ${known[1]}` : known[1],
  ];
}

/** Ways to call one overload: [number of arguments, conditions, values that cross, as the schema orders them]. */
function forms(schema, method) {
  const places = schema.parameters.slice(0, schema.positional);
  const receiver = method ? places.findIndex(({ name }) => name === "self") : -1;
  // Arguments in the order of the call; each knows its place in the schema.
  const args = places.map((place, at) => ({ place, at })).filter(({ at }) => at !== receiver);
  const required = args.filter(({ place }) => place.default === undefined).length;
  const ways = [];
  const cross = (values) => {
    const ordered = method ? [...values, { at: receiver, value: "this._handle" }] : values;
    return ordered.sort((a, b) => a.at - b.at).map(({ value }) => value);
  };
  for (let count = required; count <= Math.min(args.length, required + OPTIONAL_PLACES); count++) {
    const checks = args.slice(0, count).map(({ place, at }, i) => {
      const isList = i === 0 && place.list && place.type === "Tensor" && !place.nullableItems;
      const found = isList ? ["(h = handles(x0)) !== undefined", "h"] : check(place, `x${i}`);
      return found && { condition: found[0], value: found[1], at };
    });
    if (checks.includes(undefined)) break;
    ways.push([count, checks.map(({ condition }) => condition), cross(checks)]);
  }
  const [only] = args;
  if (method && args.length === 1 && only.place.list && only.place.type === "int") {
    for (let n = 1; n <= VARARGS; n++) {
      const items = Array.from({ length: n }, (_, i) => `x${i}`);
      ways.push([n, items.map((x) => `typeof ${x} === "number"`), ["this._handle", ...items]]);
    }
  }
  return ways;
}

function body(name, schemas, method, id) {
  const cases = new Map();
  for (const schema of schemas) {
    const [result] = schema.results;
    if (schema.results.length !== 1 || result.type !== "Tensor" || result.list) continue;
    for (const [count, conditions, values] of forms(schema, method)) {
      const self = method ? "this" : "x0";
      const run = result.written
        ? `call(${id(schema)}, null, ${values.join(", ")});\n        return ${self};`
        : `const out = new Tensor();\n        out._handle = call(${id(schema)}, out, ${values.join(", ")}) as number;\n        return out;`;
      const test = conditions.length > 0 ? conditions.join(" && ") : undefined;
      cases.set(count, [...(cases.get(count) ?? []), { test, run }]);
    }
  }
  const parameters = Array.from({ length: Math.max(...cases.keys()) }, (_, i) => `x${i}?: any`);
  const lines = [...cases]
    .sort(([a], [b]) => a - b)
    .map(([count, ways]) => {
      const tests = ways.map(({ test, run }) =>
        test ? `      if (${test}) {\n        ${run}\n      }\n` : `      {\n        ${run}\n      }\n`,
      );
      const always = ways.some(({ test }) => !test);
      return `    case ${count}: {\n${tests.join("")}${always ? "" : "      break;\n"}    }\n`;
    });
  const head = method
    ? `${name}(${["this: Tensor", ...parameters].join(", ")}): any`
    : `${name}(${parameters.join(", ")}): any`;
  const list = lines.join("").includes("h = handles") ? "    let h: number[] | undefined;\n" : "";
  const args = method ? "[this, ...arguments], true" : "[...arguments], false";
  return `  ${head} {\n${list}    switch (arguments.length) {\n${lines.join("").replaceAll(/^/gm, "  ").trimEnd()}\n    }\n    return invoke(${name}$, ${args});\n  },\n`;
}

export function fastModule(operators) {
  const ids = new Map();
  const id = (schema) => {
    const key = `${schema.name}.${schema.overload}`;
    if (!ids.has(key)) ids.set(key, `${schema.name}$${schema.overload || "default"}`);
    const name = ids.get(key);
    return `${name} < 0 ? (${name} = find("${schema.name}", "${schema.overload}")) : ${name}`;
  };
  const table = (flags, method) => {
    const names = [];
    const bodies = [];
    for (const name of HOT) {
      const schemas = operators.filter(
        (one) => one.name === name && [...flags].some((flag) => one.flags.includes(flag)),
      );
      if (schemas.length === 0 || forms(schemas[0], method).length === 0) continue;
      names.push(name);
      bodies.push(body(name, schemas, method, id));
    }
    return [names, bodies];
  };
  const [functionNames, functionBodies] = table("tn", false);
  const [methodNames, methodBodies] = table("m", true);
  const all = new Set([...functionNames, ...methodNames]);
  const text = `import type { Addon, OpId } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { findOp, invoke, Operator } from "./resolve.ts";
import { Tensor } from "./tensor.ts";

let call: Addon["call"] = (op, owner, ...args) => addon().call(op, owner, ...args);

/** The id of an overload; the addon is loaded by the first of these. */
function find(name: string, overload: string): OpId {
  call = addon().call;
  return findOp(name, overload);
}

/** The handles of a list of tensors; undefined when it is none. */
function handles(list: unknown): number[] | undefined {
  if (!Array.isArray(list)) return undefined;
  const found = new Array<number>(list.length);
  for (let i = 0; i < list.length; i++) {
    const item = list[i];
    if (!(item instanceof Tensor)) return undefined;
    found[i] = item._handle;
  }
  return found;
}

${[...all].map((name) => `const ${name}$ = new Operator("${name}");`).join("\n")}

${[...ids.values()].map((name) => `let ${name} = -1;`).join("\n")}

export const functions = {
${functionBodies.join("\n")}};

export const methods = {
${methodBodies.join("\n")}};
`;
  return { text, functions: new Set(functionNames), methods: new Set(methodNames) };
}
