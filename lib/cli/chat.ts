// torchformers chat: a conversation with a model on the terminal. Ctrl-C stops the answer, not the program.

import { createInterface, type Interface } from "node:readline/promises";
import type { Command } from "commander";
import { generationOptions, type Loaded, load, type ModelFlags, type SamplingFlags, withModel, withSampling } from "./model.ts";
import { bold } from "./support.ts";

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
  command.argument("<model>", "a folder with config.json, weights and tokenizer.json");
  withModel(withSampling(command, 512)).option("--system <text>", "the system message").addHelpText("after", DETAILS).action(run);
}

async function run(name: string, flags: Flags): Promise<void> {
  const loaded = await load(name, flags);
  if (flags.seed !== undefined) (await import("../index.ts")).torch.manual_seed(flags.seed);
  await new Conversation(loaded, flags).run();
}

class Conversation {
  readonly #loaded: Loaded;
  readonly #flags: Flags;
  #messages: Message[] = [];
  #answering: AbortController | undefined;

  constructor(loaded: Loaded, flags: Flags) {
    this.#loaded = loaded;
    this.#flags = flags;
    this.#clear();
  }

  async run(): Promise<void> {
    const terminal = process.stdin.isTTY === true;
    const lines = createInterface({ input: process.stdin, output: terminal ? process.stdout : undefined, terminal, prompt: bold("> ", process.stdout) });
    const interrupt = () => this.#interrupt(lines);
    lines.on("SIGINT", interrupt); // the terminal is in raw mode: Ctrl-C arrives as a key
    process.on("SIGINT", interrupt);
    try {
      if (terminal) console.log(this.#greeting());
      lines.prompt();
      for await (const line of lines) {
        if (!(await this.#take(line.trim()))) break;
        lines.prompt();
      }
    } finally {
      process.off("SIGINT", interrupt);
      lines.close();
    }
  }

  #greeting(): string {
    const template = this.#loaded.tokenizer.chat_template ? "" : "\nThis tokenizer has no chat template: the model just continues the text so far.";
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
      for await (const piece of model.stream({ ...inputs }, { ...generationOptions(this.#flags), tokenizer, signal: controller.signal })) {
        answer += piece;
        process.stdout.write(piece);
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
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
      return tokenizer.apply_chat_template(this.#messages, { add_generation_prompt: true, return_dict: true, return_tensors: "pt" });
    }
    return tokenizer(this.#messages.map((message) => message.content).join("\n"), { return_tensors: "pt" });
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
    const { writeFile } = await import("node:fs/promises");
    await writeFile(file, `${JSON.stringify(this.#messages, null, 2)}\n`);
    console.log(`Wrote ${this.#messages.length} messages to ${file}.`);
  }

  #interrupt(lines: Interface): void {
    if (this.#answering) this.#answering.abort();
    else {
      process.stdout.write("\n(Ctrl-D or /exit leaves.)\n");
      lines.prompt();
    }
  }
}
