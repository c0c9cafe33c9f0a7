#include "native/convert/result.h"

#include <ATen/ATen.h>

#include "native/addon.h"
#include "native/convert/dtype.h"
#include "native/convert/value.h"
#include "native/error/error.h"

namespace tf {

napi_value FromTensor(Environment& environment, at::Tensor tensor, napi_value owner) {
  // Some results are optional: a gradient that was not asked for.
  if (!tensor.defined()) return Null(environment.env());
  const Handle handle = environment.tensors().Add(std::move(tensor), owner);
  return FromDouble(environment.env(), static_cast<double>(handle));
}

namespace {

napi_value FromComplex(napi_env env, c10::complex<double> number) {
  napi_value pair = nullptr;
  Check(env, napi_create_array_with_length(env, 2, &pair));
  Check(env, napi_set_element(env, pair, 0, FromDouble(env, number.real())));
  Check(env, napi_set_element(env, pair, 1, FromDouble(env, number.imag())));
  return pair;
}

// Integers in a schema may be an enumeration's values.
napi_value FromInt(napi_env env, int64_t number, ArgumentKind kind) {
  switch (kind) {
    case ArgumentKind::kDtype:
      return FromString(env, DtypeName(static_cast<c10::ScalarType>(number)));
    case ArgumentKind::kLayout:
      return FromString(env, LayoutName(static_cast<c10::Layout>(number)));
    case ArgumentKind::kMemoryFormat:
      return FromString(env, MemoryFormatName(static_cast<c10::MemoryFormat>(number)));
    default:
      return FromInt64(env, number);
  }
}

napi_value FromIValue(Environment& environment,
                      const c10::IValue& value,
                      ArgumentKind kind,
                      napi_value owner) {
  const napi_env env = environment.env();
  if (value.isTensor()) return FromTensor(environment, value.toTensor(), owner);
  if (value.isNone()) return Null(env);
  if (value.isInt()) return FromInt(env, value.toInt(), kind);
  if (value.isDouble()) return FromDouble(env, value.toDouble());
  if (value.isBool()) return FromBool(env, value.toBool());
  if (value.isComplexDouble()) return FromComplex(env, value.toComplexDouble());
  if (value.isString()) return FromString(env, value.toStringRef());
  if (value.isDevice()) return FromString(env, value.toDevice().str());
  if (value.isList() || value.isTuple()) {
    const auto items =
        value.isList() ? value.toListRef().vec() : value.toTupleRef().elements().vec();
    napi_value array = nullptr;
    Check(env, napi_create_array_with_length(env, items.size(), &array));
    for (uint32_t i = 0; i < items.size(); ++i) {
      Check(env, napi_set_element(env, array, i, FromIValue(environment, items[i], kind, nullptr)));
    }
    return array;
  }
  throw Failure(code::kOp,
                "a result of type " + value.tagKind() + " has no counterpart in JavaScript");
}

}  // namespace

napi_value Pack(Environment& environment,
                const OpPlan& plan,
                torch::jit::Stack& stack,
                napi_value owner) {
  const napi_env env = environment.env();
  const size_t count = stack.size();
  if (count == 0) return nullptr;
  if (count == 1) {
    if (plan.returns_written[0]) return nullptr;
    if (stack[0].isTensor()) return FromTensor(environment, std::move(stack[0]).toTensor(), owner);
    return FromIValue(environment, stack[0], plan.returns[0], owner);
  }
  napi_value array = nullptr;
  bool any = false;
  Check(env, napi_create_array_with_length(env, count, &array));
  for (uint32_t i = 0; i < count; ++i) {
    if (plan.returns_written[i]) continue;
    any = true;
    Check(env,
          napi_set_element(
              env, array, i, FromIValue(environment, stack[i], plan.returns[i], nullptr)));
  }
  return any ? array : nullptr;
}

napi_value FromScalar(napi_env env, const at::Scalar& scalar) {
  if (scalar.isBoolean()) return FromBool(env, scalar.toBool());
  if (scalar.isComplex()) return FromComplex(env, scalar.toComplexDouble());
  if (scalar.isFloatingPoint()) return FromDouble(env, scalar.toDouble());
  if (scalar.type() == c10::ScalarType::UInt64) return FromUint64(env, scalar.toUInt64());
  return FromInt64(env, scalar.toLong());
}

}  // namespace tf
