import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import t from "tap";
import {
  AutoTokenizer,
  BatchEncoding,
  PreTrainedTokenizerBase,
  PreTrainedTokenizerFast,
  type torch,
} from "torchformers";
import { fixture, root } from "../support/fixtures.js";

const load = (name: string, options = {}) =>
  AutoTokenizer.from_pretrained(fixture(`tokenizers/${name}`), options);

t.test("bad checkpoints are refused, and the process goes on", async (t) => {
  for (const name of ["garbage", "empty", "unknown_model", "bad_regex", "bad_merges"]) {
    const refused = { code: "ERR_TOKENIZER", message: /tokenizer\.json is not a valid tokenizer\.json: ./ };
    await t.rejects(AutoTokenizer.from_pretrained(fixture(`bad/tokenizer-${name}`)), refused, name);
  }
  const missing = { code: "ERR_ENTRY_NOT_FOUND", message: /looked for tokenizer\.json/ };
  await t.rejects(AutoTokenizer.from_pretrained(fixture("bad/tokenizer-missing")), missing, "no file");
  await t.rejects(load("llama3", { padding_sid: "left" }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "padding_side",
  });
  await t.rejects(load("llama3", { padding_side: "middle" }), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("bad calls are refused before anything is encoded", async (t) => {
  const tokenizer = await load("gpt2");
  const wrong = { code: "ERR_INVALID_ARGUMENT" };
  await t.rejects(tokenizer("a", { paddin: true } as never), { ...wrong, suggestion: "padding" });
  await t.rejects(tokenizer("a", { padding: "longst" as never }), { ...wrong, suggestion: "longest" });
  await t.rejects(tokenizer("a", { truncation: "first" as never }), wrong);
  await t.rejects(tokenizer("a", { max_length: -1 }), wrong);
  await t.rejects(tokenizer("a", { padding: true }), /no padding token/);
  await t.rejects(tokenizer(5 as never), /must be a string; got number/);
  await t.rejects(tokenizer(null), /text or text_target/);
  await t.rejects(tokenizer(["a", "b"], "c"), /list of the same length/);
  await t.rejects(tokenizer(["a", "b"], ["c"]), /2 texts and 1 text_pairs/);
  await t.rejects(tokenizer([["a", "b"]] as never), /is_split_into_words/);
  await t.rejects(
    tokenizer(["a", "b c d e f"], { return_tensors: "pt" }),
    /different lengths.*\n.*padding: true/s,
  );
  await t.rejects(tokenizer("a", { return_tensors: "np" as never }), wrong);
  await t.rejects(tokenizer.decode([1.5]), /not a token id/);
  await t.rejects(tokenizer.decode([-1]), /not a token id/);
  await t.rejects(tokenizer.decode("text" as never), wrong);
  const bert = await load("bert-cased");
  await t.rejects(bert("a b", { truncation: true, max_length: 1 }), /special tokens/);
  const overlap = { truncation: true, max_length: 6, stride: 4, return_overflowing_tokens: true };
  await t.rejects(
    bert("a b c d e f g", overlap),
    /stride 4 must be less than the 4 tokens/,
    "would end the process in the Rust core",
  );
  await t.rejects(bert("one two three four", { truncation: "only_second", max_length: 3 }), wrong);
});

t.test("what a call returns", async (t) => {
  const tokenizer = await load("llama3");
  t.type(tokenizer, "function");
  t.ok(tokenizer instanceof PreTrainedTokenizerFast);
  t.equal(PreTrainedTokenizerBase, PreTrainedTokenizerFast);
  const one = await tokenizer("Hello world");
  t.ok(one instanceof BatchEncoding);
  t.same(Object.keys(one), ["input_ids", "attention_mask"]);
  t.same(Object.keys({ ...one }), ["input_ids", "attention_mask"], "own enumerable fields only");
  t.same(await tokenizer.encode("Hello world"), one.input_ids);
  t.same((await tokenizer(["Hello world"])).input_ids, [one.input_ids]);
  t.same(
    (await tokenizer("Hello", "world")).input_ids,
    (await tokenizer("Hello", { text_pair: "world" })).input_ids,
  );
  t.same((await tokenizer([])).input_ids, []);
  const target = await tokenizer("a", { text_target: "Hello world" });
  t.same(target.labels, one.input_ids);

  const batch = await tokenizer(["Hello", "Hello wonderful world"], { padding: true, return_tensors: "pt" });
  const ids = batch.input_ids as torch.Tensor;
  t.equal(ids.dtype, "int64");
  t.equal(ids.shape[0], 2);
  t.same((batch.attention_mask as torch.Tensor).shape, ids.shape);
  t.equal(batch.to("cpu"), batch);
  t.same(await tokenizer.batch_decode(ids, { skip_special_tokens: true }), [
    "Hello",
    "Hello wonderful world",
  ]);
  t.equal(
    await tokenizer.decode([...(one.input_ids as number[])].map(BigInt), { skip_special_tokens: true }),
    "Hello world",
  );
  t.same(((await tokenizer("Hello", { return_tensors: "pt" })).input_ids as torch.Tensor).shape.length, 2);
});

t.test("calls with different truncation do not disturb each other", async (t) => {
  const tokenizer = await load("bert-cased");
  const text = "This is a long example input string with many words in it.";
  const whole = (await tokenizer(text)).input_ids as number[];
  const limits = [5, 7, null, 9, 5, null, 12, 6, null, 5];
  const results = await Promise.all(
    limits.map((max_length) => tokenizer(text, { truncation: max_length !== null, max_length })),
  );
  for (const [i, { input_ids }] of results.entries()) {
    t.equal((input_ids as number[]).length, limits[i] ?? whole.length);
  }
});

t.test("positions count code points", async (t) => {
  const tokenizer = await load("bert-cased");
  const text = "😀 a wörld";
  const encoding = await tokenizer(text, { return_offsets_mapping: true });
  const token = encoding.char_to_token(2) as number;
  t.same(encoding.token_to_chars(token), [2, 3]);
  t.same([...text].slice(...(encoding.token_to_chars(token) as [number, number])).join(""), "a");
  t.equal(encoding.char_to_token(1), null, "white space");
  t.same(encoding.word_to_chars(2), [4, 9]);
  t.same(encoding.token_to_chars(0), null, "a special token");
  t.equal(encoding.token_to_word(token), 1);
  t.throws(() => encoding.word_ids(1), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => new BatchEncoding({ input_ids: [1] }).tokens(), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("padding of encodings made apart", async (t) => {
  const tokenizer = await load("bert-cased");
  const rows = [await tokenizer("a"), await tokenizer("a b c")];
  const right = await tokenizer.pad(rows);
  const batch = await tokenizer(["a", "a b c"], { padding: true });
  t.same({ ...right }, { ...batch });
  const left = await tokenizer.pad(rows, {
    padding: "max_length",
    max_length: 7,
    pad_to_multiple_of: 4,
    padding_side: "left",
  });
  t.same(
    (left.input_ids as number[][]).map((row) => row.length),
    [8, 8],
  );
  t.same((left.attention_mask as number[][])[0], [0, 0, 0, 0, 0, 1, 1, 1]);
  t.same(
    (await tokenizer.pad({ input_ids: [5, 6] }, { return_attention_mask: true })).attention_mask,
    [1, 1],
  );
  await t.rejects(tokenizer.pad({ ids: [1] }), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("special tokens and the vocabulary", async (t) => {
  const tokenizer = await load("gpt2");
  t.equal(tokenizer.pad_token, null);
  t.equal(tokenizer.pad_token_id, null);
  tokenizer.pad_token = tokenizer.eos_token;
  t.equal(tokenizer.pad_token_id, tokenizer.eos_token_id);
  tokenizer.pad_token = "!";
  t.equal(
    tokenizer.pad_token_id,
    (await tokenizer.get_vocab())["!"],
    "any token of the vocabulary may be named",
  );

  const before = tokenizer.length;
  t.equal(await tokenizer.add_special_tokens({ pad_token: "[PAD]", extra_special_tokens: ["<tool>"] }), 2);
  t.equal(tokenizer.length, before + 2);
  t.equal(tokenizer.vocab_size + Object.keys(tokenizer.get_added_vocab()).length >= tokenizer.length, true);
  t.same(tokenizer.extra_special_tokens, ["<tool>"]);
  t.equal(tokenizer.pad_token_id, before);
  t.equal(await tokenizer.convert_tokens_to_ids("<tool>"), before + 1);
  t.equal(await tokenizer.convert_ids_to_tokens(before + 1), "<tool>");
  t.equal(await tokenizer.convert_ids_to_tokens(10 ** 6), null);
  t.equal(await tokenizer.convert_tokens_to_ids("nowhere"), tokenizer.unk_token_id);
  t.match(tokenizer.all_special_tokens, ["<|endoftext|>", "[PAD]", "<tool>"]);
  t.same(await tokenizer.tokenize("a<tool>b"), ["a", "<tool>", "b"]);
  t.equal(await tokenizer.decode([before, before + 1], { skip_special_tokens: true }), "");
  await t.rejects(tokenizer.add_special_tokens({ pad_tokn: "x" } as never), {
    code: "ERR_INVALID_ARGUMENT",
    message: /'pad_token'/,
  });

  const bos = await load("llama3", { add_bos_token: true, add_eos_token: true });
  const ids = (await bos("a")).input_ids as number[];
  t.equal(ids[0], bos.bos_token_id);
  t.equal(ids.at(-1), bos.eos_token_id);
  t.equal(await bos.num_special_tokens_to_add(true), 4);
});

t.test("a registered class", async (t) => {
  class MyTokenizer extends PreTrainedTokenizerFast {
    shout(text: string) {
      return this._call(text.toUpperCase());
    }
  }
  const folder = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
  const tokenizer = await load("llama3");
  await tokenizer.save_pretrained(folder);
  const file = path.join(folder, "tokenizer_config.json");
  const config = JSON.parse(readFileSync(file, "utf8"));
  writeFileSync(file, JSON.stringify({ ...config, tokenizer_class: "MyTokenizer" }));
  AutoTokenizer.register(null, MyTokenizer);
  const mine = (await AutoTokenizer.from_pretrained(folder)) as MyTokenizer;
  t.ok(mine instanceof MyTokenizer);
  t.same((await mine.shout("a")).input_ids, (await tokenizer("A")).input_ids);
});

/** The Rust core reads a float to within its last digit. */
const parse = (json: string): unknown =>
  JSON.parse(json, (_, value) =>
    typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(14) : value,
  );

t.test("what is saved loads again, and reads as the reference wrote it", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
  const names = readdirSync(fixture("tokenizers")).filter((name) => !name.includes("."));
  for (const name of names) {
    const tokenizer = await load(name);
    const saved = path.join(folder, name);
    const files = await tokenizer.save_pretrained(saved);
    for (const file of files) {
      const [own, theirs] = [file, fixture(`tokenizers/${name}/${path.basename(file)}`)].map((one) =>
        readFileSync(one, "utf8"),
      );
      if (file.endsWith(".json"))
        t.same(parse(own as string), parse(theirs as string), `${name}: ${path.basename(file)}`);
      else t.equal(own, theirs);
    }
    const again = await AutoTokenizer.from_pretrained(saved);
    t.same((await again("Hello wörld 😀")).input_ids, (await tokenizer("Hello wörld 😀")).input_ids);
  }
  const tokenizer = await load("chat-chatml");
  tokenizer.chat_template = { default: "d", rag: "r" };
  await tokenizer.add_special_tokens({ pad_token: "<pädded>" });
  await tokenizer.save_pretrained(path.join(folder, "changed"));
  const again = await AutoTokenizer.from_pretrained(path.join(folder, "changed"));
  t.same(again.chat_template, { default: "d", rag: "r" });
  t.equal(again.pad_token_id, tokenizer.length - 1);
  t.equal(again.length, tokenizer.length);
  tokenizer.chat_template = { "../escape": "x" };
  await t.rejects(tokenizer.save_pretrained(path.join(folder, "escape")), { code: "ERR_TOKENIZER" });
});

t.test("a large vocabulary runs in a thread of its own", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
  const json = JSON.parse(readFileSync(fixture("tokenizers/bert-cased/tokenizer.json"), "utf8"));
  for (let id = Object.keys(json.model.vocab).length; id < 60_000; id++)
    json.model.vocab[`##filler${id}`] = id;
  writeFileSync(path.join(folder, "tokenizer.json"), JSON.stringify(json));
  writeFileSync(
    path.join(folder, "tokenizer_config.json"),
    readFileSync(fixture("tokenizers/bert-cased/tokenizer_config.json")),
  );
  const [large, small] = [await AutoTokenizer.from_pretrained(folder), await load("bert-cased")];
  t.equal(large.vocab_size, 60_000);
  const calls = [
    { padding: true, return_special_tokens_mask: true, return_offsets_mapping: true },
    { truncation: true, max_length: 8, stride: 1, return_overflowing_tokens: true, return_length: true },
  ];
  const texts = ["Hello wörld 😀", "This is a long example input string."];
  for (const options of calls) {
    const [a, b] = [await large(texts, options), await small(texts, options)];
    t.same({ ...a }, { ...b });
    b.encodings.forEach((_, i) => {
      t.same(
        [a.tokens(i), a.word_ids(i), a.sequence_ids(i)],
        [b.tokens(i), b.word_ids(i), b.sequence_ids(i)],
      );
    });
  }
  const ids = (await small(texts[1] as string)).input_ids as number[];
  t.equal(await large.decode(ids), await small.decode(ids));
  t.equal(await large.add_tokens(["newword"]), 1);
  t.equal(large.length, 60_001);
  large.pad_token = "the";
  t.equal(large.pad_token_id, (await small.get_vocab()).the, "ids of attributes are there at once");
  await t.rejects(
    large("a b", { truncation: true, max_length: 1 }),
    { code: "ERR_INVALID_ARGUMENT" },
    "errors keep their class",
  );

  writeFileSync(path.join(folder, "tokenizer.json"), `{"model": "${"x".repeat(1_100_000)}"}`);
  await t.rejects(AutoTokenizer.from_pretrained(folder), { code: "ERR_TOKENIZER" });

  const program = `
    import { AutoTokenizer } from "torchformers";
    const tokenizer = await AutoTokenizer.from_pretrained(${JSON.stringify(path.join(folder, "again"))});
    await tokenizer.apply_chat_template([{ role: "user", content: "x" }], { chat_template: "{{ messages[0].content }}" });
    process.stdout.write(String((await tokenizer("Hello")).input_ids.length));`;
  await large.save_pretrained(path.join(folder, "again"));
  const out = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
    cwd: root,
    encoding: "utf8",
    timeout: 20_000,
  });
  t.match(out, /^\d+$/, "the threads do not keep a process alive");
});
