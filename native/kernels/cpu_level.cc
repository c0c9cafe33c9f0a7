#include "native/kernels/cpu_level.h"

#include <c10/util/Exception.h>

#include <array>
#include <cstdlib>
#include <string_view>

namespace tf {
namespace {

struct Named {
  std::string_view name;
  CpuLevel level;
  bool present;
};

// From the least to the best.
std::array<Named, 5> Levels() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  const bool neon = false;
#else
  const bool avx2 = false;
  const bool avx512 = false;
  const bool bf16 = false;
#if defined(__aarch64__)
  const bool neon = true;
#else
  const bool neon = false;
#endif
#endif
  return {{{"generic", CpuLevel::kGeneric, true},
           {"avx2", CpuLevel::kAvx2, avx2},
           {"avx512", CpuLevel::kAvx512, avx512},
           {"avx512_bf16", CpuLevel::kAvx512Bf16, bf16},
           {"neon", CpuLevel::kNeon, neon}}};
}

CpuLevel Choose() {
  const auto levels = Levels();
  const char* wanted = std::getenv("TORCHFORMERS_CPU_LEVEL");
  if (wanted != nullptr && *wanted != '\0') {
    for (const Named& one : levels) {
      if (one.name != wanted) continue;
      TORCH_CHECK(
          one.present, "TORCHFORMERS_CPU_LEVEL is ", wanted, ", which this processor lacks");
      return one.level;
    }
    TORCH_CHECK(false,
                "TORCHFORMERS_CPU_LEVEL is '",
                wanted,
                "'; it may be generic, avx2, avx512, avx512_bf16 or neon");
  }
  CpuLevel best = CpuLevel::kGeneric;
  for (const Named& one : levels) {
    if (one.present) best = one.level;
  }
  return best;
}

}  // namespace

CpuLevel UsedCpuLevel() {
  static const CpuLevel level = Choose();
  return level;
}

}  // namespace tf
