// Meta kernels of normalization and dropout.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// Statistics are kept in the parameters' dtype where those are wider than the input, as in autocast
// and half precision.
ScalarType StatisticsType(const Tensor& input, const std::optional<Tensor>& parameter) {
  const bool mixed = at::isReducedFloatingType(input.scalar_type()) && parameter.has_value() &&
                     parameter->defined() && parameter->scalar_type() == at::kFloat;
  return mixed ? at::kFloat : input.scalar_type();
}

std::tuple<Tensor, Tensor, Tensor> LayerNorm(const Tensor& input,
                                             IntArrayRef normalized,
                                             const std::optional<Tensor>& weight,
                                             const std::optional<Tensor>& bias,
                                             double) {
  const int64_t kept = input.dim() - static_cast<int64_t>(normalized.size());
  TORCH_CHECK(!normalized.empty(), "Expected normalized_shape to be at least 1-dimensional");
  TORCH_CHECK(kept >= 0 && input.sizes().slice(kept) == normalized,
              "Given normalized_shape=",
              normalized,
              ", expected input with shape [*, ",
              normalized,
              "], but got input of size ",
              input.sizes());
  auto statistics = input.sizes().vec();
  std::fill(statistics.begin() + kept, statistics.end(), 1);
  const ScalarType dtype =
      StatisticsType(input, weight.has_value() && weight->defined() ? weight : bias);
  return {Empty(input.sizes(), input),
          Empty(statistics, input, dtype),
          Empty(statistics, input, dtype)};
}

std::tuple<Tensor, Tensor, Tensor> GroupNorm(const Tensor& input,
                                             const std::optional<Tensor>& weight,
                                             const std::optional<Tensor>& bias,
                                             int64_t batch,
                                             int64_t channels,
                                             int64_t spatial,
                                             int64_t groups,
                                             double) {
  TORCH_CHECK(
      groups > 0 && channels % groups == 0,
      "Expected number of channels in input to be divisible by num_groups, but got input of shape ",
      input.sizes(),
      " and num_groups=",
      groups);
  TORCH_CHECK(input.numel() == batch * channels * spatial,
              "group_norm: input has the wrong number of elements");
  TORCH_CHECK(input.is_contiguous(input.suggest_memory_format()),
              "group_norm: expected a contiguous input");
  const ScalarType dtype =
      StatisticsType(input, weight.has_value() && weight->defined() ? weight : bias);
  return {Empty(input.sizes(), input, std::nullopt, input.suggest_memory_format()),
          Empty({batch, groups}, input, dtype),
          Empty({batch, groups}, input, dtype)};
}

Tensor BatchNormOutput(const Tensor& input) {
  return Empty(input.sizes(), input, std::nullopt, input.suggest_memory_format());
}

// Results: output, and mean and inverse deviation [channels] of the batch, empty in evaluation.
std::tuple<Tensor, Tensor, Tensor> BatchNorm(const Tensor& input,
                                             const std::optional<Tensor>& weight,
                                             const std::optional<Tensor>& bias,
                                             const std::optional<Tensor>& running_mean,
                                             const std::optional<Tensor>& running_var,
                                             bool training,
                                             double,
                                             double) {
  TORCH_CHECK(!training || input.numel() > 0,
              "input tensor must have at least one element, but got input_sizes = ",
              input.sizes());
  ScalarType dtype = input.scalar_type();
  for (const auto* parameter : {&weight, &bias, &running_mean, &running_var}) {
    if (StatisticsType(input, *parameter) == at::kFloat) dtype = at::kFloat;
  }
  const int64_t channels = training ? input.size(1) : 0;
  return {BatchNormOutput(input), Empty({channels}, input, dtype), Empty({channels}, input, dtype)};
}

std::tuple<Tensor, Tensor, Tensor> BatchNormInPlaceStatistics(const Tensor& input,
                                                              const std::optional<Tensor>& weight,
                                                              const std::optional<Tensor>& bias,
                                                              Tensor& running_mean,
                                                              Tensor& running_var,
                                                              bool training,
                                                              double momentum,
                                                              double eps) {
  return BatchNorm(input, weight, bias, running_mean, running_var, training, momentum, eps);
}

std::tuple<Tensor, Tensor, Tensor> BatchNormWithoutStatistics(const Tensor& input,
                                                              const std::optional<Tensor>& weight,
                                                              const std::optional<Tensor>& bias,
                                                              bool training,
                                                              double momentum,
                                                              double eps) {
  return BatchNorm(input, weight, bias, std::nullopt, std::nullopt, training, momentum, eps);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> BatchNormWithUpdate(const Tensor& input,
                                                               const std::optional<Tensor>& weight,
                                                               const std::optional<Tensor>& bias,
                                                               Tensor& running_mean,
                                                               Tensor& running_var,
                                                               double momentum,
                                                               double eps) {
  auto [output, mean, deviation] =
      BatchNorm(input, weight, bias, running_mean, running_var, /*training=*/true, momentum, eps);
  return {output, mean, deviation, Empty({0}, input, at::kByte)};
}

// Both results lie as their argument does.
std::tuple<Tensor, Tensor> WeightNorm(const Tensor& v, const Tensor& g, int64_t dim) {
  TORCH_CHECK(dim == 0 || dim == v.dim() - 1,
              "fused kernels can only be applied for first or last dim");
  return {at::empty_like(v, at::MemoryFormat::Contiguous),
          at::empty_strided(g.sizes(), g.strides(), g.options())};
}

std::tuple<Tensor, Tensor> Dropout(const Tensor& input, double p, std::optional<bool> train) {
  if (input.numel() == 0) return {input, at::empty_like(input, input.options())};
  Tensor mask = at::empty_like(input, input.options().dtype(at::kBool));
  if (!train.value_or(true)) return {input.clone(), mask};
  return {input.mul(mask).mul_(p == 1 ? 0.0 : 1.0 / (1.0 - p)), mask};
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("native_layer_norm", LayerNorm);
  m.impl("native_group_norm", GroupNorm);
  m.impl("native_batch_norm", BatchNorm);
  m.impl("_native_batch_norm_legit", BatchNormInPlaceStatistics);
  m.impl("_native_batch_norm_legit.no_stats", BatchNormWithoutStatistics);
  m.impl("_batch_norm_with_update", BatchNormWithUpdate);
  m.impl("_weight_norm_interface", WeightNorm);
  m.impl("native_dropout", Dropout);
}

}  // namespace
}  // namespace tf::meta
