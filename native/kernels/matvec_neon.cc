// The matrix-vector product with NEON, which every 64-bit Arm processor has.
#include "native/kernels/matvec.h"
#include "native/kernels/matvec_bits.h"

#if defined(__aarch64__)
#include <arm_neon.h>

namespace tf::matvec {
namespace {

constexpr int64_t kStep = 8;

void Prepare(const uint16_t* bits, int64_t rows, int64_t k, float* prepared) {
  for (int64_t i = 0; i < rows * k; ++i) prepared[i] = Widen(bits[i]);
}

// `kRows` input rows by one output; every weight is read once.
template <int kRows>
void Column(const Input& input, const Product& product, int64_t n) {
  const uint16_t* weight = product.weight + n * product.weight_stride;
  float32x4_t low[kRows];
  float32x4_t high[kRows];
  for (int r = 0; r < kRows; ++r) low[r] = high[r] = vdupq_n_f32(0);
  int64_t i = 0;
  for (; i + kStep <= input.k; i += kStep) {
    const uint16x8_t bits = vld1q_u16(weight + i);
    const float32x4_t first = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16));
    const float32x4_t second = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(bits), 16));
    for (int r = 0; r < kRows; ++r) {
      const float* x = input.prepared + r * input.k + i;
      low[r] = vfmaq_f32(low[r], first, vld1q_f32(x));
      high[r] = vfmaq_f32(high[r], second, vld1q_f32(x + 4));
    }
  }
  const float bias = product.bias != nullptr ? Widen(product.bias[n]) : 0.0f;
  for (int r = 0; r < kRows; ++r) {
    float sum = vaddvq_f32(vaddq_f32(low[r], high[r]));
    for (int64_t j = i; j < input.k; ++j) sum += Widen(weight[j]) * input.prepared[r * input.k + j];
    product.output[r * product.output_stride + n] = Round(sum + bias);
  }
}

template <int kRows>
void RunRows(const Input& input, const Product& product, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) Column<kRows>(input, product, n);
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

const Kernel kNeon = {"neon", Prepare, Run};

}  // namespace tf::matvec
#endif
