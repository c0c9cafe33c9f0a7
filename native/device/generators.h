// The random generators of one environment, under handles.
#pragma once

#include <ATen/core/Generator.h>
#include <node_api.h>

#include <string>
#include <unordered_map>

#include "native/tensor/slots.h"

namespace tf {

class GeneratorTable {
 public:
  // Throws ERR_INVALID_ARGUMENT for a number that is no generator's handle.
  const at::Generator& Get(Handle handle) const;
  // With an owner (held weakly) it lives as long as the owner; a null reference means for ever.
  Handle Add(at::Generator generator, napi_ref owner);
  // The device's own generator, always under the same handle.
  Handle Default(c10::Device device);
  // Frees generators whose owners are garbage.
  uint32_t Sweep(napi_env env);
  void Clear(napi_env env);

 private:
  struct Slot {
    at::Generator generator;
    napi_ref owner = nullptr;
  };
  Slots<Slot> slots_;
  std::unordered_map<std::string, Handle> defaults_;
};

}  // namespace tf
