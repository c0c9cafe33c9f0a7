// Activation checkpointing: what operators save for backward is dropped, and computed again when
// backward first asks for it. The rules are those of torch.utils.checkpoint, not reentrant.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/autograd/hooks.h"
#include "native/convert/bind.h"
#include "native/convert/value.h"
#include "native/error/error.h"
#include "native/program/programs.h"

namespace tf {
namespace {

using torch::autograd::SavedVariableHooks;

// Everything needed is there: ends the second computation, from within an operator.
struct Enough : std::exception {
  const char* what() const noexcept override { return "the checkpoint has what it needs"; }
};

struct Options {
  bool early_stop;
  bool check;
};

// The states of the generators that a forward may draw from.
class RandomStates {
 public:
  RandomStates() = default;
  explicit RandomStates(const std::vector<c10::Device>& devices) {
    for (const c10::Device device : devices) {
      at::Generator generator = at::globalContext().defaultGenerator(device);
      const std::lock_guard lock(generator.mutex());
      states_.emplace_back(generator, generator.get_state());
    }
  }
  RandomStates Now() const {
    RandomStates now;
    for (const auto& [generator, state] : states_) {
      at::Generator other = generator;
      const std::lock_guard lock(other.mutex());
      now.states_.emplace_back(other, other.get_state());
    }
    return now;
  }
  void Set() {
    for (auto& [generator, state] : states_) {
      const std::lock_guard lock(generator.mutex());
      generator.set_state(state);
    }
  }

 private:
  std::vector<std::pair<at::Generator, at::Tensor>> states_;
};

// Mixed precision as the thread has it.
class AutocastModes {
 public:
  AutocastModes() : cached_(at::autocast::is_autocast_cache_enabled()) {
    for (size_t i = 0; i < kDevices.size(); ++i) {
      enabled_[i] = at::autocast::is_autocast_enabled(kDevices[i]);
      dtypes_[i] = at::autocast::get_autocast_dtype(kDevices[i]);
    }
  }
  void Set() const {
    at::autocast::set_autocast_cache_enabled(cached_);
    bool any = false;
    for (size_t i = 0; i < kDevices.size(); ++i) {
      at::autocast::set_autocast_enabled(kDevices[i], enabled_[i]);
      at::autocast::set_autocast_dtype(kDevices[i], dtypes_[i]);
      any = any || enabled_[i];
    }
    if (!any) at::autocast::clear_cache();
  }

 private:
  static constexpr std::array<c10::DeviceType, 2> kDevices{at::kCPU, at::kCUDA};
  bool cached_;
  std::array<bool, 2> enabled_{};
  std::array<at::ScalarType, 2> dtypes_{};
};

// What a saved tensor must be again.
struct Traits {
  explicit Traits(const at::Tensor& tensor)
      : sizes(tensor.sizes().vec()), dtype(tensor.scalar_type()), device(tensor.device()) {}
  bool operator==(const Traits&) const = default;
  std::string Text() const {
    return std::string(c10::toString(dtype)) + c10::str(c10::IntArrayRef(sizes)) + " on " +
           device.str();
  }
  std::vector<int64_t> sizes;
  c10::ScalarType dtype;
  c10::Device device;
};

// One checkpointed call. Lives as long as one of the graph's nodes may ask for what it saved.
class Frame {
 public:
  Frame(std::vector<torch::autograd::SavedVariable> inputs,
        std::shared_ptr<const Hooks::Function> forward,
        RandomStates random,
        Options options)
      : inputs_(std::move(inputs)),
        forward_(std::move(forward)),
        random_(std::move(random)),
        options_(options) {}

  // The number of a tensor that an operator saves.
  size_t Drop(const at::Tensor& tensor) {
    const std::lock_guard lock(mutex_);
    traits_.emplace_back(tensor);
    alive_.push_back(true);
    return alive_.size() - 1;
  }

  // Its node will not ask any more.
  void Forget(size_t index) {
    std::vector<at::Tensor> dead;  // freed after the lock
    const std::lock_guard lock(mutex_);
    alive_[index] = false;
    for (auto& [task, run] : runs_) {
      if (index < run.tensors.size()) dead.push_back(std::move(run.tensors[index]));
    }
  }

  // The tensor as the second computation saved it. Any thread.
  at::Tensor Take(size_t index) {
    const int64_t task = CurrentTask();
    if (!Has(task)) {
      forward_->OnOwnThread([&] {
        if (!Has(task)) Compute(task);
      });
    }
    const std::lock_guard lock(mutex_);
    at::Tensor tensor = std::move(runs_.at(task).tensors.at(index));
    if (task < 0) runs_.erase(task);
    if (!tensor.defined()) {
      throw Failure(code::kOp,
                    "[checkpoint] a tensor was asked for twice in one backward, and is kept for "
                    "one use only");
    }
    return tensor;
  }

  // The second computation saves a tensor.
  void Keep(int64_t task, const at::Tensor& tensor) {
    const std::lock_guard lock(mutex_);
    Run& run = runs_.at(task);
    const size_t index = run.count++;
    if (index >= alive_.size()) {
      throw Failure(code::kOp,
                    "[checkpoint] the second computation saves more tensors than the first: the "
                    "function must do the same each time");
    }
    if (alive_[index]) run.tensors[index] = tensor;
    if (options_.early_stop && run.count == alive_.size()) {
      run.stopped = true;
      throw Enough();
    }
  }

  bool Stopped(int64_t task) {
    const std::lock_guard lock(mutex_);
    return runs_.at(task).stopped;
  }

 private:
  struct Run {
    std::vector<at::Tensor> tensors;
    size_t count = 0;
    bool stopped = false;
    bool complete = false;
  };

  // Outside of a backward each request stands alone.
  static int64_t CurrentTask() { return torch::autograd::get_current_graph_task_id(); }

  bool Has(int64_t task) {
    const std::lock_guard lock(mutex_);
    const auto found = runs_.find(task);
    return found != runs_.end() && found->second.complete;
  }

  void Compute(int64_t task);
  void CheckSame(const Run& run) const;

  std::vector<torch::autograd::SavedVariable> inputs_;
  std::shared_ptr<const Hooks::Function> forward_;
  RandomStates random_;
  AutocastModes autocast_;
  Options options_;
  std::mutex mutex_;
  std::vector<Traits> traits_;
  std::vector<bool> alive_;
  std::map<int64_t, Run> runs_;  // by backward
};

// The frame that a thread is in. libtorch hands this on, as part of a thread's state, to whichever
// thread computes for it.
struct Inside : c10::DebugInfoBase {
  explicit Inside(std::shared_ptr<Frame> frame) : frame(std::move(frame)) {}
  Inside(std::shared_ptr<Frame> frame, int64_t task)
      : frame(std::move(frame)), again(true), task(task) {}
  std::shared_ptr<Frame> frame;
  bool again = false;  // the second computation
  int64_t task = -1;
};

// libtorch knows no kind for others; it names those that it does not use itself after tests.
constexpr auto kInside = c10::DebugInfoKind::TEST_INFO_2;

Inside* Current() { return static_cast<Inside*>(c10::ThreadLocalDebugInfo::get(kInside)); }

class Dropped : public SavedVariableHooks {
 public:
  explicit Dropped(std::shared_ptr<Frame> frame) : frame_(std::move(frame)) {}
  ~Dropped() override {
    if (packed_) frame_->Forget(index_);
  }
  Dropped(const Dropped&) = delete;
  Dropped& operator=(const Dropped&) = delete;
  void call_pack_hook(const at::Tensor& tensor) override {
    index_ = frame_->Drop(tensor);
    packed_ = true;
  }
  at::Tensor call_unpack_hook() override { return frame_->Take(index_); }

 private:
  std::shared_ptr<Frame> frame_;
  size_t index_ = 0;
  bool packed_ = false;
};

class Kept : public SavedVariableHooks {
 public:
  Kept(Frame& frame, int64_t task) : frame_(frame), task_(task) {}
  void call_pack_hook(const at::Tensor& tensor) override {
    tensor_ = tensor.requires_grad() ? tensor.detach() : tensor;
    frame_.Keep(task_, tensor_);
  }
  at::Tensor call_unpack_hook() override { return tensor_; }

 private:
  Frame& frame_;  // used while packing, when its computation is under way
  int64_t task_;
  at::Tensor tensor_;
};

// libtorch's engine, which is also who is asked what to do with a tensor that is to be saved.
class Engine : public torch::autograd::Engine {
 public:
  Engine() = default;
  static torch::autograd::Engine& Get() {
    static Engine* const engine = new Engine;  // its threads may outlive static objects
    return *engine;
  }
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    const Inside* inside = Current();
    if (inside == nullptr) return nullptr;
    if (inside->again) return std::make_unique<Kept>(*inside->frame, inside->task);
    return std::make_unique<Dropped>(inside->frame);
  }
};

// Modes of the first computation, for the time of the second.
class SameModes {
 public:
  SameModes(RandomStates& random, const AutocastModes& autocast) : now_(random.Now()) {
    random.Set();
    autocast.Set();
  }
  ~SameModes() {
    before_.Set();
    now_.Set();
  }
  SameModes(const SameModes&) = delete;
  SameModes& operator=(const SameModes&) = delete;

 private:
  AutocastModes before_;
  RandomStates now_;
};

void Frame::Compute(int64_t task) {
  std::vector<at::Tensor> inputs;
  for (const auto& input : inputs_) inputs.push_back(input.unpack());
  {
    const std::lock_guard lock(mutex_);
    runs_[task] = Run{std::vector<at::Tensor>(alive_.size())};
  }
  {
    const at::AutoGradMode recording(true);
    const SameModes modes(random_, autocast_);
    const std::shared_ptr<Frame> self(this, [](Frame*) {});  // a node that asks holds the frame
    const c10::DebugInfoGuard guard(kInside, std::make_shared<Inside>(self, task));
    forward_->Call(inputs);
  }
  const std::lock_guard lock(mutex_);
  Run& run = runs_.at(task);
  CheckSame(run);
  run.complete = true;
}

void Frame::CheckSame(const Run& run) const {
  if (run.count != alive_.size()) {
    throw Failure(code::kOp,
                  "[checkpoint] the second computation saves " + std::to_string(run.count) +
                      " tensors, the first saved " + std::to_string(alive_.size()) +
                      ": the function must do the same each time");
  }
  if (!options_.check) return;
  for (size_t i = 0; i < alive_.size(); ++i) {
    if (!alive_[i]) continue;
    const Traits now(run.tensors[i]);
    if (now == traits_[i]) continue;
    throw Failure(code::kOp,
                  "[checkpoint] saved tensor " + std::to_string(i) + " was " + traits_[i].Text() +
                      " in the first computation and is " + now.Text() +
                      " in the second: the function must do the same each time");
  }
}

// Bindings
// -----------------------------------------------------------------------------------------------

// The call that follows, up to closeCheckpoint, is a checkpointed one. `forward(handles)` does the
// same once more with the inputs under these handles.
void OpenCheckpoint(Environment& environment,
                    const std::vector<at::Tensor>& inputs,
                    Js forward,
                    bool preserve_random,
                    bool early_stop,
                    bool check) {
  RefuseRecording(environment, "checkpoint");
  if (TypeOf(environment.env(), forward.value) != napi_function)
    FailArgument(environment, Where{"openCheckpoint", 2}, "a function", forward.value);
  std::vector<c10::Device> devices;
  if (preserve_random) {
    devices.emplace_back(at::kCPU);
    for (const at::Tensor& input : inputs) {
      const c10::Device device = input.device();
      if (device.is_cuda() && std::ranges::find(devices, device) == devices.end())
        devices.push_back(device);
    }
  }
  std::vector<torch::autograd::SavedVariable> saved;
  for (const at::Tensor& input : inputs) saved.emplace_back(input, /*is_output=*/false);
  c10::ThreadLocalDebugInfo::_push(
      kInside,
      std::make_shared<Inside>(std::make_shared<Frame>(
          std::move(saved),
          std::make_shared<const Hooks::Function>(environment.Room<Hooks>(), forward.value),
          RandomStates(devices),
          Options{early_stop, check})));
}

void CloseCheckpoint(Environment&) { c10::ThreadLocalDebugInfo::_pop(kInside); }

// Whether the second computation under way was ended because it had all that is needed.
bool CheckpointStopped(Environment&) {
  Inside* inside = Current();
  return inside != nullptr && inside->again && inside->frame->Stopped(inside->task);
}

}  // namespace

void InitCheckpoint(Exports& exports) {
  torch::autograd::set_default_engine_stub(Engine::Get);
  exports.Function<"openCheckpoint", OpenCheckpoint>();
  exports.Function<"closeCheckpoint", CloseCheckpoint>();
  exports.Function<"checkpointStopped", CheckpointStopped>();
}

}  // namespace tf
