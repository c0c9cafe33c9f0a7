// Where from_pretrained puts weights: the plan for a device_map, and what stays on the disk.

import { check_device_map, placeOf } from "../big_modeling/device_map.ts";
import { type DeviceMap, type MaxMemory, placeName, placesOf } from "../big_modeling/devices.ts";
import { dispatch, isElsewhere, mainPlace } from "../big_modeling/dispatch.ts";
import { parseBudget } from "../big_modeling/max_memory.ts";
import {
  type OffloadIndex,
  offload_weight,
  readOffloadedWeight,
  save_offload_index,
} from "../big_modeling/offload_folder.ts";
import { executionDevice } from "../big_modeling/placement.ts";
import { PLAN_KINDS, type PlanKind, planLoading } from "../big_modeling/plan_model.ts";
import { letRest } from "../big_modeling/residence.ts";
import { sourceOf, type WeightSource } from "../big_modeling/weights_map.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { safe_open } from "../safetensors/index.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { Entry } from "./checkpoint.ts";
import { mark_loaded } from "./initialization.ts";
import { type LazyWeight, WeightPart } from "./lazy_weight.ts";
import type { FromPretrainedOptions } from "./loading_options.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

/** A device map as it was given, checked before anything is read. */
export function parseDeviceMap(given: FromPretrainedOptions["device_map"]): PlanKind | DeviceMap | undefined {
  if (given === null || given === undefined) return undefined;
  if (typeof given === "object") return placesOf(given);
  if (PLAN_KINDS.includes(given as PlanKind)) return given as PlanKind;
  const place = placeName(
    given,
    `device_map is one of ${PLAN_KINDS.join(", ")}, a map, or one device, which`,
  );
  if (place === "meta") throw new InvalidArgumentError("device_map: 'meta' holds no weights.");
  return { "": place };
}

/** Where the weights of one model go. */
export class Placing {
  /** Module name → place, as it is told. */
  readonly map: Readonly<Record<string, string>>;
  /** Where what is offloaded computes. */
  readonly main: string;
  readonly #model: PreTrainedModel;
  readonly #tied: Readonly<Record<string, string>>;
  readonly #buffers: ReadonlySet<string>;
  readonly #offloadBuffers: boolean;
  readonly #folder: string | undefined;
  readonly #limits: MaxMemory | undefined;
  readonly #index: OffloadIndex = {};

  constructor(
    model: PreTrainedModel,
    given: PlanKind | DeviceMap,
    options: FromPretrainedOptions,
    keepsFloat32: (name: string) => boolean,
  ) {
    this.#model = model;
    this.#offloadBuffers = options.offload_buffers === true;
    this.#folder = options.offload_folder ?? undefined;
    this.#limits = options.max_memory ?? undefined;
    this.#tied = model.all_tied_weights_keys;
    this.#buffers = new Set([...model.named_buffers({ remove_duplicate: false })].map(([name]) => name));
    if (typeof given === "string") {
      this.map = planLoading(model, given, {
        max_memory: options.max_memory,
        offload_buffers: this.#offloadBuffers,
        dtypeOf: (name, tensor) =>
          tensor.is_floating_point() && keepsFloat32(name) ? "float32" : tensor.dtype,
      });
    } else {
      this.map = placesOf(given);
      check_device_map(model, this.map);
    }
    this.main = mainPlace(this.map);
  }

  /** The place of a tensor; tied ones share that of their source. */
  placeOf(name: string): string {
    const place = String(placeOf(this.map, this.#tied[name] ?? name) ?? placeOf(this.map, name) ?? "cpu");
    const stays = this.#buffers.has(name) && !this.#offloadBuffers && isElsewhere(place, this.main);
    return stays ? this.main : place;
  }

  /** Where libtorch reads a tensor to. Limited devices get theirs from the CPU. */
  device(name: string): Device {
    return executionDevice(this.placeOf(name));
  }

  /**
   * Leaves a weight on the disk, if that is its place: in its own file where it is a view of that, else in the offload folder.
   * False for one that has to be read.
   */
  async keepOnDisk(
    {
      name,
      tensor,
      weight,
    }: { readonly name: string; readonly tensor: Tensor; readonly weight: LazyWeight<Entry> },
    dtype: Dtype,
    read: () => Promise<void>,
  ): Promise<boolean> {
    if (this.placeOf(name) !== "disk") return false;
    const part = weight instanceof WeightPart ? (weight as WeightPart<Entry>) : undefined;
    if (tensor.dtype !== dtype)
      torch.no_grad(() =>
        torch.tidy(() => (tensor.data = torch.empty(tensor.shape, { dtype, device: "meta" }))),
      );
    if (part !== undefined) letRest(tensor, await fileView(part, dtype));
    else {
      if (this.#folder === undefined)
        throw new InvalidArgumentError(
          `device_map leaves ${name} on the disk, and the checkpoint holds it in another form: it has to be written anew.`,
          { hint: "Pass offload_folder, or allow more memory by max_memory." },
        );
      await read();
      await this.#writeOut(name, tensor);
    }
    mark_loaded(tensor);
    return true;
  }

  /** Writes a tensor that no file has into the offload folder, and lets it rest. */
  async #writeOut(name: string, tensor: Tensor): Promise<void> {
    const folder = this.#folder as string;
    await offload_weight(tensor, name, folder, this.#index);
    const entry = this.#index[name] as OffloadIndex[string];
    letRest(tensor, { tensor: undefined, read: () => readOffloadedWeight(folder, name, entry) });
  }

  /** Spreads the model, whose weights are all read or left on the disk. */
  async finish(): Promise<void> {
    if (this.#folder !== undefined) {
      // What the checkpoint lacks was made just now.
      for (const [name, tensor] of Object.entries(this.#model.state_dict({ keep_vars: true })))
        if (this.placeOf(name) === "disk" && !tensor.is_meta) await this.#writeOut(name, tensor);
      await save_offload_index(this.#index, this.#folder);
    }
    const declared = (this.#model.constructor as { _skip_keys_device_placement?: string | Iterable<string> })
      ._skip_keys_device_placement;
    dispatch(this.#model, this.map, {
      main: this.main,
      sources: undefined,
      room: this.#room(),
      offload_buffers: this.#offloadBuffers,
      skip_keys: declared ?? "past_key_values",
    });
  }

  /** Bytes that the limits leave on the main device beside what stays there. */
  #room(): number | undefined {
    const limits = this.#limits;
    const limit = limits && parseBudget(limits)[this.main];
    if (limit === undefined) return undefined;
    const stays = new Set<Tensor>();
    for (const [name, tensor] of namesIn(this.#model))
      if (this.placeOf(name) === this.main) stays.add(tensor);
    return limit - [...stays].reduce((sum, { nbytes }) => sum + nbytes, 0);
  }
}

const namesIn = (model: PreTrainedModel): [string, Tensor][] => [
  ...model.named_parameters({ remove_duplicate: false }),
  ...model.named_buffers({ remove_duplicate: false }),
];

/** A view of a file's tensor as a source: mapped, and cast at each use if need be. */
async function fileView(part: WeightPart<Entry>, dtype: Dtype): Promise<WeightSource> {
  const { source, view } = part;
  const isWhole = view.offset === 0 && String(view.sizes) === String(source.shape) && part.is_contiguous;
  const viewed = (stored: Tensor) =>
    isWhole ? stored : stored.as_strided(view.sizes, view.strides, view.offset);
  const isAligned = source.file.is_aligned(source.name);
  if (isAligned) {
    const stored = torch.no_grad(() => torch.keep(viewed(source.file.get_tensor(source.name))));
    if (stored.dtype === dtype && part.is_contiguous) return sourceOf(stored);
    return { tensor: undefined, read: () => torch.no_grad(() => stored.to({ dtype }).contiguous()) };
  }
  // It has to be copied out of the file at each use, so the file stays open.
  const file = await safe_open(source.file.path);
  return {
    tensor: undefined,
    read: () =>
      torch.no_grad(() => torch.tidy(() => viewed(file.get_tensor(source.name)).to({ dtype }).contiguous())),
  };
}
