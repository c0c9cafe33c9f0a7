// The loops of tiles.h, compiled for AVX-512.
#include "native/kernels/bits.h"
#include "native/kernels/tiles.h"

#if defined(__x86_64__)
namespace tf::tiles {
namespace {

constexpr int kLanes = 16;
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#include "native/kernels/lanes.h"
#include "native/kernels/tiles_loops.h"

}  // namespace

const Kernels kAvx512 = {KernelOf<Fp32>(), KernelOf<Bf16Wide>()};

}  // namespace tf::tiles
#endif
