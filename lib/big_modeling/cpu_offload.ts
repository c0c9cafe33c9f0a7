// Whole models that rest on the CPU or the disk: weight by weight, or all of it until somebody needs the room.
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { AlignDevicesHook, attach_align_device_hook } from "./align_devices.ts";
import { type Place, placeName } from "./devices.ts";
import { add_hook_to_module, ModelHook, remove_hook_from_module } from "./hooks.ts";
import { hasOffloadIndex, offload_state_dict } from "./offload_folder.ts";
import { executionDevice } from "./placement.ts";
import { homeOf, settle } from "./residence.ts";
import { sendTo } from "./send_to_device.ts";
import { mapOf, OffloadedWeightsLoader } from "./weights_map.ts";

type Names = string | Iterable<string> | null;

/** Moves a module's weights for good. */
function moveTo(module: Module, place: string): void {
  for (const [name, tensor] of [...module.named_parameters(), ...module.named_buffers()])
    settle(tensor, place, name);
}

/** Where a module is: of its first parameter. */
function placeOfModule(module: Module): string {
  for (const parameter of module.parameters()) return homeOf(parameter);
  return "cpu";
}

/**
 * Keeps a whole module on the CPU until its forward; it stays on the execution device afterwards, until `init_hook` is called again.
 */
export class CpuOffload extends ModelHook {
  readonly execution_device: string;
  readonly prev_module_hook: UserCpuOffloadHook | undefined;

  /** @param options.execution_device default: the first CUDA device, else the CPU. */
  constructor(
    options: {
      execution_device?: Place | null | undefined;
      prev_module_hook?: UserCpuOffloadHook | null | undefined;
    } = {},
  ) {
    super();
    const { execution_device, prev_module_hook } = bind("CpuOffload", [options], {
      execution_device: undefined as Place | null | undefined,
      prev_module_hook: undefined as UserCpuOffloadHook | null | undefined,
    });
    this.execution_device = placeName(
      execution_device ?? (torch.cuda.is_available() ? 0 : "cpu"),
      "execution_device",
    );
    this.prev_module_hook = prev_module_hook ?? undefined;
  }

  override init_hook<M extends Module>(module: M): M {
    moveTo(module, "cpu");
    return module;
  }

  override pre_forward(module: Module, ...args: unknown[]): readonly unknown[] {
    const previous = this.prev_module_hook;
    if (previous !== undefined && placeOfModule(previous.model) !== "cpu") previous.offload();
    if (placeOfModule(module) !== this.execution_device) moveTo(module, this.execution_device);
    return sendTo(args, executionDevice(this.execution_device));
  }
}

/** A model with its `CpuOffload`: what `cpu_offload_with_hook` gives. */
export class UserCpuOffloadHook {
  readonly model: Module;
  readonly hook: ModelHook;

  constructor(model: Module, hook: ModelHook) {
    this.model = model;
    this.hook = hook;
  }

  /** Brings the model back to the CPU. */
  offload(): void {
    this.hook.init_hook(this.model);
  }

  /** Takes the hook away; the model stays where it is. */
  remove(): void {
    remove_hook_from_module(this.model);
  }
}

export interface OffloadOptions {
  /** Where forwards run. Default: where the first parameter is. */
  readonly execution_device?: Place | null | undefined;
  readonly offload_buffers?: boolean | undefined;
  readonly preload_module_classes?: Names | undefined;
}

const DEFAULTS = {
  execution_device: undefined as Place | null | undefined,
  offload_buffers: false,
  preload_module_classes: undefined as Names | undefined,
};

/**
 * Keeps all weights of a model on the CPU, and brings those of each module to the execution device for its forward.
 *
 * @param options.state_dict the values. Default: the model's own.
 * @example cpu_offload(model, { execution_device: "cuda:0" });
 */
export function cpu_offload<M extends Module>(
  model: M,
  options: OffloadOptions & { state_dict?: Readonly<Record<string, Tensor>> | undefined } = {},
): M {
  const { execution_device, state_dict, ...rest } = bind("cpu_offload", [options], {
    ...DEFAULTS,
    state_dict: undefined as Readonly<Record<string, Tensor>> | undefined,
  });
  const device = execution_device ?? placeOfModule(model);
  const values = state_dict ?? onCpu(model.state_dict());
  add_hook_to_module(model, new AlignDevicesHook({ io_same_device: true }), true);
  attach_align_device_hook(model, {
    ...rest,
    execution_device: device,
    offload: true,
    weights_map: mapOf(values),
  });
  return model;
}

const onCpu = (state: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
  torch.no_grad(() =>
    Object.fromEntries(
      Object.entries(state).map(([name, tensor]) => [
        name,
        torch.keep(tensor.device === "cpu" ? tensor.detach() : tensor.to({ device: "cpu" })),
      ]),
    ),
  );

/**
 * Keeps a whole model on the CPU until its forward, and then on the execution device until the hook's `offload()`, or until the
 * forward of a model that was given this hook as `prev_module_hook`.
 *
 * @example
 * const [first, hook] = cpu_offload_with_hook(encoder, { execution_device: 0 });
 * const [second] = cpu_offload_with_hook(decoder, { execution_device: 0, prev_module_hook: hook });
 */
export function cpu_offload_with_hook<M extends Module>(
  model: M,
  options: {
    execution_device?: Place | null | undefined;
    prev_module_hook?: UserCpuOffloadHook | null | undefined;
  } = {},
): [model: M, hook: UserCpuOffloadHook] {
  const hook = new CpuOffload(options);
  add_hook_to_module(model, hook, true);
  return [model, new UserCpuOffloadHook(model, hook)];
}

/**
 * Keeps all weights of a model in files of a folder, and brings those of each module to the execution device for its forward.
 *
 * @param offload_dir the folder; one that has an index.json already is used as it is.
 * @throws FileError when the folder cannot be written.
 * @example await disk_offload(model, "./offload", { execution_device: "cuda:0" });
 */
export async function disk_offload<M extends Module>(
  model: M,
  offload_dir: string,
  options: OffloadOptions = {},
): Promise<M> {
  const { execution_device, ...rest } = bind("disk_offload", [options], DEFAULTS);
  if (!(await hasOffloadIndex(offload_dir))) await offload_state_dict(offload_dir, model.state_dict());
  const weights_map = await OffloadedWeightsLoader.open({ save_folder: offload_dir });
  const device = execution_device ?? placeOfModule(model);
  add_hook_to_module(model, new AlignDevicesHook({ io_same_device: true }), true);
  attach_align_device_hook(model, { ...rest, execution_device: device, offload: true, weights_map });
  return model;
}
