// Bindings as tables: an ordinary C++ function becomes a JavaScript one by its parameter types.
//
//   std::vector<int64_t> Shape(Environment&, const at::Tensor& tensor) { return
//   tensor.sizes().vec(); } void InitTensorFacts(Exports& exports) { exports.Function<"shape",
//   Shape>(); }
//
// The first parameter is the environment; each other one is unpacked by FromJs<T> (a failure names
// the function and the position), the result is made by ToJs<T>.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <node_api.h>

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/convert/dtype.h"
#include "native/convert/value.h"
#include "native/error/guard.h"

namespace tf {

// A JavaScript object that is to own a tensor.
struct Owner {
  napi_value value;
};

// Any JavaScript value, unchecked.
struct Js {
  napi_value value;
};

// A tensor's handle together with the tensor, for functions that change what the handle holds.
struct Held {
  Handle handle;
  const at::Tensor& tensor;
};

// Which argument is being looked at, for messages; the text is made on failure only.
struct Where {
  const char* name;
  size_t position;
  std::string Text() const {
    return "[" + std::string(name) + "] argument " + std::to_string(position);
  }
};

// Parameters of bindings.
template <class T>
struct FromJs;

[[noreturn]] void FailArgument(Environment& environment,
                               Where what,
                               const char* expected,
                               napi_value value);

Handle HandleFromJs(Environment& environment, napi_value value, Where what);
const at::Tensor& TensorFromJs(Environment& environment, napi_value value, Where what);
double NumberFromJs(Environment& environment, napi_value value, Where what);
int64_t IntegerFromJs(Environment& environment, napi_value value, Where what);
bool BoolFromJs(Environment& environment, napi_value value, Where what);
std::string StringFromJs(Environment& environment, napi_value value, Where what);
// int64 from a bigint or a whole number; a bigint from 2^63 to 2^64 - 1 keeps its bits.
int64_t BitsFromJs(Environment& environment, napi_value value, Where what);
uint32_t LengthFromJs(Environment& environment, napi_value value, Where what);
napi_value ElementFromJs(Environment& environment, napi_value array, uint32_t index);

template <>
struct FromJs<Js> {
  static Js Get(Environment&, napi_value value, Where) { return {value}; }
};
template <>
struct FromJs<Owner> {
  static Owner Get(Environment& environment, napi_value value, Where what) {
    const napi_valuetype type = TypeOf(environment.env(), value);
    if (type != napi_object && type != napi_function)
      FailArgument(environment, what, "an object", value);
    return {value};
  }
};
template <>
struct FromJs<Handle> {
  static Handle Get(Environment& environment, napi_value value, Where what) {
    return HandleFromJs(environment, value, what);
  }
};
template <>
struct FromJs<at::Tensor> {
  static const at::Tensor& Get(Environment& environment, napi_value value, Where what) {
    return TensorFromJs(environment, value, what);
  }
};
template <>
struct FromJs<Held> {
  static Held Get(Environment& environment, napi_value value, Where what) {
    const at::Tensor& tensor = TensorFromJs(environment, value, what);
    return {HandleFromJs(environment, value, what), tensor};
  }
};
template <>
struct FromJs<double> {
  static double Get(Environment& environment, napi_value value, Where what) {
    return NumberFromJs(environment, value, what);
  }
};
template <>
struct FromJs<int64_t> {
  static int64_t Get(Environment& environment, napi_value value, Where what) {
    return IntegerFromJs(environment, value, what);
  }
};
template <>
struct FromJs<bool> {
  static bool Get(Environment& environment, napi_value value, Where what) {
    return BoolFromJs(environment, value, what);
  }
};
template <>
struct FromJs<std::string> {
  static std::string Get(Environment& environment, napi_value value, Where what) {
    return StringFromJs(environment, value, what);
  }
};
template <>
struct FromJs<c10::ScalarType> {
  static c10::ScalarType Get(Environment& environment, napi_value value, Where what) {
    return DtypeFromName(StringFromJs(environment, value, what));
  }
};
// null and undefined are "none"; so is handle 0 where a tensor may be absent.
template <class T>
struct FromJs<std::optional<T>> {
  static std::optional<T> Get(Environment& environment, napi_value value, Where what) {
    if (IsNullish(environment.env(), value)) return std::nullopt;
    if constexpr (std::is_same_v<T, at::Tensor>) {
      if (HandleFromJs(environment, value, what) == kNoHandle) return std::nullopt;
    }
    return FromJs<T>::Get(environment, value, what);
  }
};
template <class T>
struct FromJs<std::vector<T>> {
  static std::vector<T> Get(Environment& environment, napi_value value, Where what) {
    const uint32_t length = LengthFromJs(environment, value, what);
    std::vector<T> result;
    result.reserve(length);
    for (uint32_t i = 0; i < length; ++i) {
      result.push_back(FromJs<T>::Get(environment, ElementFromJs(environment, value, i), what));
    }
    return result;
  }
};

// Results of bindings.
inline napi_value ToJs(Environment& environment, double value) {
  return FromDouble(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, bool value) {
  return FromBool(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, int64_t value) {
  return FromInt64(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, int32_t value) {
  return FromDouble(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, uint32_t value) {
  return FromDouble(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, Handle value) {
  return FromDouble(environment.env(), static_cast<double>(value));
}
inline napi_value ToJs(Environment& environment, std::string_view value) {
  return FromString(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, const std::string& value) {
  return FromString(environment.env(), value);
}
inline napi_value ToJs(Environment& environment, c10::ScalarType value) {
  return FromString(environment.env(), DtypeName(value));
}
inline napi_value ToJs(Environment&, napi_value value) { return value; }
template <class T>
napi_value ToJs(Environment& environment, const std::optional<T>& value) {
  return value ? ToJs(environment, *value) : Null(environment.env());
}
template <class T>
napi_value ToJs(Environment& environment, const std::vector<T>& values) {
  const napi_env env = environment.env();
  napi_value array = nullptr;
  Check(env, napi_create_array_with_length(env, values.size(), &array));
  for (uint32_t i = 0; i < values.size(); ++i) {
    Check(env, napi_set_element(env, array, i, ToJs(environment, values[i])));
  }
  return array;
}

// An object literal: Record(environment, {{"enabled", ToJs(…)}, …}).
napi_value Record(Environment& environment,
                  std::initializer_list<std::pair<const char*, napi_value>> fields);

// A name as a template argument.
template <size_t N>
struct Name {
  constexpr Name(const char (&text)[N]) { std::copy_n(text, N, chars); }
  char chars[N];
};

namespace detail {

template <class F>
struct Signature;
template <class R, class... P>
struct Signature<R (*)(Environment&, P...)> {
  static constexpr size_t kCount = sizeof...(P);

  template <auto F, Name name, size_t... I>
  static napi_value Call(Environment& environment, napi_value* values, std::index_sequence<I...>) {
    if constexpr (std::is_void_v<R>) {
      F(environment,
        FromJs<std::remove_cvref_t<P>>::Get(environment, values[I], Where{name.chars, I + 1})...);
      return nullptr;
    } else {
      return ToJs(environment,
                  F(environment,
                    FromJs<std::remove_cvref_t<P>>::Get(
                        environment, values[I], Where{name.chars, I + 1})...));
    }
  }
};

template <auto F, Name name>
napi_value Entry(napi_env env, napi_callback_info info) {
  using S = Signature<decltype(F)>;
  napi_value values[std::max<size_t>(S::kCount, 1)];
  size_t count = S::kCount;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  auto& environment = *static_cast<Environment*>(data);
  return Guard(environment, [&] {
    return S::template Call<F, name>(environment, values, std::make_index_sequence<S::kCount>());
  });
}

}  // namespace detail

// The addon's exports, while it registers.
class Exports {
 public:
  Exports(Environment& environment, napi_value object)
      : environment_(environment), object_(object) {}

  template <Name name, auto F>
  void Function() {
    Raw(name.chars, detail::Entry<F, name>);
  }

  // For the few functions whose cost is counted in nanoseconds: the callback gets the Environment*
  // as its data.
  void Raw(const char* name, napi_callback callback);

  Environment& environment() { return environment_; }

 private:
  Environment& environment_;
  napi_value object_;
};

}  // namespace tf
