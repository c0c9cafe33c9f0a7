// Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never
// a part. Knows no libtorch and no Node.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace tf::io {

// A temporary file beside its goal. Commit() makes it durable and moves it over the goal; without
// it nothing stays. All methods throw FileError, which names the goal.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Takes the room for so many bytes now, so that a full disk shows before the work is done. Does
  // nothing where the file system cannot.
  void Reserve(size_t size);
  void Write(std::span<const char> bytes);
  void Commit();

 private:
  [[noreturn]] void Fail(int error) const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  size_t written_ = 0;
};

}  // namespace tf::io
