// What becomes of tensors whose file shrank: see mapping.h. The checks cost one load while nothing
// has happened.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <vector>

#include "native/io/mapping.h"

namespace tf::io {

// Throws MappingFault when the tensor lies in a mapping that has failed.
inline void CheckMapped(const at::Tensor& tensor) {
  if (detail::failed_mappings.load(std::memory_order_relaxed) == 0) [[likely]]
    return;
  if (tensor.defined() && tensor.has_storage()) CheckMapped(tensor.storage().data());
}

// The same for all arguments of an operator.
inline void CheckMapped(const std::vector<c10::IValue>& arguments) {
  if (detail::failed_mappings.load(std::memory_order_relaxed) == 0) [[likely]]
    return;
  for (const c10::IValue& argument : arguments) {
    if (argument.isTensor()) CheckMapped(argument.toTensor());
    if (argument.isTensorList()) {
      for (const at::Tensor& tensor : argument.toTensorVector()) CheckMapped(tensor);
    }
  }
}

}  // namespace tf::io
