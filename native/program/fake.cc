#include "native/program/fake.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include "native/placement/resting.h"

namespace tf {
namespace {

void DeleteMark(void* mark) { delete static_cast<FakeMark*>(mark); }

c10::DataPtr Marked(FakeMark mark) {
  return {nullptr, new FakeMark(mark), DeleteMark, c10::Device(at::kMeta)};
}

// Stands for the graph behind a tensor that was computed before the recording.
class OutsideNode final : public torch::autograd::Node {
 public:
  explicit OutsideNode(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }

 private:
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override {
    TORCH_CHECK(false, "a graph of fakes cannot be run");
  }
  std::string name_;
};

}  // namespace

bool IsOutside(const torch::autograd::Node& node) {
  return dynamic_cast<const OutsideNode*>(&node) != nullptr;
}

const FakeMark* FindFakeMark(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_meta() || !tensor.has_storage()) return nullptr;
  const c10::DataPtr& data = tensor.storage().data_ptr();
  if (data.get_deleter() != DeleteMark) return nullptr;
  return static_cast<const FakeMark*>(data.get_context());
}

c10::Device RealDevice(const at::Tensor& tensor) {
  const FakeMark* mark = FindFakeMark(tensor);
  return mark == nullptr ? tensor.device() : mark->device;
}

c10::Storage MakeFakeStorage(size_t bytes, FakeMark mark) {
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(),
                                               bytes,
                                               Marked(mark),
                                               c10::GetAllocator(at::kMeta),
                                               /*resizable=*/true);
}

void MarkFake(const at::Tensor& tensor, FakeMark mark) {
  tensor.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(Marked(mark));
}

at::Tensor MakeFake(c10::Storage storage, const at::Tensor& real) {
  at::Tensor fake = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::Meta), real.dtype());
  fake.unsafeGetTensorImpl()->set_sizes_and_strides(
      real.sizes(), real.strides(), real.storage_offset());
  if (real.is_conj()) fake._set_conj(true);
  if (real.is_neg()) fake._set_neg(true);
  if (WantsGradient(real)) {
    if (real.is_leaf()) {
      fake.set_requires_grad(true);
    } else {
      torch::autograd::set_history(fake, std::make_shared<OutsideNode>(real.grad_fn()->name()));
    }
  }
  return fake;
}

}  // namespace tf
