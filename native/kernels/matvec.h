// The bf16 matrix-vector product, once per instruction set. Each of the matvec_*.cc files but the
// dispatcher is compiled for its own instruction set, so this header and those files include no
// library header with inline functions: the linker keeps one copy of an inline function, and it
// might be the one that this processor cannot run.
#pragma once

#include <stdint.h>

namespace tf::matvec {

// The most input rows that the kernels take at once.
inline constexpr int kMaxRows = 8;

// output[r * output_stride + n] = bias[n] + sum over k of input[r][k] * weight[n * weight_stride +
// k], summed in fp32 and rounded once. bf16 values as their bits.
struct Product {
  const uint16_t* weight;
  int64_t weight_stride;
  const uint16_t* bias;  // or null
  uint16_t* output;
  int64_t output_stride;
};

// What kernels read of the input: its bits, or the form that `prepare` made of it. Rows of `k`
// elements without gaps.
struct Input {
  const uint16_t* bits;
  const float* prepared;
  int64_t rows;  // 1 to kMaxRows
  int64_t k;
};

struct Kernel {
  const char* name;
  // Fills rows * k floats; null where the kernel reads the bits.
  void (*prepare)(const uint16_t* bits, int64_t rows, int64_t k, float* prepared);
  // Computes outputs [begin, end) for every input row.
  void (*run)(const Input& input, const Product& product, int64_t begin, int64_t end);
};

extern const Kernel kGeneric;
#if defined(__x86_64__)
extern const Kernel kAvx2;
extern const Kernel kAvx512;
extern const Kernel kAvx512Bf16;
#elif defined(__aarch64__)
extern const Kernel kNeon;
#endif

}  // namespace tf::matvec
