// The safetensors files that an environment has open, for the bindings that read from them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "native/addon.h"
#include "native/io/safetensors_file.h"
#include "native/tensor/slots.h"

namespace tf {

struct OpenFiles {
  explicit OpenFiles(Environment&) {}
  Slots<io::SafetensorsFile> open;

  // The file of a handle, or ERR_DISPOSED.
  static const io::SafetensorsFile& File(Environment& environment, Handle handle);
  // One of its tensors, or ERR_INVALID_ARGUMENT.
  static const io::SafetensorsEntry& Entry(const io::SafetensorsFile& file, int64_t index);
};

// torch's dtype for the format's, if it has one; ERR_DTYPE by the second function.
std::optional<c10::ScalarType> TorchDtype(io::SafetensorsDtype dtype);
c10::ScalarType TorchDtype(const io::SafetensorsFile& file, const io::SafetensorsEntry& entry);

// torch packs two 4-bit numbers into one element, so its last dimension is half the format's.
std::vector<int64_t> TorchShape(const io::SafetensorsEntry& entry);

// The file in whose mapping a tensor lies; null for any other tensor.
std::shared_ptr<const io::MappedFile> MappingOf(const at::Tensor& tensor);

// native/io/transfer.cc and native/io/files.cc
void InitTransfer(Exports& exports);
void InitFiles(Exports& exports);

}  // namespace tf
