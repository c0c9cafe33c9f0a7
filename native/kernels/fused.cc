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
// torchformers::attend_one(Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? length,
// float? scale) -> Tensor
//   scaled_dot_product_attention of one query position over a static cache. query [b, heads, 1, d];
//   key and value [b, kv_heads, s, d], heads a multiple of kv_heads, which are not repeated; mask
//   bool (true: look) or added to the scores, broadcast to [b, heads, 1, s]; length int64, [b] or
//   one value: only the first so many positions are read (absent: all). scale: absent, 1 / sqrt(d).
//   A row without a position to look at gives NaN, as softmax does. Result lies as query.
#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "native/kernels/cpu_level.h"
#include "native/kernels/rows.h"

namespace tf {
namespace {

using at::Tensor;

const rows::Kernel& KernelFor(const Tensor& tensor) {
  const rows::Kernels* kernels = &rows::kGeneric;
#if defined(__x86_64__)
  const CpuLevel level = UsedCpuLevel();
  if (level == CpuLevel::kAvx2) kernels = &rows::kAvx2;
  if (level == CpuLevel::kAvx512 || level == CpuLevel::kAvx512Bf16) kernels = &rows::kAvx512;
#endif
  return tensor.scalar_type() == at::kFloat ? kernels->fp32 : kernels->bf16;
}

void CheckType(const char* name,
               const Tensor& tensor,
               std::initializer_list<const Tensor*> others) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16,
              name,
              ": not implemented for '",
              tensor.scalar_type(),
              "', only for float32 and bfloat16");
  for (const Tensor* other : others) {
    TORCH_CHECK(other->scalar_type() == tensor.scalar_type(),
                name,
                ": expected one dtype, but got ",
                tensor.scalar_type(),
                " and ",
                other->scalar_type());
  }
}

// A fresh tensor that lies in memory as this one.
Tensor Alike(const Tensor& tensor) { return at::empty_like(tensor, at::MemoryFormat::Preserve); }
Tensor Dense(const Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); }

const char* At(const Tensor& tensor, int64_t element) {
  return static_cast<const char*>(tensor.const_data_ptr()) + element * tensor.element_size();
}
char* MutableAt(const Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.mutable_data_ptr()) + element * tensor.element_size();
}

// A thread is worth waking for this many elements.
constexpr int64_t kElementsPerThread = 16384;

int64_t RowsPerThread(int64_t row) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, row));
}

// --- norms ---------------------------------------------------------------------------------------

void CheckNorm(const char* name, const Tensor& input, const std::optional<Tensor>& weight) {
  CheckType(name, input, {});
  TORCH_CHECK(input.dim() >= 1, name, ": input must have at least one dimension");
  if (!weight.has_value() || !weight->defined()) return;
  CheckType(name, input, {&*weight});
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
  const auto run = KernelFor(input).rms_norm;
  const int64_t n = input.size(-1);
  const int64_t count = n == 0 ? 0 : input.numel() / n;
  at::parallel_for(0, count, RowsPerThread(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      run(At(input, row * n),
          residual.defined() ? At(residual, row * n) : nullptr,
          weight.defined() ? weight.const_data_ptr() : nullptr,
          sum.defined() ? MutableAt(sum, row * n) : nullptr,
          MutableAt(output, row * n),
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
  CheckType("add_rms_norm", input, {&residual});
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
  CheckType("rotary", query, {&key, &cos, &sin});
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
  const auto run = KernelFor(x).rotary;
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
          const char* from = At(x, b * x.stride(0) + h * x.stride(1) + l * x.stride(2));
          char* into = MutableAt(to, b * to.stride(0) + h * to.stride(1) + l * to.stride(2));
          const int64_t angle = ((cos.size(0) == 1 ? 0 : b) * length + l) * turned;
          run(from, At(cos, angle), At(sin, angle), into, turned);
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
  CheckType("swiglu", gate, {&up});
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
  const auto run = KernelFor(gate).swiglu;
  at::parallel_for(0, gate.numel(), kElementsPerThread / 8, [&](int64_t begin, int64_t end) {
    run(At(gate, begin), At(up, begin), MutableAt(output, begin), end - begin);
  });
  return output;
}

// --- attention of one position -------------------------------------------------------------------

Tensor AttendOneMeta(const Tensor& query,
                     const Tensor& key,
                     const Tensor& value,
                     const std::optional<Tensor>& mask,
                     const std::optional<Tensor>& length,
                     std::optional<double>) {
  CheckType("attend_one", query, {&key, &value});
  TORCH_CHECK(query.dim() == 4 && query.size(2) == 1,
              "attend_one: query must be [batch, heads, 1, width], but has shape ",
              query.sizes());
  TORCH_CHECK(key.dim() == 4 && key.sizes() == value.sizes() && key.size(0) == query.size(0) &&
                  key.size(3) == query.size(3) && key.size(1) > 0 &&
                  query.size(1) % key.size(1) == 0,
              "attend_one: key of shape ",
              key.sizes(),
              " and value of shape ",
              value.sizes(),
              " do not go with a query of shape ",
              query.sizes());
  if (mask.has_value() && mask->defined()) {
    TORCH_CHECK(mask->scalar_type() == at::kBool || mask->is_floating_point(),
                "attend_one: mask must be boolean or floating point, but has dtype ",
                mask->scalar_type());
    const std::vector<int64_t> scores = {query.size(0), query.size(1), 1, key.size(2)};
    TORCH_CHECK(mask->dim() <= 4 && at::infer_size(mask->sizes(), scores) == scores,
                "attend_one: mask of shape ",
                mask->sizes(),
                " does not go with scores of shape ",
                scores);
  }
  TORCH_CHECK(!length.has_value() || !length->defined() ||
                  (length->scalar_type() == at::kLong &&
                   (length->numel() == 1 || length->numel() == query.size(0))),
              "attend_one: length must be int64, with one value or one per row of the batch");
  return Alike(query);
}

// What is added to the scores, [batch, heads, s] in fp32, or undefined.
Tensor ScoreBias(const std::optional<Tensor>& mask, const Tensor& query, const Tensor& key) {
  if (!mask.has_value() || !mask->defined()) return Tensor();
  const auto hidden = -std::numeric_limits<float>::infinity();
  Tensor bias = mask->scalar_type() == at::kBool
                    ? at::zeros(mask->sizes(), query.options().dtype(at::kFloat))
                          .masked_fill_(mask->logical_not(), hidden)
                    : mask->to(at::kFloat);
  return bias.expand({query.size(0), query.size(1), 1, key.size(2)}).squeeze(2);
}

// Positions that one thread takes at a time; several pieces of a head are put together afterwards.
constexpr int64_t kPiece = 512;

// The partial results of one head of keys, over one piece of the positions.
struct Partial {
  std::vector<float> highest, sum, output;
};

Tensor AttendOne(const Tensor& query,
                 const Tensor& key_,
                 const Tensor& value_,
                 const std::optional<Tensor>& mask,
                 const std::optional<Tensor>& length,
                 std::optional<double> scale_) {
  Tensor output = AttendOneMeta(query, key_, value_, mask, length, scale_);
  const Tensor key = key_.stride(3) == 1 ? key_ : key_.contiguous();
  const Tensor value = value_.stride(3) == 1 ? value_ : value_.contiguous();
  const int64_t batch = query.size(0);
  const int64_t kv_heads = key.size(1);
  const int64_t group = query.size(1) / kv_heads;
  const int64_t width = query.size(3);
  const double scale = scale_.value_or(1.0 / std::sqrt(static_cast<double>(width)));
  const Tensor scaled = query.to(at::kFloat).mul(scale).contiguous();
  const Tensor bias_ = ScoreBias(mask, query, key);
  const Tensor bias = bias_.defined() && bias_.stride(2) != 1 ? bias_.contiguous() : bias_;

  std::vector<int64_t> counts(batch, key.size(2));
  if (length.has_value() && length->defined()) {
    const Tensor lengths = length->reshape({-1});
    for (int64_t b = 0; b < batch; ++b) {
      counts[b] = lengths[lengths.numel() == 1 ? 0 : b].item<int64_t>();
      TORCH_CHECK(counts[b] >= 0 && counts[b] <= key.size(2),
                  "attend_one: length ",
                  counts[b],
                  " is out of range for a cache of ",
                  key.size(2));
    }
  }
  const int64_t longest = batch == 0 ? 0 : *std::max_element(counts.begin(), counts.end());
  const int64_t pieces = std::max<int64_t>(1, (longest + kPiece - 1) / kPiece);
  std::vector<Partial> partials(batch * kv_heads * pieces);
  const auto run = KernelFor(query).attention;
  const int64_t grain = RowsPerThread(std::min(longest, kPiece) * width);
  at::parallel_for(0, batch * kv_heads * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i % pieces * kPiece;
      const int64_t head = i / pieces % kv_heads;
      const int64_t b = i / pieces / kv_heads;
      Partial& partial = partials[i];
      partial.highest.resize(group);
      partial.sum.resize(group);
      partial.output.resize(group * width);
      rows::Attention work;
      work.query = scaled.const_data_ptr<float>() + (b * kv_heads + head) * group * width;
      work.keys = At(key, b * key.stride(0) + head * key.stride(1) + from * key.stride(2));
      work.values =
          At(value, b * value.stride(0) + head * value.stride(1) + from * value.stride(2));
      work.key_stride = key.stride(2);
      work.value_stride = value.stride(2);
      work.bias = bias.defined() ? bias.const_data_ptr<float>() + b * bias.stride(0) +
                                       head * group * bias.stride(1) + from
                                 : nullptr;
      work.bias_stride = bias.defined() ? bias.stride(1) : 0;
      work.count = std::clamp<int64_t>(counts[b] - from, 0, kPiece);
      work.group = group;
      work.width = width;
      work.highest = partial.highest.data();
      work.sum = partial.sum.data();
      work.output = partial.output.data();
      run(work);
    }
  });

  Tensor merged = at::zeros({batch, query.size(1), 1, width}, query.options().dtype(at::kFloat));
  float* result = merged.mutable_data_ptr<float>();
  for (int64_t head = 0; head < batch * kv_heads; ++head) {
    const Partial* parts = &partials[head * pieces];
    for (int64_t g = 0; g < group; ++g, result += width) {
      float highest = parts[0].highest[g];
      for (int64_t p = 1; p < pieces; ++p) highest = std::max(highest, parts[p].highest[g]);
      float sum = 0;
      for (int64_t p = 0; p < pieces; ++p) {
        if (parts[p].sum[g] == 0) continue;
        const float share = std::exp(parts[p].highest[g] - highest);
        sum += share * parts[p].sum[g];
        for (int64_t d = 0; d < width; ++d) result[d] += share * parts[p].output[g * width + d];
      }
      for (int64_t d = 0; d < width; ++d) result[d] /= sum;
    }
  }
  return output.copy_(merged);
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def("rms_norm(Tensor input, Tensor? weight, float eps) -> Tensor");
  m.def(
      "add_rms_norm(Tensor input, Tensor residual, Tensor? weight, float eps) -> (Tensor, Tensor)");
  m.def("rotary(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)");
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def(
      "attend_one(Tensor query, Tensor key, Tensor value, Tensor? mask=None, Tensor? length=None, "
      "float? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchformers, CPU, m) {
  m.impl("rms_norm", RmsNorm);
  m.impl("add_rms_norm", AddRmsNorm);
  m.impl("rotary", Rotary);
  m.impl("swiglu", SwiGlu);
  m.impl("attend_one", AttendOne);
}

TORCH_LIBRARY_IMPL(torchformers, Meta, m) {
  m.impl("rms_norm", RmsNormMeta);
  m.impl("add_rms_norm", AddRmsNormMeta);
  m.impl("rotary", RotaryMeta);
  m.impl("swiglu", SwiGluMeta);
  m.impl("attend_one", AttendOneMeta);
}

TORCH_LIBRARY_IMPL(torchformers, Autograd, m) {
  for (const char* name : {"rms_norm", "add_rms_norm", "rotary", "swiglu", "attend_one"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace tf
