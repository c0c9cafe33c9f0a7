// The product of many rows, for `linear_group`: panels of the weights are packed while they are
// read, so that nothing is kept of them, and all weights share one parallel region.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

namespace tf {

// One weight [n, k], rows of elements side by side; bias [n] or none; output [rows, n], dense.
struct RowsProduct {
  at::Tensor weight;
  std::optional<at::Tensor> bias;
  at::Tensor output;
};

// Whether this processor has a kernel that beats ATen's linear for so many rows of this input.
bool WorthMultiplyingRows(const at::Tensor& input, int64_t rows);

// input [rows, k], dense.
void MultiplyRows(const at::Tensor& input, int64_t rows, const std::vector<RowsProduct>& products);

}  // namespace tf
