// torchformers chat: a conversation with a model on the terminal. Ctrl-C stops the answer, not the program.

import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import type { Tensor } from "../index.ts";
import {
  generationOptions,
  type Loaded,
  load,
  MODEL,
  type ModelFlags,
  type SamplingFlags,
  withModel,
  withSampling,
} from "./model.ts";
import { bold, complain, EXIT, interruptible, UsageError } from "./support.ts";

interface Flags extends ModelFlags, SamplingFlags {
  readonly system?: string;
}

// A type, not an interface: templates take any keys.
type Message = {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
};

const COMMANDS = `  /clear  begin a new conversation
  /save FILE  write the conversation as JSON
  /help   this list
  /exit   leave (also Ctrl-D)
Ctrl-C stops an answer.`;

const DETAILS = `
On the prompt:
${COMMANDS}

Examples:
  $ npx torchformers chat ./model
  $ npx torchformers chat ./model --system "You answer in one sentence." -t 0.7`;

export function define(command: Command): void {
  command.argument("<model>", MODEL);
  withModel(withSampling(command, 512))
    .option("--system <text>", "the system message")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(name: string, flags: Flags): Promise<void> {
  const loaded = await interruptible((signal) => load(name, flags, signal));
  if (flags.seed !== undefined) (await import("../index.ts")).torch.manual_seed(flags.seed);
  await new Conversation(loaded, flags).run();
}

/** The messages so far, and the answer that is being written. */
class Conversation {
  readonly #loaded: Loaded;
  readonly #flags: Flags;
  readonly #terminal = process.stdin.isTTY === true;
  #messages: Message[] = [];
  #answering: AbortController | undefined;

  constructor(loaded: Loaded, flags: Flags) {
    this.#loaded = loaded;
    this.#flags = flags;
    this.#clear();
  }

  /** Answers line by line until the input ends. */
  async run(): Promise<void> {
    const lines = createInterface({
      input: process.stdin,
      output: this.#terminal ? process.stdout : undefined,
      terminal: this.#terminal,
      prompt: bold("> ", process.stdout),
    });
    let open = true;
    lines.once("close", () => {
      open = false;
    });
    const prompt = () => {
      if (open) lines.prompt();
    };
    const interrupt = () => {
      if (this.#answering) this.#answering.abort();
      else if (this.#terminal) {
        process.stdout.write("\n(Ctrl-D or /exit leaves.)\n");
        prompt();
      } else process.exit(EXIT.interrupted);
    };
    lines.on("SIGINT", interrupt); // a terminal in raw mode sends Ctrl-C as a key
    process.on("SIGINT", interrupt);
    try {
      if (this.#terminal) console.log(this.#greeting());
      prompt();
      for await (const line of lines) {
        if (!(await this.#take(line.trim()))) break;
        prompt();
      }
    } finally {
      process.off("SIGINT", interrupt);
      lines.close();
    }
  }

  #greeting(): string {
    const template = this.#loaded.tokenizer.chat_template
      ? ""
      : "\nThis tokenizer has no chat template: the model just continues the text so far.";
    return `${this.#loaded.model.constructor.name}. /help lists the commands.${template}`;
  }

  /** One line of input; false ends the program. */
  async #take(line: string): Promise<boolean> {
    const [word = "", ...rest] = line.split(/\s+/);
    if (line === "") return true;
    if (word === "/exit" || word === "/quit") return false;
    if (word === "/clear") this.#clear();
    else if (word === "/save") await this.#save(rest.join(" "));
    else if (word.startsWith("/")) console.log(COMMANDS);
    else await this.#answer(line);
    return true;
  }

  async #answer(content: string): Promise<void> {
    this.#messages.push({ role: "user", content });
    const { model, tokenizer } = this.#loaded;
    const controller = new AbortController();
    this.#answering = controller;
    let answer = "";
    try {
      const inputs = await this.#encode();
      const options = {
        ...generationOptions(this.#flags),
        max_new_tokens: this.#room(inputs.input_ids as Tensor),
        tokenizer,
        signal: controller.signal,
      };
      for await (const piece of model.stream({ ...inputs }, options)) {
        answer += piece;
        process.stdout.write(piece);
      }
    } catch (error) {
      if (!controller.signal.aborted) {
        // The conversation is worth more than one answer: only a program that feeds us wants to end here.
        if (!this.#terminal) throw error;
        this.#messages.pop();
        complain(error);
        return;
      }
    } finally {
      this.#answering = undefined;
    }
    process.stdout.write("\n");
    this.#messages.push({ role: "assistant", content: answer });
  }

  /** The whole conversation as the model wants it: by its template, or as plain text. */
  async #encode() {
    const { tokenizer } = this.#loaded;
    if (tokenizer.chat_template) {
      const options = { add_generation_prompt: true, return_dict: true, return_tensors: "pt" } as const;
      return tokenizer.apply_chat_template(this.#messages, options);
    }
    return tokenizer(plainText(this.#messages), { return_tensors: "pt" });
  }

  /** How many tokens an answer may have: as many as asked for, within the positions that the model was made for. */
  #room(input_ids: Tensor): number {
    const { max_position_embeddings: positions } = this.#loaded.model.config as {
      max_position_embeddings?: number;
    };
    const length = input_ids.shape[1] as number;
    if (positions === undefined) return this.#flags.maxNewTokens;
    if (length >= positions) {
      throw new UsageError(
        `The conversation has ${length} tokens, and the model takes ${positions}.`,
        "/clear begins a new one.",
      );
    }
    return Math.min(this.#flags.maxNewTokens, positions - length);
  }

  #clear(): void {
    const { system } = this.#flags;
    this.#messages = system === undefined ? [] : [{ role: "system", content: system }];
  }

  async #save(file: string): Promise<void> {
    if (file === "") {
      console.log("Name a file: /save conversation.json");
      return;
    }
    try {
      await writeFile(file, `${JSON.stringify(this.#messages, null, 2)}\n`);
      console.log(`Wrote ${this.#messages.length} messages to ${file}.`);
    } catch (error) {
      complain(error);
    }
  }
}

/** What was said and answered as one text: an answer goes on where its question ends. */
const plainText = (messages: readonly Message[]): string =>
  messages.reduce(
    (text, { role, content }) => text + (text === "" || role === "assistant" ? "" : "\n") + content,
    "",
  );
