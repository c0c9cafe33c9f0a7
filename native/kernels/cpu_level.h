// Which instruction set our kernels use: the best that this processor has, or the one that
// TORCHFORMERS_CPU_LEVEL names (generic, avx2, avx512, avx512_bf16, neon), for tests.
#pragma once

namespace tf {

enum class CpuLevel { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kNeon };

// Settled at the first call. Throws when the variable names what there is not, or what this
// processor lacks.
CpuLevel UsedCpuLevel();

}  // namespace tf
