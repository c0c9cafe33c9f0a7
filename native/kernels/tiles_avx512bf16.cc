// The loops of tiles.h, compiled for AVX512-BF16, which multiplies and adds pairs of bf16 in one
// instruction.
#include "native/kernels/bits.h"
#include "native/kernels/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace tf::tiles {
namespace {

constexpr int kLanes = 16;
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#include "native/kernels/lanes.h"
#include "native/kernels/tiles_loops.h"

struct Bf16Pairs {
  using Element = uint16_t;
  static constexpr int kUnit = 2;
  static inline float Get(uint16_t bits) { return Widen(bits); }
  static inline uint16_t Put(float value) { return Round(value); }
  static inline uint32_t Unit(const uint16_t* from, int64_t left) {
    return from[0] | (left > 1 ? uint32_t{from[1]} << 16 : 0);
  }
  static inline WordLanes LoadUnits(const uint16_t* from) {
    WordLanes units;
    __builtin_memcpy(&units, from, sizeof(units));
    return units;
  }
  static inline WordLanes Join(const uint16_t* row, const uint16_t* next) {
    return ((WordLanes)LoadLanes(row) >> 16) | (WordLanes)LoadLanes(next);
  }
  static inline Lanes MultiplyAdd(uint32_t row, WordLanes columns, Lanes sum) {
    return (Lanes)_mm512_dpbf16_ps(
        (__m512)sum, (__m512bh)columns, (__m512bh)_mm512_set1_epi32(static_cast<int>(row)));
  }
};

}  // namespace

const Kernels kAvx512Bf16 = {KernelOf<Fp32>(), KernelOf<Bf16Pairs>()};

}  // namespace tf::tiles
#endif
