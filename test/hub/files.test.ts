import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { writeFileAtomic } from "#lib/hub/atomic.js";
import { findCheckpoint, parseIndex, withVariant } from "#lib/hub/checkpoint.js";
import { assertSafeName, cacheFolder, findFile, resolveFile } from "#lib/hub/files.js";
import { fixture } from "../support/fixtures.js";

t.test("refuses bad checkpoints, and opens nothing outside of them", async (t) => {
  const refused: [string, string, RegExp][] = [
    ["index-garbage", "ERR_CHECKPOINT", /model\.safetensors\.index\.json is not valid JSON/],
    ["index-no_weight_map", "ERR_CHECKPOINT", /index\.json has no 'weight_map'/],
    ["index-path_traversal", "ERR_CHECKPOINT", /\.\.\/outside\.safetensors.*own folder/],
    ["index-absolute_path", "ERR_CHECKPOINT", /\/etc\/hostname.*own folder/],
    ["index-missing_shard", "ERR_ENTRY_NOT_FOUND", /model-00002-of-00002\.safetensors, which is missing/],
    ["weights-is_a_directory", "ERR_ENTRY_NOT_FOUND", /model\.safetensors is a directory/],
    ["pickle-payload", "ERR_CHECKPOINT", /only safetensors is read/],
    ["pickle-payload_legacy", "ERR_CHECKPOINT", /only safetensors is read/],
    ["pickle-plain", "ERR_CHECKPOINT", /pytorch_model\.bin and no safetensors file/],
  ];
  for (const [name, code, message] of refused)
    await t.rejects(findCheckpoint(fixture(`bad/${name}`)), { code, message }, name);
  const { files } = await findCheckpoint(fixture("bad/pickle-beside_safetensors"));
  t.same(
    files.map((file) => path.basename(file)),
    ["model.safetensors"],
  );
});

t.test("indexes", async (t) => {
  const bad = (map: string) => () => parseIndex(`{"weight_map": ${map}}`, "index.json");
  for (const map of [
    '{"a": 1}',
    '{"a": ""}',
    '{"a": "x/y.safetensors"}',
    '{"a": "C:x.safetensors"}',
    '{"a": "x.bin"}',
    "{}",
    "[]",
    "null",
  ]) {
    t.throws(bad(map), { code: "ERR_CHECKPOINT", message: /index\.json/ }, map);
  }
  t.throws(() => parseIndex("[]", "index.json"), { code: "ERR_CHECKPOINT" });
  const { weight_map, metadata } = parseIndex(
    '{"metadata": {"total_size": 8}, "weight_map": {"a": "x.safetensors"}}',
    "index.json",
  );
  t.same([[...weight_map], metadata], [[["a", "x.safetensors"]], { total_size: 8 }]);
});

t.test("the order of weights: one file, its variant, shards", async (t) => {
  const index = '{"weight_map": {"a": "b.safetensors", "c": "a.safetensors"}}';
  const folder = t.testdir({
    "model.safetensors.index.json": index,
    "a.safetensors": "",
    "b.safetensors": "",
    "model.fp16.safetensors": "",
    sub: { "model.safetensors": "", "model.safetensors.index.json": "nonsense" },
    empty: {},
  });
  const sharded = await findCheckpoint(folder);
  t.same(sharded.files, [path.join(folder, "a.safetensors"), path.join(folder, "b.safetensors")]);
  t.equal(sharded.weight_map?.get("a"), path.join(folder, "b.safetensors"));
  t.same((await findCheckpoint(folder, { variant: "fp16" })).files, [
    path.join(folder, "model.fp16.safetensors"),
  ]);
  t.same((await findCheckpoint(folder, { subfolder: "sub" })).files, [
    path.join(folder, "sub", "model.safetensors"),
  ]);
  t.same((await findCheckpoint(folder, { transformers_weights: "a.safetensors" })).files, [
    path.join(folder, "a.safetensors"),
  ]);
  await t.rejects(findCheckpoint(folder, { transformers_weights: "../a.safetensors" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(findCheckpoint(folder, { transformers_weights: "a.bin" }), { code: "ERR_CHECKPOINT" });
  await t.rejects(findCheckpoint(folder, { subfolder: "empty" }), {
    code: "ERR_ENTRY_NOT_FOUND",
    message: /looked for model\.safetensors, model\.safetensors\.index\.json/,
  });
  t.equal(withVariant("model.safetensors.index.json", "fp16"), "model.safetensors.index.fp16.json");
});

t.test("names stay inside their folder", async (t) => {
  for (const name of ["", "/etc/passwd", "..", "a/../../b", "a\\..\\b", "C:\\x", "\\\\host\\x", "a\0b"]) {
    t.throws(
      () => assertSafeName(name, "The file name"),
      { code: "ERR_INVALID_ARGUMENT" },
      JSON.stringify(name),
    );
  }
  assertSafeName("sub/config.json", "The file name");
  assertSafeName("..config", "The file name");
});

t.test("names of repositories: the cache, without a network", async (t) => {
  process.env.HF_HUB_OFFLINE = "1";
  t.teardown(() => {
    delete process.env.HF_HUB_OFFLINE;
  });
  const cache = t.testdir({
    "models--org--name": {
      refs: { main: "abc\n" },
      snapshots: { abc: { "config.json": "{}" } },
    },
  });
  t.equal(
    await resolveFile("org/name", "config.json", { cache_dir: cache }),
    path.join(cache, "models--org--name/snapshots/abc/config.json"),
  );
  t.ok(await findFile("org/name", "config.json", { cache_dir: cache, revision: "abc" }));
  await t.rejects(resolveFile("org/name", "config.json", { cache_dir: cache, revision: "../.." }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(resolveFile("org/other", "config.json", { cache_dir: cache, local_files_only: true }), {
    code: "ERR_OFFLINE_MODE",
  });
  await t.rejects(resolveFile("./no/such/dir", "config.json"), {
    code: "ERR_ENTRY_NOT_FOUND",
    message: /does not exist/,
  });
});

t.test("the cache folder follows Python's variables", async (t) => {
  const names = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"];
  const before = Object.fromEntries(names.map((name) => [name, process.env[name]]));
  t.teardown(() => {
    for (const name of names) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  });
  for (const name of names) delete process.env[name];
  t.match(cacheFolder(), /\.cache\/huggingface\/hub$/);
  process.env.XDG_CACHE_HOME = "/xdg";
  t.equal(cacheFolder(), "/xdg/huggingface/hub");
  process.env.HF_HOME = "/home";
  t.equal(cacheFolder(), "/home/hub");
  process.env.HF_HOME = "~/hf";
  t.match(cacheFolder(), /^\/.*\/hf\/hub$/);
  process.env.HF_HUB_CACHE = "/hub";
  t.equal(cacheFolder(), "/hub");
  t.equal(cacheFolder({ cache_dir: "/own" }), "/own");
});

t.test("atomic writing", async (t) => {
  const folder = t.testdir();
  const file = path.join(folder, "deep", "file.json");
  await writeFileAtomic(file, "one");
  await writeFileAtomic(file, "two");
  t.equal(readFileSync(file, "utf8"), "two");
  mkdirSync(path.join(folder, "taken"));
  writeFileSync(path.join(folder, "taken", "x"), "");
  await t.rejects(writeFileAtomic(path.join(folder, "taken"), "three"));
  t.same(readdirSync(folder).sort(), ["deep", "taken"]);
  t.same(readdirSync(path.join(folder, "deep")), ["file.json"]);
});
