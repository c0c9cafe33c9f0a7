// A file that is being downloaded: which of its bytes are there, written down beside it so that the next process can go on,
// and its checksum, computed while it grows.
//
// Bytes arrive in several ranges at once. They lie in `<blob>.parts.incomplete`; `<blob>.parts.json` says which of them
// count. `<blob>.incomplete`, the name of older Pythons, always was a file without gaps: it is taken over, and never written,
// since they would go on at its end.

import { type Hash, randomBytes } from "node:crypto";
import { type FileHandle, open, readFile, rename, rm, statfs, writeFile } from "node:fs/promises";
import path from "node:path";
import { FileError } from "../errors/index.ts";
import { fileError, isSize } from "./cache.ts";
import { hasherFor } from "./checksum.ts";

/** Half-open: [start, end). */
export type Range = readonly [start: number, end: number];

const NOTE_EVERY = 250; // ms
const READ_SIZE = 1024 * 1024;
/** Below this, starting again costs less than keeping books. */
const WORTH_RESUMING = 4 * 1024 * 1024;

export class PartialFile {
  readonly size: number;
  readonly etag: string;
  readonly #data: string;
  readonly #notes: string;
  readonly #resumable: boolean;
  #handle: FileHandle | undefined;
  #done: Range[] = [];
  #hash: Hash;
  #hashed = 0;
  #catching: Promise<void> | undefined;
  #noted = 0;
  #noting: Promise<void> | undefined;

  private constructor(blob: string, etag: string, size: number, resumable: boolean) {
    this.size = size;
    this.etag = etag;
    this.#hash = hasherFor(etag, size);
    this.#resumable = resumable && size >= WORTH_RESUMING;
    const stem = this.#resumable ? `${blob}.parts` : `${blob}.${randomBytes(4).toString("hex")}`;
    this.#data = `${stem}.incomplete`;
    this.#notes = `${stem}.json`;
  }

  /** Opens what an earlier run left, if `resumable` says that nobody else writes to it. */
  static async open(blob: string, etag: string, size: number, resumable: boolean): Promise<PartialFile> {
    const partial = new PartialFile(blob, etag, size, resumable);
    try {
      if (partial.#resumable) await partial.#takeUp(`${blob}.incomplete`);
      partial.#handle = await open(partial.#data, partial.#done.length > 0 ? "r+" : "w+");
    } catch (error) {
      throw fileError(partial.#data, error);
    }
    await partial.#assertRoom();
    return partial;
  }

  async #takeUp(older: string): Promise<void> {
    const noted = await readFile(this.#notes, "utf8").catch(() => undefined);
    if (noted === undefined) {
      const left = await open(older, "r").catch(() => undefined);
      if (left === undefined) return;
      const { size } = await left.stat().finally(() => left.close());
      if (size > this.size) return;
      await rename(older, this.#data);
      this.#done = size > 0 ? [[0, size]] : [];
      return;
    }
    const there = await open(this.#data, "r").catch(() => undefined);
    if (there === undefined) return;
    const { size } = await there.stat().finally(() => there.close());
    try {
      const { version, etag, done } = JSON.parse(noted) as { version: number; etag: string; done: Range[] };
      if (version !== 1 || etag !== this.etag) return;
      for (const [start, end] of done)
        if (isSize(start) && isSize(end) && start < end && end <= Math.min(size, this.size))
          this.#add(start, end);
    } catch {
      // Damaged notes: from the beginning.
    }
  }

  async #assertRoom(): Promise<void> {
    const missing = this.missing().reduce((sum, [start, end]) => sum + end - start, 0);
    const disk = await statfs(path.dirname(this.#data)).catch(() => undefined);
    const { blocks } = await (this.#handle as FileHandle).stat();
    const free = disk === undefined ? Infinity : disk.bavail * disk.bsize + blocks * 512;
    if (missing <= free) return;
    await this.leave();
    throw new FileError(
      `${path.dirname(this.#data)} has room for ${Math.floor(free / 1e6)} MB, and ${Math.ceil(missing / 1e6)} MB are to be downloaded.`,
      {
        hint: "`npx torchformers cache ls` lists what takes room; HF_HOME or cache_dir names another place.",
      },
    );
  }

  /** The bytes that are there. */
  get loaded(): number {
    return this.#done.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  /** The ranges that are not there yet, in order. */
  missing(): Range[] {
    const gaps: Range[] = [];
    let at = 0;
    for (const [start, end] of this.#done) {
      if (start > at) gaps.push([at, start]);
      at = end;
    }
    if (at < this.size) gaps.push([at, this.size]);
    return gaps;
  }

  /** Bytes that came in order are added to the checksum at once, without being read again. */
  hash(position: number, bytes: Uint8Array): void {
    if (position !== this.#hashed || this.#catching !== undefined) return;
    this.#hash.update(bytes);
    this.#hashed += bytes.length;
  }

  async write(position: number, bytes: Uint8Array): Promise<void> {
    const handle = this.#handle as FileHandle;
    try {
      for (let at = 0; at < bytes.length; ) {
        at += (await handle.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
      }
      this.#add(position, position + bytes.length);
    } catch (error) {
      throw fileError(this.#data, error);
    }
    if (this.#resumable && this.#noting === undefined && performance.now() - this.#noted > NOTE_EVERY) {
      this.#noting = this.#note().finally(() => {
        this.#noting = undefined;
      });
    }
    this.#catchUp();
  }

  #add(start: number, end: number): void {
    const ranges = [...this.#done, [start, end] as Range].sort((a, b) => a[0] - b[0]);
    const merged: [number, number][] = [];
    for (const [from, to] of ranges) {
      const last = merged.at(-1);
      if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
      else merged.push([from, to]);
    }
    this.#done = merged;
  }

  /** Written whole to another name first: a process that is killed leaves the old notes or the new ones. */
  async #note(): Promise<void> {
    this.#noted = performance.now();
    const temporary = `${this.#notes}.tmp`;
    try {
      await writeFile(
        temporary,
        JSON.stringify({ version: 1, etag: this.etag, size: this.size, done: this.#done }),
      );
      await rename(temporary, this.#notes);
    } catch {
      // The next run begins at an earlier place.
    }
  }

  /** The end of the bytes that are there without a gap from the checksum's position on. */
  #front(): number {
    const range = this.#done.find(([start, end]) => start <= this.#hashed && this.#hashed < end);
    return range?.[1] ?? this.#hashed;
  }

  /** Reads what came out of order, as soon as the checksum gets there. Not what is being received right now. */
  #catchUp(all = false): void {
    if (this.#catching !== undefined) return;
    const front = this.#front();
    if (front - this.#hashed < (all ? 1 : 8 * READ_SIZE)) return;
    this.#catching = this.#hashUpTo(front).finally(() => {
      this.#catching = undefined;
    });
    this.#catching.catch(() => {}); // told by `complete`
  }

  async #hashUpTo(end: number): Promise<void> {
    const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, end - this.#hashed));
    while (this.#hashed < end) {
      const length = Math.min(buffer.length, end - this.#hashed);
      const { bytesRead } = await (this.#handle as FileHandle).read(buffer, 0, length, this.#hashed);
      if (bytesRead === 0) throw new FileError(`${this.#data} became shorter while it was written.`);
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#hashed += bytesRead;
    }
  }

  /** True when all bytes are there and have the checksum; the file then has its final name. */
  async complete(blob: string): Promise<boolean> {
    await this.#noting;
    await this.#catching;
    while (this.#hashed < this.size) {
      this.#catchUp(true);
      if (this.#catching === undefined) throw new FileError(`${this.#data} is not complete.`);
      await this.#catching;
    }
    if (this.#hash.digest("hex") !== this.etag) return false;
    const handle = this.#handle as FileHandle;
    try {
      await handle.truncate(this.size);
      await handle.close();
      this.#handle = undefined;
      await rename(this.#data, blob);
    } catch (error) {
      throw fileError(blob, error);
    }
    await rm(this.#notes, { force: true });
    return true;
  }

  /** Forgets everything: what came is wrong. */
  async restart(): Promise<void> {
    await this.#noting;
    await this.#catching?.catch(() => {});
    await rm(this.#notes, { force: true });
    this.#done = [];
    this.#hashed = 0;
    this.#hash = hasherFor(this.etag, this.size);
    await (this.#handle as FileHandle).truncate(0);
  }

  /** Closes the file; what is there stays for the next run, where that can use it. */
  async leave(): Promise<void> {
    const handle = this.#handle;
    if (handle === undefined) return;
    this.#handle = undefined;
    await this.#noting;
    await this.#catching?.catch(() => {});
    if (this.#resumable && this.#done.length > 0) await this.#note();
    await handle.close();
    if (!this.#resumable || this.#done.length === 0) {
      await rm(this.#data, { force: true });
      await rm(this.#notes, { force: true });
    }
  }
}
