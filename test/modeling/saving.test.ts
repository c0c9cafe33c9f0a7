// save_pretrained as one step: kills, full disks, two savers, file systems that cannot exchange folders.
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import { LlamaConfig, LlamaForCausalLM, type Tensor, torch } from "torchformers";
import { folderTools } from "#lib/addon/folder_tools.js";
import { writeFileAtomic } from "#lib/hub/atomic.js";
import { finishReplacement, replaceInFolder } from "#lib/hub/folder_transaction.js";
import { parseSize } from "#lib/modeling/save_pretrained.js";
import { soak } from "../support/memory.js";
import { runProgram, startProgram } from "../support/program.js";

process.env.TORCHFORMERS_LOG = "silent";
const config = () =>
  new LlamaConfig({
    vocab_size: 48,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
  });

/** A model whose every weight is `value`. */
function filled(value: number): LlamaForCausalLM {
  const model = new LlamaForCausalLM(config());
  torch.no_grad(() => {
    for (const parameter of model.parameters()) parameter.fill_(value);
  });
  return model;
}

/** The one value that all weights of a folder have; throws when there are two. */
async function valueIn(folder: string): Promise<number> {
  const model = await LlamaForCausalLM.from_pretrained(folder, { strict: true });
  const values = new Set(
    Object.values(model.state_dict()).flatMap((tensor: Tensor) => [tensor.min().item(), tensor.max().item()]),
  );
  model.dispose();
  if (values.size !== 1) throw new Error(`a mix: ${[...values].join(", ")}`);
  return [...values][0] as number;
}

const hidden = (folder: string) => readdirSync(folder).filter((name) => name.startsWith("."));

t.test("sizes of files: the reference's grammar", (t) => {
  for (const [text, bytes] of [
    ["5GB", 5e9],
    ["500 mb", 5e8],
    [" 1.5KB ", 1500],
    ["1e2KB", 1e5],
    ["1_000KB", 1e6],
    [".5TB", 5e11],
  ] as const)
    t.equal(parseSize(text), bytes, text);
  t.equal(parseSize(1234), 1234);
  for (const wrong of [
    "5GiB",
    "5",
    "GB",
    "5B",
    "five GB",
    "0x5GB",
    "1__0KB",
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ])
    t.throws(() => parseSize(wrong), { code: "ERR_INVALID_ARGUMENT" }, String(wrong));
  t.end();
});

t.test("wrong options, and places that cannot be", async (t) => {
  const model = filled(1);
  const out = t.testdir({ file: "text" });
  await t.rejects(model.save_pretrained(""), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(
    model.save_pretrained(join(out, "x"), { max_shard_sise: 1 } as never),
    /Did you mean 'max_shard_size'/,
  );
  await t.rejects(model.save_pretrained(join(out, "x"), { variant: "../x" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(model.save_pretrained(join(out, "file")), { code: "ERR_FILE" });
  await t.rejects(model.save_pretrained(join(out, "file", "below")), {
    code: /ERR_FILE|ERR_ENTRY_NOT_FOUND/,
  });
  t.equal(readFileSync(join(out, "file"), "utf8"), "text");
  t.same(readdirSync(out), ["file"]);
});

t.test("another set of weights goes, other files stay", async (t) => {
  const folder = join(t.testdir({ m: { "tokenizer.json": "{}", sub: { x: "y" } } }), "m");
  symlinkSync("tokenizer.json", join(folder, "link"));
  chmodSync(folder, 0o750);
  await filled(1).save_pretrained(folder, { max_shard_size: "4KB" });
  const shards = readdirSync(folder).filter((name) => /-of-/.test(name));
  t.ok(shards.length > 2);
  await filled(2).save_pretrained(folder);
  t.same(readdirSync(folder).sort(), [
    "config.json",
    "generation_config.json",
    "link",
    "model.safetensors",
    "sub",
    "tokenizer.json",
  ]);
  t.equal(await valueIn(folder), 2);
  await filled(3).save_pretrained(folder, { max_shard_size: "4KB" });
  t.notOk(existsSync(join(folder, "model.safetensors")), "the single file would be taken for these weights");
  t.equal(await valueIn(folder), 3);
  await filled(4).save_pretrained(folder, { variant: "fp16" });
  t.equal(await valueIn(folder), 3, "a variant lies beside");
  t.equal(readFileSync(join(folder, "sub", "x"), "utf8"), "y");
  t.equal(readFileSync(join(folder, "link"), "utf8"), "{}");
  t.equal(statSync(folder).mode & 0o777, 0o750);
  t.same(hidden(join(folder, "..")), []);
});

t.test("a link to a folder stays a link; weights that are mapped from the folder survive", async (t) => {
  const out = t.testdir({ real: {} });
  symlinkSync("real", join(out, "link"));
  await filled(1).save_pretrained(join(out, "link"));
  const model = await LlamaForCausalLM.from_pretrained(join(out, "link"));
  await model.save_pretrained(join(out, "link"));
  await filled(2).save_pretrained(join(out, "link"));
  t.same(readdirSync(out).sort(), ["link", "real"]);
  t.equal(await valueIn(join(out, "real")), 2);
  t.equal((model.state_dict()["lm_head.weight"] as Tensor).max().item(), 1);
});

t.test("many at once: each save is whole, and files that others write stay", async (t) => {
  const folder = join(t.testdir({ m: {} }), "m");
  const models = [1, 2, 3, 4].map(filled);
  await Promise.all([
    ...models.map((model, i) => model.save_pretrained(folder, { max_shard_size: i % 2 ? "4KB" : "50GB" })),
    ...Array.from({ length: 30 }, (_, i) => writeFileAtomic(join(folder, `beside-${i}`), "text")),
  ]);
  t.ok([1, 2, 3, 4].includes(await valueIn(folder)));
  t.equal(readdirSync(folder).filter((name) => name.startsWith("beside-")).length, 30);
  t.same(hidden(join(folder, "..")), []);
});

const SAVER = (folder: string, value: number) => `
import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";
const model = new LlamaForCausalLM(new LlamaConfig(${JSON.stringify({ vocab_size: 48, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 })}));
torch.no_grad(() => { for (const p of model.parameters()) p.fill_(${value}); });
console.log("ready");
for (;;) {
  torch.no_grad(() => { for (const p of model.parameters()) p.fill_(3 - p.max().item()); });
  await model.save_pretrained(${JSON.stringify(folder)}, { max_shard_size: Math.random() < 0.5 ? "4KB" : "50GB" });
}
`;

t.test("killed at any moment, a folder has one whole set of weights", async (t) => {
  const out = t.testdir({ m: {} });
  const folder = join(out, "m");
  await filled(1).save_pretrained(folder);
  const kills = soak ? 200 : 12;
  for (let i = 0; i < kills; i++) {
    const child = startProgram(SAVER(folder, 1), join(out, "program"));
    await new Promise((resolve) => child.stdout?.once("data", resolve));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 150));
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await ended;
    t.ok([1, 2].includes(await valueIn(folder)), "one set");
  }
  await filled(1).save_pretrained(folder);
  t.same(hidden(out), [], "the next save removes what was left behind");
});

t.test("two processes that save to one folder", async (t) => {
  const out = t.testdir({ m: {} });
  const folder = join(out, "m");
  await filled(1).save_pretrained(folder);
  const children = ["a", "b"].map((name) => startProgram(SAVER(folder, 1), join(out, name)));
  for (const child of children) await new Promise((resolve) => child.stdout?.once("data", resolve));
  for (const until = performance.now() + 1500; performance.now() < until; )
    t.ok([1, 2].includes(await valueIn(folder)), "whole for one who loads meanwhile");
  const ended = children.map(
    (child) => new Promise((resolve) => child.once("close", (_, signal) => resolve(signal))),
  );
  for (const child of children) child.kill("SIGKILL");
  t.same(await Promise.all(ended), ["SIGKILL", "SIGKILL"], "neither failed");
  t.ok([1, 2].includes(await valueIn(folder)));
});

// Where folders cannot change places -----------------------------------------------------------------------------

const NO_EXCHANGE = { ...folderTools, exchange: () => false };
const isWeights = (name: string) => name.endsWith(".safetensors");

t.test("by a journal: whole before and after, and finished by the next look", async (t) => {
  const folder = join(
    t.testdir({ m: { "a.safetensors": "old", "b.safetensors": "old", other: "kept" } }),
    "m",
  );
  await replaceInFolder(folder, {
    tools: NO_EXCHANGE,
    replaces: isWeights,
    write: async (stage) => writeFileSync(join(stage, "b.safetensors"), "new"),
  });
  t.same(readdirSync(folder).sort(), ["b.safetensors", "other"]);
  t.equal(readFileSync(join(folder, "b.safetensors"), "utf8"), "new");

  // A kill after the journal was written: nothing was moved yet.
  const stage = ".torchformers-saving-0123456789ab";
  mkdirSync(join(folder, stage));
  writeFileSync(join(folder, stage, "c.safetensors"), "newest");
  const journal = { stage, files: ["c.safetensors", "d.safetensors"], remove: ["b.safetensors"] };
  writeFileSync(join(folder, ".torchformers-save-0123456789ab.json"), JSON.stringify(journal));
  writeFileSync(join(folder, "d.safetensors"), "moved already");
  await finishReplacement(folder);
  t.same(readdirSync(folder).sort(), ["c.safetensors", "d.safetensors", "other"]);

  for (const wrong of [
    { stage: "../x", files: [], remove: [] },
    { stage, files: ["../x"], remove: [] },
    { stage, files: [], remove: ["other"] },
    { stage, files: [], remove: ["../x.safetensors"] },
    "text",
    null,
  ]) {
    writeFileSync(join(folder, ".torchformers-save-0123456789ab.json"), JSON.stringify(wrong));
    await t.rejects(finishReplacement(folder), { code: "ERR_FILE" }, JSON.stringify(wrong));
  }
  t.ok(existsSync(join(folder, "other")));
});

t.test("a failed write leaves all as it was", async (t) => {
  const out = t.testdir({ m: { "a.safetensors": "old" } });
  for (const tools of [folderTools, NO_EXCHANGE]) {
    const write = async (stage: string) => {
      writeFileSync(join(stage, "a.safetensors"), "half");
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    };
    await t.rejects(replaceInFolder(join(out, "m"), { tools, replaces: isWeights, write }), {
      code: "ERR_FILE",
    });
    t.same(readdirSync(join(out, "m")), ["a.safetensors"]);
    t.equal(readFileSync(join(out, "m", "a.safetensors"), "utf8"), "old");
    t.same(hidden(out), []);
  }
});

t.test("the working directory keeps its place", async (t) => {
  const out = t.testdir({ m: {} });
  const program = `
import { LlamaConfig, LlamaForCausalLM } from "torchformers";
import { readdirSync } from "node:fs";
const model = new LlamaForCausalLM(new LlamaConfig({ vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1 }));
for (let i = 0; i < 2; i++) await model.save_pretrained(".");
console.log(JSON.stringify(readdirSync(".").sort()));`;
  const { stdout } = await runProgram(program, join(out, "m"));
  t.same(JSON.parse(stdout), ["config.json", "generation_config.json", "model.safetensors", "program.mjs"]);
});

// A disk that fills up -------------------------------------------------------------------------------------------

/** Runs a program where these mounts are; the word that is shifted away is the caller's own `exec`. */
const canMount = spawnSync("unshare", ["-rm", "true"]).status === 0;

t.test("a disk that fills up", { skip: !canMount && "no user namespaces here" }, async (t) => {
  const out = t.testdir({ disk: {} });
  const disk = join(out, "disk");
  const program = `
import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";
import { readdirSync } from "node:fs";
const sizes = { vocab_size: 48, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 4 };
const model = new LlamaForCausalLM(new LlamaConfig(sizes));
await model.save_pretrained(${JSON.stringify(join(disk, "m"))});
const large = new LlamaForCausalLM(new LlamaConfig({ ...sizes, vocab_size: 48_000 }));
let code;
for (const max_shard_size of ["50GB", "100KB"])
  await large.save_pretrained(${JSON.stringify(join(disk, "m"))}, { max_shard_size }).catch((error) => { code = error.code; });
const again = await LlamaForCausalLM.from_pretrained(${JSON.stringify(join(disk, "m"))}, { strict: true });
console.log(JSON.stringify({ code, names: readdirSync(${JSON.stringify(disk)}), same: torch.equal(again.lm_head.weight, model.lm_head.weight) }));`;
  const inside = `exec unshare -rm bash -c 'mount -t tmpfs -o size=2m none "${disk}" && shift && exec "$@"' _ `;
  const { stdout, status } = await runProgram(program, join(out, "program"), inside);
  t.equal(status, 0);
  t.same(JSON.parse(stdout), { code: "ERR_FILE", names: ["m"], same: true });
});

t.test("a read-only folder", { skip: !canMount && "no user namespaces here" }, async (t) => {
  const out = t.testdir({ disk: {} });
  const folder = join(out, "disk", "m");
  await filled(1).save_pretrained(folder);
  const program = `
import { LlamaForCausalLM } from "torchformers";
const model = await LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)});
await model.save_pretrained(${JSON.stringify(folder)}).catch(({ code, message }) => console.log(JSON.stringify({ code, message })));`;
  const inside = `exec unshare -rm bash -c 'mount --bind "${join(out, "disk")}" "${join(out, "disk")}" && mount -o remount,bind,ro "${join(out, "disk")}" && shift && exec "$@"' _ `;
  const { stdout } = await runProgram(program, join(out, "program"), inside);
  t.match(JSON.parse(stdout), { code: "ERR_FILE", message: /read-only/ });
  t.equal(await valueIn(folder), 1);
});

// Through Python -------------------------------------------------------------------------------------------------

const python = process.env.TORCHFORMERS_TEST_PYTHON ?? process.env.TORCHFORMERS_BENCH_PYTHON ?? "python3";
const hasPython = spawnSync(python, ["-c", "import transformers, torch"], { stdio: "ignore" }).status === 0;

t.test("through Python and back", { skip: !hasPython && "no Python with transformers here" }, async (t) => {
  const out = t.testdir();
  torch.manual_seed(0);
  const model = new LlamaForCausalLM(config());
  await model.save_pretrained(join(out, "ours"), { max_shard_size: "4KB" });
  const script = `
import sys, json
from transformers import LlamaForCausalLM
model, info = LlamaForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
model.save_pretrained(sys.argv[2], max_shard_size="4KB")
print(json.dumps([len(info[k]) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")]))`;
  const printed = execFileSync(python, ["-c", script, join(out, "ours"), join(out, "theirs")], {
    env: { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.same(JSON.parse(String(printed)), [0, 0, 0], "an empty report");
  const back = await LlamaForCausalLM.from_pretrained(join(out, "theirs"), { strict: true });
  for (const [name, tensor] of Object.entries(back.state_dict()))
    t.ok(torch.equal(tensor, model.state_dict()[name] as Tensor), name);
  await back.save_pretrained(join(out, "again"), { max_shard_size: "4KB" });
  for (const name of readdirSync(join(out, "theirs")).filter((each) => each.includes("safetensors")))
    t.ok(
      readFileSync(join(out, "again", name)).equals(readFileSync(join(out, "theirs", name))),
      `${name}: the same bytes`,
    );
  await rm(out, { recursive: true, force: true });
});
