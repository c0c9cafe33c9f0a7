#include "native/placement/ring.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace tf::placement {
namespace {

// `count` of `blocks`, as evenly as can be, the first block among those that are not.
std::vector<bool> Spread(size_t blocks, size_t count) {
  std::vector<bool> resident(blocks, false);
  for (size_t i = 0; i < blocks; ++i) resident[i] = (i + 1) * count / blocks > i * count / blocks;
  return resident;
}

}  // namespace

std::vector<bool> SpreadResidents(size_t blocks, size_t slots, size_t circulating) {
  if (slots >= blocks) return std::vector<bool>(blocks, true);
  return Spread(blocks, slots > circulating ? slots - circulating : 0);
}

std::vector<bool> SpreadResidents(const std::vector<size_t>& bytes,
                                  size_t budget,
                                  size_t circulating) {
  const size_t blocks = bytes.size();
  if (std::accumulate(bytes.begin(), bytes.end(), size_t{0}) <= budget)
    return std::vector<bool>(blocks, true);
  for (size_t count = blocks; count > 0; --count) {
    std::vector<bool> resident = Spread(blocks, count);
    size_t stays = 0;
    size_t largest = 0;
    size_t others = 0;
    for (size_t i = 0; i < blocks; ++i) {
      if (resident[i]) {
        stays += bytes[i];
      } else {
        largest = std::max(largest, bytes[i]);
        ++others;
      }
    }
    if (stays + std::min(others, circulating) * largest <= budget) return resident;
  }
  return std::vector<bool>(blocks, false);
}

Ring::Ring(std::vector<bool> resident, size_t slots, size_t depth)
    : own_(resident.size(), kNone),
      slot_of_(resident.size(), kNone),
      claims_(resident.size(), 0),
      failed_(resident.size(), false),
      circulating_(slots),
      depth_(depth),
      order_(resident.size()) {
  if (resident.empty()) throw std::invalid_argument("a ring needs a block");
  size_t next = slots;
  for (size_t i = 0; i < resident.size(); ++i)
    if (resident[i]) own_[i] = next++;
  if (slots == 0 && next < resident.size())
    throw std::invalid_argument("blocks that are not resident need a slot");
  slots_.resize(next);
  std::iota(order_.begin(), order_.end(), size_t{0});
  position_ = order_.size() - 1;
}

bool Ring::IsThere(size_t block) const {
  return slot_of_[block] != kNone && !slots_[slot_of_[block]].loading;
}

void Ring::SetOrder(std::vector<size_t> order) {
  if (order.empty() || order == order_) return;
  for (const size_t block : order)
    if (block >= slot_of_.size()) throw std::out_of_range("there is no such block");
  order_ = std::move(order);
  position_ = order_.size() - 1;
}

void Ring::Use(size_t block) {
  const size_t distance = Distance(block);
  if (distance <= order_.size()) position_ = (position_ + distance) % order_.size();
}

size_t Ring::Distance(size_t block) const {
  for (size_t step = 1; step <= order_.size(); ++step)
    if (order_[(position_ + step) % order_.size()] == block) return step;
  return order_.size() + 1;
}

void Ring::Pin(size_t block) { ++slots_[slot_of_[block]].pins; }

void Ring::Unpin(size_t block) {
  const size_t slot = slot_of_[block];
  if (slot == kNone || slots_[slot].pins == 0)
    throw std::logic_error("a block was released that nobody had acquired");
  --slots_[slot].pins;
}

size_t Ring::pins(size_t block) const {
  return slot_of_[block] == kNone ? 0 : slots_[slot_of_[block]].pins;
}

size_t Ring::Room(size_t block, size_t distance) const {
  if (own_[block] != kNone) return slots_[own_[block]].block == kNone ? own_[block] : kNone;
  size_t best = kNone;
  size_t farthest = distance;
  for (size_t slot = 0; slot < circulating_; ++slot) {
    const Slot& each = slots_[slot];
    if (each.block == kNone) return slot;
    if (each.pins > 0 || each.loading || claims_[each.block] > 0) continue;
    const size_t its = Distance(each.block);
    if (its <= farthest) continue;
    farthest = its;
    best = slot;
  }
  return best;
}

Ring::Load Ring::Take(size_t block, size_t slot) {
  Slot& taken = slots_[slot];
  const size_t evicted = std::exchange(taken.block, block);
  if (evicted != kNone) slot_of_[evicted] = kNone;
  taken.loading = true;
  failed_[block] = false;
  slot_of_[block] = slot;
  return {block, slot, evicted};
}

std::optional<Ring::Load> Ring::Demand(size_t block) {
  if (slot_of_[block] != kNone) return std::nullopt;
  // It is wanted now, whatever is used next.
  const size_t slot = Room(block, 0);
  if (slot == kNone) return std::nullopt;
  return Take(block, slot);
}

std::optional<Ring::Load> Ring::Ahead() {
  // When the last block is done with, its place in the window is the next one's.
  const size_t window = depth_ == 0 ? 0 : depth_ + (pins(order_[position_]) == 0 ? 1 : 0);
  std::vector<size_t> met;
  for (size_t step = 1; step <= order_.size() && met.size() < window; ++step) {
    const size_t block = order_[(position_ + step) % order_.size()];
    if (std::find(met.begin(), met.end(), block) != met.end()) continue;
    if (failed_[block]) {
      met.push_back(block);
    } else if (slot_of_[block] == kNone) {
      const size_t slot = Room(block, step);
      if (slot == kNone) return std::nullopt;
      return Take(block, slot);
    } else if (own_[block] == kNone || slots_[slot_of_[block]].loading) {
      // Residents that are there take no part.
      met.push_back(block);
    }
  }
  return std::nullopt;
}

void Ring::Loaded(size_t block) { slots_[slot_of_[block]].loading = false; }

void Ring::Failed(size_t block) {
  slots_[slot_of_[block]] = Slot();
  slot_of_[block] = kNone;
  failed_[block] = true;
}

}  // namespace tf::placement
