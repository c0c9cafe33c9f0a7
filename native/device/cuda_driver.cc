#include "native/device/cuda_driver.h"

#include <dlfcn.h>

#include <array>

namespace tf {
namespace {

// The driver's functions, looked up once. Their C interface is stable across CUDA versions.
struct Driver {
  using Init = int (*)(unsigned);
  using GetCount = int (*)(int*);
  using GetDevice = int (*)(int*, int);
  using GetName = int (*)(char*, int, int);
  using GetAttribute = int (*)(int*, int, int);
  using GetTotal = int (*)(size_t*, int);

  Driver() {
    // Never closed: libtorch_cuda uses the same library.
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto init = Function<Init>("cuInit");
    count = Function<GetCount>("cuDeviceGetCount");
    device = Function<GetDevice>("cuDeviceGet");
    name = Function<GetName>("cuDeviceGetName");
    attribute = Function<GetAttribute>("cuDeviceGetAttribute");
    total = Function<GetTotal>("cuDeviceTotalMem_v2");
    ready = init != nullptr && count != nullptr && device != nullptr && name != nullptr &&
            attribute != nullptr && total != nullptr && init(0) == 0;
  }

  template <class T>
  T Function(const char* symbol) {
    return reinterpret_cast<T>(dlsym(library, symbol));
  }

  static const Driver& Get() {
    static const auto* const driver = new Driver;
    return *driver;
  }

  void* library = nullptr;
  bool ready = false;
  GetCount count = nullptr;
  GetDevice device = nullptr;
  GetName name = nullptr;
  GetAttribute attribute = nullptr;
  GetTotal total = nullptr;
};

constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;

}  // namespace

std::optional<CudaDeviceFacts> AskCudaDriver(int index) {
  const Driver& driver = Driver::Get();
  int device = 0;
  if (!driver.ready || driver.device(&device, index) != 0) return std::nullopt;
  CudaDeviceFacts facts;
  std::array<char, 256> name{};
  int major = 0;
  int minor = 0;
  size_t total = 0;
  if (driver.name(name.data(), static_cast<int>(name.size()), device) == 0)
    facts.name = name.data();
  if (driver.attribute(&major, kCapabilityMajor, device) == 0 &&
      driver.attribute(&minor, kCapabilityMinor, device) == 0) {
    facts.capability = std::to_string(major) + "." + std::to_string(minor);
  }
  if (driver.total(&total, device) == 0) facts.total_memory = total;
  return facts;
}

std::string WhyNoCuda(bool library_loaded) {
  const Driver& driver = Driver::Get();
  if (driver.library == nullptr) return "no NVIDIA driver was found (libcuda.so.1)";
  if (!driver.ready) return "the NVIDIA driver does not start";
  int count = 0;
  if (driver.count(&count) != 0 || count == 0)
    return "the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES?)";
  if (!library_loaded) return "this libtorch has no CUDA part, or it could not be loaded";
  return "libtorch sees no usable device";
}

}  // namespace tf
