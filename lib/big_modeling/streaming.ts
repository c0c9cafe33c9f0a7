// Offloaded blocks that are streamed: brought ahead of their use, over a few slots that take turns, for eager code and for Programs.
import { OutOfMemoryError } from "../errors/index.ts";
import type { Module } from "../nn/index.ts";
import {
  attachStreamer,
  type Block,
  BlockStreamer,
  detachStreamers,
  PlacementDevice,
} from "../placement/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { mapTensors } from "../torch/tensor_tree.ts";
import type { AlignDevicesHook } from "./align_devices.ts";
import { CopyFeeder, type Feeder, sourceFor } from "./residence.ts";

/** What a limited device rounds each tensor up to. */
const ALIGNMENT = 256;

export interface StreamingOptions {
  /** Bytes on the place that blocks may take. Default: what is free. */
  readonly room?: number | undefined;
}

/** Lets a streamer bring what these hooks offload to a place, in their order. Those whose values are made anew at each use stay. */
export function streamBlocks(
  model: Module,
  place: string,
  hooks: readonly (readonly [name: string, hook: AlignDevicesHook])[],
  { room }: StreamingOptions = {},
): void {
  if (!place.startsWith("limited") && place !== "cpu") return;
  const able = hooks.flatMap(([name, hook]) => {
    const tensors = sourcesOf(hook);
    return tensors === undefined || tensors.size === 0
      ? []
      : [{ hook, block: { name, tensors } satisfies Block }];
  });
  if (able.length === 0) return;
  const blocks = able.map(({ block }) => block);
  const streamer = makeStreamer(place, blocks, room);
  if (streamer === undefined) return;
  attachStreamer(model, streamer);
  for (const [i, { hook }] of able.entries()) {
    const resting = streamer.resting(i);
    torch.no_grad(() => {
      for (const [name, tensor] of hook.offloaded)
        if (resting.has(name)) tensor.data = resting.get(name) as Tensor;
    });
    for (const tensor of resting.values()) tensor.dispose();
    hook.useFeeder(new StreamFeeder(streamer, i, hook, place));
  }
}

/** Ends the streaming of a model: hooks copy from now on. */
export const stopStreaming = (model: Module): void => detachStreamers(model);

/** The tensors that a hook brings, where all of them lie as they are needed; undefined when some are made at each use. */
function sourcesOf(hook: AlignDevicesHook): Map<string, Tensor> | undefined {
  const found = new Map<string, Tensor>();
  for (const [name, tensor] of hook.offloaded) {
    const source = tensor.is_meta ? sourceFor(tensor)?.tensor : undefined;
    // Resident under another name: nothing to bring.
    if (!tensor.is_meta) continue;
    if (
      source === undefined ||
      source.dtype !== tensor.dtype ||
      source.device !== "cpu" ||
      !source.is_contiguous()
    )
      return undefined;
    found.set(name, source);
  }
  return found;
}

/** As many slots as there is room for, two at most: one is computed with while the next is filled. */
function makeStreamer(
  place: string,
  blocks: readonly Block[],
  room: number | undefined,
): BlockStreamer | undefined {
  if (place === "cpu")
    return new BlockStreamer("cpu", blocks, room === undefined ? {} : { memory: Math.max(1, room) });
  const device = new PlacementDevice(place);
  const size = ({ tensors }: Block) =>
    [...(tensors as Map<string, Tensor>).values()].reduce(
      (sum, tensor) => sum + Math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT,
      0,
    );
  const largest = Math.max(1, ...blocks.map(size));
  const slots = Math.max(1, Math.min(2, Math.floor(Math.min(room ?? device.free, device.free) / largest)));
  try {
    return new BlockStreamer(device, blocks, { slots });
  } catch (error) {
    if (error instanceof OutOfMemoryError) return undefined;
    throw error;
  }
}

/** A block of a streamer while a forward runs. With gradients on, a copy of its own: a graph may need it later. */
class StreamFeeder implements Feeder {
  readonly isStreamed = true;
  readonly #streamer: BlockStreamer;
  readonly #index: number;
  readonly #hook: AlignDevicesHook;
  readonly #copies: CopyFeeder;
  readonly #held: ({ handles: [Tensor, number][]; storages: Set<number> } | "copy")[] = [];

  constructor(streamer: BlockStreamer, index: number, hook: AlignDevicesHook, place: string) {
    this.#streamer = streamer;
    this.#index = index;
    this.#hook = hook;
    this.#copies = new CopyFeeder(place, hook.offloaded);
  }

  acquire(): void {
    if (torch.is_grad_enabled()) {
      this.#copies.acquire();
      this.#held.push("copy");
      return;
    }
    const brought = this.#streamer.acquire(this.#index);
    const handles: [Tensor, number][] = [];
    const storages = new Set<number>();
    for (const [name, tensor] of this.#hook.offloaded) {
      const copy = brought.get(name);
      if (copy === undefined) continue;
      handles.push([tensor, tensor._handle]);
      storages.add(copy.untyped_storage().id);
      tensor._handle = copy._handle;
    }
    this.#held.push({ handles, storages });
  }

  keep(output: unknown): unknown {
    const held = this.#held.at(-1);
    if (held === undefined || held === "copy") return output;
    return mapOutput(output, (tensor) => held.storages.has(tensor.untyped_storage().id));
  }

  release(): void {
    const held = this.#held.pop();
    if (held === "copy") this.#copies.release();
    else if (held !== undefined) {
      for (const [tensor, handle] of held.handles.reverse()) tensor._handle = handle;
      this.#streamer.release(this.#index);
    }
  }
}

/** A weight that a forward gives out would change with the next block: it is copied. */
function mapOutput(output: unknown, isWeight: (tensor: Tensor) => boolean): unknown {
  let found = false;
  const copied = mapTensors(output, (tensor) => {
    if (!isWeight(tensor)) return tensor;
    found = true;
    return tensor.clone();
  });
  return found ? copied : output;
}
