// Which calls are big enough for the executor's team of threads.
#pragma once

#include <ATen/core/stack.h>

#include <cstdint>

#include "native/op/registry.h"

namespace tf {

// No call is handed over whose tensors' numbers of elements have a smaller product than this.
inline constexpr int64_t kHandOverElements = 262144;

// True when the call would make at::parallel_for use more than one thread, as far as the arguments
// tell. Only CPU work: other devices have their own streams, and views compute nothing.
bool WorthHandingOver(const OpPlan& plan, const torch::jit::Stack& stack);

}  // namespace tf
