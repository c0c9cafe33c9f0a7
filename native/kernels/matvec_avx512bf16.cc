// The loops of matvec.h, compiled for AVX512-BF16, which multiplies and adds pairs of bf16 in one
// instruction.
#include "native/kernels/bits.h"
#include "native/kernels/matvec.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace tf::matvec {
namespace {

constexpr int kLanes = 16;
constexpr int kSums = 32;
#include "native/kernels/lanes.h"
#include "native/kernels/matvec_loops.h"

struct Bf16Dot {
  using Element = uint16_t;
  using Weights = __m512bh;
  static constexpr int64_t kStep = 2 * kLanes;
  static constexpr bool kPrepares = false;
  static inline float Get(uint16_t bits) { return Widen(bits); }
  static inline uint16_t Put(float value) { return Round(value); }
  static inline Weights Load(const uint16_t* from) { return (__m512bh)_mm512_loadu_si512(from); }
  static inline void Add(Weights weights, const uint16_t* x, Lanes& sum) {
    sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, weights, Load(x));
  }
};

}  // namespace

const Kernels kAvx512Bf16 = {KernelOf<Fp32>(), KernelOf<Bf16Dot>()};

}  // namespace tf::matvec
#endif
