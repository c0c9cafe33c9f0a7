// The matrix-vector product with AVX512-BF16: pairs of bf16 are multiplied and added in one
// instruction.
#include "native/kernels/matvec.h"
#include "native/kernels/matvec_bits.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace tf::matvec {
namespace {

constexpr int64_t kStep = 32;  // elements of a vector
// Bytes ahead of the loads; the hardware's own prefetch stops at pages.
constexpr int64_t kAhead = 2048;

inline __m512bh Load(const uint16_t* from) { return (__m512bh)_mm512_loadu_si512(from); }
inline __m512bh Load(const uint16_t* from, __mmask32 mask) {
  return (__m512bh)_mm512_maskz_loadu_epi16(mask, from);
}

// `kRows` input rows by `kColumns` outputs from `n` on; every weight is read once.
template <int kRows, int kColumns>
void Tile(const Input& input, const Product& product, int64_t n) {
  const uint16_t* weight[kColumns];
  for (int c = 0; c < kColumns; ++c) weight[c] = product.weight + (n + c) * product.weight_stride;
  __m512 sums[kRows][kColumns];
  for (auto& row : sums) {
    for (auto& sum : row) sum = _mm512_setzero_ps();
  }
  int64_t i = 0;
  for (; i + kStep <= input.k; i += kStep) {
    __m512bh w[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      _mm_prefetch(reinterpret_cast<const char*>(weight[c] + i) + kAhead, _MM_HINT_T0);
      w[c] = Load(weight[c] + i);
    }
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = Load(input.bits + r * input.k + i);
      for (int c = 0; c < kColumns; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], w[c], x);
    }
  }
  if (i < input.k) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << (input.k - i)) - 1);
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = Load(input.bits + r * input.k + i, mask);
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], Load(weight[c] + i, mask), x);
      }
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    const float bias = product.bias != nullptr ? Widen(product.bias[n + c]) : 0.0f;
    for (int r = 0; r < kRows; ++r) {
      product.output[r * product.output_stride + n + c] =
          Round(_mm512_reduce_add_ps(sums[r][c]) + bias);
    }
  }
}

template <int kRows>
void RunRows(const Input& input, const Product& product, int64_t begin, int64_t end) {
  constexpr int kColumns = kRows <= 3 ? 4 : kRows == 4 ? 6 : 3;
  int64_t n = begin;
  for (; n + kColumns <= end; n += kColumns) Tile<kRows, kColumns>(input, product, n);
  for (; n < end; ++n) Tile<kRows, 1>(input, product, n);
}

void Run(const Input& input, const Product& product, int64_t begin, int64_t end) {
  switch (input.rows) {
    case 1:
      return RunRows<1>(input, product, begin, end);
    case 2:
      return RunRows<2>(input, product, begin, end);
    case 3:
      return RunRows<3>(input, product, begin, end);
    case 4:
      return RunRows<4>(input, product, begin, end);
    case 5:
      return RunRows<5>(input, product, begin, end);
    case 6:
      return RunRows<6>(input, product, begin, end);
    case 7:
      return RunRows<7>(input, product, begin, end);
    default:
      return RunRows<8>(input, product, begin, end);
  }
}

}  // namespace

const Kernel kAvx512Bf16 = {"avx512_bf16", nullptr, Run};

}  // namespace tf::matvec
#endif
