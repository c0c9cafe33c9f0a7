// TypeScript signatures of operators.

const SIMPLE = {
  Tensor: "Tensor",
  Scalar: "Scalar",
  int: "number",
  float: "number",
  bool: "boolean",
  str: "string",
  ScalarType: "Dtype",
  Layout: "Layout",
  Device: "Device | number",
  MemoryFormat: "MemoryFormat",
  Generator: "Generator",
};
const RESULT = { ...SIMPLE, Scalar: "number", Device: "Device" };
const FACTORY = ["dtype", "layout", "device", "pin_memory"];
/** Arithmetic whose first argument may be a number too, as in Python. */
const NUMBER_FIRST = new Set([
  "add",
  "sub",
  "mul",
  "div",
  "subtract",
  "multiply",
  "divide",
  "true_divide",
  "floor_divide",
]);
const RESERVED = new Set(["in", "with", "var", "default", "function", "new"]);

function inputType(parameter) {
  const simple = SIMPLE[parameter.type];
  if (!simple) throw new Error(`no TypeScript type for ${parameter.type}`);
  if (!parameter.list) return [simple, ...(parameter.nullable ? ["null"] : [])];
  const item = parameter.nullableItems ? `(${simple} | null)` : simple;
  return [
    ...(parameter.size > 0 ? [simple] : []),
    `readonly ${item}[]`,
    ...(parameter.nullable ? ["null"] : []),
  ];
}

/** "Tensor | number": without repeats, Tensor first, null last, `Tensor | Scalar` by its name. */
function union(types) {
  let unique = [
    ...new Set(types.flatMap((type) => (type.startsWith("readonly") ? [type] : type.split(" | ")))),
  ];
  if (unique.includes("Scalar")) unique = unique.filter((type) => type !== "number" && type !== "boolean");
  if (unique.includes("Tensor") && unique.includes("Scalar")) {
    unique = ["TensorLike", ...unique.filter((type) => type !== "Tensor" && type !== "Scalar")];
  }
  return [...unique.filter((type) => type !== "null"), ...unique.filter((type) => type === "null")].join(
    " | ",
  );
}

function resultType(results, method) {
  const one = (result) => RESULT[result.type] + (result.list ? "[]" : "");
  if (results.length === 0) return "void";
  if (results.length === 1) return results[0].written && method ? "this" : one(results[0]);
  const items = `[${results.map(one).join(", ")}]`;
  if (results.some((result) => result.name === "")) return items;
  return `Named<${items}, { ${results.map((result) => `readonly ${result.name}: ${one(result)}`).join("; ")} }>`;
}

/** Overloads that differ in types only become one, with unions. */
function merge(schemas, method) {
  const merged = new Map();
  for (const { parameters, results } of schemas) {
    const own = method ? parameters.filter(({ name }) => name !== "self") : parameters;
    const named = own.map((parameter) => ({
      ...parameter,
      name: parameter.name === "self" ? "input" : parameter.name,
    }));
    const places = named.filter(({ keywordOnly }) => !keywordOnly);
    const result = resultType(results, method);
    const key = `${places.map(({ name, default: value }) => name + (value === undefined ? "" : "?"))} ${result}`;
    const known = merged.get(key) ?? {
      places: places.map(() => new Set()),
      keywords: new Map(),
      times: 0,
      result,
    };
    places.forEach((parameter, i) => {
      known.places[i].add(parameter);
    });
    for (const parameter of named.filter(({ keywordOnly }) => keywordOnly)) {
      known.keywords.set(parameter.name, [...(known.keywords.get(parameter.name) ?? []), parameter]);
    }
    known.times++;
    merged.set(key, known);
  }
  return [...merged.values()].map(({ places, keywords, times, result }) => ({
    result,
    places: places.map((set) => {
      const [first] = set;
      const numbers = first.name === "input" && NUMBER_FIRST.has(schemas[0].name);
      const types = union([...set].flatMap(inputType).concat(numbers ? ["Scalar"] : []));
      return {
        name: first.name,
        type: types,
        optional: first.default !== undefined,
        varargs: first.list && first.type === "int",
      };
    }),
    keywords: [...keywords].map(([name, list]) => ({
      name,
      type: union(list.flatMap(inputType)),
      optional:
        list.length < times ||
        list.some((parameter) => parameter.default !== undefined || parameter.nullable),
    })),
  }));
}

function optionsType(fields) {
  const names = fields.map(({ name }) => name);
  const factory = FACTORY.every((name) => names.includes(name));
  const rest = factory ? fields.filter(({ name }) => !FACTORY.includes(name)) : fields;
  const own = rest
    .map(
      ({ name, type, optional }) => `${name}${optional ? "?" : ""}: ${type}${optional ? " | undefined" : ""}`,
    )
    .join("; ");
  return [...(own ? [`{ ${own} }`] : []), ...(factory ? ["TensorOptions"] : [])].join(" & ");
}

/** "(input: Tensor, dim?: number, options?: { … }): Tensor" and so on: each place may also be given by name. */
export function overloads(schemas, method) {
  const lines = new Set();
  for (const { places, keywords, result } of merge(schemas, method)) {
    const required = places.findIndex(({ optional }) => optional);
    const needed = required < 0 ? places.length : required;
    const parameter = ({ name, type, optional }) =>
      `${RESERVED.has(name) ? `${name}_` : name}${optional ? "?" : ""}: ${type}`;
    const withOptions = (given, fields) => {
      if (fields.length === 0) return `(${given.join(", ")}): ${result}`;
      const mark = fields.every(({ optional }) => optional) ? "?" : "";
      return `(${[...given, `options${mark}: ${optionsType(fields)}`].join(", ")}): ${result}`;
    };
    if (places.length === 1 && places[0].varargs) {
      lines.add(`(...${places[0].name}: number[]): ${result}`);
      if (keywords.length > 0)
        lines.add(`(...${places[0].name}: [...number[], ${optionsType(keywords)}]): ${result}`);
    }
    // Options that are required cannot follow optional places: those lines come from the cuts below.
    if (keywords.every(({ optional }) => optional) || needed === places.length)
      lines.add(withOptions(places.map(parameter), keywords));
    for (let cut = places.length - 1; cut >= 0; cut--) {
      if (places.length > 4 && cut !== needed && cut > 1) continue;
      const given = places.slice(0, cut).map((place) => parameter({ ...place, optional: false }));
      lines.add(withOptions(given, [...places.slice(cut), ...keywords]));
    }
  }
  return [...lines];
}
