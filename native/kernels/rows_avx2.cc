// The loops of rows.h, compiled for AVX2 and FMA.
#include "native/kernels/bits.h"
#include "native/kernels/rows.h"

#if defined(__x86_64__)
namespace tf::rows {
namespace {

constexpr int kLanes = 16;
#include "native/kernels/lanes.h"
#include "native/kernels/rows_loops.h"

}  // namespace

const Kernels kAvx2 = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::rows
#endif
