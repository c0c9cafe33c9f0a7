import t from "tap";
import {
  AutoTokenizer,
  BaseStreamer,
  type PreTrainedTokenizerFast,
  TextIteratorStreamer,
  TextStreamer,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

const texts = [
  "The quick brown fox\njumps over the lazy dog.",
  "emoji 😀😃 over several tokens 👩‍👩‍👧",
  "日本語 mixed 漢字 text 𠀀𠀁 end",
  "  spaces   kept  ",
  "ends with a line\n",
  "",
];

/** What the reference gives out for these ids, step by step: text up to the last space, line break or ideograph. */
class Collector extends TextStreamer {
  readonly pieces: string[] = [];
  ended = false;
  override on_finalized_text(text: string, stream_end = false): void {
    this.pieces.push(text);
    this.ended = stream_end;
  }
}

async function idsOf(tokenizer: PreTrainedTokenizerFast, text: string): Promise<number[]> {
  return (await tokenizer(text, { add_special_tokens: false, verbose: false })).input_ids as number[];
}

for (const name of ["llama2", "llama3", "t5", "bert-cased"]) {
  t.test(`the pieces of ${name} make the whole text`, async (t) => {
    const tokenizer = await AutoTokenizer.from_pretrained(fixture(`tokenizers/${name}`));
    for (const text of texts) {
      const ids = await idsOf(tokenizer, text);
      const streamer = new Collector(tokenizer);
      // Not awaited: the order is the streamer's to keep.
      for (const id of ids) streamer.put([id]);
      await streamer.end();
      const lines = [[]] as number[][];
      for (const id of ids) {
        lines.at(-1)?.push(id);
        if ((await tokenizer.decode(lines.at(-1) as number[])).endsWith("\n")) lines.push([]);
      }
      const whole = (
        await Promise.all(lines.map((line) => (line.length === 0 ? "" : tokenizer.decode(line))))
      ).join("");
      t.equal(streamer.pieces.join(""), whole, JSON.stringify(text));
      t.ok(streamer.ended, "and the end is told");
      const held = streamer.pieces.slice(0, -1).filter((piece) => piece.includes("\ufffd"));
      t.same(held, [], "no half character is given out");
    }
  });
}

t.test("words are given out when they are complete", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(fixture("tokenizers/llama3"));
  const streamer = new Collector(tokenizer);
  for (const id of await idsOf(tokenizer, "Hello wonderful world")) await streamer.put(id);
  t.notOk(streamer.pieces.join("").includes("world"), "the last word may still grow");
  t.ok(
    streamer.pieces.every((piece) => piece === "" || piece.endsWith(" ")),
    "pieces end with a space",
  );
  await streamer.end();
  t.equal(streamer.pieces.join(""), "Hello wonderful world");
});

t.test("the prompt is skipped once per generation", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(fixture("tokenizers/llama3"));
  const streamer = new Collector(tokenizer, { skip_prompt: true, skip_special_tokens: true });
  for (const round of [1, 2]) {
    await streamer.put([await idsOf(tokenizer, "A prompt")]);
    for (const id of await idsOf(tokenizer, "the answer")) await streamer.put([id]);
    await streamer.put(tokenizer.eos_token_id as number);
    await streamer.end();
    t.equal(streamer.pieces.join(""), "the answer".repeat(round));
  }
});

t.test("mistakes", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(fixture("tokenizers/llama3"));
  t.throws(() => new Collector(tokenizer).put([[1], [2]]), {
    code: "ERR_INVALID_ARGUMENT",
    message: /batch of 2/,
  });
  const wrong = new Collector(tokenizer, { skip_special: true } as never);
  wrong.put([1]);
  await t.rejects(
    async () => await wrong.end(),
    { code: "ERR_INVALID_ARGUMENT" },
    "the error of a put comes out at the end",
  );
});

t.test("an iterator", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(fixture("tokenizers/llama3"));
  const ids = await idsOf(tokenizer, "one two three");
  const streamer = new TextIteratorStreamer(tokenizer);
  t.ok(streamer instanceof BaseStreamer);
  void (async () => {
    for (const id of ids) await streamer.put([id]);
    await streamer.end();
  })();
  const pieces: string[] = [];
  for await (const piece of streamer) pieces.push(piece);
  t.equal(pieces.join(""), "one two three");
  t.ok(pieces.length > 1, "in pieces");

  const slow = new TextIteratorStreamer(tokenizer, { timeout: 0.01 });
  await t.rejects(slow.next(), /0.01 s/, "a limit on the wait");
  const failing = new TextIteratorStreamer(tokenizer);
  failing.fail(new RangeError("no more"));
  await t.rejects(failing.next(), RangeError, "an error of the generation reaches the reader");
});
