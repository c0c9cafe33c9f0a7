#include "native/placement/limited_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <thread>

#include "native/io/mapping.h"

namespace tf::placement {
namespace {

// A sleep may end this much late; a link that was idle for less goes on as if it had not been.
constexpr std::chrono::microseconds kSlack{200};

}  // namespace

LimitedDevice::LimitedDevice(std::string name, size_t capacity, double bandwidth)
    : Device(std::move(name)), capacity_(capacity), bandwidth_(bandwidth) {
  // Memory is given to pages as they are written, and taken back when they are freed.
  void* arena = mmap(nullptr,
                     std::max<size_t>(capacity, 1),
                     PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1,
                     0);
  if (arena == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<std::byte*>(arena);
}

LimitedDevice::~LimitedDevice() {
  StopLink();
  munmap(arena_, std::max<size_t>(capacity_, 1));
}

size_t LimitedDevice::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

std::byte* LimitedDevice::Allocate(size_t bytes) {
  const size_t wanted = Rounded(std::max<size_t>(bytes, 1));
  const std::lock_guard lock(mutex_);
  // The first hole that is large enough.
  size_t end = 0;
  for (const auto& [at, size] : taken_) {
    if (at - end >= wanted) break;
    end = at + size;
  }
  if (end > capacity_ || capacity_ - end < wanted)
    throw DeviceFull(name(), wanted, capacity_ - used_, capacity_);
  taken_.emplace(end, wanted);
  used_ += wanted;
  return arena_ + end;
}

void LimitedDevice::Free(std::byte* at) {
  const std::lock_guard lock(mutex_);
  const auto found = taken_.find(static_cast<size_t>(at - arena_));
  if (found == taken_.end()) return;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = (found->first + page - 1) / page * page;
  const size_t end = (found->first + found->second) / page * page;
  if (end > begin) madvise(arena_ + begin, end - begin, MADV_DONTNEED);
  used_ -= found->second;
  taken_.erase(found);
}

void LimitedDevice::Transfer(const Copy& copy) {
  const Clock::time_point now = Clock::now();
  if (link_free_ + kSlack < now) link_free_ = now;
  std::memcpy(copy.to, copy.from, copy.bytes);
  // Another thread may have told of the fault already; the mapping stays marked.
  io::CheckMappingFaults();
  io::CheckMapped(copy.from);
  if (bandwidth_ <= 0) return;
  link_free_ += std::chrono::nanoseconds(
      static_cast<int64_t>(1e9 * static_cast<double>(copy.bytes) / bandwidth_));
  std::this_thread::sleep_until(link_free_);
}

}  // namespace tf::placement
