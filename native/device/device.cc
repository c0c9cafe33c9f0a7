#include "native/device/device.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <malloc.h>
#include <torch/version.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <string>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/device/cuda_driver.h"
#include "native/error/error.h"

namespace tf {
namespace {

// What the loader found out about libtorch_cuda: why it is not loaded, or nothing when it is. The
// same for the whole process, whose threads all load the same libraries.
struct CudaLibrary {
  std::mutex mutex;
  std::string absence = "libtorch_cuda is not loaded";
  static CudaLibrary& Get() {
    static auto* const library = new CudaLibrary;
    return *library;
  }
};

// Each sentence is one thing that is missing; the driver and the library are asked apart.
std::vector<std::string> WhyNoCudaHere() {
  CudaLibrary& library = CudaLibrary::Get();
  const std::lock_guard lock(library.mutex);
  // at::hasCUDA() tells of usable devices, not of the library.
  const bool loaded = library.absence.empty();
  constexpr int kPinned = 13000;
  std::vector<std::string> reasons =
      WhyNoDriver(loaded ? static_cast<int>(at::detail::getCUDAHooks().versionCUDART()) : kPinned);
  if (!loaded) reasons.push_back(library.absence);
  if (reasons.empty()) reasons.push_back("libtorch sees no usable device");
  return reasons;
}

std::string Join(const std::vector<std::string>& reasons) {
  std::string text;
  for (const std::string& reason : reasons) text += (text.empty() ? "" : "; ") + reason;
  return text;
}

}  // namespace

int64_t DeviceCount(c10::DeviceType type) {
  switch (type) {
    case c10::DeviceType::CPU:
    case c10::DeviceType::Meta:
      return 1;
    case c10::DeviceType::CUDA:
      return at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
    default:
      return 0;
  }
}

c10::Device ParseDevice(const std::string& name) {
  const auto unknown = [&]() -> Failure {
    return Failure(code::kInvalidArgument,
                   "unknown device '" + name + "'",
                   "Devices are 'cpu', 'meta' and 'cuda:0', 'cuda:1', …");
  };
  if (name == "cpu") return c10::Device(at::kCPU);
  const size_t colon = name.find(':');
  const std::string type = name.substr(0, colon);
  int index = -1;
  if (colon != std::string::npos) {
    const std::string digits = name.substr(colon + 1);
    if (digits.empty() || digits.size() > 3 ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      throw unknown();
    index = std::stoi(digits);
    if (index > 127) throw unknown();
  }
  const auto with = [&](c10::DeviceType device) {
    return c10::Device(device, static_cast<c10::DeviceIndex>(index));
  };
  if ((type == "cpu" || type == "meta") && index > 0) throw unknown();
  if (type == "cpu") return with(at::kCPU);
  if (type == "meta") return with(at::kMeta);
  if (type != "cuda") throw unknown();
  const int64_t count = DeviceCount(at::kCUDA);
  if (count == 0) {
    throw Failure(code::kCudaUnavailable,
                  "device '" + name + "' cannot be used: " + Join(WhyNoCudaHere()),
                  "`npx torchformers doctor` shows what was tried.");
  }
  if (index >= count) {
    throw Failure(code::kCudaUnavailable,
                  "device '" + name + "' does not exist: there are " + std::to_string(count) +
                      " CUDA devices");
  }
  if (index < 0) return c10::impl::VirtualGuardImpl(at::kCUDA).getDevice();
  return with(at::kCUDA);
}

namespace {

void NoteCudaLibrary(Environment&, const std::string& absence) {
  CudaLibrary& library = CudaLibrary::Get();
  const std::lock_guard lock(library.mutex);
  library.absence = absence;
}

std::vector<std::string> CudaReasons(Environment&) {
  return DeviceCount(at::kCUDA) > 0 ? std::vector<std::string>{} : WhyNoCudaHere();
}

int64_t CountDevices(Environment&, const std::string& type) {
  if (type == "cpu" || type == "meta") return 1;
  return type == "cuda" ? DeviceCount(at::kCUDA) : 0;
}

// A kernel's count of pages, in bytes.
double Pages(int name) {
  return static_cast<double>(sysconf(name)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// What programs can still get: pages of files that the kernel would give up count, unlike in
// _SC_AVPHYS_PAGES.
double AvailableMemory() {
  std::ifstream facts("/proc/meminfo");
  for (std::string name; facts >> name; facts.ignore(256, '\n')) {
    double kilobytes = 0;
    if (name == "MemAvailable:" && facts >> kilobytes) return kilobytes * 1024;
  }
  return Pages(_SC_AVPHYS_PAGES);
}

napi_value DeviceRecord(Environment& environment,
                        const std::string& type,
                        double index,
                        const std::string& name,
                        double total,
                        double free,
                        const std::string& capability) {
  return Record(environment,
                {{"type", ToJs(environment, type)},
                 {"index", ToJs(environment, index)},
                 {"name", ToJs(environment, name)},
                 {"total_memory", ToJs(environment, total)},
                 {"free_memory", ToJs(environment, free)},
                 {"capability", ToJs(environment, capability)}});
}

std::vector<napi_value> DeviceInfo(Environment& environment) {
  std::vector<napi_value> devices;
  devices.push_back(DeviceRecord(environment,
                                 "cpu",
                                 0,
                                 "cpu",
                                 Pages(_SC_PHYS_PAGES),
                                 AvailableMemory(),
                                 at::get_cpu_capability()));
  for (int64_t i = 0; i < DeviceCount(at::kCUDA); ++i) {
    const CudaDeviceFacts facts = AskCudaDriver(static_cast<int>(i)).value_or(CudaDeviceFacts{});
    const auto [free, total] = at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(i));
    devices.push_back(DeviceRecord(environment,
                                   "cuda",
                                   static_cast<double>(i),
                                   facts.name,
                                   static_cast<double>(total),
                                   static_cast<double>(free),
                                   facts.capability));
  }
  return devices;
}

std::string CpuCapability(Environment&) { return at::get_cpu_capability(); }

std::string TorchVersion(Environment&) { return TORCH_VERSION; }

napi_value BuildInfo(Environment& environment) {
#if defined(__SANITIZE_ADDRESS__)
  const std::string sanitizer = "address";
#else
  const std::string sanitizer;
#endif
#if defined(__clang__)
  const std::string compiler = std::string("clang ") + __clang_version__;
#else
  const std::string compiler = std::string("gcc ") + __VERSION__;
#endif
  return Record(environment,
                {{"napi", ToJs(environment, static_cast<double>(NAPI_VERSION))},
                 {"compiler", ToJs(environment, compiler)},
                 {"libtorch", ToJs(environment, std::string(TORCH_VERSION))},
                 {"sanitizer", ToJs(environment, sanitizer)}});
}

// Waits for the work queued on a device; the CPU has none.
void Synchronize(Environment&, const std::string& name) {
  const c10::Device device = ParseDevice(name);
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(device.index());
}

// Gives unused memory back: an accelerator's cache to its driver, the C library's free lists to the
// system.
void EmptyCache(Environment& environment) {
  environment.tensors().Sweep();
  if (DeviceCount(at::kCUDA) > 0) at::accelerator::emptyCache();
  malloc_trim(0);
}

}  // namespace

void InitDevices(Exports& exports) {
  exports.Function<"deviceCount", CountDevices>();
  exports.Function<"deviceInfo", DeviceInfo>();
  exports.Function<"cpuCapability", CpuCapability>();
  exports.Function<"torchVersion", TorchVersion>();
  exports.Function<"buildInfo", BuildInfo>();
  exports.Function<"synchronize", Synchronize>();
  exports.Function<"emptyCache", EmptyCache>();
  exports.Function<"noteCudaLibrary", NoteCudaLibrary>();
  exports.Function<"cudaReasons", CudaReasons>();
  InitAccelerator(exports);
  InitDeviceGraph(exports);
}

}  // namespace tf
