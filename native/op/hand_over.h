// Which calls are big enough for the executor's team of threads.
#pragma once

#include <ATen/core/stack.h>

#include "native/op/registry.h"

namespace tf {

// True when the call would make at::parallel_for use more than one thread, as far as the arguments
// tell. Only CPU work: other devices have their own streams, and views compute nothing.
bool WorthHandingOver(const OpPlan& plan, const torch::jit::Stack& stack);

}  // namespace tf
