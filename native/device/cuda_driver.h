// What the NVIDIA driver says about its devices, asked without linking CUDA.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tf {

struct CudaDeviceFacts {
  std::string name;
  std::string capability;  // "9.0"
  uint64_t total_memory = 0;
};

// Nothing when there is no driver, or it does not know the device.
std::optional<CudaDeviceFacts> AskCudaDriver(int index);

// Why CUDA cannot be used here, as far as the driver tells: nothing when it has a device for us.
// `needed` is the version of CUDA that libtorch is built for: 13000 for 13.0.
std::vector<std::string> WhyNoDriver(int needed);

}  // namespace tf
