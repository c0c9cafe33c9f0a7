import { readFileSync } from "node:fs";
import t from "tap";
import { ConfigError } from "#lib/errors/index.js";
import {
  cloneJson,
  equalJson,
  floatText,
  markFloat,
  numberForm,
  parseJson,
  stringifyJson,
} from "#lib/json/json.js";
import { fixture } from "../support/fixtures.js";

const { plain } = JSON.parse(
  readFileSync(fixture("configuration/golden.json"), "utf8").replace(/\bNaN\b/g, "null"),
) as {
  plain: [string, string][];
};

t.test("refuses what is not JSON, and says where", async (t) => {
  const cases: [string, RegExp][] = [
    ["", /line 1 column 1: the text ends where a value was expected/],
    [
      '{"a": 1,\n "b": tru}',
      /c\.json is not valid JSON: line 2 column 7, at field 'b': a value was expected/,
    ],
    ['{"a": {"b": [1, 2, }}', /line 1 column 20, at field 'a\.b\.2'/],
    ['{"a": 1,}', /a key in double quotes was expected/],
    ["{'a': 1}", /a key in double quotes was expected/],
    ["[1 2]", /',' or ']' was expected/],
    ['{"a" 1}', /':' was expected/],
    ["01", /more text follows/],
    ["1.", /more text follows/],
    [".5", /a value was expected/],
    ["+1", /a value was expected/],
    ['"a\nb"', /a control character/],
    ['"\\x"', /an unknown escape/],
    ['"\\u12g4"', /four hexadecimal digits/],
    ['"abc', /the text ends inside a string/],
    ["nulll", /more text follows/],
    ["// x", /a value was expected/],
    ["[".repeat(100_000), /the nesting is deeper than 500 levels/],
  ];
  for (const [text, message] of cases) {
    t.throws(
      () => parseJson(text, { file: "c.json" }),
      { name: "ConfigError", code: "ERR_CONFIG", message },
      text.slice(0, 20),
    );
  }
  class Own extends TypeError {}
  t.throws(
    () => parseJson("{", { error: Own }),
    new TypeError("JSON is not valid JSON: line 1 column 2: a key in double quotes was expected."),
  );
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  t.throws(() => stringifyJson(loop), ConfigError);
  t.throws(() => stringifyJson({ f: () => 1 }), ConfigError);
});

t.test("writes what Python's json.dumps writes", async (t) => {
  for (const [text, written] of plain) t.equal(stringifyJson(parseJson(text)), written, text);
});

t.test("floats are written as Python's repr", async (t) => {
  const cases: [number, string][] = [
    [1, "1.0"],
    [-0, "-0.0"],
    [0.0001, "0.0001"],
    [0.00001, "1e-05"],
    [1e15, "1000000000000000.0"],
    [1e16, "1e+16"],
    [1.5e16, "1.5e+16"],
    [123456.789, "123456.789"],
    [1e-7, "1e-07"],
    [1e100, "1e+100"],
    [5e-324, "5e-324"],
    [Number.NaN, "NaN"],
    [Number.NEGATIVE_INFINITY, "-Infinity"],
  ];
  for (const [value, text] of cases) t.equal(floatText(value), text);
});

t.test("numbers keep their form, as long as they stay the same", async (t) => {
  const data = parseJson('{"a": 30.0, "b": [1.0, 2], "big": 12345678901234567890123, "c": 1}') as {
    a: number;
    b: number[];
  };
  t.equal(data.a, 30);
  t.equal(numberForm(data, "a"), "30.0");
  t.equal(numberForm(data.b, 1), undefined);
  const copy = cloneJson(data);
  t.equal(stringifyJson(copy), stringifyJson(data));
  copy.a = 31;
  t.match(stringifyJson(copy), '"a": 31,');
  t.match(stringifyJson(data), '"a": 30.0,');
  t.match(stringifyJson(data), '"big": 12345678901234567890123');
  const own = { x: 1 };
  markFloat(own, "x");
  t.equal(stringifyJson(own), '{\n  "x": 1.0\n}');
  t.equal(stringifyJson({ n: 2 ** 60, m: 3n, u: undefined }), '{\n  "m": 3,\n  "n": 1152921504606846976\n}');
});

t.test("tags stand for what JSON has no number for", async (t) => {
  const text = '{"a": {"__float__": "Infinity"}, "b": {"__float__": "x"}, "c": {"__float__": "NaN", "d": 1}}';
  t.same(parseJson(text, { floatTags: true }), {
    a: Number.POSITIVE_INFINITY,
    b: { __float__: "x" },
    c: { __float__: "NaN", d: 1 },
  });
  t.same(parseJson(text), JSON.parse(text));
  t.equal(stringifyJson([Number.NaN], { floatTags: true }), '[\n  {\n    "__float__": "NaN"\n  }\n]');
});

t.test("names of the prototype are plain keys", async (t) => {
  const data = parseJson('{"__proto__": {"polluted": 1}, "constructor": 2}') as Record<string, unknown>;
  t.same(Object.keys(data), ["__proto__", "constructor"]);
  t.equal(({} as Record<string, unknown>).polluted, undefined);
  t.equal(stringifyJson(cloneJson(data)), stringifyJson(data));
});

t.test("equality is Python's", async (t) => {
  t.ok(equalJson({ a: [1, { b: null }] }, { a: [1, { b: null }] }));
  t.notOk(equalJson([1], { 0: 1 }));
  t.notOk(equalJson({ a: 1 }, { a: 1, b: 2 }));
  t.ok(equalJson(1n, 1));
  t.notOk(equalJson("1", 1n));
});

t.test("a byte order mark is skipped", async (t) => {
  t.same(parseJson("\ufeff{}"), {});
});
