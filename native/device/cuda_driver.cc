#include "native/device/cuda_driver.h"

#include <dlfcn.h>

#include <array>

namespace tf {
namespace {

// The driver's functions, looked up once. Their C interface is stable across CUDA versions.
struct Driver {
  using Init = int (*)(unsigned);
  using GetVersion = int (*)(int*);
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
    const auto get_version = Function<GetVersion>("cuDriverGetVersion");
    if (get_version != nullptr) get_version(&version);
    if (init != nullptr) status = init(0);
    ready = status == 0 && count != nullptr && device != nullptr && name != nullptr &&
            attribute != nullptr && total != nullptr;
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
  int version = 0;  // 13000 for CUDA 13.0; 0 when it does not tell
  int status = -1;  // of cuInit
  GetCount count = nullptr;
  GetDevice device = nullptr;
  GetName name = nullptr;
  GetAttribute attribute = nullptr;
  GetTotal total = nullptr;
};

constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;
constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

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

std::vector<std::string> WhyNoDriver(int needed) {
  const Driver& driver = Driver::Get();
  if (driver.library == nullptr) return {"no NVIDIA driver was found (libcuda.so.1)"};
  if (driver.version > 0 && driver.version < needed) {
    return {"the NVIDIA driver is too old: it is for CUDA " + VersionText(driver.version) + ", " +
            VersionText(needed) + " is needed"};
  }
  if (!driver.ready) {
    return {driver.status == kNoDevice ? "the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES?)"
                                       : "the NVIDIA driver does not start (cuInit: " +
                                             std::to_string(driver.status) + ")"};
  }
  int count = 0;
  if (driver.count(&count) != 0 || count == 0)
    return {"the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES?)"};
  return {};
}

}  // namespace tf
