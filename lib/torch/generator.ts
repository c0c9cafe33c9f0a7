// Random generators.
import { addon } from "../addon/loader.ts";
import { Tensor } from "./tensor.ts";

/**
 * A source of random numbers of its own, for `{ generator }` options.
 *
 * @example
 * const generator = new torch.Generator().manual_seed(0);
 * torch.randn(3, { generator }); // the numbers of Python torch
 */
export class Generator {
  readonly _handle: number;

  /** @param device default `"cpu"` */
  constructor(device?: string, handle?: number) {
    this._handle = handle ?? addon().newGenerator(this, device ?? "cpu");
  }

  get device(): string {
    return addon().generatorDevice(this._handle);
  }

  /** Seeds, and returns the generator itself. */
  manual_seed(seed: number | bigint): this {
    addon().generatorSeed(this._handle, BigInt(seed));
    return this;
  }

  initial_seed(): bigint {
    return addon().generatorInitialSeed(this._handle);
  }

  /** Seeds from the system's randomness; returns the seed. */
  seed(): bigint {
    const seed = crypto.getRandomValues(new BigUint64Array(1))[0] as bigint;
    addon().generatorSeed(this._handle, seed);
    return seed;
  }

  get_state(): Tensor {
    const state = new Tensor();
    state._handle = addon().generatorGetState(state, this._handle);
    return state;
  }

  set_state(state: Tensor): this {
    addon().generatorSetState(this._handle, state._handle);
    return this;
  }
}
