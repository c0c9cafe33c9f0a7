// Where work of an environment goes when it has something to tell: the executor posts, the
// environment's thread is woken and takes.
#pragma once

#include <node_api.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

namespace tf {

// The part that knows no letters. Outlives its environment: work may end later.
class Doorbell {
 public:
  // The environment's thread. `wake` is called on it (with Doorbell* as context) some time after
  // something has arrived; several arrivals may share a call.
  void Open(napi_env env, napi_threadsafe_function_call_js wake);
  // While something is pending the process stays alive.
  void Hold(napi_env env, bool alive);

  // The executor: around each turn; false when the environment is gone.
  bool BeginTurn();
  void EndTurn();
  bool closed() const { return closed_.load(std::memory_order_acquire); }

 protected:
  // Waits until no operator of this environment's work is under way, as long as two seconds.
  void Close(std::unique_lock<std::mutex>& lock);
  // To be called with the lock held. Never waits for the environment's thread.
  void Ring();
  void Answered() { awake_ = false; }

  std::mutex mutex_;

 private:
  std::condition_variable idle_;
  std::atomic<bool> closed_ = true;
  int turns_ = 0;
  bool awake_ = false;
  bool held_ = false;
  napi_threadsafe_function function_ = nullptr;
};

template <class Letter>
class MailboxOf : public Doorbell {
 public:
  // The environment's thread.
  void Close() {
    std::vector<Letter> dropped;
    std::unique_lock lock(mutex_);
    Doorbell::Close(lock);
    dropped.swap(letters_);
  }

  // The executor. The letter is dropped when the environment is gone.
  void Post(Letter letter) {
    const std::lock_guard lock(mutex_);
    if (closed()) return;
    letters_.push_back(std::move(letter));
    Ring();
  }

  // The environment's thread.
  std::vector<Letter> Take() {
    const std::lock_guard lock(mutex_);
    Answered();
    return std::exchange(letters_, {});
  }

 private:
  std::vector<Letter> letters_;
};

}  // namespace tf
