// torchformers::linear_group(Tensor input, Tensor[] weights, Tensor?[] biases) -> Tensor[]
//
// linear(input, weights[i], biases[i]) for every i, in one parallel region: what q, k and v, or
// gate and up, are to one input, without concatenated weights. input [..., k]; weights [n_i, k];
// biases [n_i], none, or an empty list for none at all; results [..., n_i], dense. fp32 and bf16 on
// the CPU: up to 8 rows run at the speed of reading the weights; sums are fp32, bias included,
// rounded once. Everything else goes to ATen's linear, weight by weight. No derivative: for
// executors.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <vector>

#include "native/kernels/matvec.h"
#include "native/kernels/pick.h"
#include "native/kernels/scratch.h"
#include "native/kernels/turns.h"

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

// Outputs are handed out in pieces of this many, so that threads seldom share a cache line.
constexpr int64_t kPiece = 32;
// A team is worth waking for this many bytes of weights, and a thread of it for so many: below,
// what the second thread saves of the reading is less than the microseconds of a start and an end.
constexpr int64_t kBytesOfTeam = 256 << 10;
constexpr int64_t kBytesPerThread = 64 << 10;
// Threads take turns of this many bytes, or so many each where that is less.
constexpr int64_t kBytesPerTurn = 512 << 10;
constexpr int64_t kTurns = 8;

bool IsOurs(const Tensor& input, int64_t rows, at::TensorList weights) {
  const at::ScalarType type = input.scalar_type();
  if ((type != at::kFloat && type != at::kBFloat16) || rows == 0 || rows > matvec::kMaxRows) {
    return false;
  }
  for (const Tensor& weight : weights) {
    if (weight.stride(1) != 1) return false;
  }
  return true;
}

void Multiply(const Tensor& input, int64_t rows, const std::vector<matvec::Product>& products) {
  const matvec::Kernel& kernel = MatvecKernelFor(input);
  const int64_t k = input.size(-1);
  std::vector<int64_t> first_piece = {0};
  for (const matvec::Product& product : products) {
    first_piece.push_back(first_piece.back() + (product.output_stride + kPiece - 1) / kPiece);
  }
  std::optional<Scratch<float>> prepared;
  if (kernel.prepare != nullptr) {
    prepared.emplace(rows * k);
    kernel.prepare(input.const_data_ptr(), rows, k, prepared->data());
  }
  const matvec::Input read = {
      input.const_data_ptr(), prepared ? prepared->data() : nullptr, rows, k};
  const int64_t pieces = first_piece.back();
  const int64_t bytes_of_piece = input.element_size() * k * kPiece;
  const auto run = [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < products.size(); ++i) {
      const int64_t from = (std::max(begin, first_piece[i]) - first_piece[i]) * kPiece;
      const int64_t to = std::min((std::min(end, first_piece[i + 1]) - first_piece[i]) * kPiece,
                                  products[i].output_stride);
      if (from < to) kernel.run(read, products[i], from, to);
    }
  };
  const int64_t bytes = pieces * bytes_of_piece;
  const int64_t threads =
      bytes < kBytesOfTeam
          ? 1
          : std::min<int64_t>(at::get_num_threads(), (bytes - 1) / kBytesPerThread + 1);
  if (threads == 1) return run(0, pieces);
  const int64_t turn = std::max<int64_t>(
      1, std::min(kBytesPerTurn, bytes / threads / kTurns) / std::max<int64_t>(1, bytes_of_piece));
  InTurns(threads, pieces, turn, run);
}

std::vector<Tensor> LinearGroupCpu(const Tensor& input,
                                   at::TensorList weights,
                                   const Biases& biases) {
  CheckShapes(input, weights, biases);
  const int64_t k = input.size(-1);
  const int64_t rows = k == 0 ? 0 : input.numel() / k;
  std::vector<Tensor> results;
  if (!IsOurs(input, rows, weights)) {
    for (size_t i = 0; i < weights.size(); ++i) {
      results.push_back(at::linear(input, weights[i], BiasAt(biases, i)));
    }
    return results;
  }
  std::vector<matvec::Product> products;
  std::vector<Tensor> kept;  // biases that had to be copied
  for (size_t i = 0; i < weights.size(); ++i) {
    results.push_back(EmptyResult(input, weights[i]));
    const auto bias = BiasAt(biases, i);
    if (bias) kept.push_back(bias->contiguous());
    products.push_back({weights[i].const_data_ptr(),
                        weights[i].stride(0),
                        bias ? kept.back().const_data_ptr() : nullptr,
                        results.back().mutable_data_ptr(),
                        weights[i].size(0)});
  }
  Multiply(input.contiguous(), rows, products);
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
