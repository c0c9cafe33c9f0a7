// Work off the event loop that a promise stands for: one template for all of it.
#pragma once

#include <node_api.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "native/addon.h"
#include "native/error/error.h"
#include "native/error/guard.h"

namespace tf {

// Returns a promise. `work()` runs on one of Node's own threads and must not touch JavaScript; then, on the
// environment's thread, `finish(environment, result)` makes the promise's value (`finish(environment)` when `work`
// returns nothing). What either throws rejects the promise.
template <class Work, class Finish>
napi_value Promise(Environment& environment, const char* name, Work work, Finish finish) {
  using Result = std::invoke_result_t<Work&>;
  constexpr bool kVoid = std::is_void_v<Result>;

  struct State {
    Environment& environment;
    Work work;
    Finish finish;
    std::optional<std::conditional_t<kVoid, bool, Result>> result;
    std::optional<Failure> failure;
    napi_deferred deferred = nullptr;
    napi_async_work handle = nullptr;
  };

  const napi_env env = environment.env();
  auto state = std::make_unique<State>(State{environment, std::move(work), std::move(finish), {}, {}});
  const auto execute = [](napi_env, void* data) {
    auto& self = *static_cast<State*>(data);
    self.failure = Capture([&] {
      if constexpr (kVoid) {
        self.work();
        self.result = true;
      } else {
        self.result.emplace(self.work());
      }
    });
  };
  const auto complete = [](napi_env env, napi_status status, void* data) {
    const std::unique_ptr<State> self(static_cast<State*>(data));
    napi_delete_async_work(env, self->handle);
    // Cancelled: the environment is ending and nobody listens.
    if (status == napi_cancelled) return;
    napi_value value = nullptr;
    if (!self->failure) {
      self->failure = Capture([&] {
        if constexpr (kVoid) {
          value = self->finish(self->environment);
        } else {
          value = self->finish(self->environment, std::move(*self->result));
        }
      });
    }
    if (self->failure) {
      napi_reject_deferred(env, self->deferred, MakeError(self->environment, *self->failure));
    } else {
      napi_resolve_deferred(env, self->deferred, value);
    }
  };

  napi_value resource = nullptr;
  napi_value promise = nullptr;
  Check(env, napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource));
  Check(env, napi_create_async_work(env, nullptr, resource, execute, complete, state.get(), &state->handle));
  Check(env, napi_create_promise(env, &state->deferred, &promise));
  Check(env, napi_queue_async_work(env, state->handle));
  state.release();
  return promise;
}

}  // namespace tf
