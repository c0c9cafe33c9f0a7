// What a processor of images, sound or video returns: the model's inputs as fields.

import { TREE } from "../compile/tree.ts";
import { InvalidArgumentError, ShapeError } from "../errors/index.ts";
import { type Dtype, is_floating_point, stack, Tensor, type TensorInput, tensor } from "../torch/index.ts";

/** What `return_tensors` may be. */
export type TensorType = "pt" | null;

/**
 * The inputs of a model, as own enumerable fields under the reference's names, so that `model.forward({ ...features })` works.
 * Without `return_tensors`, a field may be a list with one tensor per image.
 *
 * @example
 * const { pixel_values } = await processor(image, { return_tensors: "pt" }); // [1, 3, height, width]
 */
export class BatchFeature {
  static readonly [TREE] = true;
  [field: string]: unknown;

  /** @param tensor_type `"pt"` makes tensors of lists; fields in `skip` stay as they are. */
  constructor(
    data: Readonly<Record<string, unknown>> = {},
    tensor_type: TensorType | undefined = null,
    skip: readonly string[] = [],
  ) {
    Object.assign(this, data);
    this.convert_to_tensors(tensor_type, skip);
  }

  keys(): string[] {
    return Object.keys(this);
  }

  /**
   * Stacks lists of tensors and makes tensors of (nested) lists of numbers, in place. Texts and objects stay as they are.
   *
   * @throws ShapeError when the entries of a list differ in shape.
   */
  convert_to_tensors(tensor_type: TensorType | undefined, skip: readonly string[] = []): this {
    if (checkTensorType(tensor_type) === null) return this;
    for (const [name, value] of Object.entries(this)) {
      if (skip.includes(name) || !Array.isArray(value)) continue;
      const made = asTensor(name, value);
      if (made !== undefined) (this as Record<string, unknown>)[name] = made;
    }
    return this;
  }

  /**
   * Moves all tensors to a device, and casts those of floating point to a dtype, in place.
   *
   * @example features.to("cuda:0"); features.to({ dtype: "bfloat16" });
   */
  to(target: string | { device?: string | undefined; dtype?: Dtype | undefined }): this {
    const { device, dtype } =
      typeof target === "string" ? { device: target, dtype: undefined } : { ...target };
    const move = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(move);
      if (!(value instanceof Tensor)) return value;
      return value.to({ device, dtype: is_floating_point(value) ? dtype : undefined });
    };
    for (const [name, value] of Object.entries(this)) (this as Record<string, unknown>)[name] = move(value);
    return this;
  }
}

/** Refuses what is no kind of tensor here. */
export function checkTensorType(value: unknown): TensorType {
  if (value === null || value === undefined) return null;
  if (value === "pt") return value;
  throw new InvalidArgumentError(`return_tensors is 'pt' or absent, not '${String(value)}'.`);
}

/** The tensor of a list; undefined for a list of something else than numbers. */
function asTensor(name: string, value: readonly unknown[]): Tensor | undefined {
  if (value.length > 0 && value.every((item) => item instanceof Tensor)) {
    const tensors = value as Tensor[];
    const shapes = new Set(tensors.map(({ shape }) => `[${shape.join(", ")}]`));
    if (shapes.size > 1) {
      throw new ShapeError(`${name}: tensors of the shapes ${[...shapes].join(" and ")} make no batch.`, {
        hint: "Let the processor resize, crop or pad them to one size, or leave return_tensors out.",
      });
    }
    return stack(tensors);
  }
  if (!isNumeric(value)) return undefined;
  return tensor(value as TensorInput);
}

const isNumeric = (value: unknown): boolean =>
  Array.isArray(value)
    ? value.every(isNumeric)
    : typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
