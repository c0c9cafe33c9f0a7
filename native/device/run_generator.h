// Random numbers of work that runs later and elsewhere, in an order that nobody has to wait for.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKey.h>

#include <cstdint>
#include <memory>

namespace tf {

// A generator for one run, in the place of `source`. It starts from the state that the source has
// when the run is queued, and Return gives its state back to the source unless somebody has drawn
// from that, or seeded it, in between. While the state is out, further leases start from seeds that
// are derived from it; these are not given back. Leases of all threads know each other.
class GeneratorLease {
 public:
  explicit GeneratorLease(at::Generator source);
  ~GeneratorLease();
  GeneratorLease(const GeneratorLease&) = delete;
  GeneratorLease& operator=(const GeneratorLease&) = delete;

  const at::Generator& source() const { return source_; }
  const at::Generator& own() const { return own_; }
  // Once, when the run has ended.
  void Return();

 private:
  at::Generator source_;
  at::Generator own_;
  at::Tensor start_;     // the source's state then
  at::Generator forks_;  // undefined for a lease that is a fork itself
};

// While one lives, operators on this thread that name no generator draw from `cpu` (undefined:
// libtorch's default), on the CPU, where kDrawKey is among the thread's dispatch keys.
class DrawFrom {
 public:
  explicit DrawFrom(const at::Generator& cpu);
  ~DrawFrom();
  DrawFrom(const DrawFrom&) = delete;
  DrawFrom& operator=(const DrawFrom&) = delete;

 private:
  const at::Generator* former_;
};

// A key before all others, which libtorch keeps for tracing from Python: it has no kernels there.
inline constexpr c10::DispatchKey kDrawKey = c10::DispatchKey::PreDispatch;

// Registers kernels under kDrawKey for all operators that take a generator; all others pass it by,
// as libtorch has it.
// Once per process, before it computes.
void RouteDraws();

}  // namespace tf
