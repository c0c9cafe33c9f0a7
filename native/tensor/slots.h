// Handles: a slot and a generation, packed into a number that a double holds exactly.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace tf {

// 0 is "none". Slot in the low 24 bits, generation above: small handles are small integers for V8.
using Handle = uint64_t;

inline constexpr Handle kNoHandle = 0;
inline constexpr int kSlotBits = 24;
inline constexpr uint32_t kMaxSlots = 1u << kSlotBits;
inline constexpr uint32_t kMaxGeneration = (1u << (53 - kSlotBits)) - 1;

inline Handle MakeHandle(uint32_t slot, uint32_t generation) {
  return (static_cast<Handle>(generation) << kSlotBits) | slot;
}

// The handle that a JavaScript number stands for; kNoHandle for anything that cannot be one.
inline Handle HandleFromNumber(double number) {
  if (!(number >= 1 && number < 9007199254740992.0)) return kNoHandle;
  const auto handle = static_cast<Handle>(number);
  return static_cast<double>(handle) == number ? handle : kNoHandle;
}

// Values under handles. Addresses of values are stable until they are removed; a removed slot's
// next handle differs, so a stale or forged handle finds nothing. Not thread-safe: one table
// belongs to one environment.
template <class T>
class Slots {
 public:
  T* Find(Handle handle) {
    const auto slot = static_cast<uint32_t>(handle & (kMaxSlots - 1));
    if (slot >= size_) return nullptr;
    Entry& entry = At(slot);
    if (entry.generation != handle >> kSlotBits || !entry.used) return nullptr;
    return &entry.value;
  }
  const T* Find(Handle handle) const { return const_cast<Slots*>(this)->Find(handle); }

  // kNoHandle when all slots are taken.
  Handle Add(T value) {
    uint32_t slot;
    if (free_ != kNone) {
      slot = free_;
      free_ = At(slot).next_free;
    } else {
      if (size_ == kMaxSlots) return kNoHandle;
      slot = size_++;
      if (slot % kChunk == 0) chunks_.push_back(std::make_unique<Entry[]>(kChunk));
    }
    Entry& entry = At(slot);
    entry.value = std::move(value);
    entry.used = true;
    ++live_;
    return MakeHandle(slot, entry.generation);
  }

  // False when the handle is stale.
  bool Remove(Handle handle) {
    if (Find(handle) == nullptr) return false;
    const auto slot = static_cast<uint32_t>(handle & (kMaxSlots - 1));
    Entry& entry = At(slot);
    entry.used = false;
    --live_;
    // A slot that ran out of generations is never used again.
    if (++entry.generation <= kMaxGeneration) {
      entry.next_free = free_;
      free_ = slot;
    }
    entry.value = T{};
    return true;
  }

  // A handle that this table gave out once (alive or not), as opposed to an invented number.
  bool Knows(Handle handle) const {
    const auto slot = static_cast<uint32_t>(handle & (kMaxSlots - 1));
    if (handle == kNoHandle || slot >= size_) return false;
    const auto generation = handle >> kSlotBits;
    return generation >= 1 && generation <= const_cast<Slots*>(this)->At(slot).generation;
  }

  uint32_t live() const { return live_; }

  // Calls visit(handle, value) for each; the visited one may be removed meanwhile, others may not.
  template <class Visit>
  void ForEach(Visit&& visit) {
    for (uint32_t slot = 0; slot < size_; ++slot) {
      Entry& entry = At(slot);
      if (entry.used) visit(MakeHandle(slot, entry.generation), entry.value);
    }
  }

 private:
  static constexpr uint32_t kChunk = 4096;
  static constexpr uint32_t kNone = ~0u;

  struct Entry {
    T value{};
    uint32_t generation = 1;
    uint32_t next_free = kNone;
    bool used = false;
  };

  Entry& At(uint32_t slot) { return chunks_[slot / kChunk][slot % kChunk]; }

  std::vector<std::unique_ptr<Entry[]>> chunks_;
  uint32_t size_ = 0;
  uint32_t live_ = 0;
  uint32_t free_ = kNone;
};

}  // namespace tf
