#include "native/placement/device.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace tf::placement {

DeviceFull::DeviceFull(const std::string& device, size_t wanted, size_t free, size_t capacity)
    : std::runtime_error(device + " has no room for " + std::to_string(wanted) + " bytes: " +
                         std::to_string(free) + " of " + std::to_string(capacity) + " are free") {}

Device::~Device() { StopLink(); }

void Device::StopLink() {
  std::thread thread;
  {
    const std::lock_guard lock(link_->mutex);
    link_->stopping = true;
    thread = std::move(link_->thread);
  }
  link_->wake.notify_all();
  if (!thread.joinable()) return;
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();
  } else {
    thread.join();
  }
}

void Device::CopyAsync(CopyJob job) {
  {
    const std::lock_guard lock(link_->mutex);
    link_->jobs.emplace_back(shared_from_this(), std::move(job));
    if (!link_->thread.joinable()) link_->thread = std::thread(Serve, link_);
  }
  link_->wake.notify_one();
}

void Device::Serve(std::shared_ptr<Link> link) {
  pthread_setname_np(pthread_self(), "tf-link");
  std::unique_lock lock(link->mutex);
  for (;;) {
    link->wake.wait(lock, [&] { return link->stopping || !link->jobs.empty(); });
    if (link->jobs.empty()) return;
    auto [device, job] = std::move(link->jobs.front());
    link->jobs.pop_front();
    lock.unlock();
    device->Do(job);
    // Whatever these hold may end here, the device itself too.
    job = CopyJob();
    device.reset();
    lock.lock();
  }
}

void Device::Do(CopyJob& job) {
  const auto began = std::chrono::steady_clock::now();
  std::exception_ptr failure;
  try {
    for (const Copy& copy : job.copies) {
      for (size_t at = 0; at < copy.bytes; at += kPiece) {
        if (job.cancelled && job.cancelled->load(std::memory_order_relaxed)) break;
        const size_t bytes = std::min(kPiece, copy.bytes - at);
        Transfer({copy.to + at, copy.from + at, bytes});
        link_->bytes.fetch_add(bytes, std::memory_order_relaxed);
      }
    }
  } catch (...) {
    failure = std::current_exception();
  }
  link_->busy.fetch_add(std::chrono::nanoseconds(std::chrono::steady_clock::now() - began).count(),
                        std::memory_order_relaxed);
  if (job.done) job.done(failure);
}

}  // namespace tf::placement
