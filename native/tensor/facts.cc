// What a tensor says about itself.
#include <ATen/ATen.h>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/placement/resting.h"
#include "native/program/fake.h"
#include "native/program/programs.h"

namespace tf {
namespace {

// Lists of sizes go through an array that JavaScript shares with us: making one from here takes ten
// times as long as making one there.
void SetSizesArray(Environment& environment, Js array) {
  const napi_env env = environment.env();
  napi_typedarray_type type = napi_uint8_array;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, array.value, &type, &length, &data, nullptr, nullptr) !=
          napi_ok ||
      type != napi_float64_array) {
    FailArgument(environment, Where{"setSizesArray", 1}, "a Float64Array", array.value);
  }
  // It lives as long as the environment.
  napi_ref pinned = nullptr;
  Check(env, napi_create_reference(env, array.value, 1, &pinned));
  environment.sizes_array() = {static_cast<double*>(data), length};
}

// How many there are; the values themselves are in the shared array.
uint32_t Leave(Environment& environment, c10::IntArrayRef sizes) {
  const std::span<double> array = environment.sizes_array();
  if (sizes.size() > array.size()) {
    throw Failure(code::kOp, "a tensor has " + std::to_string(sizes.size()) + " dimensions");
  }
  std::copy(sizes.begin(), sizes.end(), array.begin());
  return static_cast<uint32_t>(sizes.size());
}

uint32_t Shape(Environment& environment, const at::Tensor& tensor) {
  return Leave(environment, tensor.sizes());
}
uint32_t Stride(Environment& environment, const at::Tensor& tensor) {
  return Leave(environment, tensor.strides());
}
int64_t Dim(Environment&, const at::Tensor& tensor) { return tensor.dim(); }
int64_t Numel(Environment&, const at::Tensor& tensor) { return tensor.numel(); }
c10::ScalarType Dtype(Environment&, const at::Tensor& tensor) { return tensor.scalar_type(); }
// To a function that is recorded an offloaded parameter is where it will be.
std::string Device(Environment& environment, const at::Tensor& tensor) {
  const bool records = environment.programs() != nullptr && environment.programs()->recorder();
  return (records && FindRest(tensor) ? HomeDevice(tensor) : RealDevice(tensor)).str();
}
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
  exports.Function<"setSizesArray", SetSizesArray>();
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
