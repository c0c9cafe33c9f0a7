// The tensors of a checkpoint put into a model whose parameters are on the meta device. What fits as it lies in the file
// becomes the mapped file; the rest is read by the addon's threads, straight to where it will stay.
import { setImmediate as nextTurn } from "node:timers/promises";
import { addon } from "../addon/loader.ts";
import { CheckpointError } from "../errors/index.ts";
import { dtypeBytes, isFloatingDtype } from "../torch/dtype.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { Checkpoint, Entry } from "./checkpoint.ts";
import type { Weights } from "./conversion_ops.ts";
import { mark_loaded } from "./initialization.ts";
import { type LazyWeight, type View, WeightPart } from "./lazy_weight.ts";
import { HookedModules } from "./load_hooks.ts";
import type { Report } from "./loading_options.ts";
import type { LoadingInfo } from "./loading_report.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";
import type { Placing } from "./placing.ts";
import { Transforms, type WeightConverter, type WeightTransform } from "./weight_transforms.ts";

/** How much is asked of the addon at once: progress is told and an abort is heeded in between. */
const BATCH_BYTES = 256 * 2 ** 20;

export interface PlacementOptions {
  /** Where a tensor of the model goes. */
  readonly device: (name: string) => Device;
  /** Which parameters stay float32. */
  readonly keepsFloat32: (name: string) => boolean;
  /** Who leaves weights on the disk. */
  readonly placing?: Pick<Placing, "keepOnDisk"> | undefined;
  readonly report: Report;
  readonly signal: AbortSignal | undefined;
}

/** One tensor of the model and what it is made of. */
interface Planned {
  readonly name: string;
  readonly tensor: Tensor;
  readonly weight: LazyWeight<Entry>;
}

export interface Plan {
  readonly planned: readonly Planned[];
  readonly info: LoadingInfo;
  /** Targets whose conversion failed, with the reason. */
  readonly conversion_errors: ReadonlyMap<string, Error>;
  /** What goes through hooks of modules first. */
  readonly hooked: HookedModules;
}

/** Tensors of the checkpoint that make up one converter's targets. */
interface Collected {
  readonly converter: WeightConverter;
  readonly weights: Weights;
}

/** Gives the event loop its turn now and then: a model may have tens of thousands of tensors. */
function pacer(signal: AbortSignal | undefined) {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < 10) return;
    await nextTurn();
    signal?.throwIfAborted();
    last = performance.now();
  };
}

/** Says for each tensor of the model what it becomes, without reading anything. */
export async function planWeights(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  transforms: readonly WeightTransform[],
  signal?: AbortSignal,
): Promise<Plan> {
  const state = model.state_dict({ keep_vars: true });
  const info: LoadingInfo = {
    missing_keys: new Set(Object.keys(state)),
    unexpected_keys: new Set(),
    mismatched_keys: new Set(),
    error_msgs: [],
  };
  const hooked = new HookedModules(model);
  const isOwn = (name: string) => Object.hasOwn(state, name);
  const has = (name: string) => isOwn(name) || hooked.has(name);
  const prefix = (model.constructor as typeof PreTrainedModel).base_model_prefix;
  const fitOwn = prefixMatcher(isOwn, prefix);
  const fitHooked = prefixMatcher((name) => hooked.has(name), prefix);
  const fit = (key: string) => {
    const name = fitOwn(key);
    return isOwn(name) || hooked.size === 0 || hooked.has(key) ? name : fitHooked(key);
  };
  const all = new Transforms(transforms);
  const pace = pacer(signal);

  const singles = new Map<string, LazyWeight<Entry>>();
  const converted = new Map<string, Collected>();
  for (const [key, entry] of checkpoint.entries) {
    await pace();
    const [converted_key, converter, pattern] = all.convert(all.rename(key));
    let name = fit(converted_key);
    const weight = WeightPart.whole(entry, entry.dtype, entry.shape);
    if (!has(name) && has(key)) {
      name = fit(key);
      singles.set(name, weight);
    } else if (!has(name)) {
      // A converter's name stands for all of its targets.
      const [first, ...others] = converter?.target_patterns ?? [];
      info.unexpected_keys.add(name);
      for (const target of others) info.unexpected_keys.add(name.replace(first as string, () => target));
    } else if (converter === undefined || pattern === undefined) {
      singles.set(name, weight);
    } else {
      const collected = converted.get(name) ?? { converter, weights: new Map() };
      collected.weights.set(pattern, [...(collected.weights.get(pattern) ?? []), weight]);
      converted.set(name, collected);
    }
  }

  const planned: Planned[] = [];
  const conversion_errors = new Map<string, Error>();
  const plan = (name: string, weight: LazyWeight<Entry>) => {
    if (hooked.has(name)) return hooked.add(name, weight);
    const tensor = state[name];
    if (tensor === undefined) {
      info.unexpected_keys.add(name);
      return;
    }
    info.missing_keys.delete(name);
    const wanted = tensor.shape;
    if (weight.shape.length === wanted.length && weight.shape.every((size, i) => size === wanted[i]))
      planned.push({ name, tensor, weight });
    else info.mismatched_keys.add([name, weight.shape, wanted]);
  };
  for (const [name, weight] of singles) plan(name, weight);
  for (const [name, { converter, weights }] of converted) {
    await pace();
    try {
      for (const [target, weight] of converter.convert(weights, name, { model, config: model.config }))
        plan(target, weight);
    } catch (error) {
      conversion_errors.set(name, error as Error);
      info.error_msgs.push(`${name}: ${(error as Error).message}`);
    }
  }
  return { planned, info, conversion_errors, hooked };
}

/** Weights as tensors of the checkpoint's own dtype, on the CPU: the mapped file where that is possible. */
export async function readWeights(weights: readonly LazyWeight<Entry>[]): Promise<Tensor[]> {
  const tensors = weights.map((weight) => {
    const view = mappable(weight);
    if (view !== undefined) return mappedTensor(view);
    return torch.empty([...weight.shape], { dtype: weight.dtype, device: "cpu" });
  });
  const toRead = weights.flatMap((weight, i) =>
    mappable(weight) === undefined ? [{ weight, into: tensors[i] as Tensor }] : [],
  );
  await readInto(toRead);
  return tensors;
}

/** A name as it is in the model, or with the base model's prefix taken off or added. */
function prefixMatcher(has: (name: string) => boolean, prefix: string): (key: string) => string {
  return (key) => {
    if (prefix === "") return key;
    if (key.startsWith(`${prefix}.`) && has(key.slice(prefix.length + 1)))
      return key.slice(prefix.length + 1);
    return has(`${prefix}.${key}`) ? `${prefix}.${key}` : key;
  };
}

/** Reads what was planned into the model's tensors. */
export async function placeWeights(
  { planned, conversion_errors }: Plan,
  options: PlacementOptions,
  source: string,
): Promise<void> {
  if (conversion_errors.size > 0) throw conversionFailure(conversion_errors, source);
  const { report, signal } = options;
  const progress = new Progress(planned, report);
  const pace = pacer(signal);
  const toRead: (Planned & { dtype: Dtype; device: Device })[] = [];
  const mapped: Planned[] = [];
  for (const each of planned) {
    signal?.throwIfAborted();
    const { name, tensor, weight } = each;
    const dtype = isFloatingDtype(tensor.dtype) && options.keepsFloat32(name) ? "float32" : tensor.dtype;
    const device = options.device(name);
    if (await options.placing?.keepOnDisk(each, dtype, () => readBatch([{ ...each, dtype, device }]))) {
      progress.add(weight);
      await pace();
      continue;
    }
    const view = device === "cpu" && weight.dtype === dtype ? mappable(weight) : undefined;
    if (view === undefined) toRead.push({ ...each, dtype, device });
    else {
      tidily(() => {
        tensor.data = mappedTensor(view);
      });
      mark_loaded(tensor);
      mapped.push(each);
      progress.add(weight);
    }
    await pace();
  }
  readAhead(mapped);

  for (let i = 0; i < toRead.length; ) {
    signal?.throwIfAborted();
    const batch: typeof toRead = [];
    for (let bytes = 0; i < toRead.length && (bytes < BATCH_BYTES || batch.length === 0); i++) {
      const next = toRead[i] as (typeof toRead)[0];
      bytes += bytesOf(next.weight);
      batch.push(next);
    }
    await readBatch(batch);
    for (const { weight } of batch) progress.add(weight);
  }
  progress.end();
}

/** Reads some tensors, and gives them to the model when all of them are there. */
async function readBatch(batch: readonly (Planned & { dtype: Dtype; device: Device })[]): Promise<void> {
  const fresh = torch.no_grad(() =>
    batch.map(({ tensor, dtype, device }) => torch.empty(tensor.shape, { dtype, device })),
  );
  try {
    await readInto(batch.map(({ weight }, i) => ({ weight, into: fresh[i] as Tensor })));
    for (const [i, { tensor }] of batch.entries()) {
      torch.no_grad(() => {
        tensor.data = fresh[i] as Tensor;
      });
      mark_loaded(tensor);
    }
  } finally {
    for (const tensor of fresh) tensor.dispose();
  }
}

/** Fills tensors with weights, by the addon's threads. */
async function readInto(
  pairs: readonly { readonly weight: LazyWeight<Entry>; readonly into: Tensor }[],
): Promise<void> {
  const regions: Tensor[] = [];
  const files: number[] = [];
  const indices: number[] = [];
  const views: number[] = [];
  torch.no_grad(() => {
    for (const { weight, into } of pairs) {
      for (const { source, view, into: region } of weight.copies(into)) {
        const [file, index] = source.file._place(source.name);
        files.push(file);
        indices.push(index);
        views.push(view.sizes.length, view.offset, ...view.sizes, ...view.strides);
        regions.push(region);
      }
    }
  });
  const targets = new Set(pairs.map(({ into }) => into));
  try {
    if (regions.length > 0) {
      const handles = regions.map((region) => region._handle);
      await addon().readTensors(files, indices, views, handles);
    }
  } finally {
    for (const region of new Set(regions)) if (!targets.has(region)) region.dispose();
  }
}

function mappedTensor({ source, view }: { source: Entry; view: View }): Tensor {
  const tensor = source.file.get_tensor(source.name);
  return isWhole({ source, view }) ? tensor : tensor.as_strided(view.sizes, view.strides, view.offset);
}

const tidily = (body: () => void): void => torch.no_grad(() => torch.tidy(body));

const count = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);
const bytesOf = (weight: LazyWeight<Entry>) => count(weight.shape) * dtypeBytes(weight.dtype);

/** The view of a file's tensor that the model can use where it lies, if the weight is one. */
function mappable(weight: LazyWeight<Entry>): { source: Entry; view: View } | undefined {
  const part = weight instanceof WeightPart ? (weight as WeightPart<Entry>) : undefined;
  return part?.is_contiguous && part.source.file.is_aligned(part.source.name) ? part : undefined;
}

const isWhole = ({ source, view }: { source: Entry; view: View }) =>
  view.offset === 0 &&
  view.sizes.length === source.shape.length &&
  view.sizes.every((size, i) => size === source.shape[i]);

/**
 * Mapped weights are read from the disk when they are first used, in small pieces and one after the other. Unless they
 * would crowd out other memory, the system is asked for all of them now, in the model's order.
 */
function readAhead(mapped: readonly Planned[]): void {
  const total = mapped.reduce((sum, { weight }) => sum + bytesOf(weight), 0);
  if (total === 0 || total > process.availableMemory() / 2) return;
  const entries = new Set(mapped.flatMap(({ weight }) => weight.asView()?.source ?? []));
  const places = [...entries].map(({ file, name }) => file._place(name));
  addon().readAhead(
    places.map(([file]) => file),
    places.map(([, index]) => index),
  );
}

function conversionFailure(errors: ReadonlyMap<string, Error>, source: string): CheckpointError {
  const [[name, error]] = [...errors] as [[string, Error]];
  const more =
    errors.size > 1 ? ` ${errors.size - 1} more failed: ${[...errors.keys()].slice(1, 6).join(", ")}.` : "";
  return new CheckpointError(
    `The weights of ${source} could not be converted. ${name}: ${error.message}${more}`,
    {
      cause: error,
    },
  );
}

/** Bytes read, over all files and within the file at hand. */
class Progress {
  readonly #report: Report;
  readonly #total: number;
  readonly #totals = new Map<string, number>();
  readonly #loaded = new Map<string, number>();
  #done = 0;
  #last = "";

  constructor(planned: readonly Planned[], report: Report) {
    this.#report = report;
    for (const { weight } of planned)
      for (const [file, bytes] of filesOf(weight))
        this.#totals.set(file, (this.#totals.get(file) ?? 0) + bytes);
    this.#total = [...this.#totals.values()].reduce((a, b) => a + b, 0);
  }

  add(weight: LazyWeight<Entry>): void {
    for (const [file, bytes] of filesOf(weight)) {
      this.#done += bytes;
      this.#loaded.set(file, (this.#loaded.get(file) ?? 0) + bytes);
      this.#last = file;
      if (this.#done < this.#total) this.#tell(file);
    }
  }

  end(): void {
    this.#tell(this.#last);
  }

  #tell(file: string): void {
    this.#report(
      "read",
      file,
      this.#loaded.get(file) ?? 0,
      this.#totals.get(file) ?? 0,
      this.#done,
      this.#total,
    );
  }
}

/** The files that a weight is read from, with the bytes of each; its own size in all. */
function filesOf(weight: LazyWeight<Entry>): Map<string, number> {
  const found = new Map<string, number>();
  for (const { source, view } of weight.sources()) {
    const bytes = count(view.sizes) * dtypeBytes(source.dtype);
    found.set(source.file.path, (found.get(source.file.path) ?? 0) + bytes);
  }
  return found;
}
