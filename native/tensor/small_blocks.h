// A CPU allocator for small tensors.
#pragma once

#include <cstdint>

namespace tf {

// glibc serves no aligned allocation from its caches: a small tensor's 64-byte aligned block costs
// more than an addition over its values. This allocator keeps lists of free blocks per thread and
// size, up to 1 KiB; larger ones go to libtorch's own. Process-wide; call it before the first
// tensor is made, any further call does nothing.
void UseSmallBlocks();

// Larger blocks are counted, and refused with c10::OutOfMemoryError beyond a limit. -1: no limit.
int64_t HostMemoryLimit();
void SetHostMemoryLimit(int64_t bytes);
int64_t HostMemoryInUse();

}  // namespace tf
