// The loops of matvec.h, compiled for the baseline: on 64-bit Arm that has NEON.
#include "native/kernels/bits.h"
#include "native/kernels/matvec.h"

namespace tf::matvec {
namespace {

constexpr int kLanes = 4;
constexpr int kSums = 8;
#include "native/kernels/lanes.h"
#include "native/kernels/matvec_loops.h"

}  // namespace

const Kernels kGeneric = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::matvec
