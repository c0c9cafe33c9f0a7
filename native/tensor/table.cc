#include "native/tensor/table.h"

#include <algorithm>

#include "native/addon.h"
#include "native/convert/value.h"
#include "native/error/error.h"

namespace tf {
namespace {

// Below these a sweep is not worth its time.
constexpr uint64_t kFloorBytes = 64ull << 20;
constexpr uint32_t kFloorHandles = 1u << 15;
// How many young tensors there are before they are looked at: few, so that their memory is used
// again while the processor's caches still hold it; enough to pay for V8's collection, some 100 µs.
constexpr size_t kYoung = 4096;
constexpr uint64_t kYoungBytes = 32ull << 20;
// V8 moves an object to its old ones when it survives so many collections.
constexpr int kYoungCollections = 2;
// Garbage with no more memory than this is freed one by one, each just before a new tensor is made:
// the allocators then hand out what was given back a moment ago, where freeing thousands at once
// goes through their slow paths.
constexpr size_t kSmallBytes = 1024;
// V8 is told in batches; each report may do a step of collecting.
constexpr int64_t kReportBytes = 1 << 20;
// What a small tensor costs beside its values: TensorImpl, StorageImpl, slot, weak reference.
constexpr int64_t kHandleBytes = 512;
// How many deaths by scope are remembered, for the error message of a late use.
constexpr size_t kDeaths = 1 << 13;

// Whether the reference's object is garbage.
bool IsGone(napi_env env, napi_ref reference) {
  napi_value object = nullptr;
  return napi_get_reference_value(env, reference, &object) == napi_ok && object == nullptr;
}

}  // namespace

TensorTable::TensorTable(Environment& environment)
    : environment_(environment),
      deaths_(kDeaths),
      young_limit_(kYoung),
      young_wanted_(kYoung),
      tend_at_bytes_(kYoungBytes) {
  ResetThresholds();
}

TensorTable::~TensorTable() {
  const napi_env env = environment_.env();
  slots_.ForEach([&](Handle, Slot& slot) {
    if (slot.owner != nullptr) napi_delete_reference(env, slot.owner);
  });
  if (canary_ != nullptr) napi_delete_reference(env, canary_);
  if (collect_young_ != nullptr) napi_delete_reference(env, collect_young_);
  int64_t total = 0;
  if (reported_ != 0) napi_adjust_external_memory(env, -reported_, &total);
}

const at::Tensor* TensorTable::Find(Handle handle) const {
  const Slot* slot = slots_.Find(handle);
  return slot == nullptr ? nullptr : &slot->tensor;
}

const at::Tensor& TensorTable::Get(Handle handle) const {
  const Slot* slot = slots_.Find(handle);
  if (slot == nullptr) FailStale(handle, "the tensor");
  return slot->tensor;
}

void TensorTable::FailStale(Handle handle, const std::string& what) const {
  if (!slots_.Knows(handle)) {
    throw Failure(code::kInvalidArgument,
                  what + " must be a Tensor, got a number that is no handle");
  }
  const auto death = std::find_if(
      deaths_.begin(), deaths_.end(), [&](const Death& known) { return known.handle == handle; });
  if (death != deaths_.end()) {
    throw Failure(code::kDisposed,
                  what + " was freed when the scope '" + scope_names_[death->scope] + "' ended",
                  "Return it from the scope's function, mark it with torch.keep(tensor), or keep a "
                  "clone() made "
                  "outside.");
  }
  throw Failure(code::kDisposed, what + " was disposed");
}

Handle TensorTable::Add(at::Tensor tensor, napi_value owner) {
  environment_.releases()->Drain(environment_.env());
  MaybeSweep();
  if (!dying_.empty()) {
    Dispose(dying_.back());
    dying_.pop_back();
  }
  // The reference first: making it can fail, and then nothing is to be undone.
  napi_ref reference = owner == nullptr ? nullptr : WeakReference(owner);
  const Handle handle = slots_.Add(Slot{std::move(tensor), nullptr, reference});
  if (handle == kNoHandle) {
    if (reference != nullptr) napi_delete_reference(environment_.env(), reference);
    throw Failure(code::kOutOfMemory, "more than 16,777,216 tensors are alive");
  }
  Count(*slots_.Find(handle));
  young_.push_back(handle);
  if (!scopes_.empty()) {
    if (made_.size() >= made_limit_) ForgetDeadInScopes();
    made_.push_back(handle);
  }
  return handle;
}

void TensorTable::Adopt(Handle handle, napi_value owner) {
  Slot* slot = slots_.Find(handle);
  if (slot == nullptr) FailStale(handle, "the tensor");
  napi_ref reference = WeakReference(owner);
  if (slot->owner != nullptr) napi_delete_reference(environment_.env(), slot->owner);
  slot->owner = reference;
}

void TensorTable::Dispose(Handle handle) {
  if (Slot* slot = slots_.Find(handle)) Free(handle, *slot);
}

void TensorTable::Replace(Handle handle, at::Tensor tensor) {
  Slot* slot = slots_.Find(handle);
  if (slot == nullptr) FailStale(handle, "the tensor");
  const auto put = [&](Slot& target) {
    Uncount(target);
    target.tensor = tensor;
    Count(target);
  };
  const at::Tensor before = slot->tensor;
  put(*slot);
  // `before` itself is one use; others may be aliases, which keep the identity in common.
  if (before.use_count() == 1) return;
  slots_.ForEach([&](Handle, Slot& other) {
    if (other.tensor.is_same(before)) put(other);
  });
}

void TensorTable::Recount(Handle handle) {
  if (Slot* slot = slots_.Find(handle)) Recount(*slot);
}

void TensorTable::RecountAliases(Handle handle) {
  Slot* slot = slots_.Find(handle);
  if (slot == nullptr) return;
  Recount(*slot);
  if (slot->tensor.use_count() == 1) return;
  slots_.ForEach([&](Handle, Slot& other) {
    if (other.tensor.is_same(slot->tensor)) Recount(other);
  });
}

void TensorTable::Recount(Slot& slot) {
  if (!slot.tensor.has_storage()) return;
  c10::StorageImpl* storage = slot.tensor.storage().unsafeGetStorageImpl();
  if (storage != slot.storage) {
    Uncount(slot);
    Count(slot);
    return;
  }
  Counted& counted = storages_[storage];
  if (counted.bytes == storage->nbytes()) return;
  Adjust(counted.kind,
         static_cast<int64_t>(storage->nbytes()) - static_cast<int64_t>(counted.bytes));
  counted.bytes = storage->nbytes();
}

void TensorTable::MarkShared(Handle handle) {
  Slot* slot = slots_.Find(handle);
  if (slot == nullptr || slot->storage == nullptr) return;
  Counted& counted = storages_[slot->storage];
  if (counted.kind != StorageKind::kPrivate) return;
  Adjust(counted.kind, -static_cast<int64_t>(counted.bytes));
  counted.kind = StorageKind::kShared;
  Adjust(counted.kind, static_cast<int64_t>(counted.bytes));
}

// --- counting
// ------------------------------------------------------------------------------------------------------------

void TensorTable::Count(Slot& slot) {
  unreported_ += kHandleBytes;
  if (!slot.tensor.has_storage()) return;
  c10::StorageImpl* storage = slot.tensor.storage().unsafeGetStorageImpl();
  slot.storage = storage;
  Counted& counted = storages_[storage];
  if (counted.handles++ > 0) return;
  counted.kind = KindOf(*storage);
  counted.bytes = storage->nbytes();
  Adjust(counted.kind, static_cast<int64_t>(counted.bytes));
}

void TensorTable::Uncount(Slot& slot) {
  unreported_ -= kHandleBytes;
  if (slot.storage == nullptr) return;
  const auto counted = storages_.find(slot.storage);
  slot.storage = nullptr;
  if (counted == storages_.end() || --counted->second.handles > 0) return;
  Adjust(counted->second.kind, -static_cast<int64_t>(counted->second.bytes));
  storages_.erase(counted);
}

void TensorTable::Adjust(StorageKind kind, int64_t bytes) {
  bytes_[static_cast<size_t>(kind)] += static_cast<uint64_t>(bytes);
  if (kind == StorageKind::kPrivate) unreported_ += bytes;
}

void TensorTable::Free(Handle handle, Slot& slot) {
  if (slot.owner != nullptr) napi_delete_reference(environment_.env(), slot.owner);
  Uncount(slot);
  slots_.Remove(handle);
}

// --- scopes
// --------------------------------------------------------------------------------------------------------------

void TensorTable::OpenScope(std::string name) {
  const auto [entry, fresh] = scope_ids_.try_emplace(std::move(name), scope_names_.size());
  if (fresh) scope_names_.push_back(entry->first);
  scopes_.push_back({entry->second, made_.size()});
}

void TensorTable::CloseScope(const std::vector<Handle>& keep) {
  if (scopes_.empty()) throw Failure(code::kInvalidArgument, "no scope is open");
  const Scope scope = scopes_.back();
  scopes_.pop_back();
  for (const Handle handle : keep) {
    if (Slot* slot = slots_.Find(handle)) slot->survives = true;
  }
  size_t remaining = scope.first;
  for (size_t i = scope.first; i < made_.size(); ++i) {
    const Handle handle = made_[i];
    Slot* slot = slots_.Find(handle);
    if (slot == nullptr || slot->kept) continue;
    if (slot->survives) {
      // It belongs to the scope around this one now.
      if (!scopes_.empty()) made_[remaining++] = handle;
      continue;
    }
    deaths_[next_death_++ % kDeaths] = {handle, scope.name};
    Free(handle, *slot);
  }
  made_.resize(remaining);
  for (const Handle handle : keep) {
    if (Slot* slot = slots_.Find(handle)) slot->survives = false;
  }
}

void TensorTable::Keep(Handle handle) {
  Slot* slot = slots_.Find(handle);
  if (slot == nullptr) FailStale(handle, "the tensor");
  slot->kept = true;
}

// A long scope would otherwise remember each of millions of tensors that are long gone.
void TensorTable::ForgetDeadInScopes() {
  size_t remaining = 0;
  size_t scope = 0;
  for (size_t i = 0; i < made_.size(); ++i) {
    for (; scope < scopes_.size() && scopes_[scope].first <= i; ++scope)
      scopes_[scope].first = remaining;
    if (slots_.Find(made_[i]) != nullptr) made_[remaining++] = made_[i];
  }
  for (; scope < scopes_.size(); ++scope) scopes_[scope].first = remaining;
  made_.resize(remaining);
  made_limit_ = std::max<size_t>(2 * remaining, 1024);
}

// --- sweeps
// --------------------------------------------------------------------------------------------------------------

napi_ref TensorTable::WeakReference(napi_value owner) {
  napi_ref reference = nullptr;
  const napi_status status = napi_create_reference(environment_.env(), owner, 0, &reference);
  if (status != napi_ok && !IsNullish(environment_.env(), owner)) Check(environment_.env(), status);
  return reference;
}

// Whether little memory is lost while the slot's tensor waits to be freed.
bool TensorTable::IsCheapToKeep(const Slot& slot) const {
  return slot.storage == nullptr || slot.storage->nbytes() <= kSmallBytes;
}

void TensorTable::FreeDying() {
  for (const Handle handle : dying_) Dispose(handle);
  dying_.clear();
}

void TensorTable::TendYoung() {
  FreeDying();
  const auto stale = [&](Handle handle) { return slots_.Find(handle) == nullptr; };
  const auto first_new = young_.begin() + static_cast<ptrdiff_t>(survivors_);
  survivors_ -= static_cast<size_t>(std::count_if(young_.begin(), first_new, stale));
  std::erase_if(young_, stale);
  const size_t fresh = young_.size() - survivors_;
  const bool many = fresh >= young_limit_ / 2;
  if ((many || bytes(StorageKind::kPrivate) >= tend_at_bytes_) && CollectYoung()) {
    // Where most are held, looking more often would only cost.
    const bool worth = SweepYoung() >= fresh / 2;
    if (many) young_wanted_ = worth ? kYoung : std::min<size_t>(2 * young_wanted_, kFloorHandles);
  }
  young_limit_ = young_.size() + young_wanted_;
  const uint64_t private_bytes = bytes(StorageKind::kPrivate);
  tend_at_bytes_ = private_bytes + std::max(private_bytes / 8, kYoungBytes);
}

bool TensorTable::CollectYoung() {
  const napi_env env = environment_.env();
  if (collect_young_ == nullptr) return false;
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  napi_value collect = nullptr;
  napi_value undefined = Undefined(env);
  napi_value result = nullptr;
  bool collected = false;
  napi_get_reference_value(env, collect_young_, &collect);
  if (napi_call_function(env, undefined, collect, 0, nullptr, &result) == napi_ok) {
    napi_get_value_bool(env, result, &collected);
  }
  napi_close_handle_scope(env, scope);
  if (!collected) {
    napi_delete_reference(env, collect_young_);
    collect_young_ = nullptr;
  } else if (canary_ != nullptr && ++canary_age_ == kYoungCollections) {
    napi_reference_unref(env, canary_, nullptr);
  }
  return collected;
}

// Whoever survives twice is no longer young.
uint32_t TensorTable::SweepYoung() {
  const napi_env env = environment_.env();
  uint32_t freed = 0;
  size_t staying = 0;
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  for (size_t i = 0; i < young_.size(); ++i) {
    const Handle handle = young_[i];
    Slot& slot = *slots_.Find(handle);
    if (slot.owner != nullptr && IsGone(env, slot.owner)) {
      if (IsCheapToKeep(slot)) {
        dying_.push_back(handle);
      } else {
        Free(handle, slot);
      }
      ++freed;
    } else if (i >= survivors_) {
      young_[staying++] = handle;
    }
  }
  napi_close_handle_scope(env, scope);
  young_.resize(staying);
  survivors_ = staying;
  ++sweeps_;
  return freed;
}

uint32_t TensorTable::Sweep() {
  const napi_env env = environment_.env();
  FreeDying();
  ++sweeps_;
  uint32_t freed = 0;
  napi_handle_scope scope = nullptr;
  uint32_t seen = 0;
  napi_open_handle_scope(env, &scope);
  slots_.ForEach([&](Handle handle, Slot& slot) {
    if (slot.owner == nullptr) return;
    if (++seen % 1024 == 0) {
      napi_close_handle_scope(env, scope);
      napi_open_handle_scope(env, &scope);
    }
    if (IsGone(env, slot.owner)) {
      Free(handle, slot);
      ++freed;
    }
  });
  napi_close_handle_scope(env, scope);
  freed += environment_.generators().Sweep(env);
  ResetThresholds();
  PlantCanary();
  return freed;
}

void TensorTable::CollectNow() {
  const napi_env env = environment_.env();
  // Far beyond its limit of external memory, V8 collects everything at once.
  constexpr int64_t kPressure = 1ll << 40;
  int64_t total = 0;
  napi_adjust_external_memory(env, kPressure, &total);
  napi_adjust_external_memory(env, -kPressure, &total);
  Sweep();
}

void TensorTable::SetYoungCollector(napi_value collect) {
  Check(environment_.env(), napi_create_reference(environment_.env(), collect, 1, &collect_young_));
}

void TensorTable::MaybeSweep() {
  if (young_.size() >= young_limit_ || bytes(StorageKind::kPrivate) >= tend_at_bytes_) TendYoung();
  const uint64_t private_bytes = bytes(StorageKind::kPrivate);
  if (unreported_ > kReportBytes || unreported_ < -kReportBytes) {
    ReportToV8();
    const bool worth = private_bytes >= worth_at_bytes_ || live() >= worth_at_handles_;
    if (worth && CollectedSinceLastSweep()) {
      Sweep();
      return;
    }
  }
  if (private_bytes >= sweep_at_bytes_ || live() >= sweep_at_handles_) Sweep();
}

void TensorTable::ReportToV8() {
  int64_t total = 0;
  const int64_t change = unreported_;
  unreported_ = 0;
  reported_ += change;
  napi_adjust_external_memory(environment_.env(), change, &total);
}

void TensorTable::ResetThresholds() {
  const uint64_t private_bytes = bytes(StorageKind::kPrivate);
  sweep_at_bytes_ = std::max(2 * private_bytes, kFloorBytes);
  sweep_at_handles_ = std::max(2 * live(), kFloorHandles);
  worth_at_bytes_ = private_bytes + std::max(private_bytes / 8, kFloorBytes / 8);
  worth_at_handles_ = live() + std::max(live() / 8, kFloorHandles / 8);
}

// An object that nobody else holds: when it is gone, V8 has collected, and owners may be garbage.
void TensorTable::PlantCanary() {
  const napi_env env = environment_.env();
  if (canary_ != nullptr) napi_delete_reference(env, canary_);
  canary_ = nullptr;
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  napi_value object = nullptr;
  // Held while it is young, or V8's frequent collections of the young would end it.
  const uint32_t held = collect_young_ == nullptr ? 0 : 1;
  canary_age_ = 0;
  if (napi_create_object(env, &object) == napi_ok) {
    napi_create_reference(env, object, held, &canary_);
  }
  napi_close_handle_scope(env, scope);
}

bool TensorTable::CollectedSinceLastSweep() {
  if (canary_ == nullptr) {
    PlantCanary();
    return false;
  }
  const napi_env env = environment_.env();
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  napi_value object = nullptr;
  napi_get_reference_value(env, canary_, &object);
  napi_close_handle_scope(env, scope);
  return object == nullptr;
}

}  // namespace tf
