// The loops of tiles.h, compiled for the baseline: on 64-bit Arm that has NEON.
#include "native/kernels/bits.h"
#include "native/kernels/tiles.h"

namespace tf::tiles {
namespace {

constexpr int kLanes = 4;
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
#include "native/kernels/lanes.h"
#include "native/kernels/tiles_loops.h"

}  // namespace

const Kernels kGeneric = {KernelOf<Fp32>(), KernelOf<Bf16Wide>()};

}  // namespace tf::tiles
