// A device as placement sees it: memory of a certain size, and a link over which bytes come from
// the host, one copy after the other, while the host does something else. Knows no libtorch.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace tf::placement {

// An allocation did not fit; what() names the device, and the bytes wanted and free.
class DeviceFull : public std::runtime_error {
 public:
  DeviceFull(const std::string& device, size_t wanted, size_t free, size_t capacity);
};

struct Copy {
  std::byte* to;
  const std::byte* from;
  size_t bytes;
};

// Copies that are asked for together: some time later `done` is called on the link's thread, with
// what went wrong, or null. Whoever sets `cancelled` need not wait for the rest.
struct CopyJob {
  std::vector<Copy> copies;
  std::shared_ptr<std::atomic<bool>> cancelled;
  std::function<void(std::exception_ptr)> done;
};

class Device : public std::enable_shared_from_this<Device> {
 public:
  explicit Device(std::string name) : name_(std::move(name)), link_(std::make_shared<Link>()) {}
  virtual ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  virtual size_t capacity() const = 0;
  virtual size_t used() const = 0;
  // So many bytes are taken for an allocation of `bytes`.
  static size_t Rounded(size_t bytes) { return (bytes + kAlignment - 1) & ~(kAlignment - 1); }
  // Aligned to 256 bytes. Throws DeviceFull.
  virtual std::byte* Allocate(size_t bytes) = 0;
  virtual void Free(std::byte* at) = 0;

  // Queues a job behind those that are there. The device lives until it is done.
  void CopyAsync(CopyJob job);
  // Nanoseconds in which something was under way, and bytes that have arrived.
  int64_t busy_nanoseconds() const { return link_->busy.load(std::memory_order_relaxed); }
  uint64_t bytes_copied() const { return link_->bytes.load(std::memory_order_relaxed); }

  static constexpr size_t kAlignment = 256;

 protected:
  // On the link's thread: the bytes are there when it returns. At most kPiece at once.
  virtual void Transfer(const Copy& copy) = 0;
  // Derived classes call it first of all in their destructors.
  void StopLink();
  static constexpr size_t kPiece = size_t{1} << 20;

 private:
  // Outlives the device, whose last owner may be a job on the link's own thread.
  struct Link {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::pair<std::shared_ptr<Device>, CopyJob>> jobs;
    bool stopping = false;
    std::thread thread;
    std::atomic<int64_t> busy{0};
    std::atomic<uint64_t> bytes{0};
  };
  static void Serve(std::shared_ptr<Link> link);
  void Do(CopyJob& job);

  const std::string name_;
  const std::shared_ptr<Link> link_;
};

}  // namespace tf::placement
