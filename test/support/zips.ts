// Makes zip archives by hand, good ones and bad ones.

import { crc32, deflateRawSync } from "node:zlib";

export interface Member {
  readonly name: string;
  readonly data: Buffer;
  readonly deflate?: boolean;
  /** Sizes and offset go into the 64-bit extra field. */
  readonly zip64?: boolean;
  /** Unix mode, with the file type. */
  readonly mode?: number;
  /** What the headers claim, where it is not the truth. */
  readonly claim?: {
    readonly size?: number;
    readonly crc32?: number;
    readonly localName?: string;
    readonly flags?: number;
    readonly method?: number;
  };
}

const u16 = (...values: number[]) => Buffer.concat(values.map((value) => le(value, 2)));
const u32 = (...values: number[]) => Buffer.concat(values.map((value) => le(value, 4)));

function le(value: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntLE(value, 0, bytes);
  return buffer;
}

const u64 = (...values: number[]) =>
  Buffer.concat(
    values.map((value) => {
      const buffer = Buffer.alloc(8);
      buffer.writeBigUInt64LE(BigInt(value));
      return buffer;
    }),
  );

export interface ZipOptions {
  readonly comment?: string;
  /** Ends with the 64-bit records. */
  readonly zip64?: boolean;
}

export function makeZip(
  members: readonly Member[],
  { comment = "", zip64 = false }: ZipOptions = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data, deflate = false, zip64: wide = false, mode = 0o100644, claim = {} } of members) {
    const packed = deflate ? deflateRawSync(data) : data;
    const method = claim.method ?? (deflate ? 8 : 0);
    const crc = claim.crc32 ?? crc32(data);
    const size = claim.size ?? data.length;
    const stored = deflate ? packed.length : size;
    const localName = Buffer.from(claim.localName ?? name);
    const local = Buffer.concat([
      u32(0x04034b50),
      u16(20, claim.flags ?? 0, method, 0, 0),
      u32(crc, stored, size),
      u16(localName.length, 0),
      localName,
      packed,
    ]);
    const extra = wide
      ? Buffer.concat([u16(0x9999, 2, 7), u16(1, 24), u64(size, stored, offset)])
      : Buffer.alloc(0);
    const all = 0xffffffff;
    directory.push(
      Buffer.concat([
        u32(0x02014b50),
        u16((3 << 8) | 20, 20, claim.flags ?? 0, method, 0, 0),
        u32(crc, wide ? all : stored, wide ? all : size),
        u16(Buffer.byteLength(name), extra.length, 0, 0, 0),
        u32((mode << 16) >>> 0, wide ? all : offset),
        Buffer.from(name),
        extra,
      ]),
    );
    parts.push(local);
    offset += local.length;
  }
  const listing = Buffer.concat(directory);
  const count = members.length;
  if (zip64) {
    const end = Buffer.concat([
      u32(0x06064b50),
      u64(44),
      u16(45, 45),
      u32(0, 0),
      u64(count, count, listing.length, offset),
    ]);
    const locator = Buffer.concat([u32(0x07064b50, 0), u64(offset + listing.length), u32(1)]);
    const tail = Buffer.concat([
      u32(0x06054b50),
      u16(0, 0, 0xffff, 0xffff),
      u32(0xffffffff, 0xffffffff),
      u16(0),
    ]);
    return Buffer.concat([...parts, listing, end, locator, tail]);
  }
  const text = Buffer.from(comment);
  const end = Buffer.concat([
    u32(0x06054b50),
    u16(0, 0, count, count),
    u32(listing.length, offset),
    u16(text.length),
    text,
  ]);
  return Buffer.concat([...parts, listing, end]);
}
