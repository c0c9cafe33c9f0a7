// What every native room shares: the state of one JavaScript environment, and the list of rooms.
#pragma once

#include <ATen/core/stack.h>
#include <node_api.h>

#include <memory>
#include <span>
#include <typeindex>
#include <unordered_map>

#include "native/async/release_queue.h"
#include "native/device/generators.h"
#include "native/tensor/table.h"

namespace tf {

class Programs;

// The state of one environment (the main thread, or a worker): never static, since each worker
// loads the addon for itself. It lives from the addon's registration to the end of the environment,
// and only its own thread may touch it.
class Environment {
 public:
  explicit Environment(napi_env env);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  static Environment& Of(napi_env env);

  napi_env env() const { return env_; }
  TensorTable& tensors() { return tensors_; }
  GeneratorTable& generators() { return generators_; }

  // An empty stack whose memory outlives an operator's call; calls nest when a hook runs operators,
  // so it is taken (and leaves another empty one) and given back.
  torch::jit::Stack& spare_stack() { return spare_stack_; }

  // Where lists of sizes are left for JavaScript, which shares the array. Empty until it gave one.
  std::span<double>& sizes_array() { return sizes_array_; }

  // Where threads without JavaScript leave references for this thread to release. Outlives the
  // environment.
  const std::shared_ptr<ReleaseQueue>& releases() const { return releases_; }

  // The JS function that makes errors, or null.
  napi_value ErrorFactory() const;
  void SetErrorFactory(napi_value factory);

  // State that belongs to one room alone (mapped files, hooks, …): made at first use, gone with the
  // environment. `T` is constructed from an Environment&.
  template <class T>
  T& Room() {
    std::shared_ptr<void>& room = rooms_[std::type_index(typeid(T))];
    if (!room) room = std::make_shared<T>(*this);
    return *static_cast<T*>(room.get());
  }

  // Null until the first recording of a function.
  Programs* programs() const { return programs_; }
  void set_programs(Programs* programs) { programs_ = programs; }

 private:
  napi_env env_;
  Programs* programs_ = nullptr;
  std::shared_ptr<ReleaseQueue> releases_;
  torch::jit::Stack spare_stack_;
  std::span<double> sizes_array_;
  napi_ref error_factory_ = nullptr;
  std::unordered_map<std::type_index, std::shared_ptr<void>> rooms_;
  GeneratorTable generators_;
  TensorTable tensors_;
};

class Exports;

// One per concern, in addon.cc's order. Each puts its functions on the exports and keeps no state
// of its own.
void InitErrors(Exports& exports);
void InitOps(Exports& exports);
void InitTensorFacts(Exports& exports);
void InitTensorData(Exports& exports);
void InitTensorLife(Exports& exports);
void InitAutograd(Exports& exports);
void InitCheckpoint(Exports& exports);
void InitIo(Exports& exports);
void InitPlacement(Exports& exports);
void InitDevices(Exports& exports);
void InitThreads(Exports& exports);
void InitRandom(Exports& exports);
void InitPrograms(Exports& exports);

}  // namespace tf
