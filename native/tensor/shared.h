// Tensors on their way from one environment of the process to another.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tf {

// Process-wide and thread-safe. A token keeps its tensor alive until it is claimed, also beyond the
// environment that made it: a worker may post its result and end.
class SharedTensors {
 public:
  // A token for one claim. What is handed over shares the values and has no autograd history.
  static uint64_t Offer(const at::Tensor& tensor);
  // Throws ERR_INVALID_ARGUMENT when the token was never made, or is claimed already.
  static at::Tensor Claim(uint64_t token);
};

}  // namespace tf
