// torch: what `torch.` offers.
import "./conversion.ts";
import { methods } from "./fast.generated.ts";
import { METHODS } from "./methods.generated.ts";
import { method } from "./resolve.ts";
import { extendTensor } from "./tensor.ts";

extendTensor(
  Object.fromEntries(
    METHODS.trim()
      .split(/\s+/)
      .map((name) => [name, method(name)]),
  ),
);
extendTensor(methods);

export * as autograd from "./autograd.ts";
// gradients
export {
  type AutocastOptions,
  autocast,
  type BackwardOptions,
  enable_grad,
  type GradOptions,
  inference_mode,
  is_autocast_enabled,
  is_grad_enabled,
  is_inference_mode_enabled,
  no_grad,
  set_grad_enabled,
} from "./autograd.ts";
export * as cuda from "./cuda.ts";
// tensors
export {
  as_tensor,
  asarray,
  type FromBufferOptions,
  from_buffer,
  from_shared,
  type TensorFromOptions,
  type TensorInput,
  tensor,
} from "./data.ts";
export * from "./defaults.ts";
// dtypes
export {
  bfloat16,
  bool,
  cdouble,
  cfloat,
  chalf,
  complex32,
  complex64,
  complex128,
  double,
  type FloatInfo,
  finfo,
  float8_e4m3fn,
  float8_e4m3fnuz,
  float8_e5m2,
  float8_e5m2fnuz,
  float8_e8m0fnu,
  float16,
  float32,
  float64,
  half,
  type IntegerInfo,
  iinfo,
  int,
  int8,
  int16,
  int32,
  int64,
  long,
  short,
  uint8,
  uint16,
  uint32,
  uint64,
} from "./dtype.ts";
export * as fft from "./fft.generated.ts";
export * from "./functional.ts";
// operators
export * from "./functions.generated.ts";
export { type Index, Slice, slice } from "./indexing.ts";
export { type LimitedDeviceOptions, limited_devices } from "./limited_devices.ts";
export * as linalg from "./linalg.generated.ts";
/** What torch.nn.functional is built on. */
export * as _nn from "./nn.generated.ts";
export { type OpOverload, type OpPacket, ops } from "./ops.ts";
export { get_printoptions, type PrintOptions, set_printoptions } from "./print.ts";
// random numbers, devices, printing
export * from "./random.ts";
export { is_tensor, keep, tidy } from "./scope.ts";
export * as special from "./special.generated.ts";
export { Tensor } from "./tensor.ts";
export * from "./types.ts";
export * as utils from "./utils.ts";
