// Replays every golden.json under fixtures/tokenizers against the reference's results.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import {
  AutoTokenizer,
  type ChatTemplateOptions,
  type PreTrainedTokenizerFast,
  type TokenizerLoadOptions,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

type Data = Record<string, unknown>;

interface Check {
  readonly name: string;
  readonly method: string;
  readonly checkpoint: string;
  readonly load?: TokenizerLoadOptions;
  readonly setup?: { call: string; tokens: never[]; special_tokens: boolean }[];
  readonly inputs: Data;
  readonly options: Data;
  readonly outputs: Data;
}

interface Case {
  readonly folder: string;
  readonly checks: readonly Check[];
  readonly check: Check;
  readonly tokenizer: PreTrainedTokenizerFast;
}

const groups = fixture("tokenizers");

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

function textsOf({ inputs }: Check): string[] {
  if (inputs.texts !== undefined) return inputs.texts as string[];
  const file = path.join(groups, inputs.texts_file as string);
  const content = JSON.parse(readFileSync(file, "utf8")) as string[] | { texts: string[] };
  return Array.isArray(content) ? content : content.texts;
}

function idsOf({ checks, check }: Case): number[][] {
  if (check.inputs.ids !== undefined) return check.inputs.ids as number[][];
  const source = checks.find(({ name }) => name === check.inputs.ids_of);
  return source?.outputs.input_ids as number[][];
}

const methods: Record<string, (given: Case) => Promise<Data>> = {
  async tokenizer_facts({ tokenizer }) {
    const { all_special_tokens, all_special_ids } = tokenizer;
    return {
      len: tokenizer.length,
      vocab_size: tokenizer.vocab_size,
      all_special_tokens: [...all_special_tokens].sort(),
      all_special_ids: [...all_special_ids].sort((a, b) => a - b),
      padding_side: tokenizer.padding_side,
      truncation_side: tokenizer.truncation_side,
      model_max_length: tokenizer.model_max_length,
      special_tokens_map: tokenizer.special_tokens_map,
      model_input_names: tokenizer.model_input_names,
      class: tokenizer.tokenizer_class,
    };
  },

  async encode_each({ tokenizer, check }) {
    const out: Data = {
      input_ids: [],
      offset_mapping: [],
      decoded: [],
      token_type_ids_present: false,
      len: tokenizer.length,
    };
    for (const text of textsOf(check)) {
      const encoding = await tokenizer(text, {
        ...check.options,
        return_offsets_mapping: true,
        verbose: false,
      });
      (out.input_ids as unknown[]).push(encoding.input_ids);
      (out.offset_mapping as unknown[]).push(encoding.offset_mapping);
      (out.decoded as unknown[]).push(
        await tokenizer.decode(encoding.input_ids as number[], { skip_special_tokens: true }),
      );
      out.token_type_ids_present = "token_type_ids" in encoding;
    }
    return out;
  },

  async tokens_each({ tokenizer, check }) {
    return { tokens: await Promise.all(textsOf(check).map((text) => tokenizer.tokenize(text))) };
  },

  async decode_each(given) {
    const { tokenizer, check } = given;
    return { text: await Promise.all(idsOf(given).map((ids) => tokenizer.decode(ids, check.options))) };
  },

  async batch_decode(given) {
    return { text: await given.tokenizer.batch_decode(idsOf(given), given.check.options) };
  },

  async id_to_token({ tokenizer, check }) {
    return { tokens: await tokenizer.convert_ids_to_tokens(check.inputs.ids as number[]) };
  },

  async tokenize_call({ tokenizer, check }) {
    const { text, text_pair = null } = check.inputs as { text: string[]; text_pair?: string[] };
    const encoding = await tokenizer(text, text_pair, { ...check.options, verbose: false });
    return { ...encoding, word_ids: encoding.encodings.map((_, i) => encoding.word_ids(i)) };
  },

  async apply_chat_template({ tokenizer, check }) {
    const { conversation, ...more } = check.inputs as { conversation: Data[] };
    const { return_assistant_tokens_mask = false, ...options } = {
      ...more,
      ...check.options,
    } as ChatTemplateOptions;
    const text = await tokenizer.apply_chat_template(conversation, { ...options, tokenize: false });
    const encoding = await tokenizer.apply_chat_template(conversation, {
      ...options,
      return_assistant_tokens_mask,
    });
    return { text, ...encoding };
  },
};

async function setUp(tokenizer: PreTrainedTokenizerFast, { setup = [] }: Check): Promise<Data> {
  const added_counts: number[] = [];
  for (const { call, tokens, special_tokens } of setup) {
    if (call !== "add_tokens") throw new Error(`the runner does not know the set-up ${call}`);
    added_counts.push(await tokenizer.add_tokens(tokens, { special_tokens }));
  }
  return { added_counts };
}

for (const name of readdirSync(groups).filter((entry) =>
  existsSync(path.join(groups, entry, "golden.json")),
)) {
  const folder = path.join(groups, name);
  t.test(name, async (t) => {
    const checks = JSON.parse(readFileSync(path.join(folder, "golden.json"), "utf8")) as Check[];
    const loaded = await AutoTokenizer.from_pretrained(folder);
    for (const check of checks) {
      const isFresh = check.load !== undefined || check.setup !== undefined;
      const tokenizer = isFresh
        ? await AutoTokenizer.from_pretrained(path.join(folder, check.checkpoint), check.load ?? {})
        : loaded;
      const run = async () => {
        const setup = await setUp(tokenizer, check);
        return { ...setup, ...(await methods[check.method]?.({ folder, checks, check, tokenizer })) };
      };
      const { error, error_message, ...outputs } = check.outputs;
      if (error === true) {
        const thrown = await run().then(
          () => undefined,
          (reason: Error) => reason,
        );
        t.ok(thrown, `${check.name}: is refused`);
        if (error_message !== undefined)
          t.equal(thrown?.message, error_message, `${check.name}: with the template's message`);
        continue;
      }
      const actual = plain(await run()) as Data;
      const asked = Object.fromEntries(Object.keys(outputs).map((field) => [field, actual[field]]));
      t.same(asked, outputs, check.name);
    }
  });
}
