// torchformers::read_bytes(Tensor input) -> Tensor
//
// Reads all of a dense CPU tensor with all threads and gives the sum of its 64-bit words: the
// yardstick that benchmarks hold kernels against which do nothing but read weights.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>
#include <cstdint>

#include "native/kernels/turns.h"

namespace tf {
namespace {

// With the widest vectors there are. The function calls nothing, so that clones of it are safe.
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
SumWords(const uint64_t* words, int64_t count) {
  // Enough sums side by side to keep loads in flight.
  constexpr int kLanes = 16;
  uint64_t sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += words[i + lane];
  }
  for (; i < count; ++i) sums[0] += words[i];
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

at::Tensor ReadBytes(const at::Tensor& input) {
  TORCH_CHECK(input.is_contiguous(), "read_bytes: the input must be contiguous");
  const auto* words = static_cast<const uint64_t*>(input.const_data_ptr());
  const auto count = static_cast<int64_t>(input.nbytes() / sizeof(uint64_t));
  std::atomic<uint64_t> sum = 0;
  constexpr int64_t kTurn = (512 << 10) / sizeof(uint64_t);
  InTurns(at::get_num_threads(), count, kTurn, [&](int64_t begin, int64_t end) {
    sum += SumWords(words + begin, end - begin);
  });
  return at::scalar_tensor(static_cast<int64_t>(sum.load()), at::kLong);
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) { m.def("read_bytes(Tensor input) -> Tensor"); }
TORCH_LIBRARY_IMPL(torchformers, CPU, m) { m.impl("read_bytes", ReadBytes); }

}  // namespace
}  // namespace tf
