#include "native/executor/executor.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/SequenceNumber.h>
#include <ATen/ThreadLocalState.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

namespace tf {
namespace {

// Waking a thread that sleeps takes tens of microseconds, so both sides look for a moment first.
// The waiting side less long: while it looks it takes a core from the team.
constexpr std::chrono::microseconds kIdleSpin{50};
constexpr std::chrono::microseconds kWaitSpin{10};

thread_local bool on_executor_thread = false;
thread_local int standing_in = 0;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `word` is not zero.
void SpinThenSleep(std::atomic<uint32_t>& word, std::chrono::microseconds spin) {
  static const bool several_cores = std::thread::hardware_concurrency() > 1;
  if (several_cores) {
    const auto end = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (word.load(std::memory_order_acquire) != 0) return;
        Pause();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  while (word.load(std::memory_order_acquire) == 0) word.wait(0, std::memory_order_acquire);
}

// A thread that has not asked yet takes libtorch's last setting of any thread at its first parallel
// loop. Whether it has asked is kept twice: in libtorch, and in this library, since the loops of
// <ATen/Parallel.h> are inline. Without the second, the executor became one thread at the first
// kernel of ours.
void AskForThreads() {
  at::get_num_threads();
  at::internal::lazy_init_num_threads();
}

// Autograd orders its nodes by a number that each thread counts for itself. A graph that is built
// on two threads is ordered as one if whoever goes on starts where the other stopped.
void CatchUpSequence(uint64_t target) {
  while (at::sequence_number::peek() < target) at::sequence_number::get_and_increment();
}

}  // namespace

struct Executor::Modes {
  at::ThreadLocalState state;
  uint64_t sequence = at::sequence_number::peek();
};

Executor::Waiting::Waiting() : modes_(new Modes) {}
Executor::Waiting::~Waiting() { delete modes_; }

void Executor::Waiting::Run() noexcept {
  {
    const at::ThreadLocalStateGuard guard(modes_->state);
    CatchUpSequence(modes_->sequence);
    try {
      Body();
    } catch (...) {
      error = std::current_exception();
    }
    modes_->sequence = at::sequence_number::peek();
  }
  // The caller may be gone right after the store; notify uses the address alone.
  done_.store(1, std::memory_order_release);
  done_.notify_one();
}

void Executor::Waiting::WaitUntilDone() {
  SpinThenSleep(done_, kWaitSpin);
  CatchUpSequence(modes_->sequence);
}

Executor& Executor::Cpu() {
  // Never destroyed: its thread may still be parked in it when the process ends.
  static Executor* const executor = new Executor(at::kCPU);
  return *executor;
}

namespace {

// Those of CUDA devices, by index; never destroyed, as above.
struct DeviceExecutors {
  std::mutex mutex;
  std::map<c10::DeviceIndex, Executor*> all;
};

DeviceExecutors& Devices() {
  static auto* const executors = new DeviceExecutors;
  return *executors;
}

}  // namespace

Executor& Executor::Of(c10::Device device) {
  if (!device.is_cuda()) return Cpu();
  // Here, so that whoever asks hears why a device cannot be used.
  at::globalContext().lazyInitDevice(at::kCUDA);
  const std::lock_guard lock(Devices().mutex);
  Executor*& executor = Devices().all[device.index()];
  if (executor == nullptr) executor = new Executor(device);
  return *executor;
}

void Executor::EndAll(std::chrono::milliseconds patience) {
  {
    const std::lock_guard lock(Devices().mutex);
    for (const auto& [index, executor] : Devices().all) executor->EndProcess(patience);
  }
  Cpu().EndProcess(patience);
}

void Executor::Settle(c10::Device device) {
  if (device.is_cpu()) {
    pthread_setname_np(pthread_self(), "tf-executor");
    on_executor_thread = true;
    // Asking sets torch's own default here: OMP_NUM_THREADS, MKL_NUM_THREADS, else the cores.
    AskForThreads();
    return;
  }
  pthread_setname_np(pthread_self(), ("tf-" + device.str()).c_str());
  UseOneThreadHere();
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.setDevice(device);
  guard.exchangeStream(guard.getNewStream(device));
}

Executor::Executor(c10::Device device) {
  std::atomic<uint32_t> started = 0;
  std::thread thread([&] {
    Settle(device);
    num_threads_.store(at::get_num_threads(), std::memory_order_relaxed);
    started.store(1, std::memory_order_release);
    started.notify_one();
    Loop();
  });
  thread.detach();
  SpinThenSleep(started, kWaitSpin);
}

bool Executor::IsThisThread() const { return on_executor_thread; }

bool Executor::CanHelp() const {
  return standing_in > 0 && helping_.load(std::memory_order_acquire) > 0;
}

void Executor::HelpUntil(const std::atomic<bool>& done) {
  helping_.fetch_add(1, std::memory_order_release);
  for (;;) {
    const uint32_t seen = wakes_.load(std::memory_order_acquire);
    if (Task* task = asked_.exchange(nullptr, std::memory_order_acq_rel)) {
      task->Run();
    } else if (done.load(std::memory_order_acquire)) {
      break;
    } else {
      wakes_.wait(seen, std::memory_order_acquire);
    }
  }
  helping_.fetch_sub(1, std::memory_order_release);
}

void Executor::WakeHelper() {
  wakes_.fetch_add(1, std::memory_order_acq_rel);
  wakes_.notify_all();
}

bool Executor::OnExecutorThread() const { return on_executor_thread || standing_in > 0; }

Executor::InPlace::InPlace() { ++standing_in; }
Executor::InPlace::~InPlace() { --standing_in; }

void Executor::Enqueue(Task& task) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(&task);
    queued_.store(static_cast<uint32_t>(queue_.size()), std::memory_order_release);
  }
  queued_.notify_one();
}

Executor::Task* Executor::Next() {
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) return nullptr;
  Task* task = queue_.front();
  queue_.pop_front();
  queued_.store(static_cast<uint32_t>(queue_.size()), std::memory_order_release);
  return task;
}

void Executor::Loop() {
  for (;;) {
    SpinThenSleep(queued_, kIdleSpin);
    while (Task* task = Next()) {
      const bool awaited = task->awaited();
      if (!awaited) in_turn_.store(true);
      // A task that is dropped is never freed: it may hold what ends with the process.
      if (awaited || !ending_.load()) task->Run();
      if (!awaited) in_turn_.store(false);
    }
  }
}

void Executor::EndProcess(std::chrono::milliseconds patience) {
  ending_.store(true);
  const auto end = std::chrono::steady_clock::now() + patience;
  while (in_turn_.load()) {
    if (std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
#if defined(__GLIBC__)
    // Registered last, so it is called before all destructors.
    on_exit(
        [](int status, void*) {
          fflush(nullptr);
          _exit(status);
        },
        nullptr);
#endif
    return;
  }
}

void Executor::Wait(Waiting& call) {
  if (CanHelp()) {
    asked_.store(&call, std::memory_order_release);
    WakeHelper();
  } else {
    Enqueue(call);
  }
  call.WaitUntilDone();
}

void Executor::SetNumThreads(int count) {
  RunAndWait([&] {
    at::set_num_threads(count);
    num_threads_.store(count, std::memory_order_relaxed);
  });
  // libtorch keeps the last size set anywhere as the one for threads that have not computed yet.
  if (!OnExecutorThread()) UseOneThreadHere();
}

void UseOneThreadHere() {
  // The executor first: its team gets the process's default, which the next line ends.
  if (!on_executor_thread) Executor::Cpu();
  AskForThreads();
  at::set_num_threads(1);
}

}  // namespace tf
