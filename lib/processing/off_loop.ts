// Work on tensors that would hold the event loop, taken off it.

import { compile } from "../compile/compile.ts";
import { TraceError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { no_grad, type Tensor } from "../torch/index.ts";

/** Below this many elements, about a millisecond of work, recording costs more than it saves. */
const LARGE = 1 << 19;

/**
 * Runs a synchronous function of some tensors without gradients: where these are large and on the CPU as a Program on the
 * executor's thread, which is recorded for this one call, else in place. What cannot be recorded, because it looks at values,
 * runs in place, with one warning.
 *
 * @param name of what works, for the warning.
 */
export async function offLoop<T>(
  name: string,
  inputs: readonly Tensor[],
  work: () => T,
  signal?: AbortSignal | undefined,
): Promise<T> {
  const onCpu = inputs.filter(({ device }) => device === "cpu");
  const elements = onCpu.reduce((sum, tensor) => sum + tensor.numel(), 0);
  const run = (): T => no_grad(work);
  if (elements < LARGE) return run();
  try {
    return await compile(run, { passes: false }).run([], { signal });
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    warnOnce(`${name} works on the event loop: ${error.message}`);
    return run();
  }
}
