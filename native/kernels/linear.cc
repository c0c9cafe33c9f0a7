// torchformers::linear_group(Tensor input, Tensor[] weights, Tensor?[] biases) -> Tensor[]
//
// linear(input, weights[i], biases[i]) for every i, in one parallel region: what q, k and v, or
// gate and up, are to one input, without concatenated weights. input [..., k]; weights [n_i, k];
// biases [n_i], none, or an empty list for none at all; results [..., n_i], dense. bf16 on the CPU
// with up to 8 rows runs at the speed of reading the weights: sums in fp32, bias included, rounded
// once. Everything else goes to ATen's linear, weight by weight. No derivative: for executors.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <vector>

#include "native/kernels/cpu_level.h"
#include "native/kernels/matvec.h"

namespace tf {
namespace {

using at::Tensor;
using Biases = c10::List<std::optional<Tensor>>;

std::optional<Tensor> BiasAt(const Biases& biases, size_t i) {
  if (biases.empty()) return std::nullopt;
  std::optional<Tensor> bias = biases.get(i);
  return bias.has_value() && bias->defined() ? bias : std::nullopt;
}

void CheckShapes(const Tensor& input, at::TensorList weights, const Biases& biases) {
  TORCH_CHECK(input.dim() >= 1, "linear_group: input must have at least one dimension");
  TORCH_CHECK(biases.empty() || biases.size() == weights.size(),
              "linear_group: ",
              weights.size(),
              " weights but ",
              biases.size(),
              " biases");
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& weight = weights[i];
    TORCH_CHECK(weight.dim() == 2 && weight.size(1) == input.size(-1),
                "linear_group: weight ",
                i,
                " of shape ",
                weight.sizes(),
                " does not go with an input of shape ",
                input.sizes());
    TORCH_CHECK(weight.scalar_type() == input.scalar_type(),
                "linear_group: weight ",
                i,
                " has dtype ",
                weight.scalar_type(),
                ", the input ",
                input.scalar_type());
    const auto bias = BiasAt(biases, i);
    TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) &&
                          bias->scalar_type() == input.scalar_type()),
                "linear_group: bias ",
                i,
                " must have the dtype of its weight and shape [",
                weight.size(0),
                "]");
  }
}

Tensor EmptyResult(const Tensor& input, const Tensor& weight) {
  auto sizes = input.sizes().vec();
  sizes.back() = weight.size(0);
  return at::empty(sizes, input.options());
}

const matvec::Kernel& KernelForThisCpu() {
  switch (UsedCpuLevel()) {
#if defined(__x86_64__)
    case CpuLevel::kAvx2:
      return matvec::kAvx2;
    case CpuLevel::kAvx512:
      return matvec::kAvx512;
    case CpuLevel::kAvx512Bf16:
      return matvec::kAvx512Bf16;
#elif defined(__aarch64__)
    case CpuLevel::kNeon:
      return matvec::kNeon;
#endif
    default:
      return matvec::kGeneric;
  }
}

bool IsFast(const Tensor& input, at::TensorList weights) {
  const int64_t k = input.size(-1);
  if (input.scalar_type() != at::kBFloat16 || k == 0 || input.numel() == 0 ||
      input.numel() > matvec::kMaxRows * k) {
    return false;
  }
  for (const Tensor& weight : weights) {
    if (weight.stride(1) != 1) return false;
  }
  return true;
}

const uint16_t* Bits(const Tensor& tensor) {
  return static_cast<const uint16_t*>(tensor.const_data_ptr());
}

// Outputs are handed out in pieces of this many, so that threads seldom share a cache line.
constexpr int64_t kPiece = 32;
// A thread is worth waking for this many bytes of weights.
constexpr int64_t kBytesPerThread = 64 << 10;

void RunAll(const matvec::Input& input,
            const matvec::Kernel& kernel,
            const std::vector<matvec::Product>& products,
            const std::vector<int64_t>& first_piece,
            const std::vector<int64_t>& outputs) {
  const int64_t grain = std::max<int64_t>(1, kBytesPerThread / (2 * input.k * kPiece));
  at::parallel_for(0, first_piece.back(), grain, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < products.size(); ++i) {
      const int64_t from = std::max(begin, first_piece[i]) - first_piece[i];
      const int64_t to = std::min(end, first_piece[i + 1]) - first_piece[i];
      if (from < to) {
        kernel.run(input, products[i], from * kPiece, std::min(to * kPiece, outputs[i]));
      }
    }
  });
}

std::vector<Tensor> LinearGroupCpu(const Tensor& input,
                                   at::TensorList weights,
                                   const Biases& biases) {
  CheckShapes(input, weights, biases);
  std::vector<Tensor> results;
  if (!IsFast(input, weights)) {
    for (size_t i = 0; i < weights.size(); ++i) {
      results.push_back(at::linear(input, weights[i], BiasAt(biases, i)));
    }
    return results;
  }

  const Tensor dense = input.contiguous();
  const int64_t k = dense.size(-1);
  const int64_t rows = dense.numel() / k;
  std::vector<matvec::Product> products;
  std::vector<Tensor> kept;  // biases that had to be copied
  std::vector<int64_t> first_piece = {0};
  std::vector<int64_t> outputs;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor& weight = weights[i];
    results.push_back(EmptyResult(input, weight));
    const auto bias = BiasAt(biases, i);
    if (bias) kept.push_back(bias->contiguous());
    products.push_back({Bits(weight),
                        weight.stride(0),
                        bias ? Bits(kept.back()) : nullptr,
                        static_cast<uint16_t*>(results.back().mutable_data_ptr()),
                        weight.size(0)});
    outputs.push_back(weight.size(0));
    first_piece.push_back(first_piece.back() + (weight.size(0) + kPiece - 1) / kPiece);
  }

  const matvec::Kernel& kernel = KernelForThisCpu();
  Tensor prepared;
  if (kernel.prepare != nullptr) {
    prepared = at::empty({rows * k}, dense.options().dtype(at::kFloat));
    kernel.prepare(Bits(dense), rows, k, prepared.mutable_data_ptr<float>());
  }
  RunAll({Bits(dense), prepared.defined() ? prepared.const_data_ptr<float>() : nullptr, rows, k},
         kernel,
         products,
         first_piece,
         outputs);
  return results;
}

std::vector<Tensor> LinearGroupMeta(const Tensor& input,
                                    at::TensorList weights,
                                    const Biases& biases) {
  CheckShapes(input, weights, biases);
  std::vector<Tensor> results;
  for (const Tensor& weight : weights) results.push_back(EmptyResult(input, weight));
  return results;
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def("linear_group(Tensor input, Tensor[] weights, Tensor?[] biases) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(torchformers, CPU, m) { m.impl("linear_group", LinearGroupCpu); }
TORCH_LIBRARY_IMPL(torchformers, Meta, m) { m.impl("linear_group", LinearGroupMeta); }
TORCH_LIBRARY_IMPL(torchformers, Autograd, m) {
  m.impl("linear_group", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace tf
