#include "native/convert/bind.h"

#include <cmath>

namespace tf {

void FailArgument(Environment& environment, Where what, const char* expected, napi_value value) {
  throw Failure(
      code::kInvalidArgument,
      what.Text() + " must be " + expected + ", got " + TypeName(environment.env(), value));
}

double NumberFromJs(Environment& environment, napi_value value, Where what) {
  double number = 0;
  if (napi_get_value_double(environment.env(), value, &number) != napi_ok) {
    FailArgument(environment, what, "a number", value);
  }
  return number;
}

int64_t IntegerFromJs(Environment& environment, napi_value value, Where what) {
  if (TypeOf(environment.env(), value) == napi_bigint) return BitsFromJs(environment, value, what);
  const double number = NumberFromJs(environment, value, what);
  if (std::trunc(number) != number || std::abs(number) > kMaxSafeInteger) {
    throw Failure(code::kInvalidArgument,
                  what.Text() + " must be an integer, got " + std::to_string(number));
  }
  return static_cast<int64_t>(number);
}

int64_t BitsFromJs(Environment& environment, napi_value value, Where what) {
  const napi_env env = environment.env();
  if (TypeOf(env, value) != napi_bigint) return IntegerFromJs(environment, value, what);
  int64_t number = 0;
  uint64_t bits = 0;
  bool lossless = false;
  Check(env, napi_get_value_bigint_int64(env, value, &number, &lossless));
  if (lossless) return number;
  Check(env, napi_get_value_bigint_uint64(env, value, &bits, &lossless));
  if (lossless) return static_cast<int64_t>(bits);
  throw Failure(code::kInvalidArgument, what.Text() + " must fit in 64 bits");
}

bool BoolFromJs(Environment& environment, napi_value value, Where what) {
  bool flag = false;
  if (napi_get_value_bool(environment.env(), value, &flag) != napi_ok) {
    FailArgument(environment, what, "a boolean", value);
  }
  return flag;
}

std::string StringFromJs(Environment& environment, napi_value value, Where what) {
  if (TypeOf(environment.env(), value) != napi_string)
    FailArgument(environment, what, "a string", value);
  return ToString(environment.env(), value);
}

Handle HandleFromJs(Environment& environment, napi_value value, Where what) {
  double number = 0;
  if (napi_get_value_double(environment.env(), value, &number) != napi_ok) {
    FailArgument(environment, what, "a handle", value);
  }
  return HandleFromNumber(number);
}

const at::Tensor& TensorFromJs(Environment& environment, napi_value value, Where what) {
  double number = 0;
  if (napi_get_value_double(environment.env(), value, &number) != napi_ok) {
    FailArgument(environment, what, "a Tensor", value);
  }
  const Handle handle = HandleFromNumber(number);
  const at::Tensor* tensor = environment.tensors().Find(handle);
  if (tensor == nullptr) environment.tensors().FailStale(handle, what.Text());
  return *tensor;
}

uint32_t LengthFromJs(Environment& environment, napi_value value, Where what) {
  if (!IsArray(environment.env(), value)) FailArgument(environment, what, "an array", value);
  uint32_t length = 0;
  Check(environment.env(), napi_get_array_length(environment.env(), value, &length));
  return length;
}

napi_value ElementFromJs(Environment& environment, napi_value array, uint32_t index) {
  napi_value element = nullptr;
  Check(environment.env(), napi_get_element(environment.env(), array, index, &element));
  return element;
}

napi_value Record(Environment& environment,
                  std::initializer_list<std::pair<const char*, napi_value>> fields) {
  const napi_env env = environment.env();
  napi_value record = nullptr;
  Check(env, napi_create_object(env, &record));
  for (const auto& [name, value] : fields)
    Check(env, napi_set_named_property(env, record, name, value));
  return record;
}

void Exports::Raw(const char* name, napi_callback callback) {
  const napi_env env = environment_.env();
  napi_value function = nullptr;
  Check(env, napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, &environment_, &function));
  Check(env, napi_set_named_property(env, object_, name, function));
}

}  // namespace tf
