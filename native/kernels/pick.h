// What the operators on rows share: the kernels for this processor, checks, addresses.
#pragma once

#include <ATen/ATen.h>

#include <initializer_list>

#include "native/kernels/matvec.h"
#include "native/kernels/rows.h"
#include "native/kernels/tiles.h"

namespace tf {

// For tensors of fp32 or bf16.
const rows::Kernel& RowKernelFor(const at::Tensor& tensor);
const matvec::Kernel& MatvecKernelFor(const at::Tensor& tensor);
const tiles::Kernel& TileKernelFor(const at::Tensor& tensor);

// Throws unless all are fp32, or all are bf16.
void CheckRowType(const char* name,
                  const at::Tensor& tensor,
                  std::initializer_list<const at::Tensor*> others);

inline const char* ElementAt(const at::Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.const_data_ptr()) + element * tensor.element_size();
}
inline char* MutableElementAt(const at::Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.mutable_data_ptr()) + element * tensor.element_size();
}

}  // namespace tf
