// Autocast on fakes.
#pragma once

#include <ATen/core/stack.h>
#include <c10/core/Device.h>

#include "native/op/registry.h"

namespace tf {

// Autocast looks at the device of its tensors, so on fakes it would do nothing: casts the arguments
// as it will on `device`. For operators that are composed of others, only the whole is looked at.
void CastAsAutocastWill(const OpPlan& op, c10::Device device, torch::jit::Stack& stack);

}  // namespace tf
