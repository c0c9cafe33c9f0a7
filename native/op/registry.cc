#include "native/op/registry.h"

#include <ATen/core/function_schema.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <sstream>
#include <string_view>
#include <unordered_map>

#include "native/error/error.h"
#include "native/op/unboxed.h"

namespace tf {
namespace {

constexpr uint32_t kMaxOps = 1 << 14;

std::array<std::atomic<const OpPlan*>, kMaxOps> plans;
std::mutex registering;
uint32_t plan_count = 0;

std::unordered_map<std::string, uint32_t>& Ids() {
  static auto* const ids = new std::unordered_map<std::string, uint32_t>;
  return *ids;
}

ArgumentKind KindOfType(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return ArgumentKind::kTensor;
    case c10::TypeKind::NumberType:
      return ArgumentKind::kScalar;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ArgumentKind::kInt;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      return ArgumentKind::kFloat;
    case c10::TypeKind::ComplexType:
      return ArgumentKind::kComplex;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
      return ArgumentKind::kBool;
    case c10::TypeKind::StringType:
      return ArgumentKind::kString;
    case c10::TypeKind::DeviceObjType:
      return ArgumentKind::kDevice;
    case c10::TypeKind::ScalarTypeType:
      return ArgumentKind::kDtype;
    case c10::TypeKind::LayoutType:
      return ArgumentKind::kLayout;
    case c10::TypeKind::MemoryFormatType:
      return ArgumentKind::kMemoryFormat;
    case c10::TypeKind::GeneratorType:
      return ArgumentKind::kGenerator;
    case c10::TypeKind::StreamObjType:
      return ArgumentKind::kStream;
    default:
      return ArgumentKind::kUnsupported;
  }
}

ArgumentPlan PlanArgument(const c10::Argument& argument) {
  ArgumentPlan plan;
  plan.name = argument.name();
  plan.type = argument.real_type()->str();
  plan.written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
  plan.count = argument.N().value_or(0);
  plan.default_value = argument.default_value();
  c10::TypePtr type = argument.real_type();
  if (type->kind() == c10::TypeKind::OptionalType) {
    plan.optional = true;
    type = type->castRaw<c10::OptionalType>()->getElementType();
  }
  if (type->kind() == c10::TypeKind::ListType) {
    plan.list = true;
    type = type->castRaw<c10::ListType>()->getElementType();
    if (type->kind() == c10::TypeKind::OptionalType) {
      plan.optional_items = true;
      type = type->castRaw<c10::OptionalType>()->getElementType();
    }
  }
  plan.kind = KindOfType(*type);
  plan.symbolic = type->kind() == c10::TypeKind::SymIntType;
  return plan;
}

// Schemas say of these that the result may alias the argument, but they often copy.
bool MayCopy(std::string_view name) {
  static constexpr std::array<std::string_view, 5> kNames{
      "aten::to", "aten::contiguous", "aten::reshape", "aten::flatten", "aten::reshape_as"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

// With gradients off, autograd's layer only passes calls on: to begin below it saves a dispatch for
// the operator and for each of those that it is made of. Not for the operators that the layer
// itself implements.
bool SkipsAutograd(const c10::OperatorHandle& op) {
  static constexpr std::array<std::string_view, 16> kOfAutograd{"aten::detach",
                                                                "aten::detach_",
                                                                "aten::copy_",
                                                                "aten::resize_",
                                                                "aten::resize_as_",
                                                                "aten::requires_grad_",
                                                                "aten::retain_grad",
                                                                "aten::set_data",
                                                                "aten::data",
                                                                "aten::is_leaf",
                                                                "aten::output_nr",
                                                                "aten::_version",
                                                                "aten::_backward",
                                                                "aten::_fw_primal",
                                                                "aten::_make_dual",
                                                                "aten::_unpack_dual"};
  const std::string_view name = op.schema().name();
  return op.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU) &&
         std::find(kOfAutograd.begin(), kOfAutograd.end(), name) == kOfAutograd.end();
}

bool IsHeavy(std::string_view name) {
  static constexpr std::array<std::string_view, 16> kParts{"::mm",
                                                           "::addmm",
                                                           "::bmm",
                                                           "::baddbmm",
                                                           "::matmul",
                                                           "::linear",
                                                           "conv",
                                                           "einsum",
                                                           "addbmm",
                                                           "::mv",
                                                           "attention",
                                                           "linalg_",
                                                           "::lstm",
                                                           "::gru",
                                                           "cdist",
                                                           "tensordot"};
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  });
}

// In Python, arithmetic with a number takes the overload for two tensors: with it go the names of
// the graph's nodes, and a dispatch is saved. "Scalar" becomes "Tensor", "Scalar_mode"
// "Tensor_mode".
bool TakesNumberAsTensor(std::string_view name, std::string_view overload) {
  static constexpr std::array<std::string_view, 8> kNames{"aten::add",
                                                          "aten::sub",
                                                          "aten::mul",
                                                          "aten::div",
                                                          "aten::add_",
                                                          "aten::sub_",
                                                          "aten::mul_",
                                                          "aten::div_"};
  return (overload == "Scalar" || overload == "Scalar_mode") &&
         std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

OpPlan::OpPlan(c10::OperatorHandle handle) : handle(handle) {
  const c10::FunctionSchema& schema = handle.schema();
  name = schema.name();
  if (!schema.overload_name().empty()) name += "." + schema.overload_name();
  bool computes = false;
  for (const c10::Argument& argument : schema.arguments()) {
    arguments.push_back(PlanArgument(argument));
    writes |= arguments.back().written;
  }
  for (const c10::Argument& result : schema.returns()) {
    const c10::AliasInfo* alias = result.alias_info();
    returns_written.push_back(alias != nullptr && alias->isWrite());
    returns.push_back(PlanArgument(result).kind);
    may_alias |= alias != nullptr && !alias->isWrite();
    computes |= returns.back() == ArgumentKind::kTensor;
  }
  skips_autograd = SkipsAutograd(handle);
  heavy = IsHeavy(name);
  picks = name == "aten::embedding" || name == "aten::index_select";
  hand_over = (computes || writes) && (!may_alias || MayCopy(schema.name()));
}

OpPlan::~OpPlan() = default;

uint32_t OpRegistry::Find(const std::string& name, const std::string& overload) {
  const std::lock_guard lock(registering);
  const std::string key = name + "." + overload;
  if (const auto known = Ids().find(key); known != Ids().end()) return known->second;
  const bool number_as_tensor = TakesNumberAsTensor(name, overload);
  const std::string chosen = number_as_tensor ? "Tensor" + overload.substr(6) : overload;
  const auto handle = c10::Dispatcher::singleton().findSchema({name, chosen});
  if (!handle) {
    throw Failure(
        code::kOp,
        "libtorch has no operator '" + name + (overload.empty() ? "" : "." + overload) + "'");
  }
  if (plan_count == kMaxOps) throw Failure(code::kOp, "more than 16,384 operators are in use");
  const uint32_t id = plan_count++;
  auto* const plan = new OpPlan(*handle);
  if (number_as_tensor) plan->arguments[1].kind = ArgumentKind::kNumberTensor;
  plan->unboxed = UnboxedCall::For(*plan);
  plans[id].store(plan, std::memory_order_release);
  Ids().emplace(key, id);
  return id;
}

const OpPlan* OpRegistry::At(double id) {
  if (!(id >= 0 && id < kMaxOps)) return nullptr;
  return plans[static_cast<uint32_t>(id)].load(std::memory_order_acquire);
}

std::vector<std::string> OpRegistry::Schemas() {
  std::vector<std::string> schemas;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (!name.name.starts_with("aten::")) continue;
    const auto handle = dispatcher.findSchema(name);
    if (!handle) continue;
    std::ostringstream text;
    text << handle->schema();
    schemas.push_back(text.str());
  }
  std::sort(schemas.begin(), schemas.end());
  return schemas;
}

}  // namespace tf
