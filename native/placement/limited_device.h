// A device made of host memory: an arena of a certain capacity, and a link of a certain bandwidth.
// What runs out of memory, evicts, waits and overlaps with a real one does so here.
#pragma once

#include <chrono>
#include <map>
#include <mutex>

#include "native/placement/device.h"

namespace tf::placement {

class LimitedDevice final : public Device {
 public:
  // `bandwidth` in bytes per second; 0: as fast as memory is.
  LimitedDevice(std::string name, size_t capacity, double bandwidth);
  ~LimitedDevice() override;

  size_t capacity() const override { return capacity_; }
  size_t used() const override;
  double bandwidth() const { return bandwidth_; }
  std::byte* Allocate(size_t bytes) override;
  void Free(std::byte* at) override;

 protected:
  void Transfer(const Copy& copy) override;

 private:
  using Clock = std::chrono::steady_clock;

  const size_t capacity_;
  const double bandwidth_;
  std::byte* arena_ = nullptr;

  mutable std::mutex mutex_;
  std::map<size_t, size_t> taken_;  // offset → bytes
  size_t used_ = 0;

  // The link's thread's: until when what was copied so far keeps the link.
  Clock::time_point link_free_{};
};

}  // namespace tf::placement
