// JavaScript arguments to an operator's stack, by its schema. The only code that decides what a JS
// value means to torch.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <node_api.h>

#include "native/op/registry.h"

namespace tf {

class Environment;

// Pushes one IValue per argument of the schema. `undefined` and missing ones take the schema's
// default. How values cross:
//   Tensor      a handle; null, or 0 where the schema allows none
//   Scalar      a whole number within ±(2^53 - 1) is an integer; any other number (NaN, infinities,
//   -0, 1e300) a float; a
//               boolean; a bigint is an int64; [x] is x as a float, whole or not; [re, im] is
//               complex
//   int, SymInt a whole number or a bigint; int[2] also takes one number for both
//   dtype, layout, memory format, device: torch's names;  Generator: its handle
void Unpack(Environment& environment,
            const OpPlan& plan,
            const napi_value* values,
            size_t count,
            torch::jit::Stack& stack);

// What a JavaScript number is to torch: an integer when it is whole (and not -0), else a float.
bool IsWhole(double number);
at::Scalar NumberScalar(double number);
// The number as a tensor without dimensions, which yields to the dtypes of the tensors beside it.
at::Tensor NumberTensor(const at::Scalar& number);

// "self: float32[2, 3], other: float32[4]": the tensors among the arguments, for error messages.
std::string DescribeTensors(Environment& environment,
                            const OpPlan& plan,
                            const napi_value* values,
                            size_t count);

}  // namespace tf
