// Downloading files by several connections: each takes a piece of a file; a piece that breaks off goes on where it stopped.

import { collectYoung } from "../addon/collect_young.ts";
import { HubError } from "../errors/index.ts";
import { timeouts } from "./environment.ts";
import {
  askedToWait,
  bodyOf,
  ConnectionError,
  failure,
  follow,
  type HubResponse,
  letGo,
  packingOf,
  pause,
  retries,
  unreachable,
} from "./http.ts";
import type { PartialFile, Range } from "./partial_file.ts";
import { quoted } from "./redact.ts";
import { isTransient } from "./responses.ts";

/** One request brings at most so many bytes, so that several connections can share a file. An object, for tests. */
export const requests = { longest: 64 * 1024 * 1024 };
/** Bytes are hashed and written in blocks of this size; a connection has two at most. */
const BLOCK = 256 * 1024;
/** Node makes a buffer for each read and frees it with the next collection, of which there would be few: so we ask. */
const COLLECT_EVERY = 3 * 1024 * 1024;

/** A connection that brings less than this before it breaks has failed: a server that drips must come to an end. */
const PROGRESS = 64 * 1024;

const freeBlocks: Buffer[] = [];
let sinceCollection = 0;

/** Blocks are used again: hundreds of megabytes a second would otherwise be garbage. */
const takeBlock = (): Buffer => freeBlocks.pop() ?? Buffer.allocUnsafeSlow(BLOCK);

function giveBlock(block: Buffer): void {
  if (freeBlocks.length < 16) freeBlocks.push(block);
}

/** Where a file comes from, and what is known of it. */
export interface Source {
  /** Its address on the hub, by commit. */
  readonly address: string;
  readonly repo: string;
  readonly commit: string;
  readonly name: string;
  readonly token: string | undefined;
}

/** Connections that several files share: so many at once, handed out in the order in which they were asked for. */
export class Connections {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }

  /** Whether one more can be had at once. */
  get isFree(): boolean {
    return this.#free > 0;
  }
}

/** What the pieces of one file share. */
interface State {
  /** Where the hub's redirect led. It may expire. */
  location: string | undefined;
  /** False: this server sends whole files only, so one connection is all. */
  ranges: boolean;
  /** Attempts in a row that brought nothing, over all pieces. */
  failures: number;
}

/** Brings all bytes that a file lacks. Rejects with the first piece's error; the file keeps what came. */
export async function download(
  file: PartialFile,
  source: Source,
  connections: Connections,
  onBytes: (count: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const queue = pieces(file.missing());
  const state: State = { location: undefined, ranges: true, failures: 0 };
  const failed = new AbortController();
  const stop = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let active = 0;
  const running: Promise<void>[] = [];
  let failure: unknown;

  /** Takes pieces until none is left; a free connection is invited to help. */
  const work = async (): Promise<void> => {
    try {
      for (let piece = next(); piece !== undefined; piece = next()) {
        if (state.ranges && queue.length > 0 && connections.isFree) start();
        await new Piece(file, source, piece, state, onBytes, stop).run();
      }
    } finally {
      active--;
    }
  };
  const next = (): Range | undefined => {
    if (state.ranges) return queue.shift();
    // Whole files only: the last connection reads all that is left in one go.
    const [gap] = active === 1 ? file.missing() : [];
    return gap === undefined ? undefined : [gap[0], file.size];
  };
  const start = (): void => {
    active++;
    running.push(
      connections.use(work).catch((error) => {
        failure ??= error;
        failed.abort();
      }),
    );
  };

  start();
  for (let i = 0; i < running.length; i++) await running[i];
  signal?.throwIfAborted();
  if (failure !== undefined) throw failure;
}

function pieces(missing: readonly Range[]): Range[] {
  const parts: Range[] = [];
  for (const [start, end] of missing) {
    for (let at = start; at < end; at += requests.longest) {
      parts.push([at, Math.min(at + requests.longest, end)]);
    }
  }
  return parts;
}

/** A connection's share of a file. */
class Piece {
  readonly #file: PartialFile;
  readonly #source: Source;
  readonly #state: State;
  readonly #onBytes: (count: number) => void;
  readonly #signal: AbortSignal;
  readonly #end: number;
  #at: number;

  constructor(
    file: PartialFile,
    source: Source,
    [start, end]: Range,
    state: State,
    onBytes: (count: number) => void,
    signal: AbortSignal,
  ) {
    this.#file = file;
    this.#source = source;
    this.#state = state;
    this.#onBytes = onBytes;
    this.#signal = signal;
    this.#at = start;
    this.#end = end;
  }

  async run(): Promise<void> {
    while (this.#at < this.#end) {
      this.#signal.throwIfAborted();
      const before = this.#at;
      let asked: number | undefined;
      let error: Error;
      try {
        const response = await this.#request();
        if (response.status < 300) {
          await this.#receive(response);
          this.#state.failures = 0;
          continue;
        }
        const isForeign = new URL(response.url).origin !== new URL(this.#source.address).origin;
        this.#state.location = undefined;
        asked = askedToWait(response.headers);
        error = await failure(response, this.#source);
        // A signed address that has expired is refused; the hub gives a new one.
        if (!isTransient(response.status) && !isForeign && response.status !== 416) throw error;
      } catch (problem) {
        this.#signal.throwIfAborted();
        if (!(problem instanceof ConnectionError)) throw problem;
        this.#state.location = undefined;
        error = unreachable(this.#source.address, problem, this.#source);
      }
      this.#state.failures = this.#at - before >= PROGRESS ? 0 : this.#state.failures + 1;
      if (this.#state.failures >= retries.attempts) throw error;
      await pause(Math.max(1, this.#state.failures), asked, this.#signal);
    }
  }

  async #request(): Promise<HubResponse> {
    const { address, token, repo, commit, name } = this.#source;
    const isWhole = this.#at === 0 && this.#end === this.#file.size;
    const range = `bytes=${this.#at}-${this.#end - 1}`;
    const response = await follow(this.#state.location ?? address, {
      token,
      repo,
      signal: this.#signal,
      headers: isWhole || !this.#state.ranges ? {} : { range },
    });
    if (response.status >= 300) return response;
    const refuse = (what: string): never => {
      response.message.destroy();
      throw new ConnectionError(what);
    };
    const sent = response.headers["x-repo-commit"];
    if (typeof sent === "string" && sent !== commit) {
      response.message.destroy();
      throw new HubError(
        `'${repo}': ${name} was asked for by commit ${commit}, and commit ${quoted(sent, 60)} came.`,
      );
    }
    const isPacked = packingOf(response.headers) !== undefined;
    if (isPacked && response.status === 206) {
      // Ranges of packed bytes are of no use; the whole file can be unpacked.
      this.#state.ranges = false;
      refuse(`${name}: a range comes packed, which was not asked for`);
    }
    const total = isPacked ? undefined : lengthOf(response);
    if (total !== undefined && total !== this.#file.size) {
      refuse(`${name} has ${total} bytes there and ${this.#file.size} in the listing`);
    }
    if (response.status === 206) {
      const start = Number(/^bytes (\d+)-/.exec(response.headers["content-range"] ?? "")?.[1] ?? -1);
      if (start !== this.#at) refuse(`${name}: bytes from ${start} came, ${this.#at} were asked for`);
    } else if (!isWhole) this.#state.ranges = false;
    if (response.url !== address) this.#state.location = response.url;
    return response;
  }

  /** Reads an answer up to the piece's end. What came before a failure is written, and counts. */
  async #receive(response: HubResponse): Promise<void> {
    const { status } = response;
    const body = bodyOf(response);
    let skip = status === 206 ? 0 : this.#at;
    let block = takeBlock();
    let size = 0;
    let start = this.#at;
    let writing = Promise.resolve();
    let waiting = 0;
    let broken: unknown;
    let silence: NodeJS.Timeout | undefined;
    const flush = (): void => {
      if (size === 0) return;
      const [position, full, bytes] = [start, block, block.subarray(0, size)];
      [block, size, start] = [takeBlock(), 0, this.#at];
      this.#file.hash(position, bytes);
      waiting++;
      body.pause();
      writing = writing
        .then(() => this.#file.write(position, bytes))
        .then(() => {
          giveBlock(full);
          waiting--;
          silence?.refresh(); // a slow disk is not the server's silence
          if (waiting < 2) body.resume();
        });
      writing.catch((error) => body.destroy(error));
      if (waiting < 2) body.resume();
    };
    const keep = (part: Buffer): void => {
      for (let from = 0; from < part.length; ) {
        const copied = part.copy(block, size, from);
        from += copied;
        size += copied;
        this.#at += copied;
        if (size === BLOCK || this.#at === this.#end) flush();
      }
      sinceCollection += part.length;
      if (sinceCollection < COLLECT_EVERY) return;
      sinceCollection = 0;
      collectYoung();
    };
    const { bytes: limit } = timeouts();
    await new Promise<void>((resolve) => {
      const finish = (error?: unknown) => {
        broken ??= error;
        clearTimeout(silence);
        resolve();
      };
      silence = setTimeout(() => {
        if (waiting > 0) silence?.refresh();
        else body.destroy(new ConnectionError(`no bytes within ${limit / 1000} s`));
      }, limit);
      body.on("data", (chunk: Buffer) => {
        silence?.refresh();
        let part = chunk;
        if (skip > 0) {
          part = chunk.subarray(skip);
          skip = Math.max(0, skip - chunk.length);
        }
        if (part.length > this.#end - this.#at) part = part.subarray(0, this.#end - this.#at);
        if (part.length === 0) return;
        try {
          keep(part);
          this.#onBytes(part.length);
        } catch (error) {
          body.destroy(error as Error);
          finish(error);
        }
        if (this.#at === this.#end) {
          // The rest of a whole file is of no use. Otherwise the connection is kept for the next request.
          if (status !== 206 && this.#end < this.#file.size) body.destroy();
          else letGo(response.message);
          finish();
        }
      });
      body.once("end", () =>
        finish(this.#at < this.#end ? new ConnectionError("the answer is too short") : undefined),
      );
      body.once("error", finish);
      body.once("close", () =>
        finish(this.#at < this.#end ? new ConnectionError("the connection broke off") : undefined),
      );
    });
    flush();
    await writing;
    giveBlock(block);
    this.#signal.throwIfAborted();
    if (broken === undefined || this.#at === this.#end) return;
    const { code, message: text, name } = broken as NodeJS.ErrnoException;
    if (broken instanceof ConnectionError) throw broken;
    if (/^(E|HPE_|Z_)/.test(code ?? "") && name === "Error") {
      throw new ConnectionError(quoted(text));
    }
    throw broken;
  }
}

/** The size of the whole file, as an answer tells it. */
function lengthOf({ status, headers }: HubResponse): number | undefined {
  const text =
    status === 206 ? /\/(\d+)$/.exec(headers["content-range"] ?? "")?.[1] : headers["content-length"];
  return text === undefined ? undefined : Number(text);
}
