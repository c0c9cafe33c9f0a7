// The matrix-vector product of fp32 and of bf16. The loops are written once, in matvec_loops.h, and
// compiled once per instruction set. Files that are include no library header with inline
// functions: the linker keeps one copy of an inline function, and it might be the one that this
// processor cannot run.
#pragma once

#include <stdint.h>

namespace tf::matvec {

// The most input rows that the kernels take at once.
inline constexpr int kMaxRows = 8;

// output[r * output_stride + n] = bias[n] + sum over k of input[r][k] * weight[n * weight_stride +
// k], summed in fp32 and rounded once. All elements are of the kernel's dtype.
struct Product {
  const void* weight;
  int64_t weight_stride;
  const void* bias;  // or null
  void* output;
  int64_t output_stride;
};

// What kernels read of the input: itself, or the form that `prepare` made of it. Rows of `k`
// elements without gaps.
struct Input {
  const void* elements;
  const float* prepared;
  int64_t rows;  // 1 to kMaxRows
  int64_t k;
};

struct Kernel {
  // Fills rows * k floats; null where the kernel reads the elements.
  void (*prepare)(const void* elements, int64_t rows, int64_t k, float* prepared);
  // Computes outputs [begin, end) for every input row.
  void (*run)(const Input& input, const Product& product, int64_t begin, int64_t end);
};

struct Kernels {
  Kernel fp32;
  Kernel bf16;
};

extern const Kernels kGeneric;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAvx512Bf16;
#endif

}  // namespace tf::matvec
