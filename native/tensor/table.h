// The tensors of one environment: handles, owners, scopes, sweeps, and whose memory is alive.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/flat_hash_map.h>
#include <node_api.h>

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "native/tensor/slots.h"
#include "native/tensor/storage_kind.h"

namespace tf {

class Environment;

// A tensor lives in the table until its owner (a JavaScript object, held weakly) is garbage, it is
// disposed, or its scope ends. Node runs finalizers on a later turn of the event loop only, so a
// synchronous loop would free nothing: garbage is found by looks at the weak references instead.
// The young (made since the last look) are looked at often, right after V8 was made to collect its
// own young objects. A sweep looks at all: when private bytes or handles have doubled since the
// last, or when V8 has collected everything and enough has been made since to be worth it.
class TensorTable {
 public:
  explicit TensorTable(Environment& environment);
  ~TensorTable();
  TensorTable(const TensorTable&) = delete;
  TensorTable& operator=(const TensorTable&) = delete;

  // Null when the handle is stale or was never given out. The address is stable while the tensor is
  // in the table.
  const at::Tensor* Find(Handle handle) const;
  // Throws ERR_DISPOSED (naming the scope that freed it, if one did) or ERR_INVALID_ARGUMENT for an
  // invented number.
  const at::Tensor& Get(Handle handle) const;
  // The failure that Get throws, for callers that say more about the argument.
  [[noreturn]] void FailStale(Handle handle, const std::string& what) const;

  // Puts a defined tensor under a new handle. `owner` may be null, or JavaScript's null: then the
  // handle waits for Adopt. May sweep.
  Handle Add(at::Tensor tensor, napi_value owner);
  void Adopt(Handle handle, napi_value owner);
  // A stale handle is left alone: `using` and a scope may both free one tensor.
  void Dispose(Handle handle);
  // The slot (and its aliases: slots with the same identity) holds `tensor` from now on.
  void Replace(Handle handle, at::Tensor tensor);
  // To be called after something may have given the tensor another storage, or resized it.
  void Recount(Handle handle);
  // As above, for all handles of the tensor.
  void RecountAliases(Handle handle);
  // The storage is visible to JavaScript or to another environment from now on.
  void MarkShared(Handle handle);

  void OpenScope(std::string name);
  void CloseScope(const std::vector<Handle>& keep);
  void Keep(Handle handle);

  // `collect` is a function without arguments that makes V8 collect its young objects, and returns
  // false when it can't. Without one, garbage waits for V8.
  void SetYoungCollector(napi_value collect);
  // Frees the tensors whose owners are garbage, and says how many.
  uint32_t Sweep();
  // Makes V8 collect garbage now, then sweeps. For when an allocation failed; takes milliseconds.
  void CollectNow();

  // Calls visit(handle, tensor) for each tensor of the table.
  template <class Visit>
  void ForEach(Visit&& visit) {
    slots_.ForEach([&](Handle handle, Slot& slot) { visit(handle, slot.tensor); });
  }

  // Frees what is known to be garbage, and was left for later.
  void FreeDying();

  uint32_t live() const { return slots_.live(); }
  uint64_t bytes(StorageKind kind) const { return bytes_[static_cast<size_t>(kind)]; }
  uint32_t sweeps() const { return sweeps_; }

 private:
  struct Slot {
    at::Tensor tensor;
    // The storage that this slot is counted under; compared by address only.
    c10::StorageImpl* storage = nullptr;
    napi_ref owner = nullptr;
    bool kept = false;      // survives all scopes
    bool survives = false;  // survives the scope that is being closed
  };

  // A storage is counted once, however many handles look at it.
  struct Counted {
    uint32_t handles = 0;
    StorageKind kind = StorageKind::kPrivate;
    uint64_t bytes = 0;
  };

  struct Scope {
    uint32_t name;
    size_t first;  // into made_
  };

  struct Death {
    Handle handle = kNoHandle;
    uint32_t scope = 0;
  };

  void Count(Slot& slot);
  void Recount(Slot& slot);
  void Uncount(Slot& slot);
  void Free(Handle handle, Slot& slot);
  void Adjust(StorageKind kind, int64_t bytes);
  void ReportToV8();
  void MaybeSweep();
  void TendYoung();
  bool CollectYoung();
  uint32_t SweepYoung();
  void ResetThresholds();
  bool CollectedSinceLastSweep();
  void PlantCanary();
  void ForgetDeadInScopes();
  bool IsCheapToKeep(const Slot& slot) const;
  napi_ref WeakReference(napi_value owner);

  Environment& environment_;
  Slots<Slot> slots_;
  ska::flat_hash_map<c10::StorageImpl*, Counted> storages_;
  std::array<uint64_t, kStorageKinds> bytes_{};

  std::vector<Scope> scopes_;
  std::vector<Handle> made_;  // since the outermost scope opened, in order
  size_t made_limit_ = 0;
  std::vector<std::string> scope_names_;
  std::unordered_map<std::string, uint32_t> scope_ids_;
  std::vector<Death> deaths_;  // the last ones by the end of a scope, in a ring
  size_t next_death_ = 0;

  std::vector<Handle> young_;  // in order; those disposed of meanwhile are still in it
  size_t survivors_ = 0;       // so many at its front have survived one look
  std::vector<Handle> dying_;  // small garbage, freed one by one as new tensors come
  size_t young_limit_;         // entries at which it is looked at
  size_t young_wanted_;        // new ones between two looks
  uint64_t tend_at_bytes_;
  napi_ref collect_young_ = nullptr;

  uint32_t sweeps_ = 0;
  uint64_t sweep_at_bytes_ = 0;
  uint32_t sweep_at_handles_ = 0;
  uint64_t worth_at_bytes_ = 0;
  uint32_t worth_at_handles_ = 0;
  int64_t unreported_ = 0;
  int64_t reported_ = 0;
  napi_ref canary_ = nullptr;
  int canary_age_ = 0;
};

}  // namespace tf
