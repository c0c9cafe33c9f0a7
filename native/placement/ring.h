// Which blocks of a model have room on a device at the moment, which is brought next and in whose
// place. Pure logic: no memory, no thread, no clock.
//
// Blocks are used in an order that repeats (token after token). A few slots circulate: while one
// block is computed with, the next ones are brought. Blocks that are resident have slots of their
// own, are brought once, and stay.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <vector>

namespace tf::placement {

inline constexpr size_t kNone = std::numeric_limits<size_t>::max();

// Which of `blocks` (bytes of each, in the order of use) stay when `slots` of them fit at once, of
// which `circulating` are needed for the others. They are spread evenly, so that what is computed
// with them hides the copies of those between.
std::vector<bool> SpreadResidents(size_t blocks, size_t slots, size_t circulating);
// The same for room of `budget` bytes: so many that they and the circulating slots, each as large
// as the largest of the others, fit.
std::vector<bool> SpreadResidents(const std::vector<size_t>& bytes,
                                  size_t budget,
                                  size_t circulating);

class Ring {
 public:
  struct Load {
    size_t block;
    size_t slot;
    size_t evicted = kNone;  // the block that was there
  };

  // `slots` circulate among the blocks that are not resident; slots of residents have the numbers
  // from there on. `depth`: so many blocks are brought ahead of the one in use.
  Ring(std::vector<bool> resident, size_t slots, size_t depth);

  size_t slots() const { return slots_.size(); }
  // The slot where a block is or is being brought to; kNone.
  size_t SlotOf(size_t block) const { return slot_of_[block]; }
  bool IsThere(size_t block) const;

  // The order of use, which repeats; a block may come several times. At first 0, 1, 2, …
  void SetOrder(std::vector<size_t> order);
  const std::vector<size_t>& order() const { return order_; }

  // The block is used from now on: the order goes on from here.
  void Use(size_t block);
  // While it is pinned a block keeps its slot. Pins nest.
  void Pin(size_t block);
  void Unpin(size_t block);
  size_t pins(size_t block) const;
  // Somebody waits for the block: once it is there, it stays until it was pinned. Claims nest.
  void Claim(size_t block) { ++claims_[block]; }
  void Unclaim(size_t block) { --claims_[block]; }

  // What to bring now for a block that is wanted at once, or ahead. Takes the slot: whoever asks
  // brings it, and says Loaded or Failed. Nothing: it is there or on its way, or there is no room.
  std::optional<Load> Demand(size_t block);
  std::optional<Load> Ahead();
  void Loaded(size_t block);
  // It is not brought ahead again; a demand tries once more.
  void Failed(size_t block);

 private:
  struct Slot {
    size_t block = kNone;
    size_t pins = 0;
    bool loading = false;
  };

  // Steps until a block is used after the position; the length of the order and more: never.
  size_t Distance(size_t block) const;
  // A slot for a block whose next use is `distance` steps away: a free one, or that of the block
  // that is used last of all, and later than this one.
  size_t Room(size_t block, size_t distance) const;
  Load Take(size_t block, size_t slot);

  std::vector<size_t> own_;  // per block: the slot of a resident
  std::vector<size_t> slot_of_;
  std::vector<size_t> claims_;
  std::vector<bool> failed_;
  std::vector<Slot> slots_;
  size_t circulating_;
  size_t depth_;
  std::vector<size_t> order_;
  size_t position_;  // in the order, of the block used last
};

}  // namespace tf::placement
