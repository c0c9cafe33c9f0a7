#include "native/convert/value.h"

#include <ATen/ATen.h>

#include <cmath>

#include "native/convert/dtype.h"
#include "native/error/error.h"

namespace tf {

napi_valuetype TypeOf(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  if (value != nullptr) napi_typeof(env, value, &type);
  return type;
}

bool IsArray(napi_env env, napi_value value) {
  bool is = false;
  return value != nullptr && napi_is_array(env, value, &is) == napi_ok && is;
}

bool IsNullish(napi_env env, napi_value value) {
  const napi_valuetype type = TypeOf(env, value);
  return type == napi_undefined || type == napi_null;
}

std::string TypeName(napi_env env, napi_value value) {
  switch (TypeOf(env, value)) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return "boolean";
    case napi_number:
      return "number";
    case napi_string:
      return "string";
    case napi_symbol:
      return "symbol";
    case napi_function:
      return "function";
    case napi_bigint:
      return "bigint";
    case napi_external:
      return "external";
    case napi_object:
      break;
  }
  bool is = false;
  if (IsArray(env, value)) return "array";
  if (napi_is_typedarray(env, value, &is) == napi_ok && is) return "typed array";
  return "object";
}

std::string ToString(napi_env env, napi_value value) {
  // Names are short: one call for nearly all.
  char buffer[128];
  size_t length = 0;
  Check(env, napi_get_value_string_utf8(env, value, buffer, sizeof buffer, &length));
  if (length + 4 < sizeof buffer) return std::string(buffer, length);
  Check(env, napi_get_value_string_utf8(env, value, nullptr, 0, &length));
  std::string text(length, '\0');
  Check(env, napi_get_value_string_utf8(env, value, text.data(), length + 1, &length));
  return text;
}

napi_value FromString(napi_env env, std::string_view text) {
  napi_value value = nullptr;
  Check(env, napi_create_string_utf8(env, text.data(), text.size(), &value));
  return value;
}

napi_value FromDouble(napi_env env, double number) {
  napi_value value = nullptr;
  Check(env, napi_create_double(env, number, &value));
  return value;
}

napi_value FromBool(napi_env env, bool flag) {
  napi_value value = nullptr;
  Check(env, napi_get_boolean(env, flag, &value));
  return value;
}

napi_value FromInt64(napi_env env, int64_t number) {
  if (std::abs(static_cast<double>(number)) <= kMaxSafeInteger) {
    return FromDouble(env, static_cast<double>(number));
  }
  napi_value value = nullptr;
  Check(env, napi_create_bigint_int64(env, number, &value));
  return value;
}

napi_value FromUint64(napi_env env, uint64_t number) {
  if (number <= static_cast<uint64_t>(kMaxSafeInteger)) {
    return FromDouble(env, static_cast<double>(number));
  }
  napi_value value = nullptr;
  Check(env, napi_create_bigint_uint64(env, number, &value));
  return value;
}

napi_value Undefined(napi_env env) {
  napi_value value = nullptr;
  Check(env, napi_get_undefined(env, &value));
  return value;
}

napi_value Null(napi_env env) {
  napi_value value = nullptr;
  Check(env, napi_get_null(env, &value));
  return value;
}

std::string Summary(const at::Tensor& tensor) {
  if (!tensor.defined()) return "none";
  std::string text(DtypeName(tensor.scalar_type()));
  text += '[';
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(tensor.size(i));
  }
  text += ']';
  if (!tensor.is_cpu()) text += " on " + tensor.device().str();
  return text;
}

}  // namespace tf
