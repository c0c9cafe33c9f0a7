#include "native/placement/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
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
};

FileReader::FileReader() = default;
FileReader::~FileReader() = default;

void FileReader::Read(const Source& source,
                      const std::function<bool()>& stop,
                      const std::function<void(size_t, size_t)>& arrived) {
  if (!opened_ || opened_->file != source.file) opened_ = std::make_unique<Opened>(source.file);
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&](Lane& lane) {
    try {
      for (size_t at = next.fetch_add(kPiece); at < source.bytes && !stop();
           at = next.fetch_add(kPiece)) {
        const size_t bytes = std::min(kPiece, source.bytes - at);
        ReadPiece(source, at, bytes, lane);
        arrived(at, bytes);
      }
    } catch (...) {
      next = source.bytes;
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::thread helper;
  if (source.bytes > 2 * kPiece) {
    try {
      helper = std::thread([&] { work(lanes_[1]); });
    } catch (const std::system_error&) {
      // One thread does the same work.
    }
  }
  work(lanes_[0]);
  if (helper.joinable()) helper.join();
  if (failure) std::rethrow_exception(failure);
}

void FileReader::ReadPiece(const Source& source, size_t at, size_t bytes, Lane& lane) {
  const Pages pages = Around(source.from + at, bytes);
  if (opened_->fd >= 0 && !IsCached(pages, lane.present)) {
    // A read brings pages in faster than faults or advice do, and waits for them.
    if (!lane.scratch) lane.scratch = std::make_unique<std::byte[]>(kPiece);
    const auto* base = reinterpret_cast<const std::byte*>(source.file->bytes().data());
    const auto offset = static_cast<size_t>(source.from + at - base);
    for (size_t done = 0; done < bytes;) {
      const ssize_t got =
          pread(opened_->fd, lane.scratch.get(), bytes - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw io::FileError("cannot read", source.file->path(), errno);
      if (got == 0) {
        throw io::MappingFault("the file '" + source.file->path() +
                               "' became shorter while it was in use");
      }
      done += static_cast<size_t>(got);
    }
    disk_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Where the system does not know this advice, pages are mapped when they are touched.
  madvise(pages.begin, pages.bytes, MADV_POPULATE_READ);
}

void LetGo(const Source& source) {
  const Pages pages = Within(source.from, source.bytes);
  if (pages.bytes > 0) madvise(pages.begin, pages.bytes, MADV_PAGEOUT);
}

}  // namespace tf::placement
