// Blocks of a model that take turns on a device: while one is computed with, the next ones are brought.
import type { StreamerHandle, StreamerNumbers } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { keep, no_grad, type Tensor } from "../torch/index.ts";
import { adopt } from "../torch/tensor.ts";
import { PlacementDevice } from "./device.ts";

/** Tensors that are needed together, such as the parameters of one layer. */
export interface Block {
  /** For messages. */
  readonly name?: string | undefined;
  /** On the CPU: in memory, or in a mapped file. */
  readonly tensors: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>;
}

export interface BlockStreamerOptions {
  /**
   * So many blocks have room on the device at once. Where it is more than `depth` + 1, some blocks, spread over the order,
   * stay once they are there. Default: `depth` + 1, one when it is synchronous; in place, as many as `memory` has room for.
   */
  readonly slots?: number | undefined;
  /** So many blocks are brought ahead of the one in use. Default: 1. */
  readonly depth?: number | undefined;
  /** Bytes of the room, in the place of `slots`. In place: of the page cache; default nine tenths of what is available. */
  readonly memory?: number | undefined;
  /** Brings each block when it is asked for, and nothing ahead: to compare with. Default: false. */
  readonly synchronous?: boolean | undefined;
}

/** What a streamer did so far. */
export interface OffloadStats extends StreamerNumbers {}

const KEYS = ["slots", "depth", "memory", "synchronous"];

/**
 * Brings blocks of tensors to a device, in the order in which they are given, which repeats (token after token), ahead of
 * their use and over a few slots of memory that are used again and again. On "cpu" blocks are used in place, where they lie
 * in mapped files: these are read ahead, and let go behind where `memory` is short.
 *
 * @throws OutOfMemoryError where the device has no room for the slots.
 * @example
 * const streamer = new BlockStreamer(new PlacementDevice("limited:0"), layers, { slots: 3 });
 * const weights = streamer.acquire(0); // waits if they are not there yet
 * x = x.matmul(weights.get("weight")!);
 * streamer.release(0); // its tensors are gone
 */
export class BlockStreamer {
  readonly blocks: readonly Block[];
  readonly device: PlacementDevice | "cpu";
  readonly #names: readonly (readonly string[])[];
  readonly #handle: StreamerHandle;
  #last: OffloadStats | undefined;
  readonly #held = new Map<number, { uses: number; readonly tensors: Map<string, Tensor> }>();

  constructor(
    device: PlacementDevice | string,
    blocks: readonly Block[],
    { slots, depth = 1, memory, synchronous = false, ...unknown }: BlockStreamerOptions = {},
  ) {
    for (const key of Object.keys(unknown))
      throw new InvalidArgumentError(`[BlockStreamer] unknown option '${key}'.`, {
        suggestion: suggest(key, KEYS),
      });
    if (blocks.length === 0) throw new InvalidArgumentError("[BlockStreamer] takes one block at least.");
    count("slots", slots, 1);
    count("depth", depth, 1);
    count("memory", memory, 1);
    this.device =
      device === "cpu" ? device : typeof device === "string" ? new PlacementDevice(device) : device;
    this.blocks = blocks;
    const entries = blocks.map(entriesOf);
    this.#names = entries.map((block) => block.map(([name]) => name));
    const available = Math.floor(process.availableMemory() * 0.9);
    const bytes = entries.flat().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
    const room = memory ?? (this.device === "cpu" && slots === undefined ? available : 0);
    this.#handle = addon().makeStreamer(
      this.device === "cpu" ? -1 : this.device._index,
      entries.map((block) => block.map(([, tensor]) => tensor._handle)),
      [slots ?? (synchronous ? 1 : depth + 1), depth, room],
      synchronous,
      this.device === "cpu" ? bytes > room : bytes > available,
    );
  }

  /**
   * The block's tensors, by name: on the device, until `release`, which disposes of them; their memory holds other values
   * then. Waits until they are there. Calls nest.
   *
   * @throws OutOfMemoryError when as many blocks as there are slots are held; FileError when a file became shorter.
   */
  acquire(block: Block | number): Map<string, Tensor> {
    const index = this.#index(block);
    const known = this.#held.get(index);
    if (known) {
      known.uses++;
      return known.tensors;
    }
    const names = this.#names[index] as readonly string[];
    const tensors = new Map(
      addon()
        .acquireBlock(this.#handle, index)
        .map((handle, i) => [names[i] as string, keep(adopt(handle))]),
    );
    this.#held.set(index, { uses: 1, tensors });
    return tensors;
  }

  /** Gives the block's slot back, once for each `acquire`. */
  release(block: Block | number): void {
    const index = this.#index(block);
    const held = this.#held.get(index);
    if (!held) throw new InvalidArgumentError(`[release] block ${this.#title(index)} had not been acquired.`);
    if (--held.uses > 0) return;
    this.#held.delete(index);
    for (const tensor of held.tensors.values()) tensor.dispose();
    addon().releaseBlock(this.#handle, index);
  }

  /**
   * Tensors without memory that stand for the block's between uses. Code that computes with them fails; a function that
   * `torch.compile` records takes them for those on the device, and each run waits for them and gives them back.
   */
  resting(block: Block | number): Map<string, Tensor> {
    const index = this.#index(block);
    const names = this.#names[index] as readonly string[];
    return new Map(
      addon()
        .restingBlock(this.#handle, index)
        .map((handle, i) => [names[i] as string, keep(adopt(handle))]),
    );
  }

  /** Lets all tensors that the blocks were made of rest: the objects stay, and hold no memory. */
  rest(): void {
    for (const block of this.blocks) this.#put(block, this.resting(block));
  }

  /** Fills the tensors that a block was made of, for eager code; `drain` lets them rest again. */
  fill(block: Block | number): void {
    const index = this.#index(block);
    this.#put(this.blocks[index] as Block, this.acquire(index));
  }

  /** @see fill */
  drain(block: Block | number): void {
    const index = this.#index(block);
    const held = this.#held.get(index);
    if (held?.uses === 1) this.#put(this.blocks[index] as Block, this.resting(index));
    this.release(index);
  }

  /** Bytes moved, and how much of the time for it was hidden behind other work. */
  stats(): OffloadStats {
    return this.#last ?? addon().streamerNumbers(this.#handle);
  }

  /** Brings nothing any more. The device's memory is free once the last tensor over it is gone, resting ones included. */
  dispose(): void {
    if (this.#last) return;
    this.#last = this.stats();
    addon().closeStreamer(this.#handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #put(block: Block, tensors: ReadonlyMap<string, Tensor>): void {
    no_grad(() => {
      for (const [name, tensor] of entriesOf(block)) tensor.data = tensors.get(name) as Tensor;
    });
  }

  #index(block: Block | number): number {
    const index = typeof block === "number" ? block : this.blocks.indexOf(block);
    if (this.blocks[index] === undefined)
      throw new InvalidArgumentError(
        `[BlockStreamer] there is no block ${typeof block === "number" ? block : (block.name ?? "like this")}.`,
      );
    return index;
  }

  #title(index: number): string {
    return this.blocks[index]?.name ?? String(index);
  }
}

function entriesOf({ tensors }: Block): (readonly [string, Tensor])[] {
  return tensors instanceof Map ? [...tensors] : Object.entries(tensors);
}

function count(name: string, value: number | undefined, least: number): void {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= least))
    throw new InvalidArgumentError(
      `[BlockStreamer] ${name} must be a whole number of ${least} or more, got ${value}.`,
    );
}
