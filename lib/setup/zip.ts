// Reads zip archives (wheels are zip files): zip64, stored and deflated members, every size and checksum verified.
// A file from outside is not trusted: a member that would leave the target folder, is a link, is larger than it says, or
// overlaps another one is an error. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

import { createWriteStream } from "node:fs";
import { type FileHandle, mkdir, open, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { crc32, createInflateRaw, inflateRaw } from "node:zlib";
import { SetupError } from "../errors/index.ts";

export interface ZipEntry {
  /** Path with forward slashes, checked to stay below the archive's root. */
  readonly name: string;
  readonly size: number;
  readonly compressedSize: number;
  readonly crc32: number;
  readonly deflated: boolean;
  readonly directory: boolean;
  readonly link: boolean;
  readonly executable: boolean;
  /** Where the member's local header stands. */
  readonly offset: number;
}

export interface ExtractOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the number of unpacked bytes since the last call. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

const END = 0x06054b50;
const END_SIZE = 22;
const ZIP64_LOCATOR = 0x07064b50;
const ZIP64_LOCATOR_SIZE = 20;
const ZIP64_END = 0x06064b50;
const ZIP64_END_SIZE = 56;
const CENTRAL = 0x02014b50;
const CENTRAL_SIZE = 46;
const LOCAL = 0x04034b50;
const LOCAL_SIZE = 30;
const ZIP64_EXTRA = 0x0001;
const MAX_COMMENT = 0xffff;
/** Members up to this size are unpacked in memory, larger ones are streamed. */
const IN_MEMORY = 1 << 20;
/** A directory of members larger than this is no wheel. */
const MAX_DIRECTORY = 256 << 20;

const inflate = promisify(inflateRaw);

/** An open archive. Close it, or declare it with `await using`. */
export class ZipReader implements AsyncDisposable {
  readonly path: string;
  readonly entries: readonly ZipEntry[];
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle, entries: readonly ZipEntry[]) {
    this.path = path;
    this.#file = file;
    this.entries = entries;
  }

  /** @throws SetupError when the file is not a well-formed zip archive. */
  static async open(path: string): Promise<ZipReader> {
    const file = await open(path, "r");
    try {
      return new ZipReader(path, file, await readDirectory(path, file));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Unpacks one member to `target/<name>`: under a temporary name first, so that a file with its name is whole. */
  async extract(entry: ZipEntry, target: string, { signal, onBytes }: ExtractOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    if (entry.link) throw invalid(this.path, `'${entry.name}' is a link`);
    const path = join(target, entry.name);
    if (entry.directory) {
      await mkdir(path, { recursive: true });
      return;
    }
    await mkdir(dirname(path), { recursive: true });
    const begin = await this.#dataOffset(entry);
    const mode = entry.executable ? 0o755 : 0o644;
    if (entry.size <= IN_MEMORY && entry.compressedSize <= IN_MEMORY) {
      await writeFile(`${path}.partial`, await this.#read(entry, begin), { mode });
      onBytes?.(entry.size);
    } else {
      await this.#stream(entry, begin, `${path}.partial`, mode, { signal, onBytes });
    }
    await rename(`${path}.partial`, path);
  }

  /** Where a member's bytes begin in the file, checked against its local header. */
  async locate(entry: ZipEntry): Promise<number> {
    return this.#dataOffset(entry);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The local header repeats the name; its extra field may be longer than the directory's. */
  async #dataOffset(entry: ZipEntry): Promise<number> {
    const header = await readAt(this.path, this.#file, entry.offset, LOCAL_SIZE);
    if (header.readUInt32LE(0) !== LOCAL) throw invalid(this.path, `'${entry.name}' has no local header`);
    const nameLength = header.readUInt16LE(26);
    const name = await readAt(this.path, this.#file, entry.offset + LOCAL_SIZE, nameLength);
    if (!name.equals(Buffer.from(entry.name))) {
      throw invalid(this.path, `'${entry.name}' has another name in its local header`);
    }
    return entry.offset + LOCAL_SIZE + nameLength + header.readUInt16LE(28);
  }

  async #read(entry: ZipEntry, begin: number): Promise<Buffer> {
    const packed = await readAt(this.path, this.#file, begin, entry.compressedSize);
    let data = packed;
    if (entry.deflated) {
      // One byte more than declared shows a member that is larger than it says.
      data = await inflate(packed, { maxOutputLength: entry.size + 1 }).catch((error: Error) => {
        throw invalid(this.path, `'${entry.name}' does not unpack: ${error.message}`);
      });
    }
    check(this.path, entry, data.length, crc32(data));
    return data;
  }

  async #stream(
    entry: ZipEntry,
    begin: number,
    path: string,
    mode: number,
    { signal, onBytes }: ExtractOptions,
  ): Promise<void> {
    let size = 0;
    let crc = 0;
    const verify = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        size += chunk.length;
        crc = crc32(chunk, crc);
        onBytes?.(chunk.length);
        done(size > entry.size ? invalid(this.path, `'${entry.name}' is larger than it says`) : null, chunk);
      },
    });
    const end = begin + entry.compressedSize - 1;
    const source = this.#file.createReadStream({
      start: begin,
      end,
      autoClose: false,
      highWaterMark: IN_MEMORY,
    });
    const sink = createWriteStream(path, { mode, flush: true, highWaterMark: IN_MEMORY });
    const options = signal === undefined ? {} : { signal };
    try {
      await (entry.deflated
        ? pipeline(source, createInflateRaw({ chunkSize: 256 << 10 }), verify, sink, options)
        : pipeline(source, verify, sink, options));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code?.startsWith("Z_"))
        throw invalid(this.path, `'${entry.name}' does not unpack: ${(error as Error).message}`);
      throw error;
    }
    check(this.path, entry, size, crc);
  }
}

function check(path: string, entry: ZipEntry, size: number, crc: number): void {
  if (size !== entry.size) throw invalid(path, `'${entry.name}' has ${size} bytes instead of ${entry.size}`);
  if (crc !== entry.crc32) throw invalid(path, `'${entry.name}' has a wrong checksum`);
}

const invalid = (path: string, reason: string): SetupError =>
  new SetupError(`${basename(path)} is not a valid zip archive: ${reason}.`);

async function readAt(path: string, file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled);
    if (bytesRead === 0) throw invalid(path, "it ends early");
    filled += bytesRead;
  }
  return buffer;
}

/** A 64-bit number of the format, which must be one that a file can have. */
function readSize(path: string, buffer: Buffer, offset: number): number {
  const value = Number(buffer.readBigUInt64LE(offset));
  if (!Number.isSafeInteger(value)) throw invalid(path, "a size or offset is out of range");
  return value;
}

interface Directory {
  readonly count: number;
  readonly size: number;
  readonly offset: number;
}

async function readDirectory(path: string, file: FileHandle): Promise<ZipEntry[]> {
  const { size: fileSize } = await stat(path);
  const directory = await findDirectory(path, file, fileSize);
  if (directory.size > MAX_DIRECTORY || directory.offset + directory.size > fileSize) {
    throw invalid(path, "its directory does not fit into the file");
  }
  const buffer = await readAt(path, file, directory.offset, directory.size);
  const entries: ZipEntry[] = [];
  const names = new Set<string>();
  let position = 0;
  for (let i = 0; i < directory.count; i++) {
    const [entry, next] = readEntry(path, buffer, position);
    if (names.has(entry.name)) throw invalid(path, `'${entry.name}' is in it twice`);
    names.add(entry.name);
    entries.push(entry);
    position = next;
  }
  checkOverlap(path, entries, directory.offset);
  return entries;
}

/** The end record stands before a comment of unknown length; large archives have a 64-bit one before it. */
async function findDirectory(path: string, file: FileHandle, fileSize: number): Promise<Directory> {
  const length = Math.min(fileSize, END_SIZE + MAX_COMMENT);
  const tail = await readAt(path, file, fileSize - length, length);
  let end = tail.length - END_SIZE;
  while (
    end >= 0 &&
    !(tail.readUInt32LE(end) === END && end + END_SIZE + tail.readUInt16LE(end + 20) === tail.length)
  )
    end--;
  if (end < 0) throw invalid(path, "it has no end record");

  const locator = fileSize - length + end - ZIP64_LOCATOR_SIZE;
  if (locator >= 0) {
    const buffer = await readAt(path, file, locator, ZIP64_LOCATOR_SIZE);
    if (buffer.readUInt32LE(0) === ZIP64_LOCATOR) return readZip64End(path, file, readSize(path, buffer, 8));
  }
  if (tail.readUInt16LE(end + 4) !== 0 || tail.readUInt16LE(end + 6) !== 0)
    throw invalid(path, "it has several parts");
  return {
    count: tail.readUInt16LE(end + 10),
    size: tail.readUInt32LE(end + 12),
    offset: tail.readUInt32LE(end + 16),
  };
}

async function readZip64End(path: string, file: FileHandle, position: number): Promise<Directory> {
  const buffer = await readAt(path, file, position, ZIP64_END_SIZE);
  if (buffer.readUInt32LE(0) !== ZIP64_END) throw invalid(path, "its 64-bit end record is missing");
  return {
    count: readSize(path, buffer, 32),
    size: readSize(path, buffer, 40),
    offset: readSize(path, buffer, 48),
  };
}

/** One record of the directory, and where the next one begins. */
function readEntry(path: string, buffer: Buffer, at: number): [ZipEntry, number] {
  if (at + CENTRAL_SIZE > buffer.length || buffer.readUInt32LE(at) !== CENTRAL)
    throw invalid(path, "its directory is damaged");
  const flags = buffer.readUInt16LE(at + 8);
  const method = buffer.readUInt16LE(at + 10);
  const nameEnd = at + CENTRAL_SIZE + buffer.readUInt16LE(at + 28);
  const extraEnd = nameEnd + buffer.readUInt16LE(at + 30);
  const next = extraEnd + buffer.readUInt16LE(at + 32);
  if (next > buffer.length) throw invalid(path, "its directory is damaged");

  const name = buffer.toString("utf8", at + CENTRAL_SIZE, nameEnd);
  checkName(path, name);
  if ((flags & 1) !== 0) throw invalid(path, `'${name}' is encrypted`);
  if (method !== 0 && method !== 8) throw invalid(path, `'${name}' is packed in an unknown way (${method})`);

  const unix = buffer.readUInt32LE(at + 38) >>> 16;
  const [size, compressedSize, offset] = readSizes(path, buffer.subarray(nameEnd, extraEnd), [
    buffer.readUInt32LE(at + 24),
    buffer.readUInt32LE(at + 20),
    buffer.readUInt32LE(at + 42),
  ]);
  if (method === 0 && size !== compressedSize) throw invalid(path, `'${name}' has two sizes`);
  const entry: ZipEntry = {
    name,
    size,
    compressedSize,
    crc32: buffer.readUInt32LE(at + 16),
    deflated: method === 8,
    directory: name.endsWith("/"),
    link: (unix & 0o170000) === 0o120000,
    executable: (unix & 0o111) !== 0,
    offset,
  };
  return [entry, next];
}

/** Size, packed size and offset; each that reads 0xffffffff stands, in this order, in the zip64 extra field. */
function readSizes(path: string, extra: Buffer, sizes: [number, number, number]): [number, number, number] {
  if (!sizes.includes(0xffffffff)) return sizes;
  for (let at = 0; at + 4 <= extra.length; ) {
    const id = extra.readUInt16LE(at);
    const length = extra.readUInt16LE(at + 2);
    const field = extra.subarray(at + 4, at + 4 + length);
    if (id === ZIP64_EXTRA) {
      let position = 0;
      return sizes.map((size) => {
        if (size !== 0xffffffff) return size;
        if (position + 8 > field.length) throw invalid(path, "a 64-bit size is missing");
        position += 8;
        return readSize(path, field, position - 8);
      }) as [number, number, number];
    }
    at += 4 + length;
  }
  throw invalid(path, "a 64-bit size is missing");
}

function checkName(path: string, name: string): void {
  const parts = name.replace(/\/$/, "").split("/");
  const bad =
    /[\\\0:]|\uFFFD/.test(name) || parts.some((part) => part === "" || part === "." || part === "..");
  if (bad) throw invalid(path, `the name ${JSON.stringify(name)} is not allowed`);
}

/** Members that share bytes are how a small file unpacks to a huge one. */
function checkOverlap(path: string, entries: readonly ZipEntry[], directory: number): void {
  const sorted = [...entries].sort((a, b) => a.offset - b.offset);
  for (const [i, entry] of sorted.entries()) {
    const end = entry.offset + LOCAL_SIZE + Buffer.byteLength(entry.name) + entry.compressedSize;
    if (end > (sorted[i + 1]?.offset ?? directory))
      throw invalid(path, `'${entry.name}' reaches beyond its place`);
  }
}
