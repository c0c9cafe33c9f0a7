// The only try/catch around bindings and thread functions.
#pragma once

#include <optional>
#include <utility>

#include "native/error/error.h"

namespace tf {

// Runs the body of a binding. What it throws is left pending as a JavaScript exception.
template <class Body>
napi_value Guard(Environment& environment, Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    ThrowCurrent(environment);
    return nullptr;
  }
}

// As above; `describe(failure)` may complete what libtorch said, for example with the shapes of the
// arguments.
template <class Body, class Describe>
napi_value Guard(Environment& environment, Body&& body, Describe&& describe) noexcept {
  try {
    try {
      return std::forward<Body>(body)();
    } catch (const PendingException&) {
      throw;
    } catch (...) {
      Failure failure = CurrentFailure();
      if (failure.from_torch) describe(failure);
      throw failure;
    }
  } catch (...) {
    ThrowCurrent(environment);
    return nullptr;
  }
}

// Runs work on a thread that has no JavaScript; nothing leaves it.
template <class Body>
std::optional<Failure> Capture(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return std::nullopt;
  } catch (...) {
    return CurrentFailure();
  }
}

// Runs `body`; when memory ran out, `recover` frees some and `body` gets a second and last chance.
template <class Body, class Recover>
void RetryOutOfMemory(Body&& body, Recover&& recover) {
  try {
    body();
    return;
  } catch (...) {
    if (CurrentFailure().code != code::kOutOfMemory) throw;
  }
  recover();
  body();
}

}  // namespace tf
