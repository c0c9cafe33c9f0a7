// Fused kernels that go over rows of elements. The loops are written once, in rows_loops.h, and
// compiled once per instruction set; no library header with inline functions is included (matvec.h
// says why).
#pragma once

#include <stdint.h>

namespace tf::rows {

// One key-value head: `count` keys and values of `width`, for `group` query heads.
struct Attention {
  const float* query;  // [group, width], scaled
  const void* keys;    // [count, width], rows key_stride apart
  const void* values;
  int64_t key_stride;
  int64_t value_stride;
  // [group, count] rows mask_stride apart, or null: what is added to the scores, and which keys may
  // be looked at. Blocks of keys that no head may look at are not read.
  const float* bias;
  const bool* mask;
  int64_t mask_stride;
  int64_t count;
  int64_t group;
  int64_t width;
  float* highest;  // [group]: results, the largest score,
  float* sum;      // [group]: the sum of exp(score - highest),
  float* output;   // [group, width]: and the values weighted by those
};

// For elements of one dtype.
struct Kernel {
  // output = weight * round(input / sqrt(mean(input^2) + eps)). With `residual`, sum = round(input
  // + residual) is written and normalized. One row of `n`.
  void (*rms_norm)(const void* input,
                   const void* residual,
                   const void* weight,
                   void* sum,
                   void* output,
                   int64_t n,
                   float eps);
  // output = round(round(input * cos) + round(turned * sin)), turned being (-second half, first
  // half). One row of `n`.
  void (*rotary)(const void* input, const void* cos, const void* sin, void* output, int64_t n);
  // output = round(round(silu(gate)) * up). `n` elements.
  void (*swiglu)(const void* gate, const void* up, void* output, int64_t n);
  void (*attention)(const Attention& work);
  // output = input * factor, in fp32. `n` elements.
  void (*widen)(const void* input, int64_t n, float factor, float* output);
  // output = round(weighted / sum), zeros where the sum is zero. `n` elements.
  void (*divide)(const float* weighted, float sum, int64_t n, void* output);
};

struct Kernels {
  Kernel fp32;
  Kernel bf16;
};

extern const Kernels kGeneric;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace tf::rows
