#include "native/device/device_graph.h"

#include <dlfcn.h>

#include <mutex>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/device/device.h"

namespace tf {
namespace {

struct Opened {
  std::mutex mutex;
  const CudaLibrary* library = nullptr;
  std::string absence = "the library for CUDA graphs was not opened";
};

Opened& Cuda() {
  static Opened opened;
  return opened;
}

// Why it cannot be used; "" when it can.
std::string Open(const std::string& path, const CudaLibrary*& library) {
  // Never closed: graphs hold its code.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return dlerror();
  const auto ask = reinterpret_cast<const CudaLibrary* (*)()>(dlsym(handle, "torchformers_cuda"));
  if (ask == nullptr) return path + " is not a library of torchformers";
  const CudaLibrary* found = ask();
  if (found->version != CudaLibrary::kVersion)
    return path + " belongs to another version of torchformers";
  library = found;
  return "";
}

// Once libtorch_cuda is open. Returns why there are no graphs, or "".
std::string OpenCudaLibrary(Environment&, const std::string& path) {
  Opened& opened = Cuda();
  const std::lock_guard lock(opened.mutex);
  if (opened.library == nullptr) opened.absence = Open(path, opened.library);
  return opened.absence;
}

}  // namespace

std::unique_ptr<DeviceGraph> NewDeviceGraph(c10::Device device, std::string& reason) {
  if (!device.is_cuda()) {
    reason = "device '" + device.str() + "' records no graphs";
    return nullptr;
  }
  Opened& opened = Cuda();
  const std::lock_guard lock(opened.mutex);
  if (opened.library == nullptr) {
    reason = opened.absence;
    return nullptr;
  }
  return std::unique_ptr<DeviceGraph>(opened.library->new_graph(device.index()));
}

void InitDeviceGraph(Exports& exports) { exports.Function<"openCudaLibrary", OpenCudaLibrary>(); }

}  // namespace tf
