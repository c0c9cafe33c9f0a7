// The one place that turns a failure into a JavaScript error.
#pragma once

#include <node_api.h>

#include <exception>
#include <string>
#include <string_view>

namespace tf {

class Environment;

// Stable codes; lib/errors/index.ts has a class for each.
namespace code {
inline constexpr char kAborted[] = "ERR_ABORTED";
inline constexpr char kCudaUnavailable[] = "ERR_CUDA_UNAVAILABLE";
inline constexpr char kDisposed[] = "ERR_DISPOSED";
inline constexpr char kDtype[] = "ERR_DTYPE";
inline constexpr char kEntryNotFound[] = "ERR_ENTRY_NOT_FOUND";
inline constexpr char kFile[] = "ERR_FILE";
inline constexpr char kInvalidArgument[] = "ERR_INVALID_ARGUMENT";
inline constexpr char kOp[] = "ERR_OP";
inline constexpr char kOutOfMemory[] = "ERR_OUT_OF_MEMORY";
inline constexpr char kSafetensorsFormat[] = "ERR_SAFETENSORS_FORMAT";
inline constexpr char kShape[] = "ERR_SHAPE";
inline constexpr char kTensorBusy[] = "ERR_TENSOR_BUSY";
inline constexpr char kTrace[] = "ERR_TRACE";
}  // namespace code

// What native code throws. `message` is for people and complete; `hint` is the next step, or empty.
class Failure : public std::exception {
 public:
  Failure(const char* code, std::string message, std::string hint = {})
      : code(code), message(std::move(message)), hint(std::move(hint)) {}
  const char* what() const noexcept override { return message.c_str(); }

  const char* code;  // one of tf::code, or another string literal
  std::string message;
  std::string hint;
  bool from_torch = false;  // libtorch said it: the caller may put the op and the shapes in front
};

// A JavaScript exception is pending in the environment; native frames only unwind.
struct PendingException {};

// Throws: a Failure, or PendingException when Node-API says that JavaScript threw.
void Check(napi_env env, napi_status status);

// The exception in flight (call in a catch block), classified: libtorch's errors get the code that
// fits their class or wording, and lose their C++ backtrace.
Failure CurrentFailure();

// A JavaScript Error for `failure`, made by the factory that lib/addon registers; a plain Error
// with `code` without one.
napi_value MakeError(Environment& environment, const Failure& failure);

// Leaves the exception in flight pending in the environment.
void ThrowCurrent(Environment& environment) noexcept;
void Throw(Environment& environment, const Failure& failure) noexcept;

}  // namespace tf
