#include "native/placement/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace tf::placement {
namespace {

size_t PageSize() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// The whole pages around, or within, some bytes.
struct Pages {
  std::byte* begin;
  size_t bytes;
};

Pages Around(const std::byte* from, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(from) & ~(PageSize() - 1);
  const auto end = (reinterpret_cast<uintptr_t>(from) + bytes + PageSize() - 1) & ~(PageSize() - 1);
  return {reinterpret_cast<std::byte*>(begin), end - begin};
}

Pages Within(const std::byte* from, size_t bytes) {
  const auto begin = (reinterpret_cast<uintptr_t>(from) + PageSize() - 1) & ~(PageSize() - 1);
  const auto end = (reinterpret_cast<uintptr_t>(from) + bytes) & ~(PageSize() - 1);
  return {reinterpret_cast<std::byte*>(begin), end > begin ? end - begin : 0};
}

// Whether all pages are in memory, so that reading them would be in vain.
bool IsCached(const Pages& pages, std::vector<unsigned char>& present) {
  present.resize(pages.bytes / PageSize());
  if (mincore(pages.begin, pages.bytes, present.data()) != 0) return false;
  return std::all_of(
      present.begin(), present.end(), [](unsigned char page) { return (page & 1) != 0; });
}

}  // namespace

struct FileReader::Opened {
  explicit Opened(std::shared_ptr<const io::MappedFile> opened)
      : file(std::move(opened)), fd(file->Reopen()) {
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~Opened() {
    if (fd >= 0) close(fd);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  const std::shared_ptr<const io::MappedFile> file;
  const int fd;  // -1: its path names another file, or none
  std::vector<unsigned char> present;
};

FileReader::FileReader() = default;
FileReader::~FileReader() = default;

const FileReader::Opened& FileReader::Open(const std::shared_ptr<const io::MappedFile>& file) {
  if (!opened_ || opened_->file != file) opened_ = std::make_unique<Opened>(file);
  return *opened_;
}

void FileReader::Read(const Source& source,
                      const std::function<bool()>& stop,
                      const std::function<void(size_t, size_t)>& arrived) {
  const Opened& opened = Open(source.file);
  const auto* base = reinterpret_cast<const std::byte*>(source.file->bytes().data());
  if (!scratch_) scratch_ = std::make_unique<std::byte[]>(kPiece);
  for (size_t at = 0; at < source.bytes && !stop(); at += kPiece) {
    const size_t bytes = std::min(kPiece, source.bytes - at);
    const Pages pages = Around(source.from + at, bytes);
    if (opened.fd >= 0 && !IsCached(pages, opened_->present)) {
      // A read brings pages in faster than faults or advice do, and waits for them.
      const auto offset = static_cast<size_t>(source.from + at - base);
      for (size_t done = 0; done < bytes;) {
        const ssize_t got =
            pread(opened.fd, scratch_.get(), bytes - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw io::FileError("cannot read", source.file->path(), errno);
        if (got == 0) {
          throw io::MappingFault("the file '" + source.file->path() +
                                 "' became shorter while it was in use");
        }
        done += static_cast<size_t>(got);
      }
      disk_bytes_ += bytes;
    }
    // Where the system does not know this advice, pages are mapped when they are touched.
    madvise(pages.begin, pages.bytes, MADV_POPULATE_READ);
    arrived(at, bytes);
  }
}

void LetGo(const Source& source) {
  const Pages pages = Within(source.from, source.bytes);
  if (pages.bytes > 0) madvise(pages.begin, pages.bytes, MADV_PAGEOUT);
}

}  // namespace tf::placement
