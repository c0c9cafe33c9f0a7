#include "native/tensor/storage_kind.h"

#include <array>
#include <atomic>
#include <mutex>

namespace tf {
namespace {

struct Mark {
  std::atomic<c10::DeleterFnPtr> deleter = nullptr;
  std::atomic<StorageKind> kind = StorageKind::kPrivate;
};

// Process-wide: written when rooms initialize, read without a lock. Two kinds of foreign memory
// exist; the rest is room to grow.
std::array<Mark, 8> marks;
std::mutex writing;

}  // namespace

void MarkDeleter(c10::DeleterFnPtr deleter, StorageKind kind) {
  const std::lock_guard lock(writing);
  for (Mark& mark : marks) {
    const c10::DeleterFnPtr marked = mark.deleter.load(std::memory_order_relaxed);
    if (marked != nullptr && marked != deleter) continue;
    mark.kind.store(kind, std::memory_order_relaxed);
    mark.deleter.store(deleter, std::memory_order_release);
    return;
  }
}

StorageKind KindOf(const c10::StorageImpl& storage) {
  if (storage.device_type() == c10::DeviceType::Meta) return StorageKind::kMeta;
  if (storage.device_type() != c10::DeviceType::CPU) return StorageKind::kDevice;
  const c10::DeleterFnPtr deleter = storage.data_ptr().get_deleter();
  for (const Mark& mark : marks) {
    const c10::DeleterFnPtr marked = mark.deleter.load(std::memory_order_acquire);
    if (marked == nullptr) break;
    if (marked == deleter) return mark.kind.load(std::memory_order_relaxed);
  }
  return StorageKind::kPrivate;
}

}  // namespace tf
