// The matrix-vector product with AVX-512. A vector of bf16 holds pairs: shifted left it gives the
// even elements as fp32, masked the odd ones, so the input is prepared as runs of even and odd
// elements.
#include "native/kernels/matvec.h"
#include "native/kernels/matvec_bits.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace tf::matvec {
namespace {

constexpr int64_t kStep = 32;  // elements of a vector
constexpr int64_t kHalf = kStep / 2;
// Bytes ahead of the loads; the hardware's own prefetch stops at pages.
constexpr int64_t kAhead = 2048;

using Vector = __m512;
using Pairs = __m512i;

inline Vector Zero() { return _mm512_setzero_ps(); }
inline Pairs Load(const uint16_t* from) { return _mm512_loadu_si512(from); }
inline Vector Load(const float* from) { return _mm512_loadu_ps(from); }
inline Vector Even(Pairs pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline Vector Odd(Pairs pairs) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Vector MultiplyAdd(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }
inline float Sum(Vector v) { return _mm512_reduce_add_ps(v); }

void Prepare(const uint16_t* bits, int64_t rows, int64_t k, float* prepared) {
  for (int64_t r = 0; r < rows; ++r, bits += k, prepared += k) {
    int64_t i = 0;
    for (; i + kStep <= k; i += kStep) {
      for (int64_t j = 0; j < kHalf; ++j) {
        prepared[i + j] = Widen(bits[i + 2 * j]);
        prepared[i + kHalf + j] = Widen(bits[i + 2 * j + 1]);
      }
    }
    for (; i < k; ++i) prepared[i] = Widen(bits[i]);
  }
}

// `kRows` input rows by `kColumns` outputs from `n` on; every weight is read once.
template <int kRows, int kColumns>
void Tile(const Input& input, const Product& product, int64_t n) {
  const uint16_t* weight[kColumns];
  for (int c = 0; c < kColumns; ++c) weight[c] = product.weight + (n + c) * product.weight_stride;
  Vector sums[kRows][kColumns];
  for (auto& row : sums) {
    for (auto& sum : row) sum = Zero();
  }
  int64_t i = 0;
  for (; i + kStep <= input.k; i += kStep) {
    for (int c = 0; c < kColumns; ++c) {
      _mm_prefetch(reinterpret_cast<const char*>(weight[c] + i) + kAhead, _MM_HINT_T0);
      const Pairs w = Load(weight[c] + i);
      const Vector even = Even(w);
      const Vector odd = Odd(w);
      for (int r = 0; r < kRows; ++r) {
        const float* x = input.prepared + r * input.k + i;
        sums[r][c] = MultiplyAdd(even, Load(x), sums[r][c]);
        sums[r][c] = MultiplyAdd(odd, Load(x + kHalf), sums[r][c]);
      }
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    const float bias = product.bias != nullptr ? Widen(product.bias[n + c]) : 0.0f;
    for (int r = 0; r < kRows; ++r) {
      float sum = Sum(sums[r][c]);
      for (int64_t j = i; j < input.k; ++j) {
        sum += Widen(weight[c][j]) * input.prepared[r * input.k + j];
      }
      product.output[r * product.output_stride + n + c] = Round(sum + bias);
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

const Kernel kAvx512 = {"avx512", Prepare, Run};

}  // namespace tf::matvec
#endif
