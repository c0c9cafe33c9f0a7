// Operators that do in one pass what models write as several. Each rounds where the sequence of
// operators that it stands for rounds, so results agree within the dtype's last places. fp32 and
// bf16; CPU and Meta; no derivative: for executors.
//
// torchformers::rms_norm(Tensor input, Tensor? weight, float eps) -> Tensor
//   weight * round(input * rsqrt(mean(input^2) + eps)) over the last dimension. input [..., n],
//   weight [n]; result dense.
// torchformers::add_rms_norm(Tensor input, Tensor residual, Tensor? weight, float eps) -> (Tensor,
// Tensor)
//   sum = input + residual, and rms_norm(sum); results (normalized, sum), dense.
// torchformers::rotary(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)
//   x * cos + rotate_half(x) * sin for both. query [b, heads, l, d], key [b, kv_heads, l, d]; cos
//   and sin [b or 1, l, r] with r <= d even: the first r of d are turned, the rest is copied.
//   Results lie as their inputs.
// torchformers::swiglu(Tensor gate, Tensor up) -> Tensor
//   silu(gate) * up; same shapes; result dense.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "native/kernels/pick.h"

namespace tf {
namespace {

using at::Tensor;

// A fresh tensor that lies in memory as this one.
Tensor Alike(const Tensor& tensor) { return at::empty_like(tensor, at::MemoryFormat::Preserve); }
Tensor Dense(const Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); }

// A thread is worth waking for this many elements.
constexpr int64_t kElementsPerThread = 16384;

int64_t RowsPerThread(int64_t row) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, row));
}

// --- norms ---------------------------------------------------------------------------------------

void CheckNorm(const char* name, const Tensor& input, const std::optional<Tensor>& weight) {
  CheckRowType(name, input, {});
  TORCH_CHECK(input.dim() >= 1, name, ": input must have at least one dimension");
  if (!weight.has_value() || !weight->defined()) return;
  CheckRowType(name, input, {&*weight});
  TORCH_CHECK(weight->dim() == 1 && weight->size(0) == input.size(-1),
              name,
              ": weight of shape ",
              weight->sizes(),
              " does not go with an input of shape ",
              input.sizes());
}

void Normalize(const Tensor& input,
               const Tensor& residual,
               const std::optional<Tensor>& weight_,
               double eps,
               const Tensor& sum,
               const Tensor& output) {
  const Tensor weight =
      weight_.has_value() && weight_->defined() ? weight_->contiguous() : Tensor();
  const auto run = RowKernelFor(input).rms_norm;
  const int64_t n = input.size(-1);
  const int64_t count = n == 0 ? 0 : input.numel() / n;
  at::parallel_for(0, count, RowsPerThread(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      run(ElementAt(input, row * n),
          residual.defined() ? ElementAt(residual, row * n) : nullptr,
          weight.defined() ? weight.const_data_ptr() : nullptr,
          sum.defined() ? MutableElementAt(sum, row * n) : nullptr,
          MutableElementAt(output, row * n),
          n,
          static_cast<float>(eps));
    }
  });
}

Tensor RmsNormMeta(const Tensor& input, const std::optional<Tensor>& weight, double) {
  CheckNorm("rms_norm", input, weight);
  return Dense(input);
}

Tensor RmsNorm(const Tensor& input, const std::optional<Tensor>& weight, double eps) {
  Tensor output = RmsNormMeta(input, weight, eps);
  Normalize(input.contiguous(), Tensor(), weight, eps, Tensor(), output);
  return output;
}

std::tuple<Tensor, Tensor> AddRmsNormMeta(const Tensor& input,
                                          const Tensor& residual,
                                          const std::optional<Tensor>& weight,
                                          double) {
  CheckNorm("add_rms_norm", input, weight);
  CheckRowType("add_rms_norm", input, {&residual});
  TORCH_CHECK(input.sizes() == residual.sizes(),
              "add_rms_norm: input and residual must have one shape, but have ",
              input.sizes(),
              " and ",
              residual.sizes());
  return {Dense(input), Dense(input)};
}

std::tuple<Tensor, Tensor> AddRmsNorm(const Tensor& input,
                                      const Tensor& residual,
                                      const std::optional<Tensor>& weight,
                                      double eps) {
  auto [output, sum] = AddRmsNormMeta(input, residual, weight, eps);
  Normalize(input.contiguous(), residual.contiguous(), weight, eps, sum, output);
  return {output, sum};
}

// --- rotary embedding ----------------------------------------------------------------------------

std::tuple<Tensor, Tensor> RotaryMeta(const Tensor& query,
                                      const Tensor& key,
                                      const Tensor& cos,
                                      const Tensor& sin) {
  CheckRowType("rotary", query, {&key, &cos, &sin});
  TORCH_CHECK(query.dim() == 4 && key.dim() == 4,
              "rotary: query and key must be [batch, heads, length, width]");
  TORCH_CHECK(cos.dim() == 3 && cos.sizes() == sin.sizes(),
              "rotary: cos and sin must be [batch, length, width]");
  for (const Tensor* x : {&query, &key}) {
    TORCH_CHECK((cos.size(0) == 1 || cos.size(0) == x->size(0)) && cos.size(1) == x->size(2) &&
                    cos.size(2) <= x->size(3) && cos.size(2) % 2 == 0,
                "rotary: cos of shape ",
                cos.sizes(),
                " does not go with an input of shape ",
                x->sizes());
  }
  return {Alike(query), Alike(key)};
}

// One row of `x` after the other; rows are those of all heads of all positions.
void Turn(const Tensor& x_, const Tensor& cos, const Tensor& sin, const Tensor& output) {
  const Tensor x = x_.stride(3) == 1 ? x_ : x_.contiguous();
  const Tensor to = output.stride(3) == 1 ? output : Dense(output);
  const auto run = RowKernelFor(x).rotary;
  const int64_t heads = x.size(1);
  const int64_t length = x.size(2);
  const int64_t width = x.size(3);
  const int64_t turned = cos.size(2);
  at::parallel_for(
      0, x.size(0) * heads * length, RowsPerThread(width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t l = row % length;
          const int64_t h = row / length % heads;
          const int64_t b = row / length / heads;
          const char* from = ElementAt(x, b * x.stride(0) + h * x.stride(1) + l * x.stride(2));
          char* into = MutableElementAt(to, b * to.stride(0) + h * to.stride(1) + l * to.stride(2));
          const int64_t angle = ((cos.size(0) == 1 ? 0 : b) * length + l) * turned;
          run(from, ElementAt(cos, angle), ElementAt(sin, angle), into, turned);
          const int64_t done = turned * x.element_size();
          std::memcpy(into + done, from + done, (width - turned) * x.element_size());
        }
      });
  if (!to.is_same(output)) output.copy_(to);
}

std::tuple<Tensor, Tensor> Rotary(const Tensor& query,
                                  const Tensor& key,
                                  const Tensor& cos_,
                                  const Tensor& sin_) {
  auto [turned_query, turned_key] = RotaryMeta(query, key, cos_, sin_);
  const Tensor cos = cos_.contiguous();
  const Tensor sin = sin_.contiguous();
  Turn(query, cos, sin, turned_query);
  Turn(key, cos, sin, turned_key);
  return {turned_query, turned_key};
}

// --- SwiGLU --------------------------------------------------------------------------------------

Tensor SwiGluMeta(const Tensor& gate, const Tensor& up) {
  CheckRowType("swiglu", gate, {&up});
  TORCH_CHECK(gate.sizes() == up.sizes(),
              "swiglu: gate and up must have one shape, but have ",
              gate.sizes(),
              " and ",
              up.sizes());
  return Dense(gate);
}

Tensor SwiGlu(const Tensor& gate_, const Tensor& up_) {
  Tensor output = SwiGluMeta(gate_, up_);
  const Tensor gate = gate_.contiguous();
  const Tensor up = up_.contiguous();
  const auto run = RowKernelFor(gate).swiglu;
  at::parallel_for(0, gate.numel(), kElementsPerThread / 8, [&](int64_t begin, int64_t end) {
    run(ElementAt(gate, begin), ElementAt(up, begin), MutableElementAt(output, begin), end - begin);
  });
  return output;
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def("rms_norm(Tensor input, Tensor? weight, float eps) -> Tensor");
  m.def(
      "add_rms_norm(Tensor input, Tensor residual, Tensor? weight, float eps) -> (Tensor, Tensor)");
  m.def("rotary(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)");
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchformers, CPU, m) {
  m.impl("rms_norm", RmsNorm);
  m.impl("add_rms_norm", AddRmsNorm);
  m.impl("rotary", Rotary);
  m.impl("swiglu", SwiGlu);
}

TORCH_LIBRARY_IMPL(torchformers, Meta, m) {
  m.impl("rms_norm", RmsNormMeta);
  m.impl("add_rms_norm", AddRmsNormMeta);
  m.impl("rotary", RotaryMeta);
  m.impl("swiglu", SwiGluMeta);
}

TORCH_LIBRARY_IMPL(torchformers, Autograd, m) {
  for (const char* name : {"rms_norm", "add_rms_norm", "rotary", "swiglu"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace tf
