#include "native/convert/arguments.h"

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>

#include <cmath>

#include "native/addon.h"
#include "native/convert/dtype.h"
#include "native/convert/value.h"
#include "native/device/device.h"
#include "native/error/error.h"

namespace tf {
namespace {

// One argument being looked at. Everything but the value is for the message of a failure.
struct Argument {
  Environment& environment;
  const OpPlan& op;
  const ArgumentPlan& plan;
  size_t position;
  napi_value value;

  napi_env env() const { return environment.env(); }
  Argument With(napi_value other) const { return {environment, op, plan, position, other}; }
};

const char* KindName(ArgumentKind kind) {
  switch (kind) {
    case ArgumentKind::kTensor:
      return "Tensor";
    case ArgumentKind::kScalar:
      return "Scalar";
    case ArgumentKind::kInt:
      return "int";
    case ArgumentKind::kFloat:
      return "float";
    case ArgumentKind::kComplex:
      return "complex";
    case ArgumentKind::kBool:
      return "bool";
    case ArgumentKind::kString:
      return "str";
    case ArgumentKind::kDevice:
      return "Device";
    case ArgumentKind::kDtype:
      return "dtype";
    case ArgumentKind::kLayout:
      return "Layout";
    case ArgumentKind::kMemoryFormat:
      return "MemoryFormat";
    case ArgumentKind::kGenerator:
      return "Generator";
    case ArgumentKind::kStream:
      return "Stream";
    case ArgumentKind::kNumberTensor:
      return "Scalar";
    case ArgumentKind::kUnsupported:
      break;
  }
  return "unsupported";
}

// As schemas word it: "Tensor?", "int[2]", "Tensor?[]".
std::string TypeText(const ArgumentPlan& plan) {
  if (plan.kind == ArgumentKind::kUnsupported) return plan.type;
  std::string text = KindName(plan.kind);
  if (plan.optional_items) text += '?';
  if (plan.list) text += plan.count > 0 ? "[" + std::to_string(plan.count) + "]" : "[]";
  if (plan.optional) text += '?';
  return text;
}

std::string Where(const Argument& argument) {
  return "[" + argument.op.name + "] argument '" + argument.plan.name + "' (position " +
         std::to_string(argument.position + 1) + ")";
}

[[noreturn]] void FailType(const Argument& argument) {
  std::string got = TypeName(argument.env(), argument.value);
  if (TypeOf(argument.env(), argument.value) == napi_number) {
    double number = 0;
    napi_get_value_double(argument.env(), argument.value, &number);
    if (std::trunc(number) != number) got = std::to_string(number);
  }
  throw Failure(code::kInvalidArgument,
                Where(argument) + " must be " + TypeText(argument.plan) + ", got " + got);
}

const at::Tensor& ToTensor(const Argument& argument) {
  double number = 0;
  if (napi_get_value_double(argument.env(), argument.value, &number) != napi_ok) FailType(argument);
  const Handle handle = HandleFromNumber(number);
  const at::Tensor* tensor = argument.environment.tensors().Find(handle);
  if (tensor == nullptr) argument.environment.tensors().FailStale(handle, Where(argument));
  return *tensor;
}

bool IsNone(const Argument& argument) {
  if (IsNullish(argument.env(), argument.value)) return true;
  double number = 1;
  return argument.plan.kind == ArgumentKind::kTensor &&
         napi_get_value_double(argument.env(), argument.value, &number) == napi_ok && number == 0;
}

int64_t BigIntToInt(const Argument& argument) {
  int64_t number = 0;
  bool lossless = false;
  Check(argument.env(),
        napi_get_value_bigint_int64(argument.env(), argument.value, &number, &lossless));
  if (!lossless) {
    throw Failure(code::kInvalidArgument, Where(argument) + " must fit in 64 bits");
  }
  return number;
}

int64_t ToInt(const Argument& argument) {
  double number = 0;
  if (napi_get_value_double(argument.env(), argument.value, &number) != napi_ok) {
    if (TypeOf(argument.env(), argument.value) == napi_bigint) return BigIntToInt(argument);
    FailType(argument);
  }
  if (!IsWhole(number)) FailType(argument);
  return static_cast<int64_t>(number);
}

double ToFloat(const Argument& argument) {
  double number = 0;
  if (napi_get_value_double(argument.env(), argument.value, &number) == napi_ok) return number;
  if (TypeOf(argument.env(), argument.value) == napi_bigint) {
    return static_cast<double>(BigIntToInt(argument));
  }
  // [x], the mark of a float, is a float here too.
  uint32_t length = 0;
  if (IsArray(argument.env(), argument.value) && !argument.plan.list &&
      napi_get_array_length(argument.env(), argument.value, &length) == napi_ok && length == 1) {
    napi_value item = nullptr;
    Check(argument.env(), napi_get_element(argument.env(), argument.value, 0, &item));
    if (napi_get_value_double(argument.env(), item, &number) == napi_ok) return number;
  }
  FailType(argument);
}

bool ToBool(const Argument& argument) {
  bool flag = false;
  if (napi_get_value_bool(argument.env(), argument.value, &flag) != napi_ok) FailType(argument);
  return flag;
}

std::string ToText(const Argument& argument) {
  if (TypeOf(argument.env(), argument.value) != napi_string) FailType(argument);
  return ToString(argument.env(), argument.value);
}

// [x] or [re, im].
at::Scalar MarkedScalar(const Argument& argument) {
  uint32_t length = 0;
  Check(argument.env(), napi_get_array_length(argument.env(), argument.value, &length));
  double parts[2] = {0, 0};
  if (length != 1 && length != 2) FailType(argument);
  for (uint32_t i = 0; i < length; ++i) {
    napi_value item = nullptr;
    Check(argument.env(), napi_get_element(argument.env(), argument.value, i, &item));
    if (napi_get_value_double(argument.env(), item, &parts[i]) != napi_ok) FailType(argument);
  }
  if (length == 1) return parts[0];
  return c10::complex<double>(parts[0], parts[1]);
}

at::Scalar ToScalar(const Argument& argument) {
  double number = 0;
  if (napi_get_value_double(argument.env(), argument.value, &number) == napi_ok) {
    return NumberScalar(number);
  }
  switch (TypeOf(argument.env(), argument.value)) {
    case napi_boolean:
      return ToBool(argument);
    case napi_bigint:
      return BigIntToInt(argument);
    case napi_object:
      if (IsArray(argument.env(), argument.value)) return MarkedScalar(argument);
      [[fallthrough]];
    default:
      FailType(argument);
  }
}

c10::complex<double> ToComplex(const Argument& argument) {
  return ToScalar(argument).toComplexDouble();
}

int64_t ToDtype(const Argument& argument) {
  const std::string name = ToText(argument);
  if (const auto dtype = FindDtype(name)) return static_cast<int64_t>(*dtype);
  throw Failure(code::kDtype,
                Where(argument) + " must be a dtype, got '" + name + "'",
                "dtypes are torch's names, for example 'float32', 'bfloat16', 'int64'.");
}

int64_t ToLayout(const Argument& argument) {
  const std::string name = ToText(argument);
  if (const auto layout = FindLayout(name)) return static_cast<int64_t>(*layout);
  throw Failure(code::kInvalidArgument, Where(argument) + " must be a layout, got '" + name + "'");
}

int64_t ToMemoryFormat(const Argument& argument) {
  const std::string name = ToText(argument);
  if (const auto format = FindMemoryFormat(name)) return static_cast<int64_t>(*format);
  throw Failure(code::kInvalidArgument,
                Where(argument) + " must be a memory format, got '" + name + "'");
}

c10::IValue ToItem(const Argument& argument) {
  switch (argument.plan.kind) {
    case ArgumentKind::kTensor:
      return ToTensor(argument);
    case ArgumentKind::kScalar:
      return ToScalar(argument);
    case ArgumentKind::kInt:
      return ToInt(argument);
    case ArgumentKind::kFloat:
      return ToFloat(argument);
    case ArgumentKind::kComplex:
      return ToComplex(argument);
    case ArgumentKind::kBool:
      return ToBool(argument);
    case ArgumentKind::kString:
      return ToText(argument);
    case ArgumentKind::kDevice:
      return ParseDevice(ToText(argument));
    case ArgumentKind::kDtype:
      return ToDtype(argument);
    case ArgumentKind::kLayout:
      return ToLayout(argument);
    case ArgumentKind::kMemoryFormat:
      return ToMemoryFormat(argument);
    case ArgumentKind::kGenerator:
      return argument.environment.generators().Get(static_cast<Handle>(ToInt(argument)));
    case ArgumentKind::kNumberTensor:
      return NumberTensor(ToScalar(argument));
    case ArgumentKind::kStream:
    case ArgumentKind::kUnsupported:
      break;
  }
  throw Failure(code::kInvalidArgument,
                Where(argument) + " takes " + TypeText(argument.plan) +
                    ", which has no counterpart in JavaScript");
}

// A list from an array, or from one value that stands for all items of a list of fixed length.
template <class T, class Convert>
c10::List<T> ToList(const Argument& argument, bool single_allowed, Convert&& convert) {
  c10::List<T> list;
  const napi_env env = argument.env();
  if (!IsArray(env, argument.value)) {
    if (!single_allowed) FailType(argument);
    const T item = convert(argument);
    for (int32_t i = 0; i < std::max(argument.plan.count, 1); ++i) list.push_back(item);
    return list;
  }
  uint32_t length = 0;
  Check(env, napi_get_array_length(env, argument.value, &length));
  list.reserve(length);
  for (uint32_t i = 0; i < length; ++i) {
    napi_value item = nullptr;
    Check(env, napi_get_element(env, argument.value, i, &item));
    list.push_back(convert(argument.With(item)));
  }
  return list;
}

std::optional<at::Tensor> ToOptionalTensor(const Argument& argument) {
  if (IsNone(argument)) return std::nullopt;
  return ToTensor(argument);
}

c10::IValue ToListValue(const Argument& argument) {
  switch (argument.plan.kind) {
    case ArgumentKind::kTensor:
      if (argument.plan.optional_items) {
        return ToList<std::optional<at::Tensor>>(argument, false, ToOptionalTensor);
      }
      return ToList<at::Tensor>(argument, false, ToTensor);
    case ArgumentKind::kInt:
      return ToList<int64_t>(argument, true, ToInt);
    case ArgumentKind::kDtype:
      return ToList<int64_t>(argument, true, ToDtype);
    case ArgumentKind::kFloat:
      return ToList<double>(argument, true, ToFloat);
    case ArgumentKind::kBool:
      return ToList<bool>(argument, true, ToBool);
    case ArgumentKind::kScalar:
      return ToList<at::Scalar>(argument, true, ToScalar);
    case ArgumentKind::kString:
      return ToList<std::string>(argument, false, ToText);
    case ArgumentKind::kComplex:
      return ToList<c10::complex<double>>(argument, false, ToComplex);
    default:
      break;
  }
  throw Failure(code::kInvalidArgument,
                Where(argument) + " takes " + TypeText(argument.plan) +
                    ", which has no counterpart in JavaScript");
}

c10::IValue ToValue(const Argument& argument) {
  if (argument.plan.optional && IsNone(argument)) return {};
  return argument.plan.list ? ToListValue(argument) : ToItem(argument);
}

// The tensor of the usual argument: a live handle. Null for all else, which is then looked at
// properly.
const at::Tensor* FindTensor(Environment& environment, const ArgumentPlan& plan, napi_value value) {
  double number = 0;
  if (plan.kind != ArgumentKind::kTensor || plan.list || value == nullptr) return nullptr;
  if (napi_get_value_double(environment.env(), value, &number) != napi_ok) return nullptr;
  return environment.tensors().Find(HandleFromNumber(number));
}

}  // namespace

bool IsWhole(double number) {
  return std::trunc(number) == number && std::abs(number) <= kMaxSafeInteger;
}

at::Scalar NumberScalar(double number) {
  if (IsWhole(number) && !(number == 0 && std::signbit(number)))
    return static_cast<int64_t>(number);
  return number;
}

at::Tensor NumberTensor(const at::Scalar& number) {
  at::Tensor tensor = c10::scalar_to_tensor(number);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

void Unpack(Environment& environment,
            const OpPlan& plan,
            const napi_value* values,
            size_t count,
            torch::jit::Stack& stack) {
  const napi_env env = environment.env();
  const size_t expected = plan.arguments.size();
  const auto is_number = [&](size_t at) {
    return at < count && TypeOf(env, values[at]) == napi_number;
  };
  stack.reserve(expected);
  size_t next = 0;  // among the values
  for (size_t i = 0; i < expected; ++i) {
    const ArgumentPlan& argument = plan.arguments[i];
    const napi_value value = next < count ? values[next] : nullptr;
    const bool spread = argument.list && argument.kind == ArgumentKind::kInt && argument.count == 0;
    ++next;
    if (const at::Tensor* tensor = FindTensor(environment, argument, value)) {
      stack.emplace_back(*tensor);
    } else if (spread && is_number(next - 1)) {
      // view(2, 3): the items one by one, which saves making an array.
      c10::List<int64_t> items;
      for (--next; is_number(next); ++next)
        items.push_back(ToInt({environment, plan, argument, i, values[next]}));
      stack.emplace_back(std::move(items));
    } else if (value != nullptr && TypeOf(env, value) != napi_undefined) {
      stack.push_back(ToValue({environment, plan, argument, i, value}));
    } else if (argument.default_value) {
      stack.push_back(*argument.default_value);
    } else if (argument.optional) {
      stack.emplace_back();
    } else {
      throw Failure(code::kInvalidArgument,
                    "[" + plan.name + "] argument '" + argument.name + "' (position " +
                        std::to_string(i + 1) + ") is missing");
    }
  }
  if (next < count) {
    throw Failure(code::kInvalidArgument,
                  "[" + plan.name + "] takes " + std::to_string(expected) + " arguments, got " +
                      std::to_string(count));
  }
}

std::string DescribeTensors(Environment& environment,
                            const OpPlan& plan,
                            const napi_value* values,
                            size_t count) {
  constexpr uint32_t kShown = 8;
  const napi_env env = environment.env();
  const auto summary = [&](napi_value value) -> std::string {
    double number = 0;
    if (napi_get_value_double(env, value, &number) != napi_ok) return {};
    const at::Tensor* tensor = environment.tensors().Find(HandleFromNumber(number));
    return tensor == nullptr ? std::string() : Summary(*tensor);
  };
  std::string text;
  for (size_t i = 0; i < std::min(count, plan.arguments.size()); ++i) {
    const ArgumentPlan& argument = plan.arguments[i];
    if (argument.kind != ArgumentKind::kTensor) continue;
    std::string shown;
    if (IsArray(env, values[i])) {
      uint32_t length = 0;
      napi_get_array_length(env, values[i], &length);
      for (uint32_t k = 0; k < std::min(length, kShown); ++k) {
        napi_value item = nullptr;
        napi_get_element(env, values[i], k, &item);
        shown += (k > 0 ? ", " : "") + summary(item);
      }
      shown = "[" + shown + (length > kShown ? ", …]" : "]");
    } else {
      shown = summary(values[i]);
    }
    if (shown.empty()) continue;
    text += (text.empty() ? "" : ", ") + argument.name + ": " + shown;
  }
  return text;
}

}  // namespace tf
