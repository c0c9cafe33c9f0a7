// The straight way to the operators of the commonest signatures: arguments go from JavaScript to
// their C++ types, without a stack of boxed values between.
#pragma once

#include <ATen/core/Tensor.h>
#include <node_api.h>

#include <memory>

#include "native/op/registry.h"

namespace tf {

class Environment;

// Chosen by an operator's signature, once, when it is looked up. The boxed call stays the rule: it
// takes what is unusual here (a bigint, a missing argument, work for the executor), and it alone is
// recorded and says what is wrong.
class UnboxedCall {
 public:
  virtual ~UnboxedCall() = default;

  // Runs the operator and returns true; `result` stays undefined where it only writes an argument.
  // Returns false, with nothing done, where the boxed call is to do it.
  virtual bool Run(Environment& environment,
                   const OpPlan& plan,
                   const napi_value* values,
                   size_t count,
                   at::Tensor& result) const = 0;

  // Microseconds of one of `times` runs, with nothing of JavaScript between: the operator's own
  // time, for benchmarks. Negative where the boxed call would have to do it.
  virtual double Time(Environment& environment,
                      const OpPlan& plan,
                      const napi_value* values,
                      size_t count,
                      uint32_t times) const = 0;

  // Null when the operator has none of the signatures.
  static std::unique_ptr<const UnboxedCall> For(const OpPlan& plan);
};

}  // namespace tf
