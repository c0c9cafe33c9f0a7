#include "native/device/stream_order.h"

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace tf {

using c10::impl::VirtualGuardImpl;

void StreamOrder::Ask() {
  if (!device_.is_cuda()) return;
  asking_ = VirtualGuardImpl(device_.type()).getStream(device_);
  asked_.emplace(device_.type());
  asked_->record(*asking_);
}

void StreamOrder::Begin() {
  if (!asked_) return;
  asked_->block(VirtualGuardImpl(device_.type()).getStream(device_));
  asked_.reset();
}

void StreamOrder::End(c10::ArrayRef<c10::IValue> outputs) {
  if (!device_.is_cuda()) return;
  const VirtualGuardImpl guard(device_.type());
  for (const c10::IValue& output : outputs) {
    if (!output.isTensor()) continue;
    const at::Tensor& tensor = output.toTensor();
    if (tensor.defined() && tensor.device() == device_ && tensor.has_storage() && asking_)
      guard.recordDataPtrOnStream(tensor.storage().data_ptr(), *asking_);
  }
  guard.synchronizeStream(guard.getStream(device_));
}

}  // namespace tf
