// Meta kernels of Fourier transforms. Strides are those of the CPU kernels on MKL, which run over
// the batch in the order in which it lies in memory and leave the result so.
#include <algorithm>

#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// The result of one transform over `dims` (in the order in which they are done): batch dimensions
// first, those with the largest strides outermost, then the transformed ones, dense.
Tensor Transformed(const Tensor& input, IntArrayRef sizes, IntArrayRef dims, ScalarType dtype) {
  const int64_t rank = input.dim();
  std::vector<bool> transformed(rank, false);
  for (const int64_t dim : dims) transformed[dim] = true;
  std::vector<int64_t> order;
  for (int64_t d = 0; d < rank; ++d) {
    if (!transformed[d]) order.push_back(d);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return input.stride(a) > input.stride(b);
  });
  order.insert(order.end(), dims.begin(), dims.end());

  std::vector<int64_t> strides(rank);
  int64_t stride = 1;
  for (int64_t i = rank - 1; i >= 0; --i) {
    strides[order[i]] = stride;
    stride *= sizes[order[i]];
  }
  return at::empty_strided(sizes, strides, input.options().dtype(dtype));
}

std::vector<int64_t> SortedByStride(const Tensor& input, IntArrayRef dims) {
  auto sorted = dims.vec();
  std::sort(sorted.begin(), sorted.end(), [&](int64_t a, int64_t b) {
    return input.stride(a) > input.stride(b);
  });
  return sorted;
}

Tensor ComplexToComplex(const Tensor& self, IntArrayRef dims, int64_t, bool) {
  TORCH_CHECK(self.is_complex(), "_fft_c2c: expects a complex input");
  if (dims.empty()) return self.clone();
  return Transformed(self, self.sizes(), SortedByStride(self, dims), self.scalar_type());
}

Tensor RealToComplex(const Tensor& self, IntArrayRef dims, int64_t, bool onesided) {
  TORCH_CHECK(self.is_floating_point(), "_fft_r2c: expects a real input");
  const int64_t last = dims.back();
  auto sizes = self.sizes().vec();
  if (onesided) sizes[last] = sizes[last] / 2 + 1;
  auto order = SortedByStride(self, dims.slice(0, dims.size() - 1));
  order.push_back(last);
  return Transformed(self, sizes, order, c10::toComplexType(self.scalar_type()));
}

Tensor ComplexToReal(const Tensor& self,
                     IntArrayRef dims,
                     int64_t normalization,
                     int64_t last_size) {
  TORCH_CHECK(self.is_complex(), "_fft_c2r: expects a complex input");
  Tensor input = self;
  if (dims.size() > 1)
    input = ComplexToComplex(self, dims.slice(0, dims.size() - 1), normalization, false);
  auto sizes = input.sizes().vec();
  sizes[dims.back()] = last_size;
  return Transformed(input, sizes, dims.back(), c10::toRealValueType(self.scalar_type()));
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("_fft_c2c", ComplexToComplex);
  m.impl("_fft_r2c", RealToComplex);
  m.impl("_fft_c2r", ComplexToReal);
}

}  // namespace
}  // namespace tf::meta
