// What the Meta kernels share. A Meta kernel answers with the shape, strides and dtype that the CPU
// kernel would give, and computes nothing. libtorch leaves many of them to Python; the files beside
// this one register those, by family, so that models can be made without memory and programs traced
// without computing.
#pragma once

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace tf::meta {

using at::IntArrayRef;
using at::ScalarType;
using at::Tensor;

// A dense meta tensor of that shape; dtype and device as `like`.
inline Tensor Empty(IntArrayRef sizes,
                    const Tensor& like,
                    std::optional<ScalarType> dtype = std::nullopt,
                    at::MemoryFormat format = at::MemoryFormat::Contiguous) {
  return at::empty(sizes, like.options().dtype(dtype.value_or(like.scalar_type())), format);
}

// Gives a caller's `out` its shape; returns it.
inline Tensor& Resize(Tensor& out, IntArrayRef sizes) {
  if (out.sizes() != sizes) out.resize_(sizes);
  return out;
}

// The dtype in which sums of `type` are kept: whole numbers grow to 64 bits.
inline ScalarType SumType(ScalarType type) {
  return at::isIntegralType(type, /*includeBool=*/true) ? at::kLong : type;
}

// What losses take as `reduction`.
enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// Sizes after a reduction over `dims`; all of them when there are none.
inline std::vector<int64_t> ReducedSizes(const Tensor& self,
                                         at::OptionalIntArrayRef dims,
                                         bool keepdim) {
  const bool all = !dims.has_value() || dims->empty();
  std::vector<bool> reduced(self.dim(), all);
  std::vector<bool> seen(std::max<int64_t>(self.dim(), 1), false);
  if (!all) {
    for (const int64_t dim : *dims) {
      const int64_t d = at::maybe_wrap_dim(dim, self.dim());
      TORCH_CHECK(!seen[d], "dim ", d, " appears multiple times in the list of dims");
      seen[d] = true;
      if (self.dim() > 0) reduced[d] = true;
    }
  }
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (!reduced[d]) {
      sizes.push_back(self.size(d));
    } else if (keepdim) {
      sizes.push_back(1);
    }
  }
  return sizes;
}

}  // namespace tf::meta
