// Attention of many queries: products in tiles that the registers hold. The loops are written once,
// in tiles_loops.h, and compiled once per instruction set (matvec.h says which rules that brings).
//
// Both factors of a product are read in units of 32 bits: one fp32 element, or a pair of bf16 where
// the processor multiplies pairs. Elsewhere bf16 is widened when it is packed.
#pragma once

#include <stdint.h>

namespace tf::tiles {

// Attention of some queries over one block of keys. Queries that may look at nothing leave their
// results as they are.
struct AttendBlock {
  const uint32_t* query;   // rows of units, as `pack_query` makes them
  int rows;                // 1 to Kernel::rows
  const uint32_t* keys;    // as `pack_keys` made them
  const uint32_t* values;  // as `pack_values` made them
  int64_t count;           // keys, 1 to kKeys
  int64_t width;           // of a query and a key
  int64_t value_width;
  float scale;
  // Row r may look at the first visible[r] keys of the block, and of those at the ones that the
  // mask allows; bias is added to the scores. Either may be null; their rows are mask_stride apart.
  const int64_t* visible;
  const bool* mask;
  const float* bias;
  int64_t mask_stride;
  // Per row: the largest score so far, the sum of exp(score - highest), and the values weighted by
  // those [rows, padded value_width].
  float* highest;
  float* sum;
  float* output;
  int64_t output_stride;
};

// Keys that are packed and looked at together.
inline constexpr int64_t kKeys = 128;
// No kernel takes more queries at once.
inline constexpr int kMostRows = 8;

struct Kernel {
  int rows;   // the most queries at once
  int lanes;  // outputs are padded to multiples of this
  int unit;   // elements of a unit: 1 or 2

  // One query of `width` elements, whole units.
  void (*pack_query)(const void* from, int64_t width, uint32_t* to);
  // `count` keys [count, width] and values [count, value_width] as `attend` reads them.
  void (*pack_keys)(const void* from, int64_t stride, int64_t count, int64_t width, uint32_t* to);
  void (*pack_values)(const void* from, int64_t stride, int64_t count, int64_t width, uint32_t* to);
  void (*attend)(const AttendBlock& block);
  // output = round(weighted / sum), of one row; zeros where the sum is zero.
  void (*divide)(const float* weighted, float sum, int64_t width, void* output);
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

}  // namespace tf::tiles
