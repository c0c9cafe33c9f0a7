// CPU tensors over memory of a device that is host memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>

namespace tf {

// A tensor like `like` over bytes that `owner` keeps; counted as a device's memory.
at::Tensor OverMemory(std::byte* at, const at::Tensor& like, std::shared_ptr<void> owner);

}  // namespace tf
