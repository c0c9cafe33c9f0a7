// Files and folders for JavaScript, beyond what Node offers: exchange, locks, read-ahead, mapped
// bytes.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/io/folder.h"
#include "native/io/open_files.h"
#include "native/tensor/storage_kind.h"

namespace tf {
namespace {

bool ExchangePaths(Environment&, const std::string& a, const std::string& b) {
  return io::ExchangePaths(a, b);
}

// The lock ends with the descriptor.
class Lock {
 public:
  Lock() = default;
  explicit Lock(int fd) : fd_(fd) {}
  Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Lock& operator=(Lock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Lock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  int fd_ = -1;
};

// JavaScript holds handles, since a number of its own choice could close anybody's file. An
// environment that ends gives back what it holds.
struct Locks {
  explicit Locks(Environment&) {}
  Slots<Lock> held;
};

double LockPath(Environment& environment, const std::string& path) {
  const int fd = io::LockPath(path);
  return fd < 0 ? -1 : static_cast<double>(environment.Room<Locks>().held.Add(Lock(fd)));
}

void UnlockPath(Environment& environment, double lock) {
  environment.Room<Locks>().held.Remove(HandleFromNumber(lock));
}

// [file, begin, end] of each part to be read ahead, in order. A detached thread asks for them: it
// makes system calls only, and may end with the process at any moment.
void ReadAhead(Environment& environment,
               const std::vector<Handle>& files,
               const std::vector<int64_t>& indices) {
  struct Part {
    std::shared_ptr<io::MappedFile> mapping;
    size_t begin;
    size_t end;
  };
  std::vector<Part> parts;
  for (size_t i = 0; i < files.size() && i < indices.size(); ++i) {
    const io::SafetensorsFile& file = OpenFiles::File(environment, files[i]);
    const io::SafetensorsEntry& entry = OpenFiles::Entry(file, indices[i]);
    parts.push_back({file.mapping, file.data_offset + entry.begin, file.data_offset + entry.end});
  }
  try {
    std::thread([parts = std::move(parts)] {
      const io::MappedFile* opened = nullptr;
      int fd = -1;
      for (const Part& part : parts) {
        if (part.mapping.get() != opened) {
          if (fd >= 0) close(fd);
          opened = part.mapping.get();
          fd = opened->Reopen();
        }
        if (fd >= 0) io::ReadAhead(fd, part.begin, part.end);
      }
      if (fd >= 0) close(fd);
    }).detach();
  } catch (const std::system_error&) {
    // No thread to be had: the pages are read when they are touched.
  }
}

void ReleaseBytes(void* context) { delete static_cast<std::shared_ptr<io::MappedFile>*>(context); }

// A file's bytes as an uint8 tensor over its mapping, copy-on-write.
Handle MapBytes(Environment& environment, Owner owner, const std::string& path) {
  std::shared_ptr<io::MappedFile> mapping = io::MappedFile::Open(path);
  mapping->CloseDescriptor();
  const auto size = static_cast<int64_t>(mapping->bytes().size());
  const auto options = at::TensorOptions().dtype(at::kByte);
  at::Tensor tensor;
  if (size > 0 && mapping->writable()) {
    uint8_t* data = mapping->bytes().data();
    auto* keep = new std::shared_ptr<io::MappedFile>(std::move(mapping));
    tensor = at::for_blob(data, {size}).context(keep, &ReleaseBytes).options(options).make_tensor();
  } else {
    tensor = at::empty({size}, options);
    if (size > 0)
      std::memcpy(tensor.data_ptr(), mapping->bytes().data(), static_cast<size_t>(size));
    io::CheckMappingFaults();
  }
  return environment.tensors().Add(std::move(tensor), owner.value);
}

}  // namespace

void InitFiles(Exports& exports) {
  MarkDeleter(&ReleaseBytes, StorageKind::kMapped);
  exports.Function<"exchangePaths", ExchangePaths>();
  exports.Function<"lockPath", LockPath>();
  exports.Function<"unlockPath", UnlockPath>();
  exports.Function<"readAhead", ReadAhead>();
  exports.Function<"mapBytes", MapBytes>();
}

}  // namespace tf
