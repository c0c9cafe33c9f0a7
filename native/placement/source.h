// Where the bytes of a block come from: memory, or a part of a mapped file; and how a file's part
// is brought into the page cache and out of it. Knows no libtorch.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "native/io/mapping.h"

namespace tf::placement {

// Bytes that stay where they are. `file`: they lie in its mapping, and are read from the disk when
// they are touched.
struct Source {
  const std::byte* from = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const io::MappedFile> file;
  // Keeps the bytes where they are, for copies that outlast whoever asked for them.
  std::shared_ptr<const void> owner;
};

// Reads a file's part ahead of its use, in large pieces: they are in the page cache and in this
// process's page tables when it returns. Large parts are read by two threads, which a disk is
// faster with. A file that became shorter is a MappingFault. Stops early when `stop` says so.
class FileReader {
 public:
  FileReader();
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // Calls `arrived(offset, bytes)` for each piece once it is there, on either thread.
  void Read(const Source& source,
            const std::function<bool()>& stop,
            const std::function<void(size_t, size_t)>& arrived);
  // Bytes that had to come from the disk.
  uint64_t disk_bytes() const { return disk_bytes_.load(std::memory_order_relaxed); }

  static constexpr size_t kPiece = size_t{4} << 20;

 private:
  struct Opened;
  // What a thread needs for itself.
  struct Lane {
    std::unique_ptr<std::byte[]> scratch;
    std::vector<unsigned char> present;
  };
  void ReadPiece(const Source& source, size_t at, size_t bytes, Lane& lane);

  Lane lanes_[2];
  std::unique_ptr<Opened> opened_;
  std::atomic<uint64_t> disk_bytes_{0};
};

// Gives a part's memory back to the system: pages of the file leave the process and the page cache,
// pages that were written stay as they are. A hint: nothing is lost and nothing may happen.
void LetGo(const Source& source);

}  // namespace tf::placement
