// How tensors end, and how they change hands.
#include <ATen/ATen.h>
#include <malloc.h>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/program/programs.h"
#include "native/tensor/shared.h"

namespace tf {
namespace {

void Dispose(Environment& environment, Handle handle) { environment.tensors().Dispose(handle); }

bool IsDisposed(Environment& environment, Handle handle) {
  return environment.tensors().Find(handle) == nullptr;
}

Handle Alias(Environment& environment, Owner owner, const at::Tensor& tensor) {
  return environment.tensors().Add(tensor, owner.value);
}

void Rebind(Environment& environment, Held held, const at::Tensor& other) {
  if (held.tensor.is_same(other)) return;
  RefuseRecording(environment, "rebind");
  RefuseBusy(environment, held.tensor, "rebind");
  // set_data keeps the identity, and with it hooks and the place in a graph, but only within one
  // kind of tensor: a skeleton's parameter on the meta device becomes another tensor when it gets
  // its values.
  if (at::_has_compatible_shallow_copy_type(held.tensor, other)) {
    held.tensor.set_data(other.is_inference() ? other.clone() : other);
    environment.tensors().RecountAliases(held.handle);
    return;
  }
  at::Tensor replacement = other.variable_data();
  if (held.tensor.requires_grad() && held.tensor.is_leaf()) replacement.set_requires_grad(true);
  environment.tensors().Replace(held.handle, std::move(replacement));
}

Handle VariableData(Environment& environment, Owner owner, const at::Tensor& tensor) {
  if (Programs* programs = environment.programs(); programs && programs->recorder()) {
    return environment.tensors().Add(programs->recorder()->Detach(tensor), owner.value);
  }
  return environment.tensors().Add(tensor.variable_data(), owner.value);
}

void OpenScope(Environment& environment, const std::string& name) {
  environment.tensors().OpenScope(name);
}

void CloseScope(Environment& environment, const std::vector<Handle>& keep) {
  environment.tensors().CloseScope(keep);
}

void Keep(Environment& environment, Handle handle) { environment.tensors().Keep(handle); }

void SetYoungCollector(Environment& environment, Js collect) {
  environment.tensors().SetYoungCollector(collect.value);
}

uint32_t Sweep(Environment& environment) { return environment.tensors().Sweep(); }

// What the C heap has handed out, to whomever; 0 where the C library does not tell.
double HeapBytes() {
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
  const struct mallinfo2 heap = mallinfo2();
  return static_cast<double>(heap.uordblks + heap.hblkhd);
#endif
#endif
  return 0;
}

napi_value MemoryStats(Environment& environment) {
  environment.releases()->Drain(environment.env());
  TensorTable& tensors = environment.tensors();
  tensors.FreeDying();
  const auto bytes = [&](StorageKind kind) {
    return ToJs(environment, static_cast<double>(tensors.bytes(kind)));
  };
  return Record(environment,
                {{"live_tensors", ToJs(environment, tensors.live())},
                 {"private_bytes", bytes(StorageKind::kPrivate)},
                 {"mapped_bytes", bytes(StorageKind::kMapped)},
                 {"shared_bytes", bytes(StorageKind::kShared)},
                 {"device_bytes", bytes(StorageKind::kDevice)},
                 {"heap_bytes", ToJs(environment, HeapBytes())},
                 {"sweeps", ToJs(environment, tensors.sweeps())}});
}

double Share(Environment& environment, Held held) {
  RefuseRead(environment, held.tensor, "share");
  // A JavaScript buffer belongs to its environment: what another one gets must not lie in it.
  const bool over_buffer =
      held.tensor.has_storage() &&
      KindOf(*held.tensor.storage().unsafeGetStorageImpl()) == StorageKind::kShared;
  const uint64_t token =
      SharedTensors::Offer(over_buffer ? held.tensor.detach().clone() : held.tensor);
  environment.tensors().MarkShared(held.handle);
  return static_cast<double>(token);
}

Handle FromShared(Environment& environment, Owner owner, double token) {
  const Handle handle =
      environment.tensors().Add(SharedTensors::Claim(HandleFromNumber(token)), owner.value);
  environment.tensors().MarkShared(handle);
  return handle;
}

}  // namespace

void InitTensorLife(Exports& exports) {
  exports.Function<"dispose", Dispose>();
  exports.Function<"isDisposed", IsDisposed>();
  exports.Function<"alias", Alias>();
  exports.Function<"rebind", Rebind>();
  exports.Function<"variableData", VariableData>();
  exports.Function<"openScope", OpenScope>();
  exports.Function<"closeScope", CloseScope>();
  exports.Function<"keep", Keep>();
  exports.Function<"setYoungCollector", SetYoungCollector>();
  exports.Function<"sweep", Sweep>();
  exports.Function<"memoryStats", MemoryStats>();
  exports.Function<"share", Share>();
  exports.Function<"fromShared", FromShared>();
}

}  // namespace tf
