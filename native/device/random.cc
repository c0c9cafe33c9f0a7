// Random generators: libtorch's own, so a seed gives the numbers that it gives in Python.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <mutex>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/device/device.h"
#include "native/error/error.h"

namespace tf {

const at::Generator& GeneratorTable::Get(Handle handle) const {
  const Slot* slot = slots_.Find(handle);
  if (slot != nullptr) return slot->generator;
  if (slots_.Knows(handle)) throw Failure(code::kDisposed, "the generator was disposed");
  throw Failure(code::kInvalidArgument,
                "a Generator is expected, got a number that is no generator's handle");
}

Handle GeneratorTable::Add(at::Generator generator, napi_ref owner) {
  return slots_.Add(Slot{std::move(generator), owner});
}

Handle GeneratorTable::Default(c10::Device device) {
  const auto [entry, fresh] = defaults_.try_emplace(device.str(), kNoHandle);
  if (fresh) entry->second = Add(at::globalContext().defaultGenerator(device), nullptr);
  return entry->second;
}

uint32_t GeneratorTable::Sweep(napi_env env) {
  uint32_t freed = 0;
  slots_.ForEach([&](Handle handle, Slot& slot) {
    if (slot.owner == nullptr) return;
    napi_value owner = nullptr;
    if (napi_get_reference_value(env, slot.owner, &owner) != napi_ok || owner != nullptr) return;
    napi_delete_reference(env, slot.owner);
    slots_.Remove(handle);
    ++freed;
  });
  return freed;
}

void GeneratorTable::Clear(napi_env env) {
  slots_.ForEach([&](Handle, Slot& slot) {
    if (slot.owner != nullptr) napi_delete_reference(env, slot.owner);
  });
}

namespace {

// Generators of the CPU are looked up without an index.
c10::Device Concrete(const std::string& name) {
  const c10::Device device = ParseDevice(name);
  return device.is_cpu() ? c10::Device(at::kCPU) : device;
}

Handle NewGenerator(Environment& environment, Owner owner, const std::string& name) {
  const c10::Device device = Concrete(name);
  if (device.is_meta())
    throw Failure(code::kInvalidArgument, "[newGenerator] the meta device draws no numbers");
  at::Generator generator = device.is_cpu() ? at::make_generator<at::CPUGeneratorImpl>()
                                            : at::globalContext()
                                                  .getAcceleratorHooksInterface(device.type())
                                                  .getNewGenerator(device.index());
  napi_ref reference = nullptr;
  Check(environment.env(), napi_create_reference(environment.env(), owner.value, 0, &reference));
  return environment.generators().Add(std::move(generator), reference);
}

Handle DefaultGenerator(Environment& environment, const std::string& device) {
  return environment.generators().Default(Concrete(device));
}

std::string GeneratorDevice(Environment& environment, Handle generator) {
  return environment.generators().Get(generator).device().str();
}

// Negative seeds stand for 2^64 + seed, as in Python.
struct Seed {
  uint64_t bits;
};

}  // namespace

template <>
struct FromJs<Seed> {
  static Seed Get(Environment& environment, napi_value value, Where where) {
    return {static_cast<uint64_t>(BitsFromJs(environment, value, where))};
  }
};

namespace {

void GeneratorSeed(Environment& environment, Handle handle, Seed seed) {
  at::Generator generator = environment.generators().Get(handle);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed.bits);
}

napi_value GeneratorInitialSeed(Environment& environment, Handle handle) {
  const at::Generator generator = environment.generators().Get(handle);
  napi_value seed = nullptr;
  Check(environment.env(),
        napi_create_bigint_uint64(environment.env(), generator.current_seed(), &seed));
  return seed;
}

Handle GeneratorGetState(Environment& environment, Owner owner, Handle handle) {
  at::Generator generator = environment.generators().Get(handle);
  const std::lock_guard lock(generator.mutex());
  return environment.tensors().Add(generator.get_state(), owner.value);
}

void GeneratorSetState(Environment& environment, Handle handle, const at::Tensor& state) {
  at::Generator generator = environment.generators().Get(handle);
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

void ManualSeed(Environment&, Seed seed) { at::manual_seed(seed.bits); }

}  // namespace

void InitRandom(Exports& exports) {
  exports.Function<"newGenerator", NewGenerator>();
  exports.Function<"defaultGenerator", DefaultGenerator>();
  exports.Function<"generatorDevice", GeneratorDevice>();
  exports.Function<"generatorSeed", GeneratorSeed>();
  exports.Function<"generatorInitialSeed", GeneratorInitialSeed>();
  exports.Function<"generatorGetState", GeneratorGetState>();
  exports.Function<"generatorSetState", GeneratorSetState>();
  exports.Function<"manualSeed", ManualSeed>();
}

}  // namespace tf
