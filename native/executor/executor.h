// The threads that compute beside those that run JavaScript: one for the CPU, which alone owns an
// OpenMP team, and one per CUDA device, which queues work on a stream of its own.
#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <mutex>

namespace tf {

// A second OpenMP team in the process, even an idle one, makes libgomp sleep instead of spin, and
// small operations become three times slower. So all threads that run JavaScript compute on one
// thread, and hand work above a size to this executor, waiting for it. It is made at first use and
// never destroyed; its thread never keeps the process alive.
class Executor {
 public:
  static Executor& Cpu();
  // That of a device: the CPU's for devices that have none of their own. Throws where a CUDA device
  // cannot be used.
  static Executor& Of(c10::Device device);

  // Work for the executor's thread. Whoever enqueues it keeps it alive until Run has returned.
  class Task {
   public:
    virtual ~Task() = default;
    // Must not throw.
    virtual void Run() noexcept = 0;
    // Whether a thread waits for it: such a task runs even when the process ends.
    virtual bool awaited() const { return false; }
  };

  // Any thread. Tasks run one after the other, in the order in which they came.
  void Enqueue(Task& task);

  // Whether somebody waits for a turn.
  bool has_waiting() const {
    return queued_.load(std::memory_order_relaxed) != 0 || ending_.load(std::memory_order_relaxed);
  }

  // The process is about to end: from here on only awaited tasks run. Waits until the task under
  // way has ended its turn, for `patience` at most. When it has not, the process will end by _exit,
  // with the same status and its streams flushed: libtorch's static destructors must not meet a
  // thread that computes.
  void EndProcess(std::chrono::milliseconds patience);
  // Of all executors.
  static void EndAll(std::chrono::milliseconds patience);
  bool ending() const { return ending_.load(std::memory_order_relaxed); }

  // Runs `body` on the executor's thread and waits for it; what it throws is thrown here. The
  // calling thread's modes (grad, inference, autocast, dispatch keys) hold there too. On the
  // executor's thread itself `body` runs in place.
  template <class Body>
  void RunAndWait(Body&& body) {
    if (OnExecutorThread() && !CanHelp()) {
      body();
      return;
    }
    Call<Body> call(body);
    Wait(call);
    if (call.error) std::rethrow_exception(call.error);
  }

  // As above, while this thread does `meanwhile`, which `body` must bring to an end. What
  // `meanwhile` wants run and waited for runs in place: the executor's thread may be waiting for
  // it.
  template <class Body, class Meanwhile>
  void RunAndWait(Body&& body, Meanwhile&& meanwhile) {
    Call<Body> call(body);
    Enqueue(call);
    {
      const InPlace here;
      meanwhile();
    }
    call.WaitUntilDone();
    if (call.error) std::rethrow_exception(call.error);
  }

  // The size of the team.
  int num_threads() const { return num_threads_.load(std::memory_order_relaxed); }
  // Waits until the team has that size. libgomp ends and starts threads for it: not for hot paths.
  void SetNumThreads(int count);

  // Also on a thread that stands in for it.
  bool OnExecutorThread() const;
  bool IsThisThread() const;

  // The executor's thread, waiting for one that stands in for it: runs what that one wants run,
  // until `done`, whose setter calls WakeHelper.
  void HelpUntil(const std::atomic<bool>& done);
  void WakeHelper();

 private:
  struct Modes;

  // While one lives, its thread stands in for the executor's.
  struct InPlace {
    InPlace();
    ~InPlace();
  };

  class Waiting : public Task {
   public:
    Waiting();
    ~Waiting() override;
    void Run() noexcept final;
    bool awaited() const final { return true; }
    void WaitUntilDone();
    std::exception_ptr error;

   protected:
    virtual void Body() = 0;

   private:
    Modes* modes_;
    std::atomic<uint32_t> done_ = 0;
  };

  template <class F>
  class Call final : public Waiting {
   public:
    explicit Call(F& body) : body_(body) {}

   private:
    void Body() override { body_(); }
    F& body_;
  };

  explicit Executor(c10::Device device);
  // What its thread does first.
  static void Settle(c10::Device device);
  // Whether the executor's thread waits for this one, and would run its work meanwhile.
  bool CanHelp() const;
  void Wait(Waiting& call);
  void Loop();
  Task* Next();

  std::mutex mutex_;
  std::deque<Task*> queue_;
  std::atomic<uint32_t> queued_ = 0;
  std::atomic<int> num_threads_ = 1;
  std::atomic<int> helping_ = 0;        // calls of HelpUntil; they nest
  std::atomic<Task*> asked_ = nullptr;  // for the helper
  std::atomic<uint32_t> wakes_ = 0;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> in_turn_ = false;  // of a task that nobody waits for
};

// Makes libtorch compute on one thread whenever the calling thread asks it to. Every thread of ours
// that may run an operator calls it once, before its first.
void UseOneThreadHere();

}  // namespace tf
