#include "native/autograd/engine.h"

#include <ATen/ThreadLocalState.h>

#include <exception>
#include <thread>

#include "native/addon.h"
#include "native/autograd/graph.h"
#include "native/autograd/hooks.h"
#include "native/error/error.h"
#include "native/executor/executor.h"

namespace tf {
namespace {

// Ends the serving of hooks on each way out.
struct Finisher {
  HookQueue& queue;
  HookQueue::Work& work;
  ~Finisher() { queue.Finish(work); }
};

// A hook's own backward: the executor waits for the hook, so the engine gets a thread for this
// once.
void RunOnHelper(const std::function<void()>& body, HookQueue& queue) {
  const at::ThreadLocalState modes;
  std::exception_ptr error;
  HookQueue::Work work;
  queue.Announce();
  std::thread helper([&] {
    const Finisher finish{queue, work};
    try {
      UseOneThreadHere();
      const at::ThreadLocalStateGuard guard(modes);
      body();
    } catch (...) {
      error = std::current_exception();
    }
  });
  queue.Serve(work);
  helper.join();
  if (error) std::rethrow_exception(error);
}

// A small graph on the CPU runs in place, hooks too. Else the engine runs elsewhere; and since its
// threads, those of a device too, may call JavaScript, this thread serves hooks meanwhile if there
// are any.
void Run(Hooks& hooks, const std::vector<at::Tensor>& roots, const std::function<void()>& body) {
  Executor& executor = Executor::Cpu();
  HookQueue& queue = hooks.queue();
  if (IsSmallGraph(roots)) {
    body();
  } else if (!hooks.any()) {
    executor.RunAndWait(body);
  } else if (executor.OnExecutorThread()) {
    RunOnHelper(body, queue);
  } else {
    HookQueue::Work work;
    const auto finishing = [&] {
      const Finisher finish{queue, work};
      body();
    };
    queue.Announce();
    executor.RunAndWait(finishing, [&] { queue.Serve(work); });
  }
}

}  // namespace

void RunEngine(Environment& environment,
               const char* name,
               const std::vector<at::Tensor>& roots,
               const std::function<void()>& body) {
  Hooks& hooks = environment.Room<Hooks>();
  try {
    Run(hooks, roots, body);
  } catch (const HookThrew&) {
    hooks.Rethrow();
  } catch (...) {
    Failure failure = CurrentFailure();
    if (failure.from_torch) failure.message = "[" + std::string(name) + "] " + failure.message;
    throw failure;
  }
}

}  // namespace tf
