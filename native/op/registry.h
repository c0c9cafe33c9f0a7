// The operators of libtorch, each with a plan of how its arguments are unpacked.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tf {

// What a schema's argument takes, with `?` and `[]` taken apart.
enum class ArgumentKind : uint8_t {
  kTensor,
  kScalar,
  kInt,
  kFloat,
  kComplex,
  kBool,
  kString,
  kDevice,
  kDtype,
  kLayout,
  kMemoryFormat,
  kGenerator,
  kStream,
  kNumberTensor,  // a number that the operator gets as a tensor without dimensions
  kUnsupported,
};

struct ArgumentPlan {
  std::string name;
  ArgumentKind kind;
  bool optional = false;        // T?
  bool list = false;            // T[]
  bool optional_items = false;  // T?[]
  bool written = false;         // T(a!)
  bool symbolic = false;        // SymInt rather than int: another type in C++
  int32_t count = 0;            // int[2]: a single number stands for two
  std::optional<c10::IValue> default_value;
  std::string type;  // as the schema words it, for messages
};

class UnboxedCall;

struct OpPlan {
  explicit OpPlan(c10::OperatorHandle handle);
  ~OpPlan();

  c10::OperatorHandle handle;
  std::string name;  // "aten::add.Tensor"
  std::vector<ArgumentPlan> arguments;
  std::vector<bool> returns_written;  // per result: it is an argument that the operator wrote
  std::vector<ArgumentKind> returns;
  bool writes = false;          // some argument
  bool may_alias = false;       // a result may be a view: it makes no values, as a rule
  bool hand_over = false;       // big calls go to the executor
  bool skips_autograd = false;  // may be run below autograd's layer when gradients are off
  bool heavy = false;           // many operations per element: products, convolutions, attention
  std::unique_ptr<const UnboxedCall> unboxed;  // null for most signatures
  bool picks = false;  // copies rows of its first argument, named by its second
};

// Process-wide, append-only, safe from all threads. Plans live for ever.
class OpRegistry {
 public:
  // Throws ERR_OP when libtorch has no such operator.
  static uint32_t Find(const std::string& name, const std::string& overload);
  // Null for a number that Find has not returned.
  static const OpPlan* At(double id);
  // The text of every aten schema, in the order of names.
  static std::vector<std::string> Schemas();
};

}  // namespace tf
