// Memory that a kernel needs while it runs: aligned to cache lines, not initialized.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <cstdint>

namespace tf {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(c10::GetCPUAllocator()->allocate(static_cast<size_t>(count) * sizeof(T))) {}
  T* data() const { return static_cast<T*>(memory_.get()); }

 private:
  c10::DataPtr memory_;
};

}  // namespace tf
