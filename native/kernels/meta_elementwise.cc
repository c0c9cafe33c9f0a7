// Meta kernels of operators that work element by element. TensorIterator settles shape and strides,
// as on the CPU.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

Tensor Unary(const Tensor& self, std::optional<ScalarType> dtype = std::nullopt) {
  auto iterator = at::TensorIteratorConfig()
                      .add_owned_output(Tensor())
                      .add_owned_const_input(self)
                      .check_all_same_dtype(false)
                      .declare_static_dtype(dtype.value_or(self.scalar_type()))
                      .declare_static_device(self.device())
                      .build();
  return iterator.output();
}

// Into an `out` whose dtype the caller chose. `inputs` broadcast.
Tensor& Into(Tensor& out, std::initializer_list<Tensor> inputs) {
  at::TensorIteratorConfig config;
  config.add_owned_output(out).check_all_same_dtype(false);
  for (const Tensor& input : inputs) config.add_owned_const_input(input);
  config.build();
  return out;
}

ScalarType FloatOf(ScalarType type) {
  return at::isIntegralType(type, /*includeBool=*/true)
             ? c10::typeMetaToScalarType(c10::get_default_dtype())
             : type;
}

Tensor& UnaryOut(const Tensor& self, Tensor& out) { return Into(out, {self}); }
Tensor& BinaryOut(const Tensor& self, const Tensor& other, Tensor& out) {
  return Into(out, {self, other});
}

Tensor Relu(const Tensor& self) {
  TORCH_CHECK(self.scalar_type() != at::kBool, "Boolean inputs not supported for relu");
  return at::clamp_min(self, 0);
}

Tensor Hardtanh(const Tensor& self, const at::Scalar& low, const at::Scalar& high) {
  TORCH_CHECK(self.scalar_type() != at::kBool, "Bool inputs not supported for hardtanh");
  TORCH_CHECK(self.scalar_type() != at::kByte || (low.toDouble() >= 0 && high.toDouble() >= 0),
              "cannot do hardtanh on an unsigned type with negative limits");
  return at::empty_like(self);
}

Tensor Hardswish(const Tensor& self) { return Unary(self); }

Tensor Angle(const Tensor& self) {
  if (self.is_complex()) return Empty(self.sizes(), self, c10::toRealValueType(self.scalar_type()));
  return Unary(self, FloatOf(self.scalar_type()));
}

Tensor IsNan(const Tensor& self) { return at::ne(self, self); }

Tensor Logit(const Tensor& self, std::optional<double>) {
  return Unary(self, FloatOf(self.scalar_type()));
}

Tensor& NanToNumOut(const Tensor& self,
                    std::optional<double>,
                    std::optional<double>,
                    std::optional<double>,
                    Tensor& out) {
  return Into(out, {self});
}

Tensor& MvlgammaOut(const Tensor& self, int64_t, Tensor& out) { return Into(out, {self}); }

std::tuple<Tensor&, Tensor&> FrexpOut(const Tensor& self, Tensor& mantissa, Tensor& exponent) {
  at::TensorIteratorConfig()
      .add_owned_output(mantissa)
      .add_owned_output(exponent)
      .add_owned_const_input(self)
      .check_all_same_dtype(false)
      .build();
  return {mantissa, exponent};
}

Tensor PreluKernel(const Tensor& self, const Tensor& weight) {
  return at::TensorIteratorConfig()
      .add_owned_output(at::empty_like(self))
      .add_owned_const_input(self)
      .add_owned_const_input(weight)
      .build()
      .output();
}

Tensor FloorDivide(const Tensor& self, const Tensor& other) {
  return at::div(self, other, "floor");
}

Tensor Rsub(const Tensor& self, const Tensor& other, const at::Scalar& alpha) {
  return at::sub(other, self, alpha);
}

Tensor RemainderOfScalar(const at::Scalar& self, const Tensor& other) {
  Tensor wrapped = at::empty({}, other.options().dtype(self.type()));
  wrapped.unsafeGetTensorImpl()->set_wrapped_number(true);
  return at::remainder(wrapped, other);
}

// Both sides are brought to the common dtype first, which may change their strides.
Tensor& WhereOut(const Tensor& condition, const Tensor& self, const Tensor& other, Tensor& out) {
  const ScalarType dtype = at::result_type(self, other);
  TORCH_CHECK(out.scalar_type() == dtype,
              "Expected out type to be ",
              dtype,
              " but got ",
              out.scalar_type());
  TORCH_CHECK(condition.scalar_type() == at::kBool || condition.scalar_type() == at::kByte,
              "where expected condition to be a boolean tensor, but got a tensor with dtype ",
              condition.scalar_type());
  return Into(out, {condition, self.to(dtype), other.to(dtype)});
}

Tensor Where(const Tensor& condition, const Tensor& self, const Tensor& other) {
  Tensor out = Empty({0}, self.dim() > 0 ? self : other, at::result_type(self, other));
  return WhereOut(condition, self, other, out);
}

std::tuple<Tensor, Tensor> LogSigmoidForward(const Tensor& self) {
  const auto contiguous = at::MemoryFormat::Contiguous;
  return {at::empty_like(self, self.options(), contiguous),
          at::empty_like(self, self.options(), contiguous)};
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("abs.out", UnaryOut);
  m.impl("conj_physical.out", UnaryOut);
  m.impl("logical_not.out", UnaryOut);
  m.impl("nan_to_num.out", NanToNumOut);
  m.impl("mvlgamma.out", MvlgammaOut);
  m.impl("frexp.Tensor_out", FrexpOut);
  m.impl("logical_and.out", BinaryOut);
  m.impl("logical_or.out", BinaryOut);
  m.impl("logical_xor.out", BinaryOut);
  m.impl("complex.out", BinaryOut);
  m.impl("polar.out", BinaryOut);
  m.impl("relu", Relu);
  m.impl("hardtanh", Hardtanh);
  m.impl("hardswish", Hardswish);
  m.impl("angle", Angle);
  m.impl("isnan", IsNan);
  m.impl("logit", Logit);
  m.impl("log_sigmoid_forward", LogSigmoidForward);
  m.impl("_prelu_kernel", PreluKernel);
  m.impl("floor_divide", FloorDivide);
  m.impl("rsub.Tensor", Rsub);
  m.impl("remainder.Scalar_Tensor", RemainderOfScalar);
  m.impl("where.self", Where);
  m.impl("where.self_out", WhereOut);
}

}  // namespace
}  // namespace tf::meta
