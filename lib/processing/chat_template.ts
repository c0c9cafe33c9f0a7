// Chat templates: from messages to the text of a prompt. A template comes with a checkpoint and is a program, so it is
// rendered in a thread of its own, whose time and memory are limited and whose end is not ours.

import { Worker } from "node:worker_threads";
import { InvalidArgumentError, TemplateError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warnOnce } from "../errors/warnings.ts";
import { isRecord } from "../json/json.ts";
import type { BatchEncoding } from "./batch_encoding.ts";
import type { Encoding } from "./encoding.ts";
import type { Rendered } from "./jinja/generation.ts";
import { HEAP_LIMIT_MB } from "./jinja/values.ts";

/** A message: `role`, `content` and whatever else the template reads. */
export type ChatMessage = Readonly<Record<string, unknown>>;

/** One template, or several by name. */
export type ChatTemplates = string | Readonly<Record<string, string>>;

export interface RenderOptions {
  readonly tools: readonly object[] | null;
  readonly documents: readonly object[] | null;
  readonly add_generation_prompt: boolean;
  readonly continue_final_message: boolean | string;
  readonly return_assistant_tokens_mask: boolean;
  /** Further variables of the template. */
  readonly variables: Readonly<Record<string, unknown>>;
}

export interface RenderJob {
  readonly template: string;
  /** The variables of each rendering, as plain data. */
  readonly inputs: readonly Readonly<Record<string, unknown>>[];
}

export type RenderAnswer = { readonly rendered: readonly Rendered[] } | { readonly error: string };

/** Rendering a long conversation takes milliseconds. */
const TIME_LIMIT_MS = 5_000;

/** The template to use, by the reference's rules: as given, by name, `tool_use` where there are tools, `default`. */
export function pickTemplate(own: ChatTemplates | null, given: string | null, withTools: boolean): string {
  if (own !== null && typeof own !== "string") {
    if (given !== null) return own[given] ?? given;
    const found = (withTools ? own.tool_use : undefined) ?? own.default;
    if (found !== undefined) return found;
    const names = Object.keys(own).sort().join(", ");
    throw new InvalidArgumentError(
      `The tokenizer has several chat templates and no default: name one of ${names} as chat_template.`,
    );
  }
  const template = given ?? own;
  if (template !== null) return template;
  throw new TemplateError("The tokenizer has no chat template.", {
    hint: "Pass one as chat_template, or set tokenizer.chat_template.",
  });
}

/** Renders each conversation. */
export async function renderChats(
  template: string,
  chats: readonly (readonly ChatMessage[])[],
  options: RenderOptions,
): Promise<Rendered[]> {
  const { continue_final_message: continued, add_generation_prompt, return_assistant_tokens_mask } = options;
  if (chats.some((chat) => chat.length === 0) || chats.length === 0) {
    throw new InvalidArgumentError("[apply_chat_template] the conversation is empty.");
  }
  if (continued !== false && add_generation_prompt) {
    throw new InvalidArgumentError("continue_final_message and add_generation_prompt exclude each other.");
  }
  if (continued !== false && return_assistant_tokens_mask) {
    throw new InvalidArgumentError(
      "continue_final_message and return_assistant_tokens_mask exclude each other.",
    );
  }
  if (return_assistant_tokens_mask && !/\{%-?\s*generation\s*-?%\}/.test(template)) {
    warnOnce(
      "return_assistant_tokens_mask: the chat template has no {% generation %} block, so the masks are empty.",
    );
  }
  const shared = {
    ...(plain(options.variables) as Record<string, unknown>),
    tools: toolsOf(options.tools),
    documents: documentsOf(options.documents),
    add_generation_prompt,
  };
  const field = continued === true ? "content" : continued;
  const messages = chats.map((chat) => withReasoning(chat.map(messageOf)));
  const finals = field === false ? [] : messages.map((chat) => markFinal(chat, field, template));
  const inputs = messages.map((chat) => ({ ...shared, messages: chat }));
  const rendered = await renderer.render({ template, inputs });
  return field === false ? rendered : rendered.map((one, i) => cutAfterFinal(one, finals[i] as string));
}

// ---------------------------------------------------------------------------------------------------------------------
// Inputs

/** What a template may see: JSON's types; anything else by the name of its class. */
function plain(value: unknown): unknown {
  if (value === null || ["string", "number", "boolean", "undefined"].includes(typeof value)) return value;
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  const prototype = typeof value === "object" ? Object.getPrototypeOf(value) : undefined;
  if (prototype === Object.prototype || prototype === null) {
    return Object.fromEntries(Object.entries(value as object).map(([name, item]) => [name, plain(item)]));
  }
  return `<${(value as object).constructor?.name ?? typeof value}>`;
}

/** Keys without a value are dropped, as services write `content: null` where templates expect no key. */
function messageOf(message: ChatMessage): Record<string, unknown> {
  if (!isRecord(message)) {
    throw new InvalidArgumentError(
      `[apply_chat_template] a message is an object with role and content; got ${typeof message}.`,
    );
  }
  const given = Object.entries(message).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [name, plain(value)]));
}

/** Names a message's reasoning goes by; templates read the first, some the second. */
const REASONING = ["reasoning_content", "thinking", "reasoning"];

const withReasoning = (chat: Record<string, unknown>[]): Record<string, unknown>[] =>
  chat.map((message) => {
    const reasoning = REASONING.map((name) => message[name]).find((value) => value !== undefined);
    return reasoning === undefined
      ? message
      : { thinking: reasoning, ...message, reasoning_content: reasoning };
  });

function toolsOf(tools: readonly object[] | null): unknown {
  for (const tool of tools ?? []) {
    if (!isRecord(tool))
      throw new InvalidArgumentError(
        "[apply_chat_template] a tool is described by a JSON schema, as an object.",
      );
  }
  return plain(tools);
}

function documentsOf(documents: readonly object[] | null): unknown {
  for (const document of documents ?? []) {
    if (!isRecord(document))
      throw new InvalidArgumentError("[apply_chat_template] a document is an object with title and text.");
  }
  return plain(documents);
}

// ---------------------------------------------------------------------------------------------------------------------
// An open last message

/** Written after the last message's text, so that its end is found in the prompt. */
const END_MARK = "CONTINUE_FINAL_MESSAGE_TAG ";

/** Marks the end of the last message's field; gives the field's text. */
function markFinal(chat: Record<string, unknown>[], field: string, template: string): string {
  const last = chat.at(-1) as Record<string, unknown>;
  const value = last[field];
  const fail = (reason: string) => new InvalidArgumentError(`continue_final_message: ${reason}`);
  if (value === undefined) {
    throw new InvalidArgumentError(`continue_final_message: the last message has no ${field}.`, {
      suggestion: suggest(field, Object.keys(last)),
    });
  }
  const copies = REASONING.includes(field) ? REASONING.filter((name) => last[name] === value) : [field];
  if (!copies.some((name) => template.includes(name))) throw fail(`the template does not read ${field}.`);
  if (typeof value === "string") {
    for (const name of copies) last[name] = value + END_MARK;
    return value;
  }
  const blocks = Array.isArray(value) ? (value as Record<string, unknown>[]) : [];
  const block = blocks.findLast((part) => isRecord(part) && typeof part.text === "string");
  if (block === undefined) throw fail("the last message has no text.");
  const text = block.text as string;
  block.text = text + END_MARK;
  return text;
}

function cutAfterFinal({ text }: Rendered, final: string): Rendered {
  const at = text.lastIndexOf(END_MARK.trim());
  if (at < 0 || !text.includes(final.trim())) {
    throw new TemplateError("continue_final_message: the template does not write the last message as it is.");
  }
  const cut = text.slice(0, at);
  // Without its blank, the template trims messages: the end of the text is trimmed too.
  return { text: text.startsWith(END_MARK, at) ? cut : cut.trimEnd(), generations: [] };
}

/** 1 for the tokens of the spans that the template marked as the assistant's. */
export function assistantMask(
  encoding: BatchEncoding,
  row: number,
  generations: readonly (readonly [number, number])[],
): number[] {
  const mask = new Array<number>((encoding.encodings[row] as Encoding).ids.length).fill(0);
  for (const [start, end] of generations) {
    const first = encoding.char_to_token(row, start);
    if (first === null) break; // cut off
    const last = encoding.char_to_token(row, end - 1);
    mask.fill(1, first, last === null || last === 0 ? mask.length : last + 1);
  }
  return mask;
}

// ---------------------------------------------------------------------------------------------------------------------
// The thread

/** Renders one job at a time; the thread starts with the first and is replaced when it had to be ended. */
class Renderer {
  #worker: Worker | undefined;
  #last: Promise<unknown> = Promise.resolve();

  render(job: RenderJob): Promise<Rendered[]> {
    const result = this.#last.then(() => this.#run(job));
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #run(job: RenderJob): Promise<Rendered[]> {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    worker.ref();
    let timer: NodeJS.Timeout | undefined;
    try {
      const answer = await new Promise<RenderAnswer>((resolve, reject) => {
        timer = setTimeout(
          () => reject(this.#failure(`did not end within ${TIME_LIMIT_MS / 1000} s`)),
          TIME_LIMIT_MS,
        );
        worker.once("message", resolve);
        worker.once("error", (cause: NodeJS.ErrnoException) => {
          const isMemory = cause.code === "ERR_WORKER_OUT_OF_MEMORY";
          reject(this.#failure(isMemory ? `needs more than ${HEAP_LIMIT_MB} MB` : "failed", cause));
        });
        worker.once("exit", () => reject(this.#failure("was interrupted")));
        worker.postMessage(job);
      });
      if ("error" in answer) throw new TemplateError(answer.error);
      return [...answer.rendered];
    } finally {
      clearTimeout(timer);
      for (const event of ["message", "error", "exit"]) worker.removeAllListeners(event);
      worker.unref();
    }
  }

  #start(): Worker {
    return new Worker(new URL("./chat_template_worker.js", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: HEAP_LIMIT_MB },
      // The template's thread needs nothing of the program's.
      env: {},
      execArgv: [],
    });
  }

  /** The thread is in an unknown state: it is ended, and the next job starts another. */
  #failure(what: string, cause?: unknown): TemplateError {
    const worker = this.#worker;
    this.#worker = undefined;
    // Errors while it ends concern nobody any more.
    setImmediate(() => {
      worker?.on("error", () => undefined);
      void worker?.terminate();
    });
    return new TemplateError(`The chat template ${what}.`, { cause });
  }
}

const renderer = new Renderer();
