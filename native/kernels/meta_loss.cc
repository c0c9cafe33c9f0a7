// Meta kernels of losses and distances.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

Tensor BinaryCrossEntropy(const Tensor& self,
                          const Tensor& target,
                          const std::optional<Tensor>&,
                          int64_t reduction) {
  TORCH_CHECK(self.sizes() == target.sizes(),
              "Using a target size (",
              target.sizes(),
              ") that is different to the input size (",
              self.sizes(),
              ") is deprecated. Please ensure they have the same size.");
  TORCH_CHECK(self.scalar_type() == target.scalar_type(),
              "Found dtype ",
              target.scalar_type(),
              " but expected ",
              self.scalar_type());
  if (reduction != kNone) return Empty({}, self);
  return at::empty_like(self);
}

Tensor HuberLoss(const Tensor& self, const Tensor& target, int64_t reduction, double delta) {
  TORCH_CHECK(delta > 0, "huber_loss does not support non-positive values for delta.");
  Tensor loss = at::empty_like(self);
  at::TensorIteratorConfig()
      .add_owned_output(loss)
      .add_owned_const_input(self)
      .add_owned_const_input(target)
      .promote_inputs_to_common_dtype(true)
      .cast_common_dtype_to_outputs(true)
      .enforce_safe_casting_to_output(true)
      .build();
  return reduction == kNone ? loss : Empty({}, loss);
}

// self [N, C, H, W], target [N, H, W].
std::tuple<Tensor, Tensor> NllLoss2d(const Tensor& self,
                                     const Tensor& target,
                                     const std::optional<Tensor>& weight,
                                     int64_t reduction,
                                     int64_t) {
  TORCH_CHECK(
      target.dim() == 3,
      "only batches of spatial targets supported (3D tensors) but got targets of dimension: ",
      target.dim());
  TORCH_CHECK(self.dim() == 4,
              "only batches of spatial inputs supported (4D tensors), but got input of dimension: ",
              self.dim());
  TORCH_CHECK(self.size(0) == target.size(0) && self.size(2) == target.size(1) &&
                  self.size(3) == target.size(2),
              "size mismatch (got input: ",
              self.sizes(),
              " , target: ",
              target.sizes());
  TORCH_CHECK(!weight.has_value() || !weight->defined() || weight->numel() == self.size(1),
              "weight tensor should be defined either for all or no classes");
  const Tensor total = Empty({}, self);
  if (reduction != kNone) return {Empty({}, self), total};
  return {Empty(target.sizes(), self), total};
}

Tensor MultiMarginLoss(const Tensor& self,
                       const Tensor& target,
                       const at::Scalar&,
                       const at::Scalar&,
                       const std::optional<Tensor>&,
                       int64_t reduction) {
  TORCH_CHECK(self.dim() <= 2 && target.dim() <= 1 && self.numel() > 0,
              "multi_margin_loss: expected a non-empty vector or matrix of scores and a vector of "
              "targets, but got ",
              self.sizes(),
              " and ",
              target.sizes());
  if (reduction != kNone || target.dim() == 0) return Empty({}, self);
  return Empty({self.dim() == 2 ? self.size(0) : 1}, self);
}

std::tuple<Tensor, Tensor> MultilabelMarginLoss(const Tensor& self,
                                                const Tensor& target,
                                                int64_t reduction) {
  TORCH_CHECK(self.dim() <= 2 && self.sizes() == target.sizes(),
              "inconsistent target size: ",
              target.sizes(),
              " for input of size: ",
              self.sizes());
  const Tensor is_target = Empty(target.sizes(), self);
  if (reduction != kNone || target.dim() <= 1) return {Empty({}, self), is_target};
  return {Empty({self.size(0)}, self), is_target};
}

// x1 [..., P, M], x2 [..., R, M] to [..., P, R].
Tensor Cdist(const Tensor& x1, const Tensor& x2, double, std::optional<int64_t>) {
  TORCH_CHECK(x1.dim() >= 2 && x2.dim() >= 2 && x1.size(-1) == x2.size(-1),
              "X1 and X2 must have the same number of columns. X1: ",
              x1.sizes(),
              " X2: ",
              x2.sizes());
  auto sizes = at::infer_size(x1.sizes().slice(0, x1.dim() - 2), x2.sizes().slice(0, x2.dim() - 2));
  sizes.push_back(x1.size(-2));
  sizes.push_back(x2.size(-2));
  return Empty(sizes, x1);
}

Tensor Pdist(const Tensor& self, double) {
  const int64_t n = self.size(0);
  return Empty({n * (n - 1) / 2}, self);
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("binary_cross_entropy", BinaryCrossEntropy);
  m.impl("huber_loss", HuberLoss);
  m.impl("nll_loss2d_forward", NllLoss2d);
  m.impl("multi_margin_loss", MultiMarginLoss);
  m.impl("multilabel_margin_loss_forward", MultilabelMarginLoss);
  m.impl("_cdist_forward", Cdist);
  m.impl("_pdist_forward", Pdist);
}

}  // namespace
}  // namespace tf::meta
