// What kind of memory a storage is, for the statistics and for what V8 is told.
#pragma once

#include <c10/core/StorageImpl.h>

namespace tf {

enum class StorageKind : uint8_t {
  kPrivate,  // CPU memory of the process: swept for, and reported to V8
  kMapped,   // a safetensors mapping
  kShared,   // over a JavaScript buffer, or handed to another environment
  kDevice,   // an accelerator's memory
  kMeta,     // no memory at all
};

inline constexpr int kStorageKinds = 5;

// Rooms that make storages over foreign memory use these deleters' addresses as the mark of their
// kind.
void MarkDeleter(c10::DeleterFnPtr deleter, StorageKind kind);
StorageKind KindOf(const c10::StorageImpl& storage);

}  // namespace tf
