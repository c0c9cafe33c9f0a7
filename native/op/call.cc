// Runs any torch operator by its id; the operator's own schema types, defaults and checks the
// arguments.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "native/addon.h"
#include "native/convert/arguments.h"
#include "native/convert/bind.h"
#include "native/convert/result.h"
#include "native/executor/executor.h"
#include "native/io/mapped_tensors.h"
#include "native/op/hand_over.h"
#include "native/op/registry.h"
#include "native/op/unboxed.h"
#include "native/placement/resting.h"
#include "native/program/programs.h"

namespace tf {
namespace {

uint32_t FindOp(Environment&, const std::string& name, const std::string& overload) {
  return OpRegistry::Find(name, overload);
}

std::vector<std::string> ListOps(Environment&) { return OpRegistry::Schemas(); }

void Adopt(Environment& environment, Handle handle, Owner owner) {
  environment.tensors().Adopt(handle, owner.value);
}

// What stands before an operator's own arguments: its id, and the owner of the result.
constexpr size_t kLeading = 2;
constexpr size_t kUsualArguments = 6;
constexpr size_t kMaxArguments = 64;

// The environment's spare stack, for the time of one call.
class StackLease {
 public:
  explicit StackLease(Environment& environment)
      : spare_(environment.spare_stack()), stack_(std::exchange(spare_, {})) {}
  ~StackLease() {
    stack_.clear();
    spare_ = std::move(stack_);
  }
  StackLease(const StackLease&) = delete;
  StackLease& operator=(const StackLease&) = delete;
  torch::jit::Stack& operator*() { return stack_; }

 private:
  torch::jit::Stack& spare_;
  torch::jit::Stack stack_;
};

void Dispatch(const OpPlan& op, torch::jit::Stack& stack) {
  if (op.skips_autograd && !c10::GradMode::is_enabled()) {
    const at::AutoDispatchBelowAutograd below;
    op.handle.callBoxed(&stack);
  } else {
    op.handle.callBoxed(&stack);
  }
}

// An offloaded parameter has no values between uses, and as a tensor on the meta device it would
// make others without values.
void RefuseResting(const OpPlan& op, const torch::jit::Stack& stack) {
  // Questions about its shape and dtype are answered.
  const bool gives =
      std::find(op.returns.begin(), op.returns.end(), ArgumentKind::kTensor) != op.returns.end();
  if (op.may_alias || (!gives && !op.writes)) return;
  const auto refuse = [&](const at::Tensor& tensor) {
    if (FindRest(tensor) == nullptr) return;
    throw Failure(code::kInvalidArgument,
                  "[" + op.name + "] an offloaded parameter (" + Summary(tensor) +
                      ") is used while its block is not on the device",
                  "Use it within its module's forward, or place that module on a device.");
  };
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      refuse(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) refuse(tensor);
    }
  }
}

// The one place where operators called from JavaScript run, or are recorded.
void Run(Environment& environment, const OpPlan& op, torch::jit::Stack& stack) {
  if (Programs* programs = environment.programs(); programs != nullptr) {
    if (programs->Intercept(op, stack)) return;
  }
  io::CheckMapped(stack);
  if (AnyResting()) RefuseResting(op, stack);
  Executor& executor = Executor::Cpu();
  if (executor.num_threads() > 1 && WorthHandingOver(op, stack)) {
    executor.RunAndWait([&] { Dispatch(op, stack); });
  } else {
    Dispatch(op, stack);
  }
  io::CheckMappingFaults();
}

// Written tensors may have been resized, or given another storage.
void RecountWritten(Environment& environment,
                    const OpPlan& op,
                    const napi_value* values,
                    size_t count) {
  for (size_t i = 0; i < std::min(count, op.arguments.size()); ++i) {
    double number = 0;
    if (!op.arguments[i].written) continue;
    if (napi_get_value_double(environment.env(), values[i], &number) != napi_ok) continue;
    environment.tensors().Recount(HandleFromNumber(number));
  }
}

// Null for none.
napi_value OwnerFromJs(Environment& environment, napi_value value) {
  const napi_valuetype type = TypeOf(environment.env(), value);
  if (type == napi_object) return value;
  if (type != napi_null && type != napi_undefined) {
    FailArgument(environment, Where{"call", 2}, "an object or null", value);
  }
  return nullptr;
}

napi_value CallBoxed(Environment& environment,
                     const OpPlan& op,
                     napi_value owner,
                     const napi_value* arguments,
                     size_t count) {
  StackLease stack(environment);
  RetryOutOfMemory(
      [&] {
        (*stack).clear();
        Unpack(environment, op, arguments, count, *stack);
        Run(environment, op, *stack);
      },
      [&] { environment.tensors().CollectNow(); });
  if (op.writes) RecountWritten(environment, op, arguments, count);
  return Pack(environment, op, *stack, owner);
}

// Where a recording or the promises of Programs must see the arguments, the call is boxed.
bool CallUnboxed(Environment& environment,
                 const OpPlan& op,
                 const napi_value* arguments,
                 size_t count,
                 at::Tensor& result) {
  if (op.unboxed == nullptr || AnyResting()) return false;
  if (environment.programs() != nullptr && environment.programs()->Watches(op)) return false;
  bool done = false;
  RetryOutOfMemory([&] { done = op.unboxed->Run(environment, op, arguments, count, result); },
                   [&] { environment.tensors().CollectNow(); });
  if (!done) return false;
  io::CheckMappingFaults();
  if (op.writes) RecountWritten(environment, op, arguments, count);
  return true;
}

// call(op: OpId, owner: object | null, ...args: Value[]): Value
napi_value Call(napi_env env, napi_callback_info info) {
  // Node fills the whole array, so the usual call asks for few.
  std::array<napi_value, kLeading + kUsualArguments> usual;
  std::array<napi_value, kLeading + kMaxArguments> many;
  napi_value* values = usual.data();
  size_t count = usual.size();
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  if (count > usual.size()) {
    values = many.data();
    count = many.size();
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
  auto& environment = *static_cast<Environment*>(data);
  const OpPlan* op = nullptr;
  const napi_value* arguments = values + kLeading;
  const size_t given = std::min(count, kLeading + kMaxArguments) - std::min(count, kLeading);

  const auto body = [&]() -> napi_value {
    double id = -1;
    napi_get_value_double(env, values[0], &id);
    op = OpRegistry::At(id);
    if (op == nullptr)
      throw Failure(code::kInvalidArgument, "[call] argument 1 is no operator's id");
    const napi_value owner = OwnerFromJs(environment, values[1]);
    at::Tensor result;
    if (CallUnboxed(environment, *op, arguments, given, result)) {
      if (op->writes) return nullptr;
      return FromTensor(environment, std::move(result), owner);
    }
    return CallBoxed(environment, *op, owner, arguments, given);
  };

  return Guard(environment, body, [&](Failure& failure) {
    const std::string tensors = DescribeTensors(environment, *op, arguments, given);
    failure.message = "[" + op->name + "] " + failure.message;
    if (!tensors.empty()) failure.message += "\n(" + tensors + ")";
  });
}

// timeCall(op: OpId, times: number, ...args: Value[]): number
napi_value TimeCall(napi_env env, napi_callback_info info) {
  std::array<napi_value, kLeading + kMaxArguments> values;
  size_t count = values.size();
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values.data(), nullptr, &data);
  auto& environment = *static_cast<Environment*>(data);
  return Guard(environment, [&] {
    const OpPlan* op = OpRegistry::At(NumberFromJs(environment, values[0], Where{"timeCall", 1}));
    const int64_t times = IntegerFromJs(environment, values[1], Where{"timeCall", 2});
    if (op == nullptr || times < 1) {
      throw Failure(code::kInvalidArgument, "[timeCall] takes an operator's id and a count");
    }
    if (op->unboxed == nullptr) return ToJs(environment, -1.0);
    const size_t given = std::min(count, values.size()) - std::min(count, kLeading);
    return ToJs(
        environment,
        op->unboxed->Time(
            environment, *op, values.data() + kLeading, given, static_cast<uint32_t>(times)));
  });
}

}  // namespace

void InitOps(Exports& exports) {
  exports.Function<"findOp", FindOp>();
  exports.Function<"listOps", ListOps>();
  exports.Function<"adopt", Adopt>();
  exports.Raw("call", Call);
  exports.Raw("timeCall", TimeCall);
}

}  // namespace tf
