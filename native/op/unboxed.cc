#include "native/op/unboxed.h"

#include <ATen/ATen.h>
#include <c10/core/SymIntArrayRef.h>

#include <array>
#include <chrono>
#include <tuple>
#include <utility>

#include "native/addon.h"
#include "native/convert/arguments.h"
#include "native/convert/value.h"
#include "native/executor/executor.h"
#include "native/io/mapped_tensors.h"
#include "native/op/hand_over.h"

namespace tf {
namespace {

constexpr size_t kMaxItems = 8;

// The values of one call, being read in order.
struct Reader {
  napi_env env;
  const TensorTable& tensors;
  const napi_value* values;
  size_t count;
  size_t next = 0;
  int64_t product = 1;  // of the tensors' numbers of elements, cut off at kHandOverElements

  bool has() const { return next < count; }

  bool Number(double& number) {
    if (!has() || napi_get_value_double(env, values[next], &number) != napi_ok) return false;
    ++next;
    return true;
  }

  bool Whole(int64_t& whole) {
    double number = 0;
    if (!Number(number)) return false;
    if (IsWhole(number)) {
      whole = static_cast<int64_t>(number);
      return true;
    }
    --next;
    return false;
  }

  bool Scalar(at::Scalar& scalar) {
    double number = 0;
    if (!Number(number)) return false;
    scalar = NumberScalar(number);
    return true;
  }

  // Left out, or undefined: the schema's default holds.
  bool Absent() {
    if (has() && TypeOf(env, values[next]) != napi_undefined) return false;
    ++next;
    return true;
  }

  // The table holds it for the time of the call: no operator frees a handle. A tensor on `meta` may
  // be one that a recording left behind, which the boxed call refuses.
  const at::Tensor* Tensor(napi_value value) {
    double number = 0;
    if (napi_get_value_double(env, value, &number) != napi_ok) return nullptr;
    const at::Tensor* tensor = tensors.Find(HandleFromNumber(number));
    if (tensor == nullptr || tensor->is_meta()) return nullptr;
    io::CheckMapped(*tensor);
    const int64_t numel = std::min(std::max<int64_t>(tensor->numel(), 1), kHandOverElements);
    product = std::min(product * numel, kHandOverElements);
    return tensor;
  }
};

// How one parameter of a C++ signature is recognized in a schema, is read, and is passed.
template <class P>
struct Parameter;

template <>
struct Parameter<const at::Tensor&> {
  static bool Fits(const ArgumentPlan& plan) {
    const bool number = plan.kind == ArgumentKind::kNumberTensor;
    return (plan.kind == ArgumentKind::kTensor || number) && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (plan.kind == ArgumentKind::kNumberTensor) {
      at::Scalar scalar;
      if (!reader.Scalar(scalar)) return false;
      number = NumberTensor(scalar);
      tensor = &number;
      return true;
    }
    if (!reader.has()) return false;
    tensor = reader.Tensor(reader.values[reader.next++]);
    return tensor != nullptr;
  }
  const at::Tensor& Get() { return *tensor; }
  const at::Tensor* tensor = nullptr;
  at::Tensor number;
};

template <>
struct Parameter<at::Tensor&> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.written && Parameter<const at::Tensor&>::Fits(plan);
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    if (!reader.has()) return false;
    const at::Tensor* found = reader.Tensor(reader.values[reader.next++]);
    if (found == nullptr) return false;
    // Another name of the same tensor: operators take it as one that may change.
    tensor = *found;
    return true;
  }
  at::Tensor& Get() { return tensor; }
  at::Tensor tensor;
};

template <>
struct Parameter<const std::optional<at::Tensor>&> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kTensor && !plan.list && plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    if (!reader.has()) return true;
    const napi_value value = reader.values[reader.next++];
    const at::Tensor* found = reader.Tensor(value);
    if (found == nullptr) return IsNullish(reader.env, value);
    tensor = *found;
    return true;
  }
  const std::optional<at::Tensor>& Get() { return tensor; }
  std::optional<at::Tensor> tensor;
};

template <>
struct Parameter<const at::ITensorListRef&> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kTensor && plan.list && !plan.optional &&
           !plan.optional_items;
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    uint32_t length = 0;
    if (!reader.has()) return false;
    const napi_value array = reader.values[reader.next++];
    if (napi_get_array_length(reader.env, array, &length) != napi_ok) return false;
    for (uint32_t i = 0; i < length; ++i) {
      napi_value item = nullptr;
      if (napi_get_element(reader.env, array, i, &item) != napi_ok) return false;
      const at::Tensor* tensor = reader.Tensor(item);
      if (tensor == nullptr) return false;
      tensors.push_back(*tensor);
    }
    list = at::ITensorListRef(at::TensorList(tensors.data(), tensors.size()));
    return true;
  }
  const at::ITensorListRef& Get() { return list; }
  c10::SmallVector<at::Tensor, 4> tensors;
  at::ITensorListRef list;
};

template <>
struct Parameter<const at::Scalar&> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kScalar && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (reader.Scalar(scalar)) return true;
    if (!plan.default_value || !reader.Absent()) return false;
    scalar = plan.default_value->toScalar();
    return true;
  }
  const at::Scalar& Get() { return scalar; }
  at::Scalar scalar;
};

template <>
struct Parameter<int64_t> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kInt && !plan.symbolic && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (reader.Whole(number)) return true;
    if (!plan.default_value || !reader.Absent()) return false;
    number = plan.default_value->toInt();
    return true;
  }
  int64_t Get() { return number; }
  int64_t number = 0;
};

template <>
struct Parameter<std::optional<int64_t>> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kInt && !plan.symbolic && !plan.list && plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    int64_t whole = 0;
    if (reader.Whole(whole)) {
      number = whole;
      return true;
    }
    if (!reader.has()) return true;
    return IsNullish(reader.env, reader.values[reader.next++]);
  }
  std::optional<int64_t> Get() { return number; }
  std::optional<int64_t> number;
};

template <>
struct Parameter<double> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kFloat && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (reader.Number(number)) return true;
    if (!plan.default_value || !reader.Absent()) return false;
    number = plan.default_value->toDouble();
    return true;
  }
  double Get() { return number; }
  double number = 0;
};

template <>
struct Parameter<c10::SymInt> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kInt && plan.symbolic && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) { return number.Read(reader, plan); }
  c10::SymInt Get() { return number.Get(); }
  Parameter<int64_t> number;
};

template <>
struct Parameter<bool> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kBool && !plan.list && !plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (reader.has() &&
        napi_get_value_bool(reader.env, reader.values[reader.next], &flag) == napi_ok) {
      ++reader.next;
      return true;
    }
    if (!plan.default_value || !reader.Absent()) return false;
    flag = plan.default_value->toBool();
    return true;
  }
  bool Get() { return flag; }
  bool flag = false;
};

// Only left out: a name is looked up by the boxed call.
template <>
struct Parameter<std::optional<at::ScalarType>> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kDtype && !plan.list && plan.optional;
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    if (!reader.has()) return true;
    return IsNullish(reader.env, reader.values[reader.next++]);
  }
  std::optional<at::ScalarType> Get() { return std::nullopt; }
};

// Only left out, as above.
template <>
struct Parameter<at::MemoryFormat> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kMemoryFormat && !plan.list && !plan.optional &&
           plan.default_value;
  }
  bool Read(Reader& reader, const ArgumentPlan& plan) {
    if (!reader.Absent()) return false;
    format = plan.default_value->toMemoryFormat();
    return true;
  }
  at::MemoryFormat Get() { return format; }
  at::MemoryFormat format = at::MemoryFormat::Contiguous;
};

struct Items {
  std::array<int64_t, kMaxItems> values;
  size_t length = 0;

  bool ReadArray(Reader& reader) {
    uint32_t given = 0;
    if (!reader.has()) return false;
    const napi_value array = reader.values[reader.next++];
    if (napi_get_array_length(reader.env, array, &given) != napi_ok || given > kMaxItems)
      return false;
    for (; length < given; ++length) {
      napi_value item = nullptr;
      const auto at = static_cast<uint32_t>(length);
      if (napi_get_element(reader.env, array, at, &item) != napi_ok) return false;
      if (!Reader{reader.env, reader.tensors, &item, 1}.Whole(values[length])) return false;
    }
    return true;
  }
  at::IntArrayRef Get() const { return {values.data(), length}; }
};

// An array, or numbers one by one: view(2, 3).
template <>
struct Parameter<c10::SymIntArrayRef> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kInt && plan.symbolic && plan.list && !plan.optional &&
           plan.count == 0;
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    while (items.length < kMaxItems && reader.Whole(items.values[items.length])) ++items.length;
    return items.length > 0 || items.ReadArray(reader);
  }
  c10::SymIntArrayRef Get() { return c10::fromIntArrayRefSlow(items.Get()); }
  Items items;
};

// An array, one number, or nothing: sum(-1).
template <>
struct Parameter<at::OptionalIntArrayRef> {
  static bool Fits(const ArgumentPlan& plan) {
    return plan.kind == ArgumentKind::kInt && !plan.symbolic && plan.list && plan.optional &&
           plan.count == 1;
  }
  bool Read(Reader& reader, const ArgumentPlan&) {
    given = true;
    if (reader.Whole(items.values[0])) {
      items.length = 1;
      return true;
    }
    if (reader.has() && !IsNullish(reader.env, reader.values[reader.next])) {
      return items.ReadArray(reader);
    }
    given = false;
    ++reader.next;
    return true;
  }
  at::OptionalIntArrayRef Get() {
    return given ? at::OptionalIntArrayRef(items.Get()) : at::OptionalIntArrayRef();
  }
  Items items;
  bool given = false;
};

template <class Function>
class Typed;

template <class R, class... P>
class Typed<R(P...)> final : public UnboxedCall {
 public:
  static bool Fits(const OpPlan& plan) {
    if (plan.arguments.size() != sizeof...(P) || plan.returns.size() != 1) return false;
    if (plan.returns[0] != ArgumentKind::kTensor) return false;
    if (plan.returns_written[0] != std::is_reference_v<R>) return false;
    size_t i = 0;
    return (Parameter<P>::Fits(plan.arguments[i++]) && ...);
  }

  // Throws c10::Error when libtorch's own signature is another.
  explicit Typed(const OpPlan& plan) : op_(plan.handle.typed<R(P...)>()) {}

  bool Run(Environment& environment,
           const OpPlan& plan,
           const napi_value* values,
           size_t count,
           at::Tensor& result) const override {
    return With(environment, plan, values, count, [&](Parameter<P>&... parameter) {
      if constexpr (std::is_reference_v<R>) {
        op_.call(parameter.Get()...);
      } else {
        result = op_.call(parameter.Get()...);
      }
    });
  }

  double Time(Environment& environment,
              const OpPlan& plan,
              const napi_value* values,
              size_t count,
              uint32_t times) const override {
    using std::chrono::steady_clock;
    std::chrono::duration<double, std::micro> time{};
    const bool done = With(environment, plan, values, count, [&](Parameter<P>&... parameter) {
      const auto start = steady_clock::now();
      for (uint32_t i = 0; i < times; ++i) op_.call(parameter.Get()...);
      time = steady_clock::now() - start;
    });
    return done ? time.count() / times : -1;
  }

 private:
  // Calls body(parameters…), unless the boxed call is to do it.
  template <class Body>
  bool With(Environment& environment,
            const OpPlan& plan,
            const napi_value* values,
            size_t count,
            Body&& body) const {
    Reader reader{environment.env(), environment.tensors(), values, count};
    std::tuple<Parameter<P>...> parameters;
    const auto run = [&](Parameter<P>&... parameter) {
      const ArgumentPlan* argument = plan.arguments.data();
      if (!(parameter.Read(reader, *argument++) && ...) || reader.next < count) return false;
      // Anything smaller is not worth it, whatever the operator.
      if (plan.hand_over && reader.product >= kHandOverElements &&
          Executor::Cpu().num_threads() > 1) {
        return false;
      }
      if (plan.skips_autograd && !c10::GradMode::is_enabled()) {
        const at::AutoDispatchBelowAutograd below;
        body(parameter...);
      } else {
        body(parameter...);
      }
      return true;
    };
    return std::apply(run, parameters);
  }

  c10::TypedOperatorHandle<R(P...)> op_;
};

using T = const at::Tensor&;
using Maybe = const std::optional<at::Tensor>&;
using S = const at::Scalar&;
using Dtype = std::optional<at::ScalarType>;
using Sizes = c10::SymIntArrayRef;
using Dims = at::OptionalIntArrayRef;

template <class... Functions>
std::unique_ptr<const UnboxedCall> FirstOf(const OpPlan& plan) {
  std::unique_ptr<const UnboxedCall> found;
  const auto attempt = [&]<class F>(std::type_identity<F>) {
    if (!Typed<F>::Fits(plan)) return false;
    try {
      found = std::make_unique<const Typed<F>>(plan);
    } catch (const c10::Error&) {
      // The kernels were registered with another C++ signature.
    }
    return true;
  };
  (attempt(std::type_identity<Functions>{}) || ...);
  return found;
}

}  // namespace

std::unique_ptr<const UnboxedCall> UnboxedCall::For(const OpPlan& plan) {
  const auto& arguments = plan.arguments;
  if (!plan.name.starts_with("aten::") || arguments.empty()) return nullptr;
  // The elements of one tensor do not say how much work it is to multiply it with itself.
  const bool one = arguments.size() < 2 || arguments[1].kind != ArgumentKind::kTensor;
  if (plan.heavy && one) return nullptr;
  // Lists of tensors have one of two types in C++, which the schema does not tell.
  if (arguments[0].list && plan.name != "aten::cat") return nullptr;
  return FirstOf<at::Tensor(T),                                     // neg, exp, silu
                 at::Tensor(T, T),                                  // mul, matmul
                 at::Tensor(T, T, S),                               // add, masked_fill
                 at::Tensor(T, T, T),                               // where
                 at::Tensor(T, T, Maybe),                           // linear
                 at::Tensor(T, T, c10::SymInt, bool, bool),         // embedding
                 at::Tensor(T, S),                                  // pow
                 at::Tensor(T, Dtype),                              // sum
                 at::Tensor(T, Dims, bool, Dtype),                  // sum, mean
                 at::Tensor(T, std::optional<int64_t>, bool),       // argmax
                 at::Tensor(T, int64_t),                            // unsqueeze
                 at::Tensor(T, int64_t, T),                         // index_select
                 at::Tensor(T, int64_t, int64_t),                   // transpose
                 at::Tensor(T, int64_t, c10::SymInt),               // select
                 at::Tensor(T, int64_t, Dtype),                     // softmax
                 at::Tensor(T, at::MemoryFormat),                   // contiguous
                 at::Tensor(T, Sizes),                              // view, reshape
                 at::Tensor(T, Sizes, bool),                        // expand
                 at::Tensor(T, Sizes, Maybe, Maybe, double, bool),  // layer_norm
                 at::Tensor(const at::ITensorListRef&, int64_t),    // cat
                 at::Tensor&(at::Tensor&, T),                       // mul_
                 at::Tensor&(at::Tensor&, T, S)>(plan);             // add_
}

}  // namespace tf
