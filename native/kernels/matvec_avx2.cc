// The loops of matvec.h, compiled for AVX2 and FMA.
#include "native/kernels/bits.h"
#include "native/kernels/matvec.h"

#if defined(__x86_64__)
namespace tf::matvec {
namespace {

constexpr int kLanes = 8;
constexpr int kSums = 8;
#include "native/kernels/lanes.h"
#include "native/kernels/matvec_loops.h"

}  // namespace

const Kernels kAvx2 = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::matvec
#endif
