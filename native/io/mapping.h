// Files mapped into memory, and what happens when one shrinks under its mapping. Knows no libtorch
// and no Node.
//
// Touching a page that its file no longer has raises SIGBUS. Our handler finds the mapping in a
// table that it can read without a lock, puts a page of zeros there, marks the mapping as failed
// and lets the thread go on; nothing computed from such a page may be handed out, which
// MappingFault and CheckMapped see to.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace tf::io {

// A system call on a file failed; what() names the file.
class FileError : public std::runtime_error {
 public:
  FileError(const std::string& action, const std::string& path, int error);
  int error() const { return error_; }

 private:
  int error_;
};

// A mapped file became shorter while it was in use.
class MappingFault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A whole file, mapped copy-on-write. It stays mapped until the last reference to it is gone.
class MappedFile {
 public:
  // Opens and maps; throws FileError. A directory or a pipe is an error, an empty file is not.
  static std::shared_ptr<MappedFile> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // False where the system grants no copy-on-write mapping of this size (strict overcommit): copy
  // before a write.
  bool writable() const { return writable_; }
  // Copies bytes out by read calls: a page that is missing is a MappingFault at once. Not after
  // CloseDescriptor.
  void Read(size_t offset, std::span<uint8_t> into) const;
  // The mapping does not need the open file; a model may have hundreds of them.
  void CloseDescriptor();
  // Opens the file again for reading. -1 when another file stands at the path by now, or none: then
  // what the mapping shows is to be used. The caller closes it.
  int Reopen() const;

 private:
  friend struct FaultTable;
  MappedFile() = default;

  std::string path_;
  int fd_ = -1;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  uint64_t device_ = 0;  // with the inode: which file it is, whatever its path names later
  uint64_t inode_ = 0;
  bool registered_ = false;
  bool writable_ = false;
};

namespace detail {
extern std::atomic<uint32_t> unreported_faults;
extern std::atomic<uint32_t> failed_mappings;
void ThrowUnreportedFault();
void ThrowIfFailed(const void* address);
}  // namespace detail

// Bytes of all mappings alive in the process.
uint64_t MappedBytes();

// After work that may have read mapped memory: throws MappingFault if a page was missing since the
// last call.
inline void CheckMappingFaults() {
  if (detail::unreported_faults.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    detail::ThrowUnreportedFault();
  }
}

// Before a tensor's memory is used: throws MappingFault if it lies in a mapping that has failed.
inline void CheckMapped(const void* address) {
  if (detail::failed_mappings.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    detail::ThrowIfFailed(address);
  }
}

}  // namespace tf::io
