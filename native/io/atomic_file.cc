#include "native/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include "native/io/mapping.h"

namespace tf::io {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Where the bytes go: a link is written through, as open() would.
std::string Resolve(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return path;
  std::string resolved(real);
  free(real);
  return resolved;
}

// A file above the process's size limit raises a signal that ends the process by default. While one
// of these lives, the thread gets the error alone.
class NoSizeSignal {
 public:
  NoSizeSignal() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~NoSizeSignal() {
    if (sigismember(&before_, SIGXFSZ) == 0) {
      const timespec now{};
      while (sigtimedwait(&signal_, nullptr, &now) == SIGXFSZ) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSizeSignal(const NoSizeSignal&) = delete;
  NoSizeSignal& operator=(const NoSizeSignal&) = delete;

 private:
  sigset_t signal_;
  sigset_t before_;
};

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(Resolve(path)) {
  static std::atomic<unsigned> count{0};
  struct stat status{};
  const bool replaces = stat(path_.c_str(), &status) == 0;
  if (replaces && S_ISDIR(status.st_mode)) Fail(EISDIR);
  if (replaces && access(path_.c_str(), W_OK) != 0) Fail(errno);
  // A short name, so that any goal's name may be as long as the file system allows. One that is
  // taken was left by a killed process that had our id.
  do {
    temporary_ = FolderOf(path_) + "/.torchformers-" + std::to_string(getpid()) + "-" +
                 std::to_string(count++) + ".tmp";
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) Fail(errno);
  if (replaces) (void)fchmod(fd_, status.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void AtomicFile::Fail(int error) const { throw FileError("cannot write", path_, error); }

void AtomicFile::Reserve(size_t size) {
  if (size == 0) return;
  const NoSizeSignal quiet;
  int result = 0;
  do result = fallocate(fd_, 0, 0, static_cast<off_t>(size));
  while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) Fail(errno);
}

void AtomicFile::Write(std::span<const char> bytes) {
  const NoSizeSignal quiet;
  // Linux moves at most 2 GiB per call; smaller pieces keep dirty pages flowing to the disk.
  constexpr size_t kPiece = size_t{32} << 20;
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), std::min(bytes.size(), kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) Fail(errno);
    // The disk begins now, so that there is little left to wait for at the end.
    if (static_cast<size_t>(written) == kPiece)
      (void)sync_file_range(fd_, static_cast<off_t>(written_), written, SYNC_FILE_RANGE_WRITE);
    written_ += static_cast<size_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::Commit() {
  if (fsync(fd_) != 0) Fail(errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) Fail(errno);
  close(fd_);
  fd_ = -1;
  // Best effort from here on: the new content is in place; some file systems refuse to sync a
  // folder.
  const int folder = open(FolderOf(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  (void)fsync(folder);
  close(folder);
}

}  // namespace tf::io
