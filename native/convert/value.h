// Small questions to JavaScript values. Throws Failure; knows no schema.
#pragma once

#include <ATen/core/Tensor.h>
#include <node_api.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tf {

// What a value is, for error messages: "number", "string", "array", "null", …
std::string TypeName(napi_env env, napi_value value);
napi_valuetype TypeOf(napi_env env, napi_value value);
bool IsNullish(napi_env env, napi_value value);
bool IsArray(napi_env env, napi_value value);

std::string ToString(napi_env env, napi_value value);  // the value must be a string
napi_value FromString(napi_env env, std::string_view text);
napi_value FromDouble(napi_env env, double number);
napi_value FromBool(napi_env env, bool value);
// A number when it is one exactly, else a bigint.
napi_value FromInt64(napi_env env, int64_t number);
napi_value FromUint64(napi_env env, uint64_t number);
napi_value Undefined(napi_env env);
napi_value Null(napi_env env);

inline constexpr double kMaxSafeInteger = 9007199254740991.0;  // 2^53 - 1

// "float32[2, 3]", as error messages show a tensor.
std::string Summary(const at::Tensor& tensor);

}  // namespace tf
