// Native code throws a code and a text; this makes the JS error of the right class.

import * as errors from "../errors/index.ts";

type ErrorClass = new (
  message: string,
  options?: errors.TorchformersErrorOptions,
) => errors.TorchformersError;

/** The codes that native code uses. Any other makes a plain TorchformersError with that code. */
const classes: Readonly<Record<string, ErrorClass>> = {
  ERR_CUDA_UNAVAILABLE: errors.CudaUnavailableError,
  ERR_OUT_OF_MEMORY: errors.OutOfMemoryError,
  ERR_SHAPE: errors.ShapeError,
  ERR_DTYPE: errors.DtypeError,
  ERR_OP: errors.OpError,
  ERR_TRACE: errors.TraceError,
  ERR_TENSOR_BUSY: errors.TensorBusyError,
  ERR_DISPOSED: errors.DisposedError,
  ERR_INVALID_ARGUMENT: errors.InvalidArgumentError,
  ERR_SAFETENSORS_FORMAT: errors.SafetensorsFormatError,
  ERR_ENTRY_NOT_FOUND: errors.EntryNotFoundError,
  ERR_FILE: errors.FileError,
};

export function makeError(code: string, message: string, hint: string | null): Error {
  const options = hint === null ? {} : { hint };
  const Class = Object.hasOwn(classes, code) ? classes[code] : undefined;
  return Class ? new Class(message, options) : new errors.TorchformersError(code, message, options);
}
