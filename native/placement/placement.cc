// Limited devices and streamed blocks for JavaScript.
#include <ATen/ATen.h>
#include <ATen/ops/from_blob.h>

#include <atomic>
#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/placement/limited_device.h"
#include "native/placement/memory.h"
#include "native/placement/resting.h"
#include "native/program/programs.h"
#include "native/tensor/storage_kind.h"

namespace tf {
namespace {

using placement::LimitedDevice;
using placement::StreamerOptions;
using placement::StreamerStats;

constexpr napi_type_tag kStreamerTag = {0x5a1e9c3b7d204f68, 0xb3d7f0a26c8e4195};

// The devices of the process. Never destroyed: their threads may be at work when it ends.
struct Devices {
  std::mutex mutex;
  std::vector<std::shared_ptr<LimitedDevice>> all;

  static Devices& Instance() {
    static auto* devices = new Devices;
    return *devices;
  }
  static std::vector<std::shared_ptr<LimitedDevice>> All() {
    const std::lock_guard lock(Instance().mutex);
    return Instance().all;
  }
  static std::shared_ptr<LimitedDevice> Get(int64_t index) {
    const auto all = All();
    if (index < 0 || static_cast<size_t>(index) >= all.size()) {
      throw Failure(code::kInvalidArgument,
                    "there is no device limited:" + std::to_string(index) + "; " +
                        std::to_string(all.size()) + " were set up",
                    "Call torch.limited_devices([{ capacity, bandwidth }]) first.");
    }
    return all[static_cast<size_t>(index)];
  }
};

void ReleaseMemory(void* owner) { delete static_cast<std::shared_ptr<void>*>(owner); }

// Those that were there stay as long as tensors lie on them.
void SetLimitedDevices(Environment&,
                       const std::vector<double>& capacities,
                       const std::vector<double>& bandwidths) {
  std::vector<std::shared_ptr<LimitedDevice>> devices;
  for (size_t i = 0; i < capacities.size(); ++i) {
    devices.push_back(std::make_shared<LimitedDevice>(
        "limited:" + std::to_string(i), static_cast<size_t>(capacities[i]), bandwidths.at(i)));
  }
  const std::lock_guard lock(Devices::Instance().mutex);
  Devices::Instance().all = std::move(devices);
}

napi_value LimitedDevices(Environment& environment) {
  std::vector<napi_value> list;
  for (const auto& device : Devices::All()) {
    list.push_back(
        Record(environment,
               {{"name", ToJs(environment, device->name())},
                {"capacity", ToJs(environment, static_cast<double>(device->capacity()))},
                {"bandwidth", ToJs(environment, device->bandwidth())},
                {"used", ToJs(environment, static_cast<double>(device->used()))},
                {"bytes_copied", ToJs(environment, static_cast<double>(device->bytes_copied()))}}));
  }
  return ToJs(environment, list);
}

// Memory that is out may be held by what is garbage.
template <class Body>
auto WithRoom(Environment& environment, Body body) {
  try {
    return body();
  } catch (const placement::DeviceFull&) {
    environment.tensors().CollectNow();
  }
  return body();
}

// Bytes of a device, given back with the last tensor over them.
struct Taken {
  std::shared_ptr<LimitedDevice> device;
  std::byte* at;
  Taken(std::shared_ptr<LimitedDevice> from, size_t bytes)
      : device(std::move(from)), at(device->Allocate(bytes)) {}
  ~Taken() { device->Free(at); }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
};

// Waits until the bytes are there.
Handle CopyToLimited(Environment& environment,
                     Owner owner,
                     int64_t index,
                     const at::Tensor& tensor) {
  RefuseRead(environment, tensor, "copyIn");
  if (!tensor.device().is_cpu() || tensor.layout() != at::kStrided) {
    throw Failure(code::kInvalidArgument,
                  "[copyIn] takes dense tensors on the CPU, got " + Summary(tensor));
  }
  const std::shared_ptr<LimitedDevice> device = Devices::Get(index);
  at::Tensor from = tensor.detach().resolve_conj().resolve_neg();
  if (!from.is_non_overlapping_and_dense()) from = from.contiguous();
  const auto taken =
      WithRoom(environment, [&] { return std::make_shared<Taken>(device, from.nbytes()); });
  std::atomic<uint32_t> done = 0;
  std::exception_ptr failure;
  device->CopyAsync(
      {{{taken->at, static_cast<const std::byte*>(from.const_data_ptr()), from.nbytes()}},
       nullptr,
       [&](const std::exception_ptr& what) {
         failure = what;
         done.store(1, std::memory_order_release);
         done.notify_one();
       }});
  while (done.load(std::memory_order_acquire) == 0) done.wait(0, std::memory_order_acquire);
  if (failure) std::rethrow_exception(failure);
  return environment.tensors().Add(OverMemory(taken->at, from, taken), owner.value);
}

// A JavaScript object that holds a streamer.
struct StreamerRef {
  std::shared_ptr<TensorStreamer> streamer;
};

}  // namespace

template <>
struct FromJs<StreamerRef> {
  static StreamerRef Get(Environment& environment, napi_value value, Where what) {
    const napi_env env = environment.env();
    bool tagged = false;
    void* data = nullptr;
    if (TypeOf(env, value) != napi_external ||
        napi_check_object_type_tag(env, value, &kStreamerTag, &tagged) != napi_ok || !tagged ||
        napi_get_value_external(env, value, &data) != napi_ok) {
      FailArgument(environment, what, "a streamer", value);
    }
    const auto& streamer = *static_cast<std::shared_ptr<TensorStreamer>*>(data);
    if (!streamer)
      throw Failure(
          code::kDisposed,
          "[" + std::string(what.name) + "] the streamer of these blocks was disposed of");
    return {streamer};
  }
};

at::Tensor OverMemory(std::byte* at, const at::Tensor& like, std::shared_ptr<void> owner) {
  return at::for_blob(at, like.sizes())
      .strides(like.strides())
      .context(new std::shared_ptr<void>(std::move(owner)), &ReleaseMemory)
      .options(like.options().requires_grad(false))
      .make_tensor();
}

namespace {

// `device`: the number of a limited one, -1: none, the blocks are used where they lie.
napi_value MakeStreamer(Environment& environment,
                        int64_t device,
                        const std::vector<std::vector<at::Tensor>>& blocks,
                        const std::vector<double>& numbers,
                        bool synchronous,
                        bool lets_go) {
  const napi_env env = environment.env();
  StreamerOptions options;
  options.slots = static_cast<size_t>(numbers.at(0));
  options.depth = static_cast<size_t>(numbers.at(1));
  options.memory = static_cast<size_t>(numbers.at(2));
  options.synchronous = synchronous;
  options.lets_go = lets_go;
  const auto end = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<TensorStreamer>*>(data);
  };
  auto holder = std::make_unique<std::shared_ptr<TensorStreamer>>(WithRoom(environment, [&] {
    return std::make_shared<TensorStreamer>(
        device < 0 ? nullptr : Devices::Get(device), blocks, options);
  }));
  napi_value external = nullptr;
  Check(env, napi_create_external(env, holder.get(), end, nullptr, &external));
  holder.release();
  Check(env, napi_type_tag_object(env, external, &kStreamerTag));
  return external;
}

size_t BlockOf(const StreamerRef& ref, int64_t block) {
  if (block < 0 || static_cast<size_t>(block) >= ref.streamer->sources.size())
    throw Failure(code::kInvalidArgument, "there is no block " + std::to_string(block));
  return static_cast<size_t>(block);
}

// Waits for the block, and gives its tensors, without owners.
std::vector<Handle> AcquireBlock(Environment& environment, StreamerRef ref, int64_t block) {
  RefuseRecording(environment, "acquire");
  const size_t index = BlockOf(ref, block);
  ref.streamer->streamer.Acquire(index);
  std::vector<Handle> handles;
  for (size_t part = 0; part < ref.streamer->sources[index].size(); ++part) {
    handles.push_back(
        environment.tensors().Add(TensorStreamer::Part(ref.streamer, index, part), nullptr));
  }
  return handles;
}

void ReleaseBlock(Environment&, StreamerRef ref, int64_t block) {
  ref.streamer->streamer.Release(BlockOf(ref, block));
}

std::vector<Handle> RestingBlock(Environment& environment, StreamerRef ref, int64_t block) {
  const size_t index = BlockOf(ref, block);
  std::vector<Handle> handles;
  for (size_t part = 0; part < ref.streamer->sources[index].size(); ++part) {
    handles.push_back(
        environment.tensors().Add(TensorStreamer::Resting(ref.streamer, index, part), nullptr));
  }
  return handles;
}

bool IsResting(Environment&, const at::Tensor& tensor) { return FindRest(tensor) != nullptr; }

std::string DeviceOfUse(Environment&, const at::Tensor& tensor) { return HomeDevice(tensor).str(); }

// Where a resting tensor's values come from.
std::optional<Handle> RestingSource(Environment& environment, const at::Tensor& tensor) {
  const RestMark* mark = FindRest(tensor);
  if (mark == nullptr) return std::nullopt;
  return environment.tensors().Add(mark->streamer->sources[mark->block][mark->part].detach(),
                                   nullptr);
}

napi_value StreamerNumbers(Environment& environment, StreamerRef ref) {
  const StreamerStats stats = ref.streamer->streamer.stats();
  const auto number = [&](auto value) { return ToJs(environment, static_cast<double>(value)); };
  return Record(environment,
                {{"bytes_moved", number(stats.bytes)},
                 {"disk_bytes", number(stats.disk_bytes)},
                 {"loads", number(stats.loads)},
                 {"uses", number(stats.uses)},
                 {"waits", number(stats.waits)},
                 {"exposed_ms", number(static_cast<double>(stats.exposed) / 1e6)},
                 {"hidden_ms", number(static_cast<double>(stats.hidden) / 1e6)},
                 {"resident_blocks", number(stats.resident)},
                 {"slots", number(stats.slots)},
                 {"room", number(stats.room)}});
}

// The object lets go of it, too: it may be long until it is collected.
void CloseStreamer(Environment& environment, Js object) {
  const StreamerRef ref = FromJs<StreamerRef>::Get(environment, object.value, {"closeStreamer", 1});
  ref.streamer->streamer.Close();
  void* data = nullptr;
  Check(environment.env(), napi_get_value_external(environment.env(), object.value, &data));
  static_cast<std::shared_ptr<TensorStreamer>*>(data)->reset();
}

}  // namespace

void InitPlacement(Exports& exports) {
  MarkDeleter(&ReleaseMemory, StorageKind::kDevice);
  exports.Function<"setLimitedDevices", SetLimitedDevices>();
  exports.Function<"limitedDevices", LimitedDevices>();
  exports.Function<"copyToLimited", CopyToLimited>();
  exports.Function<"makeStreamer", MakeStreamer>();
  exports.Function<"acquireBlock", AcquireBlock>();
  exports.Function<"releaseBlock", ReleaseBlock>();
  exports.Function<"restingBlock", RestingBlock>();
  exports.Function<"isResting", IsResting>();
  exports.Function<"homeDevice", DeviceOfUse>();
  exports.Function<"restingSource", RestingSource>();
  exports.Function<"streamerNumbers", StreamerNumbers>();
  exports.Function<"closeStreamer", CloseStreamer>();
}

}  // namespace tf
