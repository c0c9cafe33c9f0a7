// The default generators.
import { addon } from "../addon/loader.ts";
import { Generator } from "./generator.ts";
import type { Tensor } from "./tensor.ts";

export { Generator };

const defaultGenerator = (device: string) => new Generator(device, addon().defaultGenerator(device));

/**
 * Seeds the default generators of all devices; the CPU then gives Python torch's numbers. Returns the CPU's.
 *
 * @example
 * torch.manual_seed(0);
 * torch.rand(2); // tensor([0.4963, 0.7682])
 */
export function manual_seed(seed: number | bigint): Generator {
  addon().manualSeed(BigInt(seed));
  return defaultGenerator("cpu");
}

/** Seeds from the system's randomness; returns the seed. */
export function seed(): bigint {
  const value = defaultGenerator("cpu").seed();
  addon().manualSeed(value);
  return value;
}

/** The seed that the CPU's default generator started from. */
export const initial_seed = (): bigint => defaultGenerator("cpu").initial_seed();

/** The state of the CPU's default generator, for `set_rng_state`. */
export const get_rng_state = (): Tensor => defaultGenerator("cpu").get_state();

/** Puts back what `get_rng_state` had given. */
export const set_rng_state = (state: Tensor): void => {
  defaultGenerator("cpu").set_state(state);
};

/** The CPU's default generator. */
export const default_generator = (): Generator => defaultGenerator("cpu");
