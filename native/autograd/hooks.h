// JavaScript functions as gradient hooks, called from wherever the engine runs.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>
#include <node_api.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "native/async/release_queue.h"
#include "native/tensor/slots.h"

namespace tf {

class Environment;

// JavaScript threw in a hook. What it threw waits in the environment (Hooks::Rethrow), the engine
// only unwinds.
class HookThrew : public std::exception {
 public:
  const char* what() const noexcept override { return "a gradient hook threw"; }
};

// Where other threads ask an environment's own thread, which waits for the engine meanwhile, to run
// hooks.
class HookQueue {
 public:
  // Any thread: runs `call` on the environment's thread and waits; what it throws is thrown here.
  // Fails when nobody serves the queue, since waiting would never end.
  void Run(const std::function<void()>& call);

  // One piece of work that may ask. Those of hooks that run a backward of their own nest, and need
  // not end in order: after an error the engine of the outer one does not wait for its devices.
  struct Work {
    bool finished = false;
  };

  // The environment's thread, before the work begins.
  void Announce();
  // The environment's thread, once for each Announce: serves until this work is finished. Nests
  // with the calls that it serves.
  void Serve(const Work& work);
  // Any thread: ends the work's Serve once what was asked before is done.
  void Finish(Work& work);
  // The environment ends: whoever still holds a hook of it gets a failure.
  void Close() { closed_.store(true); }

 private:
  struct Request {
    const std::function<void()>* call;
    std::exception_ptr error;
    std::atomic<bool> done = false;
  };

  const std::thread::id owner_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request*> requests_;
  int serving_ = 0;
  std::atomic<bool> closed_ = false;
};

// The hooks of one environment.
class Hooks {
 public:
  explicit Hooks(Environment& environment);
  ~Hooks();
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;

  // `function(grad)` returns a handle, or 0 for "unchanged".
  uint32_t OnGradient(const at::Tensor& tensor, napi_value function);
  // `function()` runs after the leaf's gradient has been accumulated.
  uint32_t AfterAccumulate(const at::Tensor& leaf, napi_value function);
  // An unknown id, or one whose tensor is gone, is left alone.
  void Remove(uint32_t id);

  // Whether an engine run may call JavaScript of this environment.
  bool any() const { return *alive_ > 0; }
  HookQueue& queue() { return *queue_; }

  // Whether some environment has hooks on this tensor.
  static bool Watch(const at::Tensor& tensor);

  // Leaves what the hook threw pending in the environment.
  [[noreturn]] void Rethrow();

  // A function as libtorch's graph holds it: freed on any thread, called on any thread.
  class Function {
   public:
    Function(Hooks& hooks, napi_value function);
    ~Function();
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;
    // An undefined result means "unchanged".
    at::Tensor operator()(const at::Tensor& grad) const;
    // Runs `body` on the environment's thread; it may Call.
    void OnOwnThread(const std::function<void()>& body) const { queue_->Run(body); }
    // Own thread: calls with the handles of these tensors, which get no owners.
    void Call(const std::vector<at::Tensor>& arguments) const;

   private:
    Hooks* hooks_;  // used on the environment's thread only
    napi_ref reference_ = nullptr;
    std::shared_ptr<HookQueue> queue_;
    std::shared_ptr<ReleaseQueue> releases_;
    std::shared_ptr<std::atomic<int>> alive_;
  };

 private:
  struct AccumulateHooks;

  struct Registered {
    c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
    std::weak_ptr<Function> function;
    int position;  // in the tensor's list; -1 for a hook after accumulation
  };

  at::Tensor Call(napi_ref reference, const at::Tensor& grad);
  // Throws HookThrew when the function does.
  napi_value Invoke(napi_ref reference, napi_value argument);
  uint32_t Register(const at::Tensor& tensor,
                    const std::shared_ptr<Function>& function,
                    int position);

  Environment& environment_;
  std::shared_ptr<HookQueue> queue_ = std::make_shared<HookQueue>();
  std::shared_ptr<std::atomic<int>> alive_ = std::make_shared<std::atomic<int>>(0);
  std::unordered_map<uint32_t, Registered> registered_;
  size_t prune_at_ = 64;
  uint32_t last_id_ = 0;
  napi_ref thrown_ = nullptr;  // an array of one value: what a hook threw need not be an object
};

}  // namespace tf
