// What a tensor says about itself.
#include <ATen/ATen.h>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/program/fake.h"

namespace tf {
namespace {

std::vector<int64_t> Shape(Environment&, const at::Tensor& tensor) { return tensor.sizes().vec(); }
std::vector<int64_t> Stride(Environment&, const at::Tensor& tensor) {
  return tensor.strides().vec();
}
int64_t Dim(Environment&, const at::Tensor& tensor) { return tensor.dim(); }
int64_t Numel(Environment&, const at::Tensor& tensor) { return tensor.numel(); }
c10::ScalarType Dtype(Environment&, const at::Tensor& tensor) { return tensor.scalar_type(); }
std::string Device(Environment&, const at::Tensor& tensor) { return RealDevice(tensor).str(); }
int64_t StorageOffset(Environment&, const at::Tensor& tensor) { return tensor.storage_offset(); }
int64_t ElementSize(Environment&, const at::Tensor& tensor) { return tensor.element_size(); }

bool IsContiguous(Environment&, const at::Tensor& tensor, const std::string& memory_format) {
  const auto format = FindMemoryFormat(memory_format);
  if (!format) {
    throw Failure(code::kInvalidArgument,
                  "[isContiguous] unknown memory format '" + memory_format + "'");
  }
  return tensor.is_contiguous(*format);
}

int64_t Version(Environment&, const at::Tensor& tensor) {
  // Inference tensors keep no version.
  return tensor.is_inference() ? 0 : tensor._version();
}

napi_value Storage(Environment& environment, const at::Tensor& tensor) {
  if (!tensor.has_storage())
    return Record(environment,
                  {{"id", ToJs(environment, 0.0)}, {"nbytes", ToJs(environment, 0.0)}});
  const c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  // User-space addresses have 47 bits: a double holds them.
  return Record(
      environment,
      {{"id", ToJs(environment, static_cast<double>(reinterpret_cast<uintptr_t>(storage)))},
       {"nbytes", ToJs(environment, static_cast<double>(storage->nbytes()))}});
}

}  // namespace

void InitTensorFacts(Exports& exports) {
  exports.Function<"shape", Shape>();
  exports.Function<"stride", Stride>();
  exports.Function<"dim", Dim>();
  exports.Function<"numel", Numel>();
  exports.Function<"dtype", Dtype>();
  exports.Function<"device", Device>();
  exports.Function<"storageOffset", StorageOffset>();
  exports.Function<"elementSize", ElementSize>();
  exports.Function<"isContiguous", IsContiguous>();
  exports.Function<"version", Version>();
  exports.Function<"storage", Storage>();
}

}  // namespace tf
