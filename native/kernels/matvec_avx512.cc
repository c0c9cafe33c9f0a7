// The loops of matvec.h, compiled for AVX-512.
#include "native/kernels/bits.h"
#include "native/kernels/matvec.h"

#if defined(__x86_64__)
namespace tf::matvec {
namespace {

constexpr int kLanes = 16;
constexpr int kSums = 32;
#include "native/kernels/lanes.h"
#include "native/kernels/matvec_loops.h"

}  // namespace

const Kernels kAvx512 = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::matvec
#endif
