// Pictures in files, at addresses and in memory, decoded into tensors. `sharp` decodes, on threads of its own, and does
// nothing else: what follows must give the reference's numbers, which are Pillow's.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type sharpFactory from "sharp";
import { HubError, ImageError, InvalidArgumentError } from "../../errors/index.ts";
import { kindOf } from "../../hub/files.ts";
import { hubRequest, readBytes, unreachable } from "../../hub/http.ts";
import { from_buffer, Tensor } from "../../torch/index.ts";

/** Pixels in memory: rows from top to bottom, channels side by side. */
export interface RawImage {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. Default: what the length of the data says. */
  readonly channels?: number | undefined;
}

/**
 * What stands for one image: a path, an address (`http:`, `https:`, `file:`, `data:`), base64, the bytes of a file, pixels, or
 * a tensor [channels, height, width] or [height, width, channels].
 */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | RawImage | Tensor;

export interface LoadImageOptions {
  /** Seconds that a server has to answer. Default: as for the hub. */
  readonly timeout?: number | null | undefined;
  readonly signal?: AbortSignal | undefined;
  /** "RGB", or "L" for a picture that is grey in its file, such as a map of labels. Default "RGB". */
  readonly mode?: "RGB" | "L" | undefined;
}

/** More than Pillow decodes; a file of some kilobytes could ask for all of the memory. */
const MOST_PIXELS = 178_956_970;
const MOST_BYTES = 512 * 1024 * 1024;
/** What is decoded. Vector graphics and documents are programs of a kind, and no pictures to Pillow. */
const FORMATS = ["jpeg", "png", "webp", "gif", "tiff", "heif", "avif"];

const decoded = new WeakSet<Tensor>();

/** Whether a tensor was decoded here, so that its channels are known to be first. */
export const isDecoded = (image: Tensor): boolean => decoded.has(image);

export const isRawImage = (value: unknown): value is RawImage =>
  typeof value === "object" && value !== null && "data" in value && "width" in value && "height" in value;

/** Whether a value can stand for one image. */
export const isImageSource = (value: unknown): value is ImageSource =>
  typeof value === "string" ||
  value instanceof Tensor ||
  value instanceof URL ||
  value instanceof Uint8Array ||
  value instanceof ArrayBuffer ||
  isRawImage(value);

/**
 * Decodes an image into a tensor [3, height, width] of uint8, on the CPU. It is turned as its EXIF orientation says; alpha is
 * dropped, colour profiles are not applied, of an animation the first picture is taken. A tensor is given back as it is.
 *
 * Files are JPEG, PNG, WebP, GIF, TIFF, AVIF.
 *
 * @throws ImageError when the bytes are no picture, or `sharp` is not installed; InvalidArgumentError when a text is neither
 * a path nor an address nor base64; HubError when an address does not answer.
 * @example
 * const image = await load_image("photo.jpg"); // [3, height, width]
 */
export async function load_image(source: ImageSource, options: LoadImageOptions = {}): Promise<Tensor> {
  options.signal?.throwIfAborted();
  if (source instanceof Tensor) return source;
  if (isRawImage(source)) return fromPixels(source);
  const { bytes, name } = await bytesOf(source, options);
  options.signal?.throwIfAborted();
  return decode(bytes, name, options.mode ?? "RGB");
}

/** As `load_image`, for lists of images and lists of lists. */
export async function load_images<T extends ImageSource | readonly unknown[]>(
  images: T,
  options: LoadImageOptions = {},
): Promise<T extends readonly unknown[] ? Tensor[] : Tensor> {
  const load = async (item: unknown): Promise<unknown> =>
    Array.isArray(item) ? Promise.all(item.map(load)) : load_image(item as ImageSource, options);
  return (await load(images)) as T extends readonly unknown[] ? Tensor[] : Tensor;
}

/** The tensor [channels, height, width] over the pixels, without a copy. */
function fromPixels({ data, width, height, channels }: RawImage): Tensor {
  const depth = channels ?? data.length / (width * height);
  if (![1, 2, 3, 4].includes(depth) || data.length !== width * height * depth) {
    throw new InvalidArgumentError(
      `${data.length} bytes are no image of ${width} x ${height} pixels with ${channels ?? "1 to 4"} channels.`,
    );
  }
  return view(data, [height, width, depth]);
}

function view(data: Uint8Array | Uint8ClampedArray, shape: readonly number[]): Tensor {
  const image = from_buffer(data, { dtype: "uint8", shape }).permute([2, 0, 1]);
  decoded.add(image);
  return image;
}

// Bytes -----------------------------------------------------------------------------------------------------------------

interface Found {
  readonly bytes: Uint8Array;
  readonly name: string;
}

async function bytesOf(
  source: string | URL | Uint8Array | ArrayBuffer,
  options: LoadImageOptions,
): Promise<Found> {
  if (source instanceof ArrayBuffer) return { bytes: new Uint8Array(source), name: "The bytes given" };
  if (source instanceof Uint8Array) return { bytes: source, name: "The bytes given" };
  if (typeof source !== "string" && !(source instanceof URL))
    throw new InvalidArgumentError(
      `An image is a path, an address, bytes, pixels or a tensor, not ${source === null ? "null" : typeof source}.`,
    );
  const text = String(source);
  if (/^https?:\/\//i.test(text)) return { bytes: await fetchBytes(text, options), name: text };
  if (/^file:/i.test(text)) return readFrom(fileURLToPath(text));
  // A long text is no path: do not ask the file system for megabytes of base64.
  if (text.length < 4096 && (await kindOf(text)) === "file") return readFrom(text);
  const base64 = text.startsWith("data:") ? dataOf(text) : text;
  if (base64 instanceof Uint8Array) return { bytes: base64, name: "The data: address" };
  const compact = base64.replaceAll(/\s/g, "");
  if (compact.length < 16 || compact.length % 4 === 1 || !/^[A-Za-z0-9+/]+={0,2}$/.test(compact)) {
    throw new InvalidArgumentError(
      `'${text.slice(0, 200)}' is no image: neither a file, nor an address that starts with http:// or https://, nor base64.`,
      { hint: `Paths are looked up from ${process.cwd()}.` },
    );
  }
  return { bytes: Buffer.from(compact, "base64"), name: "The base64 text" };
}

const readFrom = async (file: string): Promise<Found> => ({ bytes: await readFile(file), name: file });

/** The content of a `data:` address: bytes, or the base64 that stands for them. */
function dataOf(address: string): string | Uint8Array {
  const comma = address.indexOf(",");
  const head = address.slice(0, comma);
  if (comma < 0) throw new InvalidArgumentError("A data: address has a comma before its content.");
  const content = address.slice(comma + 1);
  return /;base64$/i.test(head) ? content : Buffer.from(decodeURIComponent(content), "latin1");
}

async function fetchBytes(address: string, { timeout, signal }: LoadImageOptions): Promise<Uint8Array> {
  const limit = timeout === null || timeout === undefined ? undefined : timeout * 1000;
  const response = await hubRequest(address, { signal, timeout: limit });
  let bytes: Buffer;
  try {
    bytes = await readBytes(response, MOST_BYTES);
  } catch (error) {
    signal?.throwIfAborted();
    throw unreachable(address, error as Error, {});
  }
  if (bytes.length > MOST_BYTES)
    throw new HubError(`${address} is larger than the ${MOST_BYTES / 2 ** 20} MiB that an image may have.`);
  return bytes;
}

// Pixels ----------------------------------------------------------------------------------------------------------------

type Sharp = typeof sharpFactory;
let loading: Promise<Sharp> | undefined;

/** Loaded when the first picture is decoded. */
async function loadSharp(): Promise<Sharp> {
  loading ??= import("sharp").then((module) => module.default as unknown as Sharp);
  try {
    return await loading;
  } catch (error) {
    loading = undefined;
    throw new ImageError(`Pictures are decoded by the package 'sharp', which cannot be loaded.`, {
      cause: error,
      hint: "Run: npm install sharp. Tensors and pixels ({ data, width, height }) need no decoding.",
    });
  }
}

async function decode(bytes: Uint8Array, name: string, mode: "RGB" | "L"): Promise<Tensor> {
  const sharp = await loadSharp();
  // The reference's decoders know nothing of colour profiles.
  const input = sharp(bytes, { ignoreIcc: true, limitInputPixels: MOST_PIXELS, failOn: "error" });
  try {
    const { format, space = "", depth, channels: stored } = await input.metadata();
    if (!FORMATS.includes(format)) throw new ImageError(`a picture of the kind ${format} is not read`);
    const isGrey = ["b-w", "grey16"].includes(space);
    if (mode === "L" && !isGrey)
      throw new ImageError(`a grey picture was expected, this one has ${stored} channels (${space})`);
    const upright = input.autoOrient();
    const isCmyk = space === "cmyk";
    const isDeepGrey = space === "grey16" && depth === "ushort";
    if (isCmyk) upright.pipelineColourspace("cmyk").toColourspace("cmyk");
    else if (isDeepGrey) upright.removeAlpha().toColourspace("grey16");
    else upright.removeAlpha().toColourspace(mode === "L" ? "b-w" : "srgb");
    const { data, info } = await upright
      .raw(isDeepGrey ? { depth: "ushort" } : {})
      .toBuffer({ resolveWithObject: true });
    const { width, height } = info;
    if (isCmyk) return view(fromCmyk(data), [height, width, 3]);
    if (isDeepGrey) return view(fromDeepGrey(data, mode), [height, width, mode === "L" ? 1 : 3]);
    return view(data, [height, width, info.channels]);
  } catch (error) {
    throw new ImageError(`${name} cannot be decoded: ${(error as Error).message.split("\n")[0]}.`, {
      cause: error,
    });
  }
}

/** Pillow's arithmetic, which knows no inks. */
function fromCmyk(inks: Uint8Array): Uint8Array {
  const pixels = new Uint8ClampedArray((inks.length / 4) * 3);
  for (let i = 0, to = 0; i < inks.length; i += 4) {
    const white = 255 - (inks[i + 3] as number);
    for (let channel = 0; channel < 3; channel++) {
      const product = (inks[i + channel] as number) * white + 128;
      pixels[to++] = white - (((product >> 8) + product) >> 8);
    }
  }
  return new Uint8Array(pixels.buffer);
}

/** Grey of 16 bits, in the machine's order of bytes: Pillow cuts off at 255, it does not scale. */
function fromDeepGrey(bytes: Uint8Array, mode: "RGB" | "L"): Uint8Array {
  const values = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const copies = mode === "L" ? 1 : 3;
  const pixels = new Uint8Array(values.length * copies);
  for (let i = 0; i < values.length; i++)
    pixels.fill(Math.min(values[i] as number, 255), i * copies, (i + 1) * copies);
  return pixels;
}
