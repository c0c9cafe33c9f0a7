// How many threads compute, and how repeatably.
#include <ATen/Context.h>
#include <c10/core/DefaultDtype.h>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/executor/executor.h"
#include "native/tensor/small_blocks.h"

namespace tf {
namespace {

int32_t GetNumThreads(Environment&) { return Executor::Cpu().num_threads(); }

void SetNumThreads(Environment&, int64_t count) {
  constexpr int64_t kMost = 1024;
  if (count < 1 || count > kMost) {
    throw Failure(code::kInvalidArgument,
                  "[setNumThreads] argument 1 must be between 1 and " + std::to_string(kMost) +
                      ", got " + std::to_string(count));
  }
  Executor::Cpu().SetNumThreads(static_cast<int>(count));
}

// The main thread, when the process is about to end.
void EndProcess(Environment&, int64_t milliseconds) {
  Executor::EndAll(std::chrono::milliseconds(milliseconds));
}

// -1: no limit.
int64_t MemoryLimit(Environment&) { return HostMemoryLimit(); }

void SetMemoryLimit(Environment&, int64_t bytes) { SetHostMemoryLimit(bytes); }

int64_t HostMemory(Environment&) { return HostMemoryInUse(); }

void SetDeterministic(Environment&, bool enabled, bool warn_only) {
  at::globalContext().setDeterministicAlgorithms(enabled, warn_only);
}

c10::ScalarType DefaultDtype(Environment&) { return c10::get_default_dtype_as_scalartype(); }

// libtorch keeps one default for the process: all environments share it.
void SetDefaultDtype(Environment&, c10::ScalarType dtype) {
  if (!c10::isFloatingType(dtype)) {
    throw Failure(code::kDtype,
                  "[setDefaultDtype] must be a floating point dtype, got '" +
                      std::string(DtypeName(dtype)) + "'");
  }
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(dtype));
}

}  // namespace

void InitThreads(Exports& exports) {
  exports.Function<"getNumThreads", GetNumThreads>();
  exports.Function<"setNumThreads", SetNumThreads>();
  exports.Function<"endProcess", EndProcess>();
  exports.Function<"memoryLimit", MemoryLimit>();
  exports.Function<"setMemoryLimit", SetMemoryLimit>();
  exports.Function<"hostMemory", HostMemory>();
  exports.Function<"setDeterministic", SetDeterministic>();
  exports.Function<"defaultDtype", DefaultDtype>();
  exports.Function<"setDefaultDtype", SetDefaultDtype>();
}

}  // namespace tf
