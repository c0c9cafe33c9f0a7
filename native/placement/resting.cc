#include "native/placement/resting.h"

#include <ATen/ATen.h>
#include <ATen/ops/from_blob.h>

#include <utility>

#include "native/convert/value.h"
#include "native/error/error.h"
#include "native/io/open_files.h"
#include "native/placement/memory.h"

namespace tf {

namespace detail {
std::atomic<uint32_t> resting_tensors{0};
}

RestMark::RestMark(std::shared_ptr<TensorStreamer> from, size_t block, size_t part)
    : streamer(std::move(from)), block(block), part(part) {
  detail::resting_tensors.fetch_add(1);
}

RestMark::~RestMark() { detail::resting_tensors.fetch_sub(1); }

namespace {

void DeleteRest(void* mark) { delete static_cast<RestMark*>(mark); }

at::Tensor Source(const at::Tensor& tensor) {
  if (!tensor.device().is_cpu() || tensor.layout() != at::kStrided) {
    throw Failure(code::kInvalidArgument,
                  "a streamed block takes dense tensors on the CPU, got " + Summary(tensor));
  }
  const at::Tensor plain = tensor.detach().resolve_conj().resolve_neg();
  return plain.is_non_overlapping_and_dense() ? plain : plain.contiguous();
}

std::vector<std::vector<at::Tensor>> Sources(std::vector<std::vector<at::Tensor>> blocks) {
  for (std::vector<at::Tensor>& block : blocks)
    for (at::Tensor& tensor : block) tensor = Source(tensor);
  return blocks;
}

std::vector<placement::StreamedBlock> Packed(const std::vector<std::vector<at::Tensor>>& blocks) {
  std::vector<placement::StreamedBlock> packed;
  for (const std::vector<at::Tensor>& block : blocks) {
    std::vector<placement::Source> parts;
    for (const at::Tensor& tensor : block) {
      parts.push_back({static_cast<const std::byte*>(tensor.const_data_ptr()),
                       tensor.nbytes(),
                       MappingOf(tensor),
                       std::make_shared<c10::Storage>(tensor.storage())});
    }
    packed.push_back(placement::StreamedBlock::Pack(std::move(parts)));
  }
  return packed;
}

}  // namespace

TensorStreamer::TensorStreamer(std::shared_ptr<placement::Device> device,
                               std::vector<std::vector<at::Tensor>> blocks,
                               const placement::StreamerOptions& options)
    : sources(Sources(std::move(blocks))), streamer(std::move(device), Packed(sources), options) {}

at::Tensor TensorStreamer::Part(const std::shared_ptr<TensorStreamer>& self,
                                size_t block,
                                size_t part) {
  const at::Tensor& source = self->sources[block][part];
  if (!self->streamer.device()) return source.detach();
  return OverMemory(self->streamer.At(block, part), source, self);
}

at::Tensor TensorStreamer::Resting(const std::shared_ptr<TensorStreamer>& self,
                                   size_t block,
                                   size_t part) {
  const at::Tensor& source = self->sources[block][part];
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(),
      source.nbytes(),
      c10::DataPtr(nullptr, new RestMark(self, block, part), DeleteRest, c10::Device(at::kMeta)),
      c10::GetAllocator(at::kMeta),
      /*resizable=*/false);
  at::Tensor resting = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::Meta), source.dtype());
  resting.unsafeGetTensorImpl()->set_sizes_and_strides(source.sizes(), source.strides());
  return resting;
}

const RestMark* FindRest(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_meta() || !tensor.has_storage()) return nullptr;
  const c10::DataPtr& data = tensor.storage().data_ptr();
  if (data.get_deleter() != DeleteRest) return nullptr;
  return static_cast<const RestMark*>(data.get_context());
}

c10::Device HomeDevice(const at::Tensor& tensor) {
  const RestMark* mark = FindRest(tensor);
  return mark == nullptr ? tensor.device() : mark->streamer->device;
}

bool WantsGradient(const at::Tensor& tensor) {
  return tensor.requires_grad() && FindRest(tensor) == nullptr;
}

}  // namespace tf
