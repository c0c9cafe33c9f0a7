// Promises for work off the event loop.
#pragma once

#include <node_api.h>

#include <memory>
#include <optional>
#include <utility>

#include "native/addon.h"
#include "native/convert/value.h"
#include "native/error/guard.h"
#include "native/executor/executor.h"

namespace tf {

// Runs `work()` on a thread of Node's pool, then `finish(environment, result)` on the environment's
// thread, whose value settles the promise. `work` must not touch JavaScript nor the environment: it
// holds what it needs by value. What either throws rejects the promise; nothing throws
// synchronously. When the environment ends first, Node waits for the work and `finish` is not
// called.
//
//   return Promise(environment, [path] { return ReadHeader(path); },
//                  [](Environment& environment, Header header) { return ToJs(environment,
//                  header.size); });
template <class Work, class Finish>
napi_value Promise(Environment& environment, Work work, Finish finish) {
  using Result = decltype(work());

  struct Job {
    Environment& environment;
    Work work;
    Finish finish;
    napi_async_work async = nullptr;
    napi_deferred deferred = nullptr;
    std::optional<Result> result;
    std::optional<Failure> failure;
  };

  const auto execute = [](napi_env, void* data) {
    auto& job = *static_cast<Job*>(data);
    job.failure = Capture([&] {
      // Node's pool has many threads, and each would start a team of its own.
      thread_local const bool one_thread = (UseOneThreadHere(), true);
      static_cast<void>(one_thread);
      job.result.emplace(job.work());
    });
  };

  const auto complete = [](napi_env env, napi_status status, void* data) {
    const std::unique_ptr<Job> job(static_cast<Job*>(data));
    napi_delete_async_work(env, job->async);
    if (status == napi_cancelled) return;
    napi_value value = nullptr;
    if (!job->failure) {
      job->failure =
          Capture([&] { value = job->finish(job->environment, std::move(*job->result)); });
    }
    if (job->failure) {
      napi_reject_deferred(env, job->deferred, MakeError(job->environment, *job->failure));
    } else {
      napi_resolve_deferred(env, job->deferred, value != nullptr ? value : Undefined(env));
    }
  };

  const napi_env env = environment.env();
  auto job = std::make_unique<Job>(
      Job{environment, std::move(work), std::move(finish), nullptr, nullptr, {}, {}});
  napi_value promise = nullptr;
  Check(env, napi_create_promise(env, &job->deferred, &promise));
  Check(env,
        napi_create_async_work(env,
                               nullptr,
                               FromString(env, "torchformers"),
                               execute,
                               complete,
                               job.get(),
                               &job->async));
  Check(env, napi_queue_async_work(env, job->async));
  job.release();
  return promise;
}

}  // namespace tf
