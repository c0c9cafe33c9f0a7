// Threads that take turns: one that starts late, or loses its core for a moment, leaves more to the
// others. For files that are compiled for the baseline only.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tf {

// body(begin, end) for all of [0, count), in parts of `turn`, on so many threads.
template <class Body>
void InTurns(int64_t threads, int64_t count, int64_t turn, const Body& body) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (;;) {
      const int64_t begin = next.fetch_add(turn, std::memory_order_relaxed);
      if (begin >= count) break;
      body(begin, std::min(begin + turn, count));
    }
  });
}

}  // namespace tf
