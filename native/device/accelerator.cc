// CUDA by libtorch's generic device interface: the current device, the allocator's statistics,
// streams and events. Nothing here links CUDA.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <memory>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/device/device.h"
#include "native/error/error.h"
#include "native/tensor/slots.h"

namespace tf {
namespace {

using c10::CachingDeviceAllocator::DeviceStats;
using c10::impl::VirtualGuardImpl;

// The device of an index, or why there is none.
c10::Device Cuda(int64_t index) {
  return ParseDevice(index < 0 ? "cuda" : "cuda:" + std::to_string(index));
}

// Without a device libtorch's own guard says less than ours, so a device is asked for first.
VirtualGuardImpl Guard() {
  Cuda(-1);
  return VirtualGuardImpl(at::kCUDA);
}

// --- current device -----------------------------------------------------------------------------

int64_t CurrentDevice(Environment&) { return Cuda(-1).index(); }

void SetDevice(Environment&, int64_t index) { Guard().setDevice(Cuda(index)); }

// --- allocator ----------------------------------------------------------------------------------

c10::DeviceAllocator& Allocator() { return *c10::getDeviceAllocator(at::kCUDA); }

// [current, peak, allocated, freed] of all blocks, of small ones, of large ones.
std::vector<double> Numbers(const c10::CachingAllocator::StatArray& stats) {
  std::vector<double> numbers;
  for (const c10::CachingAllocator::Stat& stat : stats) {
    for (const int64_t value : {stat.current, stat.peak, stat.allocated, stat.freed})
      numbers.push_back(static_cast<double>(value));
  }
  return numbers;
}

// Zeros before the first use of CUDA, as in torch: asking must not start a context.
DeviceStats StatsOf(c10::Device device) {
  return Allocator().initialized() ? Allocator().getDeviceStats(device.index()) : DeviceStats{};
}

napi_value DeviceMemory(Environment& environment, int64_t index) {
  const DeviceStats stats = StatsOf(Cuda(index));
  const auto pools = [&](const c10::CachingAllocator::StatArray& array) {
    return ToJs(environment, Numbers(array));
  };
  return Record(environment,
                {{"allocation", pools(stats.allocation)},
                 {"segment", pools(stats.segment)},
                 {"active", pools(stats.active)},
                 {"inactive_split", pools(stats.inactive_split)},
                 {"allocated_bytes", pools(stats.allocated_bytes)},
                 {"reserved_bytes", pools(stats.reserved_bytes)},
                 {"active_bytes", pools(stats.active_bytes)},
                 {"inactive_split_bytes", pools(stats.inactive_split_bytes)},
                 {"requested_bytes", pools(stats.requested_bytes)},
                 {"num_alloc_retries", ToJs(environment, stats.num_alloc_retries)},
                 {"num_ooms", ToJs(environment, stats.num_ooms)},
                 {"num_device_alloc", ToJs(environment, stats.num_device_alloc)},
                 {"num_device_free", ToJs(environment, stats.num_device_free)}});
}

void ResetDeviceMemory(Environment&, int64_t index, bool accumulated) {
  const c10::Device device = Cuda(index);
  if (!Allocator().initialized()) return;
  if (accumulated) {
    Allocator().resetAccumulatedStats(device.index());
  } else {
    Allocator().resetPeakStats(device.index());
  }
}

// The allocator reads its settings when it starts; later ones would be taken without effect.
void SetMemoryFraction(Environment&, double fraction) {
  if (!(fraction > 0 && fraction <= 1)) {
    throw Failure(code::kInvalidArgument,
                  "[set_per_process_memory_fraction] fraction must be above 0 and at most 1, got " +
                      std::to_string(fraction));
  }
  Cuda(-1);
  if (Allocator().initialized()) {
    throw Failure(code::kInvalidArgument,
                  "[set_per_process_memory_fraction] a CUDA device is in use already",
                  "Call it before the first tensor on a CUDA device, or set "
                  "PYTORCH_ALLOC_CONF=per_process_memory_fraction:0.5 for the process.");
  }
  const std::string before = c10::CachingAllocator::getAllocatorSettings();
  c10::CachingAllocator::setAllocatorSettings(
      (before.empty() ? "" : before + ",") +
      "per_process_memory_fraction:" + std::to_string(fraction));
}

// --- streams ------------------------------------------------------------------------------------

// Streams live as long as the process, in libtorch's pools, so a number names one for ever.
c10::Stream StreamOf(int64_t device, int64_t id) {
  return c10::Stream(c10::Stream::UNSAFE, Cuda(device), id);
}

int64_t CurrentStream(Environment&, int64_t device) { return Guard().getStream(Cuda(device)).id(); }

int64_t DefaultStream(Environment&, int64_t device) {
  return Guard().getDefaultStream(Cuda(device)).id();
}

int64_t NewStream(Environment&, int64_t device, int64_t priority) {
  const c10::Device wanted = Cuda(device);
  at::globalContext().lazyInitDevice(at::kCUDA);
  return Guard().getNewStream(wanted, static_cast<int>(priority)).id();
}

void SetStream(Environment&, int64_t device, int64_t id) {
  Guard().exchangeStream(StreamOf(device, id));
}

bool QueryStream(Environment&, int64_t device, int64_t id) {
  return Guard().queryStream(StreamOf(device, id));
}

void SynchronizeStream(Environment&, int64_t device, int64_t id) {
  Guard().synchronizeStream(StreamOf(device, id));
}

// The allocator gives the tensor's memory to others only when what is queued on the stream is done.
void RecordStream(Environment&, const at::Tensor& tensor, int64_t device, int64_t id) {
  if (!tensor.is_cuda()) {
    throw Failure(code::kInvalidArgument,
                  "[record_stream] a tensor on a CUDA device is expected, got " + Summary(tensor));
  }
  Guard().recordDataPtrOnStream(tensor.storage().data_ptr(), StreamOf(device, id));
}

// --- events -------------------------------------------------------------------------------------

// The events of one environment, under handles.
struct Events {
  explicit Events(Environment&) {}
  Slots<std::unique_ptr<c10::Event>> slots;

  static c10::Event& Get(Environment& environment, Handle handle) {
    auto* event = environment.Room<Events>().slots.Find(handle);
    if (event == nullptr)
      throw Failure(code::kInvalidArgument, "an Event is expected, got a number that is none's");
    return **event;
  }
};

Handle NewEvent(Environment& environment, bool timing) {
  Cuda(-1);
  return environment.Room<Events>().slots.Add(std::make_unique<c10::Event>(
      at::kCUDA, timing ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT));
}

void DropEvent(Environment& environment, Handle handle) {
  Slots<std::unique_ptr<c10::Event>>& slots = environment.Room<Events>().slots;
  if (auto* event = slots.Find(handle)) event->reset();
  slots.Remove(handle);
}

void RecordEvent(Environment& environment, Handle event, int64_t device, int64_t stream) {
  Events::Get(environment, event).record(StreamOf(device, stream));
}

void WaitEvent(Environment& environment, Handle event, int64_t device, int64_t stream) {
  Events::Get(environment, event).block(StreamOf(device, stream));
}

bool QueryEvent(Environment& environment, Handle event) {
  return Events::Get(environment, event).query();
}

void SynchronizeEvent(Environment& environment, Handle event) {
  Events::Get(environment, event).synchronize();
}

double ElapsedTime(Environment& environment, Handle start, Handle end) {
  return Events::Get(environment, start).elapsedTime(Events::Get(environment, end));
}

}  // namespace

void InitAccelerator(Exports& exports) {
  exports.Function<"currentDevice", CurrentDevice>();
  exports.Function<"setDevice", SetDevice>();
  exports.Function<"deviceMemory", DeviceMemory>();
  exports.Function<"resetDeviceMemory", ResetDeviceMemory>();
  exports.Function<"setMemoryFraction", SetMemoryFraction>();
  exports.Function<"currentStream", CurrentStream>();
  exports.Function<"defaultStream", DefaultStream>();
  exports.Function<"newStream", NewStream>();
  exports.Function<"setStream", SetStream>();
  exports.Function<"queryStream", QueryStream>();
  exports.Function<"synchronizeStream", SynchronizeStream>();
  exports.Function<"recordStream", RecordStream>();
  exports.Function<"newEvent", NewEvent>();
  exports.Function<"dropEvent", DropEvent>();
  exports.Function<"recordEvent", RecordEvent>();
  exports.Function<"waitEvent", WaitEvent>();
  exports.Function<"queryEvent", QueryEvent>();
  exports.Function<"synchronizeEvent", SynchronizeEvent>();
  exports.Function<"elapsedTime", ElapsedTime>();
}

}  // namespace tf
