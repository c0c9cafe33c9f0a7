// Tests of the table behind handles: what a stale, forged or reused number finds.
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>

#include "native/tensor/slots.h"
#include "native/test/check.h"

using namespace tf;  // NOLINT: the room under test

namespace {

TEST("handles: a number that cannot be one is none") {
  for (const double number : {0.0,
                              -1.0,
                              0.5,
                              1.5,
                              -0.0,
                              std::nan(""),
                              std::numeric_limits<double>::infinity(),
                              -std::numeric_limits<double>::infinity(),
                              9007199254740992.0,
                              1e300}) {
    CHECK_EQ(HandleFromNumber(number), kNoHandle);
  }
  CHECK_EQ(HandleFromNumber(9007199254740991.0), Handle{9007199254740991});
  const Handle largest = MakeHandle(kMaxSlots - 1, kMaxGeneration);
  CHECK_EQ(HandleFromNumber(static_cast<double>(largest)), largest);
}

TEST("handles: found while alive, never after") {
  Slots<std::string> slots;
  const Handle first = slots.Add("first");
  const Handle second = slots.Add("second");
  CHECK(first != kNoHandle && second != kNoHandle && first != second);
  CHECK_EQ(*slots.Find(first), "first");
  CHECK(slots.Remove(first));
  CHECK(slots.Find(first) == nullptr);
  CHECK(!slots.Remove(first));
  CHECK(slots.Knows(first));
  const Handle third = slots.Add("third");  // the same slot, another handle
  CHECK(third != first);
  CHECK(slots.Find(first) == nullptr);
  CHECK_EQ(*slots.Find(third), "third");
  CHECK_EQ(slots.live(), 2u);
}

TEST("handles: forged ones find nothing") {
  Slots<int> slots;
  const Handle handle = slots.Add(7);
  CHECK(slots.Find(kNoHandle) == nullptr);
  CHECK(slots.Find(handle + 1) == nullptr);
  CHECK(slots.Find(handle + (Handle{1} << kSlotBits)) == nullptr);
  CHECK(!slots.Knows(kNoHandle));
  CHECK(!slots.Knows(handle + 1));
  CHECK(!slots.Knows(handle + (Handle{1} << kSlotBits)));
  CHECK(slots.Find(std::numeric_limits<Handle>::max()) == nullptr);
}

TEST("handles: a removed value is destroyed at once, and addresses stay") {
  Slots<std::shared_ptr<int>> slots;
  const auto value = std::make_shared<int>(1);
  const Handle handle = slots.Add(value);
  const std::shared_ptr<int>* address = slots.Find(handle);
  for (int i = 0; i < 20'000; ++i) slots.Add(nullptr);
  CHECK(slots.Find(handle) == address);
  CHECK_EQ(value.use_count(), 2);
  slots.Remove(handle);
  CHECK_EQ(value.use_count(), 1);
}

TEST("handles: a random history against a map") {
  Slots<uint64_t> slots;
  std::unordered_map<Handle, uint64_t> expected;
  std::vector<Handle> all;
  std::mt19937_64 random(3);
  for (uint64_t i = 1; i <= 200'000; ++i) {
    if (random() % 2 == 0 || all.empty()) {
      const Handle handle = slots.Add(i);
      CHECK(expected.emplace(handle, i).second);
      all.push_back(handle);
    } else {
      const Handle handle = all[random() % all.size()];
      CHECK_EQ(slots.Remove(handle), expected.erase(handle) == 1);
    }
  }
  CHECK_EQ(slots.live(), expected.size());
  size_t visited = 0;
  slots.ForEach([&](Handle handle, uint64_t value) {
    ++visited;
    CHECK_EQ(expected.at(handle), value);
  });
  CHECK_EQ(visited, expected.size());
  for (const Handle handle : all)
    CHECK_EQ(slots.Find(handle) != nullptr, expected.contains(handle));
}

}  // namespace

int main() { return tf::test::RunTests(); }
