// Blocks of a model that take turns on a device: while one is computed with, the next ones are
// brought. Knows no libtorch; what it brings are bytes.
//
// On a device each block is one packed arena in a slot. Without one ("in place", for the CPU) a
// block is used where it lies: being there means to be in the page cache, and a slot is room there.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "native/placement/device.h"
#include "native/placement/source.h"

namespace tf::placement {

struct StreamedBlock {
  std::vector<Source> parts;
  std::vector<size_t> offsets;  // of each part in the arena
  size_t bytes = 0;             // of the arena

  // Puts the parts one behind the other, each aligned.
  static StreamedBlock Pack(std::vector<Source> parts);
};

// The streamer was closed.
class StreamerClosed : public std::runtime_error {
 public:
  StreamerClosed() : std::runtime_error("the streamer of these blocks was disposed of") {}
};

// More blocks are in use at once than there are slots.
class NoSlot : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct StreamerOptions {
  // So many blocks have room at once; where it is more than `depth` + 1, some blocks stay.
  size_t slots = 2;
  // So many blocks are brought ahead of the one in use.
  size_t depth = 1;
  // Bytes of the room, in the place of `slots` when it is not 0.
  size_t memory = 0;
  // Each block is brought when it is asked for, and nothing ahead of it.
  bool synchronous = false;
  // Pages of files that were copied, or whose room is taken by others, are given back.
  bool lets_go = false;
};

struct StreamerStats {
  uint64_t bytes = 0;       // that were brought
  uint64_t disk_bytes = 0;  // that were not in the page cache
  uint64_t loads = 0;       // blocks that were brought
  uint64_t uses = 0;        // blocks that were asked for
  uint64_t waits = 0;       // of these, not there yet
  int64_t exposed = 0;      // nanoseconds in which somebody waited
  int64_t hidden = 0;       // nanoseconds of bringing in which nobody waited
  size_t resident = 0;      // blocks that stay once they are there
  size_t slots = 0;         // for the others
  size_t room = 0;          // bytes taken on the device, or of the page cache
};

// Everybody who has one may call it, from any thread.
class Streamer {
 public:
  // `device` may be null: in place. Throws DeviceFull.
  Streamer(std::shared_ptr<Device> device,
           std::vector<StreamedBlock> blocks,
           const StreamerOptions& options);
  ~Streamer();
  Streamer(const Streamer&) = delete;
  Streamer& operator=(const Streamer&) = delete;

  size_t size() const;
  const std::shared_ptr<Device>& device() const;
  const StreamedBlock& block(size_t index) const;

  // Waits until the block is there, and pins it. Throws what went wrong with bringing it,
  // StreamerClosed, or NoSlot when callers of this function hold all slots.
  void Acquire(size_t block);
  // Undoes one call of Acquire.
  void Release(size_t block);

  // Without waiting: true when the block is there, which is pinned then. Else it is brought, and
  // `ready` is called once, when something has changed, on any thread: ask again with `again`, or
  // GiveUp. Throws as above.
  bool TryAcquire(size_t block, bool again, std::function<void()> ready);
  void GiveUp(size_t block);
  // Undoes one call of TryAcquire that was true.
  void Unpin(size_t block);

  // So many blocks that do not stay can be held at once.
  size_t slots() const;
  // Whether a block stays once it is there.
  bool stays(size_t block) const;
  // Of a block that is pinned: where a part of it is.
  std::byte* At(size_t block, size_t part) const;

  // In which order blocks will be used; it repeats.
  void SetOrder(const std::vector<size_t>& order);
  StreamerStats stats() const;
  // Nothing is brought any more, and who asks gets an error.
  void Close();

 private:
  struct Core;
  const std::shared_ptr<Core> core_;
  // Reads files ahead; where no block lies in one there is none.
  std::thread reader_;
};

}  // namespace tf::placement
