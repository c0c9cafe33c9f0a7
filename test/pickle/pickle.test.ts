// Checkpoints that are pickles: what is plain data becomes safetensors, the rest is refused, and nothing is run.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import {
  AutoModelForCausalLM,
  LlamaConfig,
  LlamaForCausalLM,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { convert } from "#lib/pickle/convert.js";
import { unpickle } from "#lib/pickle/unpickle.js";
import { fixture, root } from "../support/fixtures.js";
import { soak } from "../support/memory.js";

process.env.TORCHFORMERS_LOG = "silent";
const pickles = fixture("pickles");
const golden = await safetensors.load_file(join(pickles, "golden.safetensors"));
const refused = { code: "ERR_CHECKPOINT" };
const PAYLOAD = "torchformers-pickle-payload-ran";

/** A pickle of these bytes: numbers, and text as it is. */
const bytes = (...parts: (number | string)[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "number" ? [part] : [...Buffer.from(part)])));

t.test("programs of the stack machine that are no data", (t) => {
  for (const [what, pickle] of Object.entries({
    "posix.system": bytes(0x80, 2, "cposix\nsystem\n", 0x8c, 2, "ls", 0x85, "R."),
    "by a stack": bytes(0x80, 4, 0x8c, 5, "posix", 0x8c, 6, "system", 0x93, "."),
    "builtins.eval": bytes("cbuiltins\neval\n."),
    "torch's own loader": bytes("ctorch\nload\n."),
    "an instance": bytes("(icollections\nOrderedDict\n."),
    "a new object": bytes("ccollections\nOrderedDict\n", ")", 0x81, "."),
    "an extension": bytes(0x82, 1, "."),
    "attributes of a list": bytes("]}b."),
    "a call of a string": bytes(0x8c, 1, "x", ")R."),
    "a storage from elsewhere": bytes(0x8c, 1, "x", "Q."),
    "an empty stack": bytes("."),
    "two values": bytes("NN."),
    "no end": bytes("N"),
    "an unknown memo": bytes("h", 7, "."),
    "no mark": bytes("Nt."),
    "a text beyond the end": bytes("X", 0xff, 0xff, 0xff, 0x7f, "abc"),
    "a huge text": bytes(0x8d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, "."),
    "a name without end": bytes("c", "x".repeat(2000)),
    "protocol 9": bytes(0x80, 9, "N."),
    duplication: bytes("N2."),
    nothing: bytes(),
  }))
    t.throws(() => unpickle(pickle, "x.pt"), refused, what);
  t.same(unpickle(bytes(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, "."), "x").value, 2n ** 64n);
  t.same(unpickle(bytes(0x8a, 1, 0xff, "."), "x").value, -1);
  t.end();
});

t.test("files that are refused", async (t) => {
  const out = t.testdir({ "empty.pt": "", "text.pt": "hello", "zip.pt": "PK\x03\x04nothing" });
  for (const name of ["empty.pt", "text.pt", "zip.pt"])
    await t.rejects(convert(join(out, name)), refused, name);
  await t.rejects(convert(join(out, "absent.pt")), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(convert(out), { code: "ERR_ENTRY_NOT_FOUND" });
  for (const name of ["number.pt", "program.pt", "two.pt"])
    await t.rejects(convert(join(pickles, name), join(out, "x.safetensors")), refused, name);
  await t.rejects(convert(join(pickles, "refused.pt"), join(out, "x.safetensors")), {
    code: "ERR_CHECKPOINT",
    message: /fractions\.Fraction/,
  });
  await t.rejects(convert(join(pickles, "zip.pt"), join(out, "x.safetensors"), { key: "nothing" }), refused);
  for (const name of ["pickle-payload", "pickle-payload_legacy"])
    await t.rejects(convert(fixture(`bad/${name}`), join(out, "x.safetensors")), refused, name);
  t.same(readdirSync(out).sort(), ["empty.pt", "text.pt", "zip.pt"], "nothing was written");
  t.notOk(existsSync(PAYLOAD) || existsSync(join(fixture("bad/pickle-payload"), PAYLOAD)), "no payload ran");
});

for (const [name, options] of [
  ["zip.pt", {}],
  ["legacy.pt", {}],
  ["nested.pt", {}],
  ["nested.pt", { key: "state_dict" }],
] as const) {
  t.test(`${name} ${JSON.stringify(options)}: the tensors of Python`, async (t) => {
    const file = join(t.testdir(), "out.safetensors");
    const result = await convert(join(pickles, name), file, options);
    t.same(result.aliases, { "lm_head.weight": "embed.weight" });
    const own = await safetensors.load_file(file);
    t.same(Object.keys(own).sort(), Object.keys(golden).sort());
    for (const [key, tensor] of Object.entries(golden)) {
      const found = own[key] as Tensor;
      t.equal(found.dtype, tensor.dtype, key);
      t.ok(torch.equal(found, tensor), key);
    }
    await t.rejects(convert(join(pickles, name), file, options), { code: "ERR_FILE" }, "it exists");
    await convert(join(pickles, name), file, { ...options, force: true });
  });
}

t.test("newer dtypes, a state dict with versions, shards", async (t) => {
  const out = t.testdir();
  await convert(join(pickles, "new_dtypes.pt"), out);
  const { w, u } = (await safetensors.load_file(join(out, "new_dtypes.safetensors"))) as Record<
    "w" | "u",
    Tensor
  >;
  t.equal(w.dtype, "float8_e4m3fn");
  t.same(u.to("int64").tolist(), [0, 1, 2, 3]);
  t.equal((await convert(join(pickles, "with_metadata.pt"), join(out, "linear.safetensors"))).tensors, 2);
  const { files } = await convert(join(pickles, "sharded"), join(out, "sharded"));
  t.equal(files.length, 3);
  t.same(readdirSync(join(out, "sharded")).sort(), [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
  ]);
  const { weight_map } = JSON.parse(
    readFileSync(join(out, "sharded", "model.safetensors.index.json"), "utf8"),
  );
  t.same(Object.keys(weight_map).sort(), Object.keys(golden).sort());
  for (const [name, file] of Object.entries(weight_map)) {
    const tensors = await safetensors.load_file(join(out, "sharded", file as string));
    t.ok(torch.equal(tensors[name] as Tensor, golden[name] as Tensor), name);
  }
});

t.test(
  "a folder with only a pickle is refused with the command that helps, and the command helps",
  async (t) => {
    const out = t.testdir();
    const folder = join(out, "plain");
    cpSync(fixture("bad/pickle-plain"), folder, { recursive: true });
    let hint = "";
    await AutoModelForCausalLM.from_pretrained(folder).catch((error) => {
      t.equal(error.code, "ERR_CHECKPOINT");
      hint = error.hint;
    });
    const command = /npx torchformers (convert .*)$/.exec(hint)?.[1];
    t.ok(command, hint);
    const { status, stdout, stderr } = spawnSync(
      "bash",
      ["-c", `exec "${process.execPath}" "${join(root, "dist/cli/main.js")}" ${command}`],
      { encoding: "utf8" },
    );
    t.equal(status, 0, stderr);
    t.match(stdout, /model\.safetensors\n\d+ tensors/);
    const model = await AutoModelForCausalLM.from_pretrained(folder, { strict: true });
    t.ok(model.forward({ input_ids: torch.tensor([[3, 4, 5]]) }).logits.shape.length === 3);
  },
);

t.test("damaged files are refused or read, and nothing else happens", async (t) => {
  const out = t.testdir();
  let seed = 1;
  const random = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * n);
  };
  let accepted = 0;
  const rounds = soak ? 20_000 : 600;
  for (let i = 0; i < rounds; i++) {
    const original = readFileSync(join(pickles, i % 2 ? "zip.pt" : "legacy.pt"));
    let data = Buffer.from(original);
    for (let n = 1 + random(4); n > 0; n--) data[random(Math.min(data.length, 6000))] = random(256);
    if (random(10) === 0) data = data.subarray(0, random(data.length));
    writeFileSync(join(out, "x.pt"), data);
    try {
      await convert(join(out, "x.pt"), join(out, "x.safetensors"), { force: true });
      accepted++;
    } catch (error) {
      const { code, message } = error as Error & { code?: string };
      if (!["ERR_CHECKPOINT", "ERR_FILE", "ERR_INVALID_ARGUMENT"].includes(code ?? ""))
        t.fail(`${code}: ${message} after ${i} rounds`);
    }
  }
  t.ok(accepted > 0 && accepted < rounds, `${accepted} of ${rounds} accepted`);
});

t.test("a model of Python's, by way of a pickle", async (t) => {
  const out = t.testdir();
  const model = new LlamaForCausalLM(
    new LlamaConfig({
      vocab_size: 8,
      hidden_size: 8,
      intermediate_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 1,
    }),
  );
  await model.save_pretrained(out);
  mkdirSync(join(out, "sub"));
  await t.rejects(convert(join(out, "model.safetensors")), refused, "no pickle at all");
});
