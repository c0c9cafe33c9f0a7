// Offloaded parameters between uses and while they are used. A parameter is one object for good: between uses it rests on the
// meta device, and while a hook holds it, its handle is that of a copy where it is computed with.
import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { bringTo } from "./placement.ts";
import type { WeightSource } from "./weights_map.ts";

/** Where the values of offloaded tensors are. */
const sources = new WeakMap<Tensor, WeightSource>();
/** Places of tensors that are resident on a limited device: for libtorch they are on the CPU. */
const homes = new WeakMap<Tensor, string>();

const tidily = <T>(body: () => T): T => torch.no_grad(() => torch.tidy(body));

/** Whether a tensor's values are elsewhere, and a hook brings them. */
export const isOffloaded = (tensor: Tensor): boolean => sources.has(tensor) && tensor.is_meta;

/** The source of an offloaded tensor. */
export const sourceFor = (tensor: Tensor): WeightSource | undefined => sources.get(tensor);

/** The values of an offloaded tensor, to be disposed of; undefined for one that is resident. */
export function offloadedValue(tensor: Tensor): Tensor | undefined {
  const source = isOffloaded(tensor) ? sources.get(tensor) : undefined;
  if (source === undefined) return undefined;
  const value = source.read();
  if (value.dtype === tensor.dtype) return value;
  const cast = torch.no_grad(() => value.to({ dtype: tensor.dtype }));
  value.dispose();
  return cast;
}

/** Lets a tensor rest: it holds no memory from now on, and its values are where `source` says. */
export function letRest(tensor: Tensor, source: WeightSource): void {
  sources.set(tensor, source);
  homes.delete(tensor);
  if (tensor.is_meta) return;
  tidily(() => {
    tensor.grad = null;
    tensor.data = torch.empty(tensor.shape, { dtype: tensor.dtype, device: "meta" });
  });
}

/** Brings a tensor to a place for good. */
export function settle(tensor: Tensor, place: string, name: string): void {
  const source = sources.get(tensor);
  if (tensor.is_meta && place !== "meta" && source === undefined)
    throw new InvalidArgumentError(
      `${name} is on the meta device and has no values that could go to ${place}.`,
      {
        hint: "Load a checkpoint, or call to_empty({ device }) and initialise it.",
      },
    );
  if (homeOf(tensor) === place) return;
  tidily(() => {
    const value =
      tensor.is_meta && source !== undefined ? (offloadedValue(tensor) as Tensor) : tensor.detach();
    const { grad } = tensor;
    if (grad) tensor.grad = null;
    tensor.data = bringTo(place, value);
    if (grad) tensor.grad = bringTo(place, grad);
  });
  sources.delete(tensor);
  if (place.startsWith("limited")) homes.set(tensor, place);
  else homes.delete(tensor);
}

/** The place where a tensor rests or is resident. */
export const homeOf = (tensor: Tensor): string => homes.get(tensor) ?? tensor.device;

/** A tensor whose handle is a copy's for a while. */
interface Held {
  readonly tensor: Tensor;
  readonly handle: number;
  readonly copy: Tensor | undefined;
}

/** Brings the values of tensors and takes them away again: what hooks hold while a forward runs. */
export interface Feeder {
  /** A recording may leave the weights at rest: its runs bring them. Default false. */
  readonly isStreamed?: boolean;
  acquire(): void;
  /** What of an output must not be lost when the weights go. */
  keep?(output: unknown): unknown;
  release(): void;
}

/** A copy for each use, on a place. */
export class CopyFeeder implements Feeder {
  readonly #place: string;
  readonly #tensors: ReadonlyMap<string, Tensor>;
  readonly #held: Held[][] = [];

  constructor(place: string, tensors: ReadonlyMap<string, Tensor>) {
    this.#place = place;
    this.#tensors = tensors;
  }

  acquire(): void {
    const held: Held[] = [];
    this.#held.push(held);
    try {
      for (const [name, tensor] of this.#tensors) {
        const copy = valueOn(this.#place, tensor, name);
        held.push({ tensor, handle: tensor._handle, copy: copy?.isShared ? undefined : copy?.tensor });
        if (copy !== undefined) tensor._handle = copy.tensor._handle;
      }
    } catch (error) {
      this.release();
      throw error;
    }
  }

  release(): void {
    for (const { tensor, handle, copy } of (this.#held.pop() ?? []).reverse()) {
      tensor._handle = handle;
      // A graph that needs the copy keeps its memory.
      copy?.dispose();
    }
  }
}

/** A tensor's values on a place, without gradients; undefined when it is there already. */
function valueOn(
  place: string,
  tensor: Tensor,
  name: string,
): { tensor: Tensor; isShared: boolean } | undefined {
  const source = tensor.is_meta ? sources.get(tensor) : undefined;
  if (source === undefined) {
    if (tensor.is_meta)
      throw new InvalidArgumentError(`${name} is on the meta device, and nobody knows its values.`);
    return homeOf(tensor) === place
      ? undefined
      : { tensor: torch.keep(moved(place, tensor)), isShared: false };
  }
  const value = source.tensor ?? source.read();
  try {
    if (String(value.shape) !== String(tensor.shape))
      throw new InvalidArgumentError(
        `${name} has the shape [${tensor.shape}], and its offloaded values have [${value.shape}].`,
      );
    const there = moved(place, value, tensor.dtype);
    const isShared = there === source.tensor;
    if (there !== value && source.tensor === undefined) value.dispose();
    return { tensor: isShared ? there : torch.keep(there), isShared };
  } catch (error) {
    if (source.tensor === undefined) value.dispose();
    throw error;
  }
}

/** A copy on a place in a dtype; the tensor itself where it is so already. */
function moved(place: string, tensor: Tensor, dtype = tensor.dtype): Tensor {
  return torch.no_grad(() => {
    const there = bringTo(place, tensor);
    if (there.dtype === dtype) return there;
    const cast = there.to({ dtype });
    if (there !== tensor) there.dispose();
    return place.startsWith("limited") ? own(place, cast) : cast;
  });
}

function own(place: string, tensor: Tensor): Tensor {
  const copy = bringTo(place, tensor);
  if (copy !== tensor) tensor.dispose();
  return copy;
}
