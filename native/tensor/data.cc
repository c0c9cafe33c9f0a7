// Values in and out: typed arrays, shared buffers, single numbers.
#include <ATen/ATen.h>

#include <cstring>
#include <limits>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/convert/result.h"
#include "native/io/mapped_tensors.h"
#include "native/program/programs.h"

namespace tf {
namespace {

// The bytes behind a typed array, an ArrayBuffer or a SharedArrayBuffer.
struct Bytes {
  std::byte* data = nullptr;
  size_t length = 0;
};

size_t ItemSize(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return 1;
    case napi_int16_array:
    case napi_uint16_array:
      return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      return 4;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      return 8;
    default:
      return 1;
  }
}

std::optional<Bytes> TypedArrayBytes(napi_env env, napi_value value) {
  bool is = false;
  if (napi_is_typedarray(env, value, &is) != napi_ok || !is) return std::nullopt;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  Check(env, napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr));
  return Bytes{static_cast<std::byte*>(data), length * ItemSize(type)};
}

// Node-API knows typed arrays over a SharedArrayBuffer, but not the buffer itself: a view of it is
// made.
std::optional<Bytes> SharedBufferBytes(napi_env env, napi_value value) {
  napi_value global = nullptr;
  napi_value shared = nullptr;
  napi_value view_class = nullptr;
  napi_value view = nullptr;
  bool is = false;
  Check(env, napi_get_global(env, &global));
  Check(env, napi_get_named_property(env, global, "SharedArrayBuffer", &shared));
  if (TypeOf(env, shared) != napi_function) return std::nullopt;
  Check(env, napi_instanceof(env, value, shared, &is));
  if (!is) return std::nullopt;
  Check(env, napi_get_named_property(env, global, "Uint8Array", &view_class));
  Check(env, napi_new_instance(env, view_class, 1, &value, &view));
  return TypedArrayBytes(env, view);
}

Bytes BufferBytes(Environment& environment, napi_value value, Where where) {
  const napi_env env = environment.env();
  if (const auto bytes = TypedArrayBytes(env, value)) return *bytes;
  bool is = false;
  if (napi_is_arraybuffer(env, value, &is) == napi_ok && is) {
    void* data = nullptr;
    size_t length = 0;
    Check(env, napi_get_arraybuffer_info(env, value, &data, &length));
    return {static_cast<std::byte*>(data), length};
  }
  if (TypeOf(env, value) == napi_object) {
    if (const auto bytes = SharedBufferBytes(env, value)) return *bytes;
  }
  FailArgument(environment, where, "a typed array or a buffer", value);
}

// Product of the sizes; throws for a negative one, or when it does not fit.
int64_t ElementCount(const std::vector<int64_t>& shape, const char* name) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0) {
      throw Failure(
          code::kShape,
          "[" + std::string(name) + "] a size must not be negative, got " + std::to_string(size));
    }
    if (__builtin_mul_overflow(count, size, &count)) {
      throw Failure(code::kShape, "[" + std::string(name) + "] the shape has too many elements");
    }
  }
  return count;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

size_t ByteCount(const std::vector<int64_t>& shape, c10::ScalarType dtype, const char* name) {
  const int64_t count = ElementCount(shape, name);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(c10::elementSize(dtype)), &bytes)) {
    throw Failure(code::kShape, "[" + std::string(name) + "] the shape has too many elements");
  }
  return static_cast<size_t>(bytes);
}

Handle FromData(Environment& environment,
                Owner owner,
                Js data,
                c10::ScalarType dtype,
                const std::vector<int64_t>& shape) {
  const auto bytes = TypedArrayBytes(environment.env(), data.value);
  if (!bytes) FailArgument(environment, Where{"fromData", 2}, "a typed array", data.value);
  if (const size_t wanted = ByteCount(shape, dtype, "fromData"); wanted != bytes->length) {
    throw Failure(code::kShape,
                  "[fromData] " + std::string(DtypeName(dtype)) + ShapeText(shape) + " takes " +
                      std::to_string(wanted) + " bytes, got " + std::to_string(bytes->length));
  }
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(dtype).device(at::kCPU));
  auto* target = static_cast<std::byte*>(tensor.mutable_data_ptr());
  if (dtype == at::kBool) {
    // Any other byte than 0 and 1 in a bool is undefined behaviour in every kernel.
    for (size_t i = 0; i < bytes->length; ++i)
      target[i] = std::byte{bytes->data[i] != std::byte{0}};
  } else if (bytes->length > 0) {
    std::memcpy(target, bytes->data, bytes->length);
  }
  return environment.tensors().Add(std::move(tensor), owner.value);
}

// Keeps a JavaScript buffer alive for a storage over its bytes.
struct PinnedBuffer {
  std::shared_ptr<ReleaseQueue> releases;
  napi_ref reference;
};

void UnpinBuffer(void* context) {
  const std::unique_ptr<PinnedBuffer> pinned(static_cast<PinnedBuffer*>(context));
  pinned->releases->Post(pinned->reference);
}

Handle FromBuffer(Environment& environment,
                  Owner owner,
                  Js buffer,
                  c10::ScalarType dtype,
                  const std::vector<int64_t>& shape,
                  int64_t byte_offset) {
  const Bytes bytes = BufferBytes(environment, buffer.value, Where{"fromBuffer", 2});
  const size_t wanted = ByteCount(shape, dtype, "fromBuffer");
  if (byte_offset < 0 || static_cast<size_t>(byte_offset) > bytes.length ||
      wanted > bytes.length - static_cast<size_t>(byte_offset)) {
    throw Failure(code::kShape,
                  "[fromBuffer] " + std::string(DtypeName(dtype)) + ShapeText(shape) + " at byte " +
                      std::to_string(byte_offset) + " takes " + std::to_string(wanted) +
                      " bytes, the buffer has " + std::to_string(bytes.length));
  }
  std::byte* data = bytes.data + byte_offset;
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) != 0) {
    throw Failure(code::kInvalidArgument,
                  "[fromBuffer] byteOffset must be a multiple of the dtype's " +
                      std::to_string(c10::elementSize(dtype)) + " bytes");
  }
  napi_ref reference = nullptr;
  Check(environment.env(), napi_create_reference(environment.env(), buffer.value, 1, &reference));
  c10::DataPtr pointer(
      data, new PinnedBuffer{environment.releases(), reference}, UnpinBuffer, at::kCPU);
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), wanted, std::move(pointer), nullptr, /*resizable=*/false);
  at::Tensor tensor = at::empty({0}, at::TensorOptions().dtype(dtype).device(at::kCPU));
  tensor.set_(std::move(storage), 0, shape);
  return environment.tensors().Add(std::move(tensor), owner.value);
}

// The typed array that holds a dtype's values, and the dtype that they are converted to for it.
struct View {
  napi_typedarray_type array;
  c10::ScalarType dtype;
};

View ViewOf(c10::ScalarType dtype, bool raw) {
  using c10::ScalarType;
  switch (dtype) {
    case ScalarType::Double:
    case ScalarType::ComplexDouble:
      return {napi_float64_array, dtype};
    case ScalarType::Float:
    case ScalarType::ComplexFloat:
      return {napi_float32_array, dtype};
    case ScalarType::Long:
      return {napi_bigint64_array, dtype};
    case ScalarType::UInt64:
      return {napi_biguint64_array, dtype};
    case ScalarType::Int:
    case ScalarType::QInt32:
      return {napi_int32_array, dtype};
    case ScalarType::UInt32:
      return {napi_uint32_array, dtype};
    case ScalarType::Short:
      return {napi_int16_array, dtype};
    case ScalarType::UInt16:
      return {napi_uint16_array, dtype};
    case ScalarType::Char:
    case ScalarType::QInt8:
      return {napi_int8_array, dtype};
    case ScalarType::Byte:
    case ScalarType::Bool:
    case ScalarType::QUInt8:
    case ScalarType::Float4_e2m1fn_x2:
      return {napi_uint8_array, dtype};
    case ScalarType::ComplexHalf:
      return raw ? View{napi_uint16_array, dtype}
                 : View{napi_float32_array, ScalarType::ComplexFloat};
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return raw ? View{napi_uint16_array, dtype} : View{napi_float32_array, ScalarType::Float};
    case ScalarType::Float8_e4m3fn:
    case ScalarType::Float8_e4m3fnuz:
    case ScalarType::Float8_e5m2:
    case ScalarType::Float8_e5m2fnuz:
    case ScalarType::Float8_e8m0fnu:
      return raw ? View{napi_uint8_array, dtype} : View{napi_float32_array, ScalarType::Float};
    default:
      break;
  }
  throw Failure(code::kDtype,
                "[toData] dtype " + std::string(DtypeName(dtype)) + " has no typed array");
}

// The values of a tensor, dense, on the CPU, outside of autograd.
at::Tensor Values(const at::Tensor& tensor, const char* name) {
  if (tensor.is_meta()) {
    throw Failure(code::kInvalidArgument,
                  "[" + std::string(name) + "] a tensor on the meta device has no values");
  }
  io::CheckMapped(tensor);
  at::Tensor values = tensor.detach();
  if (values.layout() != at::kStrided) values = values.to_dense();
  return values.to(at::kCPU).resolve_conj().resolve_neg();
}

napi_value ToData(Environment& environment, const at::Tensor& tensor, bool raw) {
  const napi_env env = environment.env();
  RefuseRead(environment, tensor, "toData");
  const View view = ViewOf(tensor.scalar_type(), raw);
  const at::Tensor values = Values(tensor, "toData").to(view.dtype).contiguous();
  const size_t length = values.nbytes();
  if (length > static_cast<size_t>(std::numeric_limits<uint32_t>::max())) {
    throw Failure(
        code::kOutOfMemory,
        "[toData] " + Summary(tensor) + " is larger than a JavaScript buffer can be (4 GiB)");
  }
  void* data = nullptr;
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  Check(env, napi_create_arraybuffer(env, length, &data, &buffer));
  if (length > 0) std::memcpy(data, values.const_data_ptr(), length);
  io::CheckMappingFaults();
  Check(env,
        napi_create_typedarray(env, view.array, length / ItemSize(view.array), buffer, 0, &array));
  return array;
}

napi_value Item(Environment& environment, const at::Tensor& tensor) {
  RefuseRead(environment, tensor, "item");
  if (tensor.numel() != 1) {
    throw Failure(code::kShape,
                  "[item] a tensor with " + std::to_string(tensor.numel()) +
                      " elements has no single value (" + Summary(tensor) + ")");
  }
  const at::Scalar value = Values(tensor, "item").item();
  io::CheckMappingFaults();
  return FromScalar(environment.env(), value);
}

}  // namespace

void InitTensorData(Exports& exports) {
  MarkDeleter(UnpinBuffer, StorageKind::kShared);
  exports.Function<"fromData", FromData>();
  exports.Function<"fromBuffer", FromBuffer>();
  exports.Function<"toData", ToData>();
  exports.Function<"item", Item>();
}

}  // namespace tf
