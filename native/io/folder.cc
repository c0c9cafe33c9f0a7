#include "native/io/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "native/io/mapping.h"

namespace tf::io {
namespace {

constexpr unsigned kExchange = 2;  // RENAME_EXCHANGE: older headers lack the name

// The system lacks the call, the file system the flag, or one of them is a mount point.
bool Unsupported(int error) {
  return error == ENOSYS || error == EINVAL || error == EOPNOTSUPP || error == EBUSY ||
         error == EXDEV;
}

}  // namespace

bool ExchangePaths(const std::string& a, const std::string& b) {
#ifdef SYS_renameat2
  if (syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kExchange) == 0) return true;
  if (!Unsupported(errno)) throw FileError("cannot replace", b, errno);
#endif
  return false;
}

int LockPath(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw FileError("cannot open", path, errno);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error == EWOULDBLOCK) return -1;
  throw FileError("cannot lock", path, error);
}

void ReadAhead(int fd, size_t begin, size_t end) {
  // Linux cuts a single request short; the calls together keep the disk's queue filled.
  constexpr size_t kWindow = size_t{8} << 20;
  for (; begin < end; begin += kWindow) {
    const size_t length = std::min(kWindow, end - begin);
    (void)posix_fadvise(
        fd, static_cast<off_t>(begin), static_cast<off_t>(length), POSIX_FADV_WILLNEED);
  }
}

}  // namespace tf::io
