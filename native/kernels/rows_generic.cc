// The loops of rows.h, compiled for the baseline.
#include "native/kernels/matvec_bits.h"
#include "native/kernels/rows.h"

namespace tf::rows {
namespace {

#include "native/kernels/rows_loops.h"

}  // namespace

const Kernels kGeneric = {KernelOf<Fp32>(), KernelOf<Bf16>()};

}  // namespace tf::rows
