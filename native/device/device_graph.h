// Work of a device that is recorded once and then queued with one call: a CUDA graph. What needs
// CUDA's headers is a second library (native/cuda), opened when libtorch_cuda is there.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace tf {

class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  // Records what `work` queues on this thread's stream, which is not the device's default one.
  // Nothing of it is computed. Draws come from the device's default generator or from `generator`;
  // a replay draws what comes next. Throws what `work` or CUDA throws; the object is of no use
  // then.
  virtual void Record(const std::function<void()>& work,
                      const std::optional<at::Generator>& generator) = 0;
  // Queues what was recorded, over the same memory.
  virtual void Replay() = 0;
};

// What the second library gives: its only symbol is `torchformers_cuda`, a function without
// arguments that returns one of these.
struct CudaLibrary {
  static constexpr int kVersion = 1;
  int version;
  DeviceGraph* (*new_graph)(c10::DeviceIndex device);
};

// Nothing where the device has no graphs; `reason` says why then.
std::unique_ptr<DeviceGraph> NewDeviceGraph(c10::Device device, std::string& reason);

}  // namespace tf
