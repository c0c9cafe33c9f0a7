// Safetensors files for JavaScript: mapped in as tensors, written out from tensors.
#include <ATen/Functions.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/async/worker.h"
#include "native/convert/bind.h"
#include "native/io/atomic_file.h"
#include "native/io/open_files.h"
#include "native/tensor/storage_kind.h"

namespace tf {
namespace {

using io::SafetensorsDtype;

constexpr std::array<std::pair<SafetensorsDtype, c10::ScalarType>, 20> kDtypes{{
    {SafetensorsDtype::kBool, c10::kBool},
    {SafetensorsDtype::kF4, c10::kFloat4_e2m1fn_x2},
    {SafetensorsDtype::kU8, c10::kByte},
    {SafetensorsDtype::kI8, c10::kChar},
    {SafetensorsDtype::kF8E5M2, c10::kFloat8_e5m2},
    {SafetensorsDtype::kF8E4M3, c10::kFloat8_e4m3fn},
    {SafetensorsDtype::kF8E8M0, c10::kFloat8_e8m0fnu},
    {SafetensorsDtype::kF8E4M3Fnuz, c10::kFloat8_e4m3fnuz},
    {SafetensorsDtype::kF8E5M2Fnuz, c10::kFloat8_e5m2fnuz},
    {SafetensorsDtype::kI16, c10::kShort},
    {SafetensorsDtype::kU16, c10::kUInt16},
    {SafetensorsDtype::kF16, c10::kHalf},
    {SafetensorsDtype::kBF16, c10::kBFloat16},
    {SafetensorsDtype::kI32, c10::kInt},
    {SafetensorsDtype::kU32, c10::kUInt32},
    {SafetensorsDtype::kF32, c10::kFloat},
    {SafetensorsDtype::kC64, c10::kComplexFloat},
    {SafetensorsDtype::kF64, c10::kDouble},
    {SafetensorsDtype::kI64, c10::kLong},
    {SafetensorsDtype::kU64, c10::kUInt64},
}};

std::optional<SafetensorsDtype> FormatDtype(c10::ScalarType dtype) {
  for (const auto& [ours, torch] : kDtypes) {
    if (torch == dtype) return ours;
  }
  return std::nullopt;
}

std::string CheckedPath(std::string path) {
  if (path.find('\0') != std::string::npos) {
    throw Failure(code::kInvalidArgument, "[safetensors] a path must not contain a zero byte");
  }
  return path;
}

// Reading
// -------------------------------------------------------------------------------------------------------

napi_value DescribeEntry(Environment& environment, const io::SafetensorsEntry& entry) {
  const auto dtype = TorchDtype(entry.dtype);
  const std::vector<int64_t> shape = TorchShape(entry);
  return Record(
      environment,
      {
          {"name", ToJs(environment, entry.name)},
          {"dtype", ToJs(environment, dtype ? DtypeName(*dtype) : io::NameOf(entry.dtype))},
          {"shape", ToJs(environment, shape)},
          {"begin", ToJs(environment, static_cast<double>(entry.begin))},
          {"end", ToJs(environment, static_cast<double>(entry.end))},
      });
}

napi_value DescribeMetadata(Environment& environment, const io::SafetensorsHeader& header) {
  const napi_env env = environment.env();
  if (!header.has_metadata) return Null(env);
  napi_value record = nullptr;
  Check(env, napi_create_object(env, &record));
  for (const auto& [key, value] : header.metadata) {
    // Defined, not set: "__proto__" is a key like any other.
    napi_property_descriptor property{};
    property.name = FromString(env, key);
    property.value = FromString(env, value);
    property.attributes =
        static_cast<napi_property_attributes>(napi_writable | napi_enumerable | napi_configurable);
    Check(env, napi_define_properties(env, record, 1, &property));
  }
  return record;
}

napi_value OpenSafetensors(Environment& environment, std::string path) {
  return Promise(
      environment,
      [path = CheckedPath(std::move(path))] { return io::OpenSafetensorsFile(path); },
      [](Environment& environment, io::SafetensorsFile file) {
        const napi_env env = environment.env();
        napi_value entries = nullptr;
        Check(env, napi_create_array_with_length(env, file.header.entries.size(), &entries));
        for (uint32_t i = 0; i < file.header.entries.size(); ++i) {
          napi_handle_scope scope = nullptr;
          Check(env, napi_open_handle_scope(env, &scope));
          Check(env,
                napi_set_element(
                    env, entries, i, DescribeEntry(environment, file.header.entries[i])));
          Check(env, napi_close_handle_scope(env, scope));
        }
        napi_value metadata = DescribeMetadata(environment, file.header);
        const auto length = static_cast<double>(file.mapping->bytes().size());
        const Handle handle = environment.Room<OpenFiles>().open.Add(std::move(file));
        return Record(environment,
                      {{"file", ToJs(environment, handle)},
                       {"entries", entries},
                       {"metadata", metadata},
                       {"byteLength", ToJs(environment, length)}});
      });
}

void ReleaseMapping(void* context) {
  delete static_cast<std::shared_ptr<io::MappedFile>*>(context);
}

Handle SafetensorsTensor(Environment& environment, Owner owner, Handle handle, int64_t index) {
  const io::SafetensorsFile& file = OpenFiles::File(environment, handle);
  const io::SafetensorsEntry& entry = OpenFiles::Entry(file, index);
  const c10::ScalarType dtype = TorchDtype(file, entry);
  const std::vector<int64_t> shape = TorchShape(entry);
  const auto options = at::TensorOptions().dtype(dtype);
  const size_t length = entry.end - entry.begin;
  uint8_t* data = length == 0 ? nullptr : file.data(entry);
  io::CheckMapped(data);

  at::Tensor tensor;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0;
  if (length > 0 && aligned && file.mapping->writable()) {
    auto* keep = new std::shared_ptr<io::MappedFile>(file.mapping);
    tensor =
        at::for_blob(data, shape).context(keep, &ReleaseMapping).options(options).make_tensor();
  } else {
    tensor = at::empty(shape, options);
    if (length > 0) std::memcpy(tensor.data_ptr(), data, length);
    io::CheckMappingFaults();
  }
  return environment.tensors().Add(std::move(tensor), owner.value);
}

void CloseSafetensors(Environment& environment, Handle handle) {
  environment.Room<OpenFiles>().open.Remove(handle);
}

// Writing
// -------------------------------------------------------------------------------------------------------

struct Saving {
  std::vector<io::SafetensorsSpec> specs;
  std::vector<at::Tensor> tensors;  // keeps them alive, whatever JavaScript disposes meanwhile
  std::optional<io::SafetensorsMetadata> metadata;
};

io::SafetensorsSpec Describe(const std::string& name, const at::Tensor& tensor) {
  const auto refuse = [&](const char* code, const std::string& reason) -> Failure {
    return {code, "[save_file] tensor '" + name + "' (" + Summary(tensor) + ") " + reason};
  };
  if (tensor.layout() != c10::kStrided)
    throw refuse(code::kInvalidArgument, "is not dense: the format has no sparse tensors");
  if (tensor.is_meta())
    throw refuse(code::kInvalidArgument, "has no data: it is on the meta device");
  const auto dtype = FormatDtype(tensor.scalar_type());
  if (!dtype) throw refuse(code::kDtype, "has a dtype that the format does not have");
  io::SafetensorsSpec spec{name, *dtype, {tensor.sizes().begin(), tensor.sizes().end()}};
  if (*dtype == SafetensorsDtype::kF4 && !spec.shape.empty()) spec.shape.back() *= 2;
  return spec;
}

std::optional<io::SafetensorsMetadata> ReadMetadata(Environment& environment, Js value) {
  const napi_env env = environment.env();
  if (IsNullish(env, value.value)) return std::nullopt;
  const Where what{"saveSafetensors", 4};
  if (TypeOf(env, value.value) != napi_object)
    FailArgument(environment, what, "an object of strings", value.value);
  napi_value keys = nullptr;
  Check(env,
        napi_get_all_property_names(
            env,
            value.value,
            napi_key_own_only,
            static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
            napi_key_numbers_to_strings,
            &keys));
  io::SafetensorsMetadata metadata;
  const uint32_t count = LengthFromJs(environment, keys, what);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value key = ElementFromJs(environment, keys, i);
    napi_value text = nullptr;
    Check(env, napi_get_property(env, value.value, key, &text));
    metadata.emplace_back(ToString(env, key), StringFromJs(environment, text, what));
  }
  return metadata;
}

void Write(const std::string& path, const Saving& saving) {
  const c10::InferenceMode no_history;
  const auto plan =
      io::PlanSafetensors(saving.specs, saving.metadata ? &*saving.metadata : nullptr);
  io::AtomicFile file(path);
  file.Reserve(plan.prefix.size() + plan.data_size);
  file.Write(plan.prefix);
  for (const size_t index : plan.order) {
    const at::Tensor tensor = saving.tensors[index].resolve_conj().resolve_neg().cpu().contiguous();
    if (tensor.nbytes() > 0)
      file.Write({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
    io::CheckMappingFaults();
  }
  file.Commit();
}

napi_value SaveSafetensors(Environment& environment,
                           std::string path,
                           const std::vector<std::string>& names,
                           const std::vector<at::Tensor>& tensors,
                           Js metadata) {
  if (names.size() != tensors.size())
    throw Failure(code::kInvalidArgument, "[save_file] as many names as tensors are needed");
  Saving saving{{}, {}, ReadMetadata(environment, metadata)};
  for (size_t i = 0; i < names.size(); ++i) {
    saving.specs.push_back(Describe(names[i], tensors[i]));
    saving.tensors.push_back(tensors[i].detach());
  }
  return Promise(
      environment,
      [path = CheckedPath(std::move(path)), saving = std::move(saving)] {
        Write(path, saving);
        return true;
      },
      [](Environment& environment, bool) { return Undefined(environment.env()); });
}

}  // namespace

const io::SafetensorsFile& OpenFiles::File(Environment& environment, Handle handle) {
  const io::SafetensorsFile* file = environment.Room<OpenFiles>().open.Find(handle);
  if (file == nullptr) throw Failure(code::kDisposed, "[safetensors] the file is closed");
  return *file;
}

const io::SafetensorsEntry& OpenFiles::Entry(const io::SafetensorsFile& file, int64_t index) {
  if (index < 0 || static_cast<uint64_t>(index) >= file.header.entries.size()) {
    throw Failure(code::kInvalidArgument,
                  "[safetensors] the file has no tensor " + std::to_string(index));
  }
  return file.header.entries[static_cast<size_t>(index)];
}

std::shared_ptr<const io::MappedFile> MappingOf(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return nullptr;
  const c10::DataPtr& data = tensor.storage().data_ptr();
  if (data.get_deleter() != &ReleaseMapping) return nullptr;
  return *static_cast<std::shared_ptr<io::MappedFile>*>(data.get_context());
}

std::optional<c10::ScalarType> TorchDtype(SafetensorsDtype dtype) {
  for (const auto& [ours, torch] : kDtypes) {
    if (ours == dtype) return torch;
  }
  return std::nullopt;
}

c10::ScalarType TorchDtype(const io::SafetensorsFile& file, const io::SafetensorsEntry& entry) {
  if (const auto dtype = TorchDtype(entry.dtype)) return *dtype;
  throw Failure(code::kDtype,
                "[safetensors] tensor '" + entry.name + "' in '" + file.mapping->path() +
                    "': torch has no dtype for " + std::string(io::NameOf(entry.dtype)));
}

std::vector<int64_t> TorchShape(const io::SafetensorsEntry& entry) {
  std::vector<int64_t> shape(entry.shape.begin(), entry.shape.end());
  if (entry.dtype != SafetensorsDtype::kF4) return shape;
  if (shape.empty() || shape.back() % 2 != 0) {
    throw Failure(code::kShape,
                  "[safetensors] tensor '" + entry.name +
                      "': torch holds 4-bit numbers in pairs, and the last dimension is odd");
  }
  shape.back() /= 2;
  return shape;
}

void InitIo(Exports& exports) {
  MarkDeleter(&ReleaseMapping, StorageKind::kMapped);
  exports.Function<"openSafetensors", OpenSafetensors>();
  exports.Function<"safetensorsTensor", SafetensorsTensor>();
  exports.Function<"closeSafetensors", CloseSafetensors>();
  exports.Function<"saveSafetensors", SaveSafetensors>();
  InitTransfer(exports);
  InitFiles(exports);
}

}  // namespace tf
