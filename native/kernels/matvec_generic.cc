// The matrix-vector product for processors without the instruction sets of the other files.
#include "native/kernels/matvec.h"
#include "native/kernels/matvec_bits.h"

namespace tf::matvec {
namespace {

// Several sums side by side, so that the compiler can use whatever vectors the baseline has.
constexpr int kLanes = 8;

float Dot(const uint16_t* weight, const float* input, int64_t k) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane)
      sums[lane] += Widen(weight[i + lane]) * input[i + lane];
  }
  for (; i < k; ++i) sums[0] += Widen(weight[i]) * input[i];
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

void Prepare(const uint16_t* bits, int64_t rows, int64_t k, float* prepared) {
  for (int64_t i = 0; i < rows * k; ++i) prepared[i] = Widen(bits[i]);
}

void Run(const Input& input, const Product& product, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const uint16_t* weight = product.weight + n * product.weight_stride;
    const float bias = product.bias != nullptr ? Widen(product.bias[n]) : 0.0f;
    for (int64_t r = 0; r < input.rows; ++r) {
      const float sum = Dot(weight, input.prepared + r * input.k, input.k);
      product.output[r * product.output_stride + n] = Round(sum + bias);
    }
  }
}

}  // namespace

const Kernel kGeneric = {"generic", Prepare, Run};

}  // namespace tf::matvec
