// CUDA graphs, the only part of the addon that needs CUDA's headers: a library of its own, built
// where they are and opened at run time. It links nothing of CUDA's; libtorch_cuda is open before.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include "native/device/device_graph.h"

namespace tf {
namespace {

class CudaGraph final : public DeviceGraph {
 public:
  explicit CudaGraph(c10::DeviceIndex device) : device_(device) {}

  void Record(const std::function<void()>& work,
              const std::optional<at::Generator>& generator) override {
    const c10::cuda::CUDAGuard guard(device_);
    if (generator) graph_.register_generator_state(*generator);
    // Other threads may allocate and free meanwhile: this thread alone is recorded.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      Abandon();
      throw;
    }
    graph_.capture_end();
  }

  void Replay() override {
    const c10::cuda::CUDAGuard guard(device_);
    graph_.replay();
  }

 private:
  // The stream leaves its recording; that this fails once more is no news.
  void Abandon() noexcept {
    try {
      graph_.capture_end();
    } catch (...) {
    }
  }

  const c10::DeviceIndex device_;
  at::cuda::CUDAGraph graph_;
};

DeviceGraph* NewGraph(c10::DeviceIndex device) { return new CudaGraph(device); }

constexpr CudaLibrary kLibrary = {CudaLibrary::kVersion, NewGraph};

}  // namespace
}  // namespace tf

extern "C" __attribute__((visibility("default"))) const tf::CudaLibrary* torchformers_cuda() {
  return &tf::kLibrary;
}
