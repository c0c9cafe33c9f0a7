#include "native/tensor/small_blocks.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace tf {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kClasses = 16;
constexpr size_t kLargest = kAlignment * kClasses;
constexpr size_t kSlab = 1 << 16;
// Address space only: pages come with their first use. Whatever does not fit goes to libtorch's
// allocator.
constexpr size_t kRegion = 1ull << 32;
// Blocks of one size that a thread keeps to itself, and how many it passes on when it has more.
constexpr uint32_t kKept = 4096;
constexpr uint32_t kPassedOn = 2048;

struct Block {
  Block* next;
};

// Its first bytes say what blocks a slab holds; the rest are blocks.
struct Slab {
  uint32_t size_class;
};

// What threads pass to each other, and the memory that no thread had yet. Never destroyed: tensors
// outlive everything.
struct Shared {
  std::mutex mutex;
  std::array<Block*, kClasses> free{};
  std::byte* begin = nullptr;
  size_t used = 0;
};

Shared& All() {
  static auto* const shared = new Shared;
  return *shared;
}

// The region's bounds, readable without the lock.
std::atomic<uintptr_t> region_begin = 0;

bool IsSmall(const void* pointer) {
  const uintptr_t begin = region_begin.load(std::memory_order_relaxed);
  return reinterpret_cast<uintptr_t>(pointer) - begin < kRegion && begin != 0;
}

int64_t SizeOf(void* block) {
#if defined(__GLIBC__)
  return block == nullptr ? 0 : static_cast<int64_t>(malloc_usable_size(block));
#else
  return 0;
#endif
}

struct Cache {
  std::array<Block*, kClasses> free{};
  std::array<uint32_t, kClasses> count{};

  ~Cache();
  void PassOn(size_t size_class, uint32_t blocks);
  bool Refill(size_t size_class);
};

// Tensors are freed after a thread's caches are gone, too.
thread_local bool cache_ended = false;
thread_local Cache cache;

void Cache::PassOn(size_t size_class, uint32_t blocks) {
  if (blocks == 0) return;
  Block* first = free[size_class];
  Block* last = first;
  for (uint32_t i = 1; i < blocks; ++i) last = last->next;
  free[size_class] = last->next;
  count[size_class] -= blocks;
  Shared& shared = All();
  const std::lock_guard lock(shared.mutex);
  last->next = shared.free[size_class];
  shared.free[size_class] = first;
}

Cache::~Cache() {
  for (size_t i = 0; i < kClasses; ++i) PassOn(i, count[i]);
  cache_ended = true;
}

// From what other threads passed on, else from a new slab. False when the region is full.
bool Cache::Refill(size_t size_class) {
  const size_t block_size = (size_class + 1) * kAlignment;
  Shared& shared = All();
  const std::lock_guard lock(shared.mutex);
  while (shared.free[size_class] != nullptr && count[size_class] < kPassedOn) {
    Block* block = shared.free[size_class];
    shared.free[size_class] = block->next;
    block->next = free[size_class];
    free[size_class] = block;
    ++count[size_class];
  }
  if (count[size_class] > 0) return true;
  if (shared.begin == nullptr || shared.used + kSlab > kRegion) return false;
  std::byte* slab = shared.begin + shared.used;
  shared.used += kSlab;
  reinterpret_cast<Slab*>(slab)->size_class = static_cast<uint32_t>(size_class);
  for (size_t at = kAlignment; at + block_size <= kSlab; at += block_size) {
    auto* block = reinterpret_cast<Block*>(slab + at);
    block->next = free[size_class];
    free[size_class] = block;
    ++count[size_class];
  }
  return true;
}

// Blocks that went to libtorch's allocator.
std::atomic<int64_t> in_use = 0;
std::atomic<int64_t> limit = -1;

void Free(void* pointer) {
  if (!IsSmall(pointer)) {
    in_use.fetch_sub(SizeOf(pointer), std::memory_order_relaxed);
    c10::GetDefaultCPUAllocator()->raw_deleter()(pointer);
    return;
  }
  const auto slab = reinterpret_cast<uintptr_t>(pointer) & ~(kSlab - 1);
  const size_t size_class = reinterpret_cast<const Slab*>(slab)->size_class;
  auto* block = static_cast<Block*>(pointer);
  if (cache_ended) {
    Shared& shared = All();
    const std::lock_guard lock(shared.mutex);
    block->next = shared.free[size_class];
    shared.free[size_class] = block;
    return;
  }
  block->next = cache.free[size_class];
  cache.free[size_class] = block;
  if (++cache.count[size_class] > kKept) cache.PassOn(size_class, kPassedOn);
}

// libtorch's own block, under our deleter: an allocator that names a deleter promises it for all it
// gives out.
c10::DataPtr AllocateLarge(size_t bytes) {
  const int64_t most = limit.load(std::memory_order_relaxed);
  const int64_t there = in_use.load(std::memory_order_relaxed);
  TORCH_CHECK_WITH(OutOfMemoryError,
                   most < 0 || there + static_cast<int64_t>(bytes) <= most,
                   "out of memory: ",
                   bytes,
                   " bytes are wanted, ",
                   there,
                   " are in use, and the limit that was set is ",
                   most,
                   " bytes");
  void* block = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
  in_use.fetch_add(SizeOf(block), std::memory_order_relaxed);
  return {block, block, &Free, c10::Device(c10::DeviceType::CPU)};
}

class SmallBlocks final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0 || bytes > kLargest || cache_ended) return AllocateLarge(bytes);
    const size_t size_class = (bytes - 1) / kAlignment;
    if (cache.free[size_class] == nullptr && !cache.Refill(size_class)) {
      return AllocateLarge(bytes);
    }
    Block* block = cache.free[size_class];
    cache.free[size_class] = block->next;
    --cache.count[size_class];
    return {block, block, &Free, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &Free; }

  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
};

}  // namespace

int64_t HostMemoryLimit() { return limit.load(std::memory_order_relaxed); }
void SetHostMemoryLimit(int64_t bytes) { limit.store(bytes, std::memory_order_relaxed); }
int64_t HostMemoryInUse() { return in_use.load(std::memory_order_relaxed); }

void UseSmallBlocks() {
// AddressSanitizer sees the bounds of libtorch's own blocks only.
#if !defined(__SANITIZE_ADDRESS__)
  static std::once_flag once;
  std::call_once(once, [] {
    void* memory = mmap(nullptr,
                        kRegion + kSlab,
                        PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1,
                        0);
    if (memory == MAP_FAILED) return;
    const auto begin = (reinterpret_cast<uintptr_t>(memory) + kSlab - 1) & ~(kSlab - 1);
    All().begin = reinterpret_cast<std::byte*>(begin);
    region_begin.store(begin, std::memory_order_relaxed);
    static auto* const allocator = new SmallBlocks;
    constexpr uint8_t kPriority = 1;
    c10::SetCPUAllocator(allocator, kPriority);
  });
#endif
}

}  // namespace tf
