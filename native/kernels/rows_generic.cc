// The loops of rows.h, compiled for the baseline.
#include "native/kernels/bits.h"
#include "native/kernels/rows.h"

namespace tf::rows {
namespace {

constexpr int kLanes = 16;
#include "native/kernels/lanes.h"
#include "native/kernels/rows_loops.h"

}  // namespace

const Kernels kGeneric = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::rows
