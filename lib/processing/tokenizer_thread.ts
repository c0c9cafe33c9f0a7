// A tokenizer in a thread of its own. The addon parses its JSON synchronously, which for the large vocabularies of
// today takes a second that the event loop must not pay.

import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import * as errors from "../errors/index.ts";
import { type PackedEncoding, unpackEncoding } from "./encoding.ts";
import type { NativeBackend } from "./native_backend.ts";
import type { TokenizerBackend, TokenizerInfo } from "./tokenizer_backend.ts";

type Method = Exclude<keyof TokenizerBackend, "info" | "tokenToIdNow">;

export interface Call {
  readonly id: number;
  readonly method: Method;
  readonly args: readonly unknown[];
}

/** A question whose asker sleeps until `done` is set. */
export interface Question {
  readonly token: string;
  readonly port: MessagePort;
  readonly done: Int32Array;
}

/** An error as plain data: its class by name, so that it arrives as what it was. */
export interface ErrorData {
  readonly name: string;
  readonly message: string;
  readonly hint: string | undefined;
}

export type Answer = { readonly id: number } & (
  | { readonly result: unknown; readonly info?: TokenizerInfo }
  | { readonly error: ErrorData }
);

export function describeError(error: unknown): ErrorData {
  if (!(error instanceof Error)) return { name: "Error", message: String(error), hint: undefined };
  const hint = error instanceof errors.TorchformersError ? error.hint : undefined;
  return { name: error.name, message: error.message, hint };
}

/** The error of another thread; one that is not ours becomes a TokenizerError. */
export function revive({ name, message, hint }: ErrorData): Error {
  const found = (errors as unknown as Record<string, unknown>)[name];
  const ErrorClass = (
    typeof found === "function" ? found : errors.TokenizerError
  ) as typeof errors.TokenizerError;
  const text = hint === undefined ? message : message.slice(0, -hint.length - 1);
  return new ErrorClass(text, hint === undefined ? {} : { hint });
}

const ANSWER_LIMIT_MS = 10_000;

interface Waiting {
  resolve(answer: Extract<Answer, { result: unknown }>): void;
  reject(error: Error): void;
}

/** The near end of the thread. Keeps the process alive while an answer is due, and not otherwise. */
class Line {
  readonly worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #ended: Error | undefined;

  constructor(path: string) {
    // Flags of the program, such as --input-type, are not meant for this file.
    this.worker = new Worker(new URL("./tokenizer_worker.js", import.meta.url), {
      workerData: path,
      execArgv: [],
    });
    this.worker.on("message", (answer: Answer) => this.#settle(answer));
    this.worker.on("error", (error) =>
      this.#end(new errors.TokenizerError("The tokenizer's thread failed.", { cause: error })),
    );
    this.worker.on("exit", () => this.#end(new errors.DisposedError("The tokenizer's thread has ended.")));
  }

  /** The answer to the load itself has the number 0. */
  loaded(): Promise<Extract<Answer, { result: unknown }>> {
    return this.#wait(0);
  }

  call(method: Method, args: readonly unknown[]): Promise<Extract<Answer, { result: unknown }>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    this.worker.postMessage({ id, method, args } satisfies Call);
    return this.#wait(id);
  }

  #wait(id: number): Promise<Extract<Answer, { result: unknown }>> {
    this.worker.ref();
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (this.#waiting.size === 0) this.worker.unref();
    if ("error" in answer) waiting?.reject(revive(answer.error));
    else waiting?.resolve(answer);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

/** Ends the threads of tokenizers that are garbage. */
const abandoned = new FinalizationRegistry<Worker>((worker) => void worker.terminate());

export class ThreadBackend implements TokenizerBackend {
  info: TokenizerInfo;
  readonly #line: Line;

  private constructor(line: Line, info: TokenizerInfo) {
    this.#line = line;
    this.info = info;
    abandoned.register(this, line.worker);
  }

  static async load(path: string): Promise<ThreadBackend> {
    const line = new Line(path);
    try {
      const { info } = await line.loaded();
      return new ThreadBackend(line, info as TokenizerInfo);
    } catch (error) {
      void line.worker.terminate();
      throw error;
    }
  }

  async encode(...args: Parameters<NativeBackend["encode"]>): ReturnType<NativeBackend["encode"]> {
    return ((await this.#call("encode", args)) as PackedEncoding[]).map(unpackEncoding);
  }
  async decode(...args: Parameters<NativeBackend["decode"]>): ReturnType<NativeBackend["decode"]> {
    return (await this.#call("decode", args)) as string[];
  }
  async tokensToIds(
    ...args: Parameters<NativeBackend["tokensToIds"]>
  ): ReturnType<NativeBackend["tokensToIds"]> {
    return (await this.#call("tokensToIds", args)) as (number | null)[];
  }
  async idsToTokens(
    ...args: Parameters<NativeBackend["idsToTokens"]>
  ): ReturnType<NativeBackend["idsToTokens"]> {
    return (await this.#call("idsToTokens", args)) as (string | null)[];
  }
  tokenToIdNow(token: string): number | null {
    const { port1, port2 } = new MessageChannel();
    const done = new Int32Array(new SharedArrayBuffer(4));
    this.#line.worker.postMessage({ token, port: port2, done } satisfies Question, [port2]);
    // The thread only waits for its own pool, so it answers in microseconds; a thread that ended never does.
    Atomics.wait(done, 0, 0, ANSWER_LIMIT_MS);
    const answer = receiveMessageOnPort(port1) as { message: number | null } | undefined;
    port1.close();
    if (answer === undefined) throw new errors.DisposedError("The tokenizer's thread does not answer.");
    return answer.message;
  }
  async joinTokens(
    ...args: Parameters<NativeBackend["joinTokens"]>
  ): ReturnType<NativeBackend["joinTokens"]> {
    return (await this.#call("joinTokens", args)) as string;
  }
  async vocab(): ReturnType<NativeBackend["vocab"]> {
    return (await this.#call("vocab", [])) as Record<string, number>;
  }
  async addTokens(...args: Parameters<NativeBackend["addTokens"]>): ReturnType<NativeBackend["addTokens"]> {
    return (await this.#call("addTokens", args)) as number;
  }
  async surround(...args: Parameters<NativeBackend["surround"]>): ReturnType<NativeBackend["surround"]> {
    await this.#call("surround", args);
  }
  async numSpecialTokens(pair: boolean): ReturnType<NativeBackend["numSpecialTokens"]> {
    return (await this.#call("numSpecialTokens", [pair])) as number;
  }
  async save(path: string): ReturnType<NativeBackend["save"]> {
    await this.#call("save", [path]);
  }

  async #call(method: Method, args: readonly unknown[]): Promise<unknown> {
    const { result, info } = await this.#line.call(method, args);
    if (info !== undefined) this.info = info;
    return result;
  }
}
