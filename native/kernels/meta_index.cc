// Meta kernels of operators that pick, move and look up elements.
#include <ATen/WrapDimUtilsMulti.h>

#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

bool IsIndex(const Tensor& index) {
  return index.scalar_type() == at::kLong || index.scalar_type() == at::kInt;
}

Tensor IndexSelect(const Tensor& self, int64_t dim, const Tensor& index) {
  TORCH_CHECK_INDEX(index.dim() <= 1, "index_select(): Index is supposed to be a vector");
  TORCH_CHECK(IsIndex(index), "index_select(): Expected dtype int32 or int64 for index");
  dim = at::maybe_wrap_dim(dim, self.dim());
  auto sizes = self.sizes().vec();
  if (sizes.empty()) {
    TORCH_CHECK_INDEX(index.numel() == 1,
                      "index_select(): Index to scalar can have only 1 value, got ",
                      index.numel(),
                      " value(s)");
  } else {
    TORCH_CHECK_INDEX(self.size(dim) > 0 || index.numel() == 0,
                      "index_select(): self indexing axis dim should be positive");
    sizes[dim] = index.numel();
  }
  return Empty(sizes, self);
}

Tensor Take(const Tensor& self, const Tensor& index) {
  TORCH_CHECK(index.scalar_type() == at::kLong,
              "take(): Expected a long tensor for index, but got ",
              index.scalar_type());
  TORCH_CHECK_INDEX(self.numel() > 0 || index.numel() == 0,
                    "take(): tried to take from an empty tensor");
  return Empty(index.sizes(), self);
}

Tensor Flip(const Tensor& self, IntArrayRef dims) {
  at::dim_list_to_bitset(dims, self.dim());
  return at::empty_like(self, at::MemoryFormat::Preserve);
}

// The CPU kernel rolls several dimensions one after the other, and all elements as one row when
// none is named.
Tensor Roll(const Tensor& self, IntArrayRef shifts, IntArrayRef dims) {
  TORCH_CHECK(!shifts.empty(), "`shifts` required");
  if (dims.empty() && shifts.size() == 1) {
    return Roll(self.contiguous().view(-1), shifts, {0}).view(self.sizes());
  }
  TORCH_CHECK(shifts.size() == dims.size(),
              "shifts and dimensions must align. shifts: ",
              shifts.size(),
              ", dims:",
              dims.size());
  if (dims.size() > 1) {
    return Roll(Roll(self, shifts[0], dims[0]), shifts.slice(1), dims.slice(1));
  }
  if (self.numel() == 0) return self.clone(at::MemoryFormat::Preserve);
  const int64_t size = self.size(dims[0]);
  int64_t start = (size - shifts[0]) % size;
  if (start < 0) start += size;
  return at::cat({self.narrow(dims[0], start, size - start), self.narrow(dims[0], 0, start)},
                 dims[0]);
}

Tensor NonzeroStatic(const Tensor& self, int64_t size, int64_t) {
  TORCH_CHECK(size >= 0, "nonzero_static: 'size' must be an non-negative integer");
  return Empty({size, self.dim()}, self, at::kLong);
}

Tensor RepeatInterleave(const Tensor& repeats, std::optional<int64_t> output_size) {
  TORCH_CHECK(output_size.has_value(),
              "repeat_interleave: the length of the result depends on data, which a meta tensor "
              "does not have; "
              "pass output_size");
  TORCH_CHECK(repeats.dim() == 1, "repeat_interleave only accept 1D vector as repeat");
  return Empty({*output_size}, repeats);
}

ScalarType FoundType(bool int32) { return int32 ? at::kInt : at::kLong; }

Tensor SearchSorted(const Tensor& sequence,
                    const Tensor& values,
                    bool int32,
                    bool,
                    std::optional<c10::string_view>,
                    const std::optional<Tensor>&) {
  return Empty(values.sizes(), sequence, FoundType(int32));
}

Tensor SearchSortedScalar(const Tensor& sequence,
                          const at::Scalar&,
                          bool int32,
                          bool,
                          std::optional<c10::string_view>,
                          const std::optional<Tensor>&) {
  return Empty({}, sequence, FoundType(int32));
}

Tensor Bucketize(const Tensor& self, const Tensor& boundaries, bool int32, bool) {
  TORCH_CHECK(boundaries.dim() == 1,
              "boundaries tensor must be 1 dimension, but got dim(",
              boundaries.dim(),
              ")");
  return Empty(self.sizes(), boundaries, FoundType(int32));
}

Tensor BucketizeScalar(const at::Scalar&, const Tensor& boundaries, bool int32, bool) {
  return Empty({}, boundaries, FoundType(int32));
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("index_select", IndexSelect);
  m.impl("take", Take);
  m.impl("flip", Flip);
  m.impl("roll", Roll);
  m.impl("nonzero_static", NonzeroStatic);
  m.impl("repeat_interleave.Tensor", RepeatInterleave);
  m.impl("searchsorted.Tensor", SearchSorted);
  m.impl("searchsorted.Scalar", SearchSortedScalar);
  m.impl("bucketize.Tensor", Bucketize);
  m.impl("bucketize.Scalar", BucketizeScalar);
}

}  // namespace
}  // namespace tf::meta
