// What the NVIDIA driver says about its devices, asked without linking CUDA.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace tf {

struct CudaDeviceFacts {
  std::string name;
  std::string capability;  // "9.0"
  uint64_t total_memory = 0;
};

// Nothing when there is no driver, or it does not know the device.
std::optional<CudaDeviceFacts> AskCudaDriver(int index);

// Why CUDA cannot be used here, as far as the driver tells: one sentence.
std::string WhyNoCuda(bool library_loaded);

}  // namespace tf
