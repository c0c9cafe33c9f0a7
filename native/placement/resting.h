// Tensors whose values a streamer brings. Between uses a parameter rests as a tensor on the meta
// device whose storage carries a mark: which part of which block it is. Code that computes with it
// eagerly fails; a recording takes it for the tensor that it will be, and a run fills it in.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <vector>

#include "native/placement/streamer.h"

namespace tf {

// A streamer whose blocks are tensors.
struct TensorStreamer {
  TensorStreamer(std::shared_ptr<placement::Device> device,
                 std::vector<std::vector<at::Tensor>> blocks,
                 const placement::StreamerOptions& options);

  // A part of a block that is pinned, where it is. The memory stays as long as the tensor, but
  // holds other values once the block is released.
  static at::Tensor Part(const std::shared_ptr<TensorStreamer>& self, size_t block, size_t part);
  // What the part is between uses.
  static at::Tensor Resting(const std::shared_ptr<TensorStreamer>& self, size_t block, size_t part);

  // Dense, on the CPU: where the values come from.
  const std::vector<std::vector<at::Tensor>> sources;
  // Where operators find them.
  const c10::Device device{at::kCPU};
  placement::Streamer streamer;
};

struct RestMark {
  RestMark(std::shared_ptr<TensorStreamer> from, size_t block, size_t part);
  ~RestMark();
  RestMark(const RestMark&) = delete;
  RestMark& operator=(const RestMark&) = delete;

  std::shared_ptr<TensorStreamer> streamer;
  size_t block;
  size_t part;
};

namespace detail {
extern std::atomic<uint32_t> resting_tensors;
}

// Whether there are any at all: one load, for paths that are taken often.
inline bool AnyResting() { return detail::resting_tensors.load(std::memory_order_relaxed) != 0; }

// Null for tensors that are what they seem.
const RestMark* FindRest(const at::Tensor& tensor);

// Where a tensor is when it is computed with.
c10::Device HomeDevice(const at::Tensor& tensor);

// A streamed tensor has no gradient, whatever its parameter says: its memory is another's by then.
bool WantsGradient(const at::Tensor& tensor);

}  // namespace tf
