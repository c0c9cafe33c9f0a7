// A look at the graph behind tensors, before the engine runs over it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace tf {

// Whether all gradients on the way are small and on the CPU, so that a team of threads would not
// help the engine. Stops looking at the first that is not.
bool IsSmallGraph(const std::vector<at::Tensor>& roots);

// The leaves whose gradients the engine would accumulate.
std::vector<at::Tensor> LeavesOf(const std::vector<at::Tensor>& roots);

}  // namespace tf
