// Meta kernels of attention. Which of its kernels the CPU takes settles the strides of the result,
// so its own choice is asked.
#include <ATen/OpMathType.h>

#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// A CPU tensor of the same shape and strides, without memory: the choice reads no elements.
Tensor OnCpu(const Tensor& meta) {
  static char nothing;
  Tensor tensor = at::from_blob(
      &nothing, meta.sizes(), meta.strides(), meta.options().device(at::kCPU).requires_grad(false));
  if (meta.requires_grad()) tensor.set_requires_grad(true);
  return tensor;
}

// Results: the sums, which lie as the query does, and the logarithms of the denominators [batch,
// heads, length].
std::tuple<Tensor, Tensor> FlashForCpu(const Tensor& query,
                                       const Tensor&,
                                       const Tensor&,
                                       double,
                                       bool,
                                       const std::optional<Tensor>&,
                                       std::optional<double>) {
  return {at::empty_like(query),
          Empty({query.size(0), query.size(2), query.size(1)},
                query,
                at::toOpMathType(query.scalar_type()))
              .transpose(1, 2)};
}

Tensor ScaledDotProductAttention(const Tensor& query,
                                 const Tensor& key,
                                 const Tensor& value,
                                 const std::optional<Tensor>& mask,
                                 double dropout,
                                 bool causal,
                                 std::optional<double> scale,
                                 bool grouped) {
  constexpr int64_t kFlash = 1;  // sdp::SDPBackend::flash_attention
  const bool masked = mask.has_value() && mask->defined();
  const int64_t choice =
      at::_fused_sdp_choice(OnCpu(query),
                            OnCpu(key),
                            OnCpu(value),
                            masked ? std::optional<Tensor>(OnCpu(*mask)) : std::nullopt,
                            dropout,
                            causal,
                            scale,
                            grouped);
  if (choice == kFlash) {
    return std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout, causal, mask, scale));
  }
  return std::get<0>(at::_scaled_dot_product_attention_math(
      query, key, value, mask, dropout, causal, std::nullopt, scale, grouped));
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("_scaled_dot_product_flash_attention_for_cpu", FlashForCpu);
  m.impl("scaled_dot_product_attention", ScaledDotProductAttention);
}

// With a kernel for the backend libtorch would no longer record the parts for backward.
TORCH_LIBRARY_IMPL(aten, AutogradMeta, m) {
  m.impl("scaled_dot_product_attention", ScaledDotProductAttention);
}

}  // namespace
}  // namespace tf::meta
