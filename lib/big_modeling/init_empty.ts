// Models without memory, or built where they will stay.
import { withParameterDevice } from "../nn/parameter.ts";
import type { Device } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

export interface InitOptions {
  /** Buffers too, and every other tensor that is made without a device. Default false. */
  readonly include_buffers?: boolean | undefined;
}

/**
 * Builds a model whose parameters hold no memory: they are on the meta device.
 *
 * @example
 * const model = init_empty_weights(() => new LlamaForCausalLM(config));
 */
export const init_empty_weights = <T>(build: () => T, options: InitOptions = {}): T =>
  init_on_device("meta", build, options);

/** Builds a model whose parameters are on a device. */
export function init_on_device<T>(
  device: Device,
  build: () => T,
  { include_buffers = false }: InitOptions = {},
): T {
  if (!include_buffers) return withParameterDevice(device, build);
  const before = torch.get_default_device();
  torch.set_default_device(device);
  try {
    return build();
  } finally {
    torch.set_default_device(before);
  }
}
