// Meta kernels of operators that draw random numbers. They draw none.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

using Generator = std::optional<at::Generator>;

// Weights [categories] or [rows, categories] to [samples] or [rows, samples].
Tensor Multinomial(const Tensor& self, int64_t samples, bool replacement, Generator) {
  TORCH_CHECK(self.dim() == 1 || self.dim() == 2, "prob_dist must be 1 or 2 dim");
  TORCH_CHECK(at::isFloatingType(self.scalar_type()),
              "multinomial only supports floating-point dtypes for input, got: ",
              self.scalar_type());
  TORCH_CHECK(samples > 0, "cannot sample n_sample <= 0 samples");
  TORCH_CHECK(replacement || samples <= self.size(-1),
              "cannot sample n_sample > prob_dist.size(-1) samples without replacement");
  if (self.dim() == 1) return Empty({samples}, self, at::kLong);
  return Empty({self.size(0), samples}, self, at::kLong);
}

Tensor Alike(const Tensor& self, Generator) { return Empty(self.sizes(), self); }
Tensor Binomial(const Tensor& count, const Tensor& prob, Generator) { return at::add(count, prob); }

Tensor& BernoulliOut(const Tensor& self, Generator, Tensor& out) {
  return Resize(out, self.sizes());
}
Tensor& RandpermOut(int64_t n, Generator, Tensor& out) {
  TORCH_CHECK(n >= 0, "n must be non-negative, got", n);
  return Resize(out, {n});
}

Tensor Rrelu(const Tensor& self, Tensor&, const at::Scalar&, const at::Scalar&, bool, Generator) {
  return at::empty_like(self, at::MemoryFormat::Contiguous);
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("multinomial", Multinomial);
  m.impl("poisson", Alike);
  m.impl("_standard_gamma", Alike);
  m.impl("_sample_dirichlet", Alike);
  m.impl("binomial", Binomial);
  m.impl("bernoulli.out", BernoulliOut);
  m.impl("randperm.generator_out", RandpermOut);
  m.impl("rrelu_with_noise", Rrelu);
}

}  // namespace
}  // namespace tf::meta
