#include "native/program/mailbox.h"

#include <chrono>

#include "native/convert/value.h"
#include "native/error/error.h"

namespace tf {
namespace {

constexpr std::chrono::seconds kPatience{2};

}  // namespace

void Doorbell::Open(napi_env env, napi_threadsafe_function_call_js wake) {
  Check(env,
        napi_create_threadsafe_function(env,
                                        nullptr,
                                        nullptr,
                                        FromString(env, "torchformers programs"),
                                        /*max_queue_size=*/0,
                                        /*initial_thread_count=*/1,
                                        nullptr,
                                        nullptr,
                                        this,
                                        wake,
                                        &function_));
  Check(env, napi_unref_threadsafe_function(env, function_));
  closed_.store(false, std::memory_order_release);
}

void Doorbell::Close(std::unique_lock<std::mutex>& lock) {
  closed_.store(true, std::memory_order_release);
  // Operators may be reading memory that ends with the environment.
  idle_.wait_for(lock, kPatience, [&] { return turns_ == 0; });
  function_ = nullptr;
}

bool Doorbell::BeginTurn() {
  const std::lock_guard lock(mutex_);
  if (closed()) return false;
  ++turns_;
  return true;
}

void Doorbell::EndTurn() {
  const std::lock_guard lock(mutex_);
  --turns_;
  idle_.notify_all();
}

void Doorbell::Ring() {
  if (std::exchange(awake_, true)) return;
  napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Doorbell::Hold(napi_env env, bool alive) {
  if (std::exchange(held_, alive) == alive) return;
  if (alive) {
    napi_ref_threadsafe_function(env, function_);
  } else {
    napi_unref_threadsafe_function(env, function_);
  }
}

}  // namespace tf
