// Meta kernels of reductions and scans.
#include <ATen/WrapDimUtils.h>

#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

Tensor Prod(const Tensor& self, std::optional<ScalarType> dtype) {
  return Empty({}, self, dtype.value_or(SumType(self.scalar_type())));
}

Tensor Nansum(const Tensor& self,
              at::OptionalIntArrayRef dims,
              bool keepdim,
              std::optional<ScalarType> dtype) {
  TORCH_CHECK(!self.is_complex(), "nansum does not support complex inputs");
  return Empty(
      ReducedSizes(self, dims, keepdim), self, dtype.value_or(SumType(self.scalar_type())));
}

Tensor WholeSum(const Tensor& self) { return Empty({}, self, SumType(self.scalar_type())); }
Tensor WholeMedian(const Tensor& self) { return Empty({}, self); }

Tensor WholeExtremum(const Tensor& self) {
  TORCH_CHECK(self.numel() > 0, "Expected reduction dim to be specified for input.numel() == 0.");
  return Empty({}, self);
}

std::tuple<Tensor, Tensor> Aminmax(const Tensor& self) {
  return {WholeExtremum(self), WholeExtremum(self)};
}

Tensor Variance(const Tensor& self,
                at::OptionalIntArrayRef dims,
                const std::optional<at::Scalar>&,
                bool keepdim) {
  TORCH_CHECK(at::isFloatingType(self.scalar_type()) || self.is_complex(),
              "std and var only support floating point and complex dtypes");
  return Empty(ReducedSizes(self, dims, keepdim), self, c10::toRealValueType(self.scalar_type()));
}

std::tuple<Tensor, Tensor> VarianceAndMean(const Tensor& self,
                                           at::OptionalIntArrayRef dims,
                                           const std::optional<at::Scalar>& correction,
                                           bool keepdim) {
  return {Variance(self, dims, correction, keepdim),
          Empty(ReducedSizes(self, dims, keepdim), self)};
}

Tensor CountNonzero(const Tensor& self, IntArrayRef dims) {
  return Empty(ReducedSizes(self, dims, /*keepdim=*/false), self, at::kLong);
}

// Sizes after one dimension is reduced to the element of some rank, which must exist.
std::vector<int64_t> RankSizes(const Tensor& self, int64_t dim, bool keepdim, const char* name) {
  auto sizes = ReducedSizes(self, IntArrayRef{dim}, keepdim);
  TORCH_CHECK_INDEX(self.dim() == 0 || self.size(dim) > 0,
                    name,
                    "(): Expected reduction dim ",
                    dim,
                    " to have non-zero size.");
  return sizes;
}

std::tuple<Tensor, Tensor> Mode(const Tensor& self, int64_t dim, bool keepdim) {
  const auto sizes = RankSizes(self, dim, keepdim, "mode");
  return {Empty(sizes, self), Empty(sizes, self, at::kLong)};
}

std::tuple<Tensor&, Tensor&> KthvalueOut(
    const Tensor& self, int64_t k, int64_t dim, bool keepdim, Tensor& values, Tensor& indices) {
  const int64_t length = self.dim() == 0 ? 1 : self.size(dim);
  TORCH_CHECK(
      k >= 1 && k <= length, "kthvalue(): selected number k out of range for dimension ", dim);
  const auto sizes = ReducedSizes(self, IntArrayRef{dim}, keepdim);
  return {Resize(values, sizes), Resize(indices, sizes)};
}

std::tuple<Tensor&, Tensor&> MedianOut(
    const Tensor& self, int64_t dim, bool keepdim, Tensor& values, Tensor& indices) {
  const auto sizes = RankSizes(self, dim, keepdim, "median");
  return {Resize(values, sizes), Resize(indices, sizes)};
}

// The caller made both results as large as `self`.
void CumulativeExtremum(const Tensor&, Tensor&, Tensor&, int64_t) {}

Tensor LogCumSumExp(const Tensor& self, int64_t dim) {
  at::maybe_wrap_dim(dim, self.dim());
  return at::empty_like(self, self.options(), at::MemoryFormat::Contiguous);
}

Tensor Dot(const Tensor& self, const Tensor& other) {
  TORCH_CHECK(self.dim() == 1 && other.dim() == 1,
              "1D tensors expected, but got ",
              self.dim(),
              "D and ",
              other.dim(),
              "D tensors");
  TORCH_CHECK(self.scalar_type() == other.scalar_type(),
              "dot : expected both vectors to have same dtype, but found ",
              self.scalar_type(),
              " and ",
              other.scalar_type());
  TORCH_CHECK(self.numel() == other.numel(),
              "inconsistent tensor size, expected tensor [",
              self.numel(),
              "] and src [",
              other.numel(),
              "] to have the same number of elements");
  return Empty({}, self);
}

Tensor Trace(const Tensor& self) {
  TORCH_CHECK(self.dim() == 2, "trace: expected a matrix, but got tensor with dim ", self.dim());
  return WholeSum(self);
}

Tensor Histc(const Tensor& self, int64_t bins, const at::Scalar&, const at::Scalar&) {
  TORCH_CHECK(bins > 0, "bins must be > 0, but got ", bins);
  return Empty({bins}, self);
}

std::tuple<Tensor, Tensor> Histogram(const Tensor& self,
                                     int64_t bins,
                                     std::optional<at::ArrayRef<double>>,
                                     const std::optional<Tensor>&,
                                     bool) {
  return {Empty({bins}, self), Empty({bins + 1}, self)};
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("prod", Prod);
  m.impl("nansum", Nansum);
  m.impl("median", WholeMedian);
  m.impl("nanmedian", WholeMedian);
  m.impl("median.dim_values", MedianOut);
  m.impl("nanmedian.dim_values", MedianOut);
  m.impl("kthvalue.values", KthvalueOut);
  m.impl("mode", Mode);
  m.impl("max", WholeExtremum);
  m.impl("min", WholeExtremum);
  m.impl("_aminmax", Aminmax);
  m.impl("var.correction", Variance);
  m.impl("std.correction", Variance);
  m.impl("var_mean.correction", VarianceAndMean);
  m.impl("std_mean.correction", VarianceAndMean);
  m.impl("count_nonzero.dim_IntList", CountNonzero);
  m.impl("_cummax_helper", CumulativeExtremum);
  m.impl("_cummin_helper", CumulativeExtremum);
  m.impl("_logcumsumexp", LogCumSumExp);
  m.impl("dot", Dot);
  m.impl("vdot", Dot);
  m.impl("trace", Trace);
  m.impl("histc", Histc);
  m.impl("histogram.bin_ct", Histogram);
}

}  // namespace
}  // namespace tf::meta
