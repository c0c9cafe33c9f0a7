// The engine that brings blocks to a device: its order of loads, its memory, its threads.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "native/placement/limited_device.h"
#include "native/placement/ring.h"
#include "native/placement/streamer.h"
#include "native/test/check.h"

using namespace tf::placement;
using tf::io::MappedFile;

namespace {

std::string scratch;

std::string Text(const std::optional<Ring::Load>& load) {
  if (!load) return "-";
  std::string text = std::to_string(load->block) + "@" + std::to_string(load->slot);
  if (load->evicted != kNone) text += " for " + std::to_string(load->evicted);
  return text;
}

std::string Text(const std::vector<bool>& flags) {
  std::string text;
  for (const bool flag : flags) text += flag ? 'R' : '.';
  return text;
}

// Blocks of memory whose bytes say which block and part they are.
struct Model {
  using Data = std::vector<std::vector<std::vector<std::byte>>>;
  std::shared_ptr<Data> owner = std::make_shared<Data>();
  Data& data = *owner;

  Model(size_t blocks, std::vector<size_t> parts) {
    for (size_t i = 0; i < blocks; ++i) {
      data.emplace_back();
      for (size_t k = 0; k < parts.size(); ++k)
        data[i].emplace_back(parts[k], static_cast<std::byte>(1 + i * parts.size() + k));
    }
  }
  std::vector<StreamedBlock> Blocks() const {
    std::vector<StreamedBlock> blocks;
    for (const auto& parts : data) {
      std::vector<Source> sources;
      for (const auto& part : parts) sources.push_back({part.data(), part.size(), nullptr, owner});
      blocks.push_back(StreamedBlock::Pack(std::move(sources)));
    }
    return blocks;
  }
  bool Holds(const Streamer& streamer, size_t block) const {
    for (size_t k = 0; k < data[block].size(); ++k) {
      if (std::memcmp(streamer.At(block, k), data[block][k].data(), data[block][k].size()) != 0)
        return false;
    }
    return true;
  }
};

std::shared_ptr<LimitedDevice> Limited(size_t capacity, double bandwidth = 0) {
  return std::make_shared<LimitedDevice>("limited:0", capacity, bandwidth);
}

void Settle() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

}  // namespace

// --- ring ----------------------------------------------------------------------------------------

TEST("a ring refuses what cannot be") {
  CHECK_THROWS(std::invalid_argument, Ring({}, 1, 1), "needs a block");
  CHECK_THROWS(std::invalid_argument, Ring({true, false}, 0, 1), "need a slot");
  Ring ring({false, false}, 1, 1);
  CHECK_THROWS(std::logic_error, ring.Unpin(0), "nobody had acquired");
  CHECK_THROWS(std::out_of_range, ring.SetOrder({0, 2}), "no such block");
}

TEST("blocks are brought ahead in the order of use, which wraps to the next token") {
  Ring ring(std::vector<bool>(4, false), 2, 1);
  CHECK_EQ(Text(ring.Ahead()), "0@0");
  CHECK_EQ(Text(ring.Ahead()), "1@1");
  CHECK_EQ(Text(ring.Ahead()), "-");
  ring.Loaded(0);
  ring.Loaded(1);
  for (size_t use = 0; use < 9; ++use) {
    const size_t block = use % 4;
    ring.Use(block);
    ring.Pin(block);
    CHECK(ring.IsThere(block));
    CHECK_EQ(Text(ring.Ahead()), "-");
    ring.Unpin(block);
    const size_t next = (use + 2) % 4;
    CHECK_EQ(
        Text(ring.Ahead()),
        std::to_string(next) + "@" + std::to_string(use % 2) + " for " + std::to_string(block));
    ring.Loaded(next);
  }
}

TEST("what is used last of all makes room, and pinned and claimed blocks never do") {
  Ring ring(std::vector<bool>(5, false), 3, 2);
  for (int i = 0; i < 3; ++i) ring.Loaded(ring.Ahead()->block);
  ring.Use(0);
  ring.Pin(0);
  CHECK_EQ(Text(ring.Demand(4)), "4@2 for 2");
  ring.Loaded(4);
  ring.Claim(4);
  CHECK_EQ(Text(ring.Demand(3)), "3@1 for 1");
  CHECK_EQ(Text(ring.Demand(2)), "-");  // 0 is pinned, 3 on its way, 4 claimed
  ring.Failed(3);
  CHECK_EQ(Text(ring.Ahead()), "1@1");
}

TEST("a block that could not be brought is not tried ahead again, but on demand") {
  Ring ring(std::vector<bool>(3, false), 2, 1);
  CHECK_EQ(Text(ring.Ahead()), "0@0");
  CHECK_EQ(Text(ring.Ahead()), "1@1");
  ring.Loaded(0);
  ring.Failed(1);
  CHECK_EQ(Text(ring.Ahead()), "-");
  CHECK_EQ(Text(ring.Demand(1)), "1@1");
}

TEST("residents are spread, brought once, and stay") {
  CHECK_EQ(Text(SpreadResidents(8, 6, 2)), ".R.R.R.R");
  CHECK_EQ(Text(SpreadResidents(6, 3, 2)), ".....R");
  CHECK_EQ(Text(SpreadResidents(3, 3, 2)), "RRR");
  CHECK_EQ(Text(SpreadResidents(3, 1, 2)), "...");
  CHECK_EQ(Text(SpreadResidents({10, 10, 10, 10}, 39, 2)), "...R");
  CHECK_EQ(Text(SpreadResidents({10, 10, 10, 10}, 40, 2)), "RRRR");
  CHECK_EQ(Text(SpreadResidents({10, 10, 10, 10}, 29, 2)), "....");
  CHECK_EQ(Text(SpreadResidents({100, 1, 1, 1}, 50, 1)), "....");

  Ring ring({false, true, false, true}, 1, 1);
  for (int token = 0; token < 3; ++token) {
    for (size_t block = 0; block < 4; ++block) {
      while (const auto load = ring.Ahead()) {
        CHECK(token == 0 || load->block % 2 == 0);
        ring.Loaded(load->block);
      }
      ring.Use(block);
      CHECK(ring.IsThere(block));
      ring.Pin(block);
      ring.Unpin(block);
    }
  }
}

TEST("an order may name a block several times, and not all blocks") {
  Ring ring(std::vector<bool>(4, false), 2, 1);
  ring.SetOrder({3, 0, 3, 1});
  CHECK_EQ(Text(ring.Ahead()), "3@0");
  CHECK_EQ(Text(ring.Ahead()), "0@1");
  ring.Loaded(3);
  ring.Loaded(0);
  ring.Use(3);
  ring.Use(0);
  // 3 comes again before 1, so 0 makes room.
  CHECK_EQ(Text(ring.Ahead()), "1@1 for 0");
}

// --- devices -------------------------------------------------------------------------------------

TEST("memory that is out is an error with names and numbers, and holes are filled") {
  const auto device = Limited(1024);
  CHECK_THROWS(DeviceFull,
               device->Allocate(1025),
               "limited:0 has no room for 1280 bytes: 1024 of 1024 are free");
  std::byte* a = device->Allocate(1);
  std::byte* b = device->Allocate(300);
  std::byte* c = device->Allocate(256);
  CHECK_EQ(device->used(), 1024u);
  CHECK_EQ(b - a, 256);
  CHECK_THROWS(DeviceFull, device->Allocate(1), "0 of 1024 are free");
  device->Free(b);
  CHECK_EQ(device->used(), 512u);
  CHECK_EQ(device->Allocate(512), b);
  device->Free(c);
  device->Free(a);
  device->Free(b);
  CHECK_EQ(device->used(), 0u);
  CHECK_EQ(device->Allocate(1024), a);
}

TEST("copies take as long as the bandwidth says, and may be given up") {
  const auto device = Limited(size_t{8} << 20, 100e6);
  const std::vector<std::byte> from(size_t{4} << 20, std::byte{7});
  std::byte* to = device->Allocate(from.size());
  std::atomic<int> done = 0;
  const auto began = std::chrono::steady_clock::now();
  device->CopyAsync({{{to, from.data(), from.size()}}, nullptr, [&](auto) { done = 1; }});
  while (done.load() == 0) std::this_thread::yield();
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  CHECK(took >= 0.04);
  CHECK_EQ(std::memcmp(to, from.data(), from.size()), 0);

  const auto cancelled = std::make_shared<std::atomic<bool>>(true);
  device->CopyAsync({{{to, from.data(), from.size()}}, cancelled, [&](auto) { done = 2; }});
  while (done.load() == 1) std::this_thread::yield();
  CHECK_EQ(device->bytes_copied(), from.size());
}

// --- streamer ------------------------------------------------------------------------------------

TEST("each block has its bytes, token after token, with any number of slots") {
  const Model model(7, {1000, 5000, 1});
  for (size_t slots = 1; slots <= 8; ++slots) {
    for (const size_t depth : {1, 3}) {
      const auto device = Limited(size_t{1} << 20);
      Streamer streamer(device, model.Blocks(), {.slots = slots, .depth = depth});
      for (int token = 0; token < 4; ++token) {
        for (size_t block = 0; block < 7; ++block) {
          streamer.Acquire(block);
          CHECK(model.Holds(streamer, block));
          streamer.Release(block);
        }
      }
      const StreamerStats stats = streamer.stats();
      CHECK_EQ(stats.uses, 28u);
      CHECK_EQ(stats.room, device->used());
      if (slots >= 7) CHECK_EQ(stats.loads, 7u);
    }
  }
}

TEST("a device that is too small says so, and keeps nothing") {
  const Model model(4, {1024});
  const auto device = Limited(3000);
  CHECK_THROWS(DeviceFull,
               Streamer(device, model.Blocks(), {.slots = 3}),
               "no room for 1024 bytes: 952 of 3000 are free");
  CHECK_EQ(device->used(), 0u);
  {
    Streamer streamer(device, model.Blocks(), {.slots = 2});
  }
  while (device->used() > 0) std::this_thread::yield();
}

TEST("what is in use is never overwritten, and too much in use is an error") {
  const Model model(5, {4096});
  Streamer streamer(Limited(1 << 16), model.Blocks(), {.slots = 2});
  streamer.Acquire(0);
  streamer.Acquire(3);
  CHECK_THROWS(NoSlot, streamer.Acquire(1), "2 are in use at once");
  CHECK(model.Holds(streamer, 0));
  CHECK(model.Holds(streamer, 3));
  streamer.Release(0);
  streamer.Acquire(1);
  CHECK(model.Holds(streamer, 1));
  CHECK_THROWS(std::runtime_error, streamer.Release(0), "had not been acquired");
}

TEST(
    "the next block comes while one is computed with, and in the synchronous mode when asked for") {
  const Model model(6, {1 << 16});
  for (const bool synchronous : {false, true}) {
    const auto device = Limited(1 << 23, 50e6);
    const size_t slots = synchronous ? 1 : 2;
    Streamer streamer(device, model.Blocks(), {.slots = slots, .synchronous = synchronous});
    for (size_t use = 0; use < 12; ++use) {
      streamer.Acquire(use % 6);
      CHECK(model.Holds(streamer, use % 6));
      // Compute that lasts until the copy behind it has ended.
      const size_t come = (use + 1 + (synchronous ? 0 : 1)) << 16;
      while (device->bytes_copied() < come) std::this_thread::yield();
      Settle();
      CHECK_EQ(device->bytes_copied(), come);
      streamer.Release(use % 6);
    }
    const StreamerStats stats = streamer.stats();
    CHECK_EQ(stats.uses, 12u);
    if (synchronous) {
      CHECK_EQ(stats.waits, 12u);
      CHECK_EQ(stats.hidden, 0);
    } else {
      CHECK(stats.waits <= 1);
      CHECK(stats.hidden > 0);
    }
    CHECK(stats.exposed > 0 || !synchronous);
  }
}

TEST("who cannot wait is told, and many at once get what they ask for") {
  const Model model(6, {20000});
  const auto device = Limited(1 << 20, 50e6);
  auto streamer = std::make_shared<Streamer>(device, model.Blocks(), StreamerOptions{.slots = 2});
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        const size_t block = static_cast<size_t>((i * (t + 1) + t) % 6);
        std::atomic<bool> told = false;
        for (bool again = false; !streamer->TryAcquire(block,
                                                       again,
                                                       [&] {
                                                         told = true;
                                                         told.notify_one();
                                                       });
             again = true) {
          told.wait(false);
          told = false;
        }
        if (!model.Holds(*streamer, block)) ++wrong;
        streamer->Unpin(block);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

TEST("the end in the middle of a copy takes no longer than a piece of it") {
  const Model model(4, {size_t{8} << 20});
  const auto device = Limited(size_t{32} << 20, 20e6);  // a block takes 0.4 s
  std::exception_ptr failure;
  {
    Streamer streamer(device, model.Blocks(), {.slots = 2});
    std::thread waiting([&] {
      try {
        streamer.Acquire(1);
      } catch (...) {
        failure = std::current_exception();
      }
    });
    Settle();
    streamer.Close();
    waiting.join();
  }
  CHECK(failure != nullptr);
  CHECK_THROWS(StreamerClosed, std::rethrow_exception(failure), "disposed of");
  while (device->used() > 0) std::this_thread::yield();
  CHECK(device->bytes_copied() < size_t{8} << 20);
}

TEST("blocks come out of files, on a device and in place") {
  const std::string path = scratch + "/blocks";
  const size_t bytes = (size_t{5} << 20) + 123;
  {
    std::ofstream out(path, std::ios::binary);
    for (int i = 0; i < 4; ++i) out << std::string(bytes, static_cast<char>('a' + i));
  }
  const std::shared_ptr<MappedFile> file = MappedFile::Open(path);
  const auto blocks = [&] {
    std::vector<StreamedBlock> all;
    for (size_t i = 0; i < 4; ++i) {
      const auto* from = reinterpret_cast<const std::byte*>(file->bytes().data()) + i * bytes;
      all.push_back(
          StreamedBlock::Pack({{from, 1000, file, file}, {from + 1000, bytes - 1000, file, file}}));
    }
    return all;
  };
  for (const bool in_place : {false, true}) {
    const int fd = open(path.c_str(), O_RDONLY);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    Streamer streamer(
        in_place ? nullptr : Limited(size_t{32} << 20), blocks(), {.slots = 2, .lets_go = true});
    for (int token = 0; token < 2; ++token) {
      for (size_t i = 0; i < 4; ++i) {
        streamer.Acquire(i);
        const std::byte wanted{static_cast<unsigned char>('a' + i)};
        const std::byte* part = streamer.At(i, 1);
        CHECK(part[0] == wanted && part[bytes - 1001] == wanted);
        CHECK(streamer.At(i, 0)[999] == wanted);
        streamer.Release(i);
      }
    }
  }
  unlink(path.c_str());
}

TEST("a file that shrinks is an error that names it, and the others still come") {
  const std::string path = scratch + "/shrinks";
  const size_t bytes = size_t{1} << 20;
  std::ofstream(path, std::ios::binary) << std::string(4 * bytes, 'x');
  const std::shared_ptr<MappedFile> file = MappedFile::Open(path);
  std::vector<StreamedBlock> blocks;
  for (size_t i = 0; i < 4; ++i) {
    const auto* from = reinterpret_cast<const std::byte*>(file->bytes().data()) + i * bytes;
    blocks.push_back(StreamedBlock::Pack({{from, bytes, file, file}}));
  }
  Streamer streamer(Limited(size_t{8} << 20), blocks, {.slots = 1});
  streamer.Acquire(0);
  CHECK_EQ(truncate(path.c_str(), static_cast<off_t>(2 * bytes)), 0);
  streamer.Release(0);
  for (int i = 0; i < 2; ++i)
    CHECK_THROWS(tf::io::MappingFault, streamer.Acquire(3), "shrinks' became shorter");
  unlink(path.c_str());
}

int main(int count, char** arguments) {
  scratch = count > 1 ? arguments[1] : "/tmp";
  return tf::test::RunTests();
}
