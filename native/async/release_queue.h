// References that other threads want released on the environment's own thread.
#pragma once

#include <node_api.h>

#include <atomic>
#include <mutex>
#include <vector>

namespace tf {

// A deleter of a tensor over a JavaScript buffer may run anywhere, also after the environment is
// gone; Node-API references may be deleted on its thread only. Deleters hold this queue by
// shared_ptr and post.
class ReleaseQueue {
 public:
  // Any thread. Does nothing once the queue is closed: the references died with the environment.
  void Post(napi_ref reference) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    references_.push_back(reference);
    pending_.store(true, std::memory_order_release);
  }

  // The environment's thread; cheap when there is nothing to do.
  void Drain(napi_env env) {
    if (!pending_.load(std::memory_order_acquire)) return;
    std::vector<napi_ref> references;
    {
      const std::lock_guard lock(mutex_);
      references.swap(references_);
      pending_.store(false, std::memory_order_release);
    }
    for (napi_ref reference : references) napi_delete_reference(env, reference);
  }

  void Close(napi_env env) {
    Drain(env);
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> pending_ = false;
  bool closed_ = false;
  std::vector<napi_ref> references_;
};

}  // namespace tf
