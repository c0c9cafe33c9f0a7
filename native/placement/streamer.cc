#include "native/placement/streamer.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "native/placement/ring.h"

namespace tf::placement {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<bool> Residents(const std::vector<StreamedBlock>& blocks,
                            const StreamerOptions& options,
                            size_t circulating) {
  if (options.memory == 0) return SpreadResidents(blocks.size(), options.slots, circulating);
  std::vector<size_t> bytes;
  for (const StreamedBlock& block : blocks) bytes.push_back(block.bytes);
  return SpreadResidents(bytes, options.memory, circulating);
}

size_t Circulating(const StreamerOptions& options) {
  const size_t wanted = options.synchronous ? 1 : options.depth + 1;
  return options.memory == 0 ? std::min(wanted, std::max<size_t>(options.slots, 1)) : wanted;
}

}  // namespace

StreamedBlock StreamedBlock::Pack(std::vector<Source> parts) {
  StreamedBlock block;
  for (const Source& part : parts) {
    block.offsets.push_back(block.bytes);
    block.bytes += Device::Rounded(part.bytes);
  }
  block.parts = std::move(parts);
  return block;
}

// What the threads share. It has no thread of its own: whoever is last may end it.
struct Streamer::Core : std::enable_shared_from_this<Core> {
  // A block on its way: so many pieces are still to come.
  struct Loading {
    size_t block;
    size_t slot;
    size_t evicted;
    // One is the reader's own, so that a block does not end before all of it was sent.
    std::atomic<size_t> pieces{1};
    std::mutex mutex;
    std::exception_ptr failure;
  };

  Core(std::shared_ptr<Device> on, std::vector<StreamedBlock> all, const StreamerOptions& options);
  ~Core();

  void CheckOpen() const {
    if (closed->load()) throw StreamerClosed();
  }
  void ThrowIfFailed(size_t block) {
    if (failed[block]) std::rethrow_exception(std::exchange(failed[block], nullptr));
  }
  bool IsHeldByWaiters() const {
    return std::all_of(held.begin(),
                       held.begin() + static_cast<ptrdiff_t>(circulating),
                       [](size_t pins) { return pins > 0; });
  }

  // With the lock held.
  void Account();
  void BeginWait(size_t block);
  void EndWait(size_t block);
  void Pump();
  void Start(const Ring::Load& load);
  std::vector<std::function<void()>> TakeReady();

  // The reader's thread.
  void Serve();
  void Read(const std::shared_ptr<Loading>& loading, FileReader& reader);
  // Any thread.
  void Send(const std::shared_ptr<Loading>& loading, std::vector<Copy> copies);
  void EndPiece(const std::shared_ptr<Loading>& loading, const std::exception_ptr& failure);

  const std::shared_ptr<Device> device;
  const std::vector<StreamedBlock> blocks;
  const bool lets_go;
  const std::vector<bool> resident;
  const size_t circulating;
  const std::shared_ptr<std::atomic<bool>> closed = std::make_shared<std::atomic<bool>>(false);
  std::vector<std::byte*> memory;  // of each slot

  mutable std::mutex mutex;  // for all below
  std::condition_variable changed;
  Ring ring;
  std::vector<size_t> held;                // per slot: pins of callers that wait
  std::deque<size_t> wanted;               // waited for, and without room so far
  std::vector<std::exception_ptr> failed;  // per block, until somebody has been told
  std::vector<std::function<void()>> ready;
  size_t waiting = 0;
  size_t loading_now = 0;
  Clock::time_point accounted = Clock::now();
  StreamerStats stats;

  std::condition_variable work;
  std::deque<std::shared_ptr<Loading>> to_read;
  std::vector<size_t> copied;  // whose files' pages are needed no more
  bool stopping = false;
};

Streamer::Core::Core(std::shared_ptr<Device> on,
                     std::vector<StreamedBlock> all,
                     const StreamerOptions& options)
    : device(std::move(on)),
      blocks(std::move(all)),
      lets_go(options.lets_go),
      resident(Residents(blocks, options, Circulating(options))),
      circulating(std::min(static_cast<size_t>(std::count(resident.begin(), resident.end(), false)),
                           Circulating(options))),
      ring(resident, circulating, options.synchronous ? 0 : options.depth),
      held(ring.slots(), 0),
      failed(blocks.size()) {
  std::vector<size_t> bytes;
  size_t largest = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (resident[i]) {
      bytes.push_back(blocks[i].bytes);
    } else {
      largest = std::max(largest, blocks[i].bytes);
    }
  }
  stats.resident = bytes.size();
  stats.slots = circulating;
  bytes.insert(bytes.begin(), circulating, largest);
  try {
    for (const size_t each : bytes) {
      memory.push_back(device ? device->Allocate(each) : nullptr);
      stats.room += device ? Device::Rounded(each) : each;
    }
  } catch (...) {
    for (std::byte* taken : memory) device->Free(taken);
    throw;
  }
}

Streamer::Core::~Core() {
  for (std::byte* taken : memory)
    if (taken != nullptr) device->Free(taken);
}

void Streamer::Core::Account() {
  const Clock::time_point now = Clock::now();
  const int64_t elapsed = std::chrono::nanoseconds(now - std::exchange(accounted, now)).count();
  if (waiting > 0) {
    stats.exposed += elapsed;
  } else if (loading_now > 0) {
    stats.hidden += elapsed;
  }
}

std::vector<std::function<void()>> Streamer::Core::TakeReady() {
  Account();
  waiting -= ready.size();
  return std::exchange(ready, {});
}

void Streamer::Core::BeginWait(size_t block) {
  Account();
  ++waiting;
  ring.Claim(block);
  if (std::find(wanted.begin(), wanted.end(), block) == wanted.end()) wanted.push_back(block);
  Pump();
}

void Streamer::Core::EndWait(size_t block) {
  Account();
  --waiting;
  ring.Unclaim(block);
}

void Streamer::Core::Pump() {
  if (closed->load()) return;
  while (!wanted.empty()) {
    const size_t block = wanted.front();
    if (ring.SlotOf(block) == kNone) {
      const auto load = ring.Demand(block);
      // Nothing goes ahead of what is waited for.
      if (!load) return;
      Start(*load);
    }
    wanted.pop_front();
  }
  while (const auto load = ring.Ahead()) Start(*load);
}

void Streamer::Core::Start(const Ring::Load& load) {
  Account();
  ++loading_now;
  ++stats.loads;
  stats.bytes += blocks[load.block].bytes;
  auto loading = std::make_shared<Loading>();
  loading->block = load.block;
  loading->slot = load.slot;
  loading->evicted = load.evicted;
  const bool in_files = std::any_of(blocks[load.block].parts.begin(),
                                    blocks[load.block].parts.end(),
                                    [](const Source& part) { return part.file != nullptr; });
  if (in_files || !device) {
    to_read.push_back(std::move(loading));
    work.notify_one();
    return;
  }
  std::vector<Copy> copies;
  loading->pieces = 0;
  const StreamedBlock& block = blocks[load.block];
  for (size_t i = 0; i < block.parts.size(); ++i)
    copies.push_back(
        {memory[load.slot] + block.offsets[i], block.parts[i].from, block.parts[i].bytes});
  Send(loading, std::move(copies));
}

void Streamer::Core::Send(const std::shared_ptr<Loading>& loading, std::vector<Copy> copies) {
  loading->pieces.fetch_add(1);
  device->CopyAsync({std::move(copies), closed, [self = shared_from_this(), loading](auto failure) {
                       self->EndPiece(loading, failure);
                     }});
}

void Streamer::Core::Serve() {
  pthread_setname_np(pthread_self(), "tf-read-ahead");
  FileReader reader;
  std::unique_lock lock(mutex);
  for (;;) {
    work.wait(lock, [&] { return stopping || !to_read.empty(); });
    if (stopping) return;
    const std::shared_ptr<Loading> loading = std::move(to_read.front());
    to_read.pop_front();
    std::vector<size_t> leaving = std::exchange(copied, {});
    // In place, the room of the block that was there is this one's.
    if (!device && lets_go && loading->evicted != kNone) leaving.push_back(loading->evicted);
    lock.unlock();
    std::exception_ptr failure;
    for (const size_t block : leaving)
      for (const Source& part : blocks[block].parts)
        if (part.file) LetGo(part);
    const uint64_t before = reader.disk_bytes();
    try {
      Read(loading, reader);
    } catch (...) {
      failure = std::current_exception();
    }
    const uint64_t read = reader.disk_bytes() - before;
    EndPiece(loading, failure);
    lock.lock();
    stats.disk_bytes += read;
  }
}

void Streamer::Core::Read(const std::shared_ptr<Loading>& loading, FileReader& reader) {
  const StreamedBlock& block = blocks[loading->block];
  for (size_t i = 0; i < block.parts.size(); ++i) {
    const Source& part = block.parts[i];
    std::byte* to = device ? memory[loading->slot] + block.offsets[i] : nullptr;
    if (!part.file) {
      if (device) Send(loading, {{to, part.from, part.bytes}});
      continue;
    }
    reader.Read(
        part,
        [&] { return closed->load(std::memory_order_relaxed); },
        [&](size_t at, size_t bytes) {
          if (device) Send(loading, {{to + at, part.from + at, bytes}});
        });
  }
}

void Streamer::Core::EndPiece(const std::shared_ptr<Loading>& loading,
                              const std::exception_ptr& failure) {
  if (failure) {
    const std::lock_guard lock(loading->mutex);
    if (!loading->failure) loading->failure = failure;
  }
  if (loading->pieces.fetch_sub(1) != 1) return;
  std::vector<std::function<void()>> tell;
  {
    const std::lock_guard lock(mutex);
    if (device && lets_go) copied.push_back(loading->block);
    if (loading->failure) {
      failed[loading->block] = loading->failure;
      ring.Failed(loading->block);
    } else {
      ring.Loaded(loading->block);
    }
    tell = TakeReady();
    --loading_now;
    Pump();
  }
  changed.notify_all();
  for (const auto& each : tell) each();
}

Streamer::Streamer(std::shared_ptr<Device> device,
                   std::vector<StreamedBlock> blocks,
                   const StreamerOptions& options)
    : core_(std::make_shared<Core>(std::move(device), std::move(blocks), options)) {
  const bool reads =
      !core_->device || std::any_of(core_->blocks.begin(), core_->blocks.end(), [](const auto& b) {
        return std::any_of(b.parts.begin(), b.parts.end(), [](const Source& part) {
          return part.file != nullptr;
        });
      });
  if (reads) reader_ = std::thread([core = core_] { core->Serve(); });
  const std::lock_guard lock(core_->mutex);
  core_->Pump();
}

Streamer::~Streamer() {
  Close();
  {
    const std::lock_guard lock(core_->mutex);
    core_->stopping = true;
  }
  core_->work.notify_all();
  if (reader_.joinable()) reader_.join();
}

size_t Streamer::slots() const { return core_->circulating; }

bool Streamer::stays(size_t block) const { return core_->resident[block]; }

size_t Streamer::size() const { return core_->blocks.size(); }
const std::shared_ptr<Device>& Streamer::device() const { return core_->device; }
const StreamedBlock& Streamer::block(size_t index) const { return core_->blocks[index]; }

void Streamer::Acquire(size_t block) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  core.CheckOpen();
  core.ThrowIfFailed(block);
  core.ring.Use(block);
  ++core.stats.uses;
  if (!core.ring.IsThere(block)) {
    ++core.stats.waits;
    core.BeginWait(block);
    bool stuck = false;
    core.changed.wait(lock, [&] {
      stuck = core.ring.SlotOf(block) == kNone && core.IsHeldByWaiters();
      return core.ring.IsThere(block) || core.closed->load() || core.failed[block] || stuck;
    });
    core.EndWait(block);
    core.CheckOpen();
    core.ThrowIfFailed(block);
    if (stuck) {
      std::erase(core.wanted, block);
      throw NoSlot("no room for another block: " + std::to_string(core.circulating) +
                   " are in use at once, and none was released");
    }
  }
  core.ring.Pin(block);
  ++core.held[core.ring.SlotOf(block)];
  core.Pump();
}

void Streamer::Release(size_t block) {
  {
    const std::lock_guard lock(core_->mutex);
    const size_t slot = core_->ring.SlotOf(block);
    if (slot == kNone || core_->held[slot] == 0)
      throw std::runtime_error("the block was released, and had not been acquired");
    --core_->held[slot];
  }
  Unpin(block);
}

bool Streamer::TryAcquire(size_t block, bool again, std::function<void()> ready) {
  Core& core = *core_;
  const std::lock_guard lock(core.mutex);
  if (again) core.ring.Unclaim(block);
  core.CheckOpen();
  core.ThrowIfFailed(block);
  if (!again) {
    core.ring.Use(block);
    ++core.stats.uses;
  }
  if (core.ring.IsThere(block)) {
    core.ring.Pin(block);
    core.Pump();
    return true;
  }
  if (!again) ++core.stats.waits;
  core.ready.push_back(std::move(ready));
  core.BeginWait(block);
  return false;
}

void Streamer::GiveUp(size_t block) {
  const std::lock_guard lock(core_->mutex);
  core_->ring.Unclaim(block);
}

void Streamer::Unpin(size_t block) {
  std::vector<std::function<void()>> tell;
  {
    const std::lock_guard lock(core_->mutex);
    core_->ring.Unpin(block);
    core_->Pump();
    // Somebody may wait for room, which is here now.
    if (!core_->wanted.empty()) tell = core_->TakeReady();
  }
  core_->changed.notify_all();
  for (const auto& each : tell) each();
}

std::byte* Streamer::At(size_t block, size_t part) const {
  const std::lock_guard lock(core_->mutex);
  if (!core_->device) return const_cast<std::byte*>(core_->blocks[block].parts[part].from);
  return core_->memory[core_->ring.SlotOf(block)] + core_->blocks[block].offsets[part];
}

void Streamer::SetOrder(const std::vector<size_t>& order) {
  const std::lock_guard lock(core_->mutex);
  core_->ring.SetOrder(order);
}

StreamerStats Streamer::stats() const {
  const std::lock_guard lock(core_->mutex);
  core_->Account();
  return core_->stats;
}

void Streamer::Close() {
  std::vector<std::function<void()>> tell;
  {
    const std::lock_guard lock(core_->mutex);
    core_->closed->store(true);
    tell = core_->TakeReady();
  }
  core_->changed.notify_all();
  for (const auto& each : tell) each();
}

}  // namespace tf::placement
