// Values that are computed once, while a function is recorded.
import { addon } from "../addon/loader.ts";

/**
 * Computes tensors while a function is recorded; they become constants of the Program. Outside of a recording it is a plain
 * call. The callback must not use tensors of the recording.
 *
 * @example
 * const mask = constant(() => torch.isin(torch.arange(size), banned));
 */
export function constant<T>(make: () => T): T {
  const native = addon();
  native.suspendRecording(true);
  try {
    return make();
  } finally {
    native.suspendRecording(false);
  }
}
