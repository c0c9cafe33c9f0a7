// An operator's results to JavaScript.
#pragma once

#include <ATen/core/stack.h>
#include <node_api.h>

#include "native/op/registry.h"

namespace tf {

class Environment;

// undefined for nothing and for arguments that were written and returned; one value; or an array. A
// single tensor is given to `owner` when there is one, other tensors wait for `adopt`.
napi_value Pack(Environment& environment,
                const OpPlan& plan,
                torch::jit::Stack& stack,
                napi_value owner);

// A tensor's handle; null for one that is not defined. `owner` may also be null, or JavaScript's
// null.
napi_value FromTensor(Environment& environment, at::Tensor tensor, napi_value owner);

// The single value of a tensor or a Scalar: number, bigint beyond 2^53, boolean, or [re, im].
napi_value FromScalar(napi_env env, const at::Scalar& scalar);

}  // namespace tf
