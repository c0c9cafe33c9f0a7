#include "native/io/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>

namespace tf::io {

namespace detail {
std::atomic<uint32_t> unreported_faults{0};
std::atomic<uint32_t> failed_mappings{0};
}  // namespace detail

namespace {

std::atomic<uint64_t> mapped_bytes{0};
size_t page_size = 4096;
struct sigaction previous_action;

std::string Message(const std::string& action, const std::string& path, int error) {
  return action + " '" + path + "': " + std::strerror(error);
}

}  // namespace

// The mappings, readable from a signal handler: blocks of slots that are linked and never freed. A
// slot is taken and given back under a mutex; the handler only loads atomics.
struct FaultTable {
  static constexpr size_t kBlock = 256;

  struct Slot {
    std::atomic<uintptr_t> begin{0};  // 0: free
    std::atomic<uintptr_t> end{0};
    std::atomic<bool> failed{false};
    std::atomic<bool> unreported{false};
    const MappedFile* file = nullptr;  // under the mutex
  };
  struct Block {
    Slot slots[kBlock];
    std::atomic<Block*> next{nullptr};
  };

  Block first;
  std::mutex mutex;

  // Never destroyed: threads may still fault while the process ends.
  static FaultTable& Instance() {
    static FaultTable* table = new FaultTable;
    return *table;
  }

  template <typename Visit>
  void Each(Visit&& visit) {
    for (Block* block = &first; block != nullptr;
         block = block->next.load(std::memory_order_acquire)) {
      for (Slot& slot : block->slots) {
        if (visit(slot)) return;
      }
    }
  }

  Slot* Find(uintptr_t address) {
    Slot* found = nullptr;
    Each([&](Slot& slot) {
      const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
      if (begin == 0 || address < begin || address >= slot.end.load(std::memory_order_relaxed))
        return false;
      found = &slot;
      return true;
    });
    return found;
  }

  void Add(const MappedFile& file) {
    const std::lock_guard lock(mutex);
    Slot* free = nullptr;
    Block* last = &first;
    for (; free == nullptr; last = last->next.load(std::memory_order_relaxed)) {
      for (Slot& slot : last->slots) {
        if (slot.begin.load(std::memory_order_relaxed) == 0) {
          free = &slot;
          break;
        }
      }
      if (free == nullptr && last->next.load(std::memory_order_relaxed) == nullptr) {
        last->next.store(new Block, std::memory_order_release);
      }
    }
    free->file = &file;
    free->failed.store(false, std::memory_order_relaxed);
    free->unreported.store(false, std::memory_order_relaxed);
    const auto begin = reinterpret_cast<uintptr_t>(file.data_);
    free->end.store(begin + file.size_, std::memory_order_relaxed);
    free->begin.store(begin, std::memory_order_release);
  }

  void Remove(const MappedFile& file) {
    const std::lock_guard lock(mutex);
    Slot* slot = Find(reinterpret_cast<uintptr_t>(file.data_));
    if (slot->failed.load()) detail::failed_mappings.fetch_sub(1);
    if (slot->unreported.exchange(false)) detail::unreported_faults.fetch_sub(1);
    slot->file = nullptr;
    slot->begin.store(0, std::memory_order_release);
  }
};

namespace {

// Runs on the thread that faulted, between any two instructions: no locks, no allocation, errno as
// it was.
void OnBusError(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  FaultTable::Slot* slot =
      info->si_code == BUS_ADRERR ? FaultTable::Instance().Find(address) : nullptr;
  if (slot != nullptr) {
    void* page = reinterpret_cast<void*>(address & ~(page_size - 1));
    // One page at a time: the next may still be there.
    if (mmap(page,
             page_size,
             PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1,
             0) == page) {
      if (!slot->failed.exchange(true)) detail::failed_mappings.fetch_add(1);
      if (!slot->unreported.exchange(true)) detail::unreported_faults.fetch_add(1);
      errno = saved_errno;
      return;
    }
  }
  errno = saved_errno;
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // The instruction runs again and ends the process as it would have without us.
    struct sigaction action{};
    action.sa_handler = SIG_DFL;
    sigaction(SIGBUS, &action, nullptr);
  }
}

void InstallHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    FaultTable::Instance();
    page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action{};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  });
}

std::string FaultMessage(const MappedFile& file) {
  return "the file '" + file.path() +
         "' became shorter while it was mapped; tensors that lie in it are lost";
}

}  // namespace

namespace detail {

void ThrowUnreportedFault() {
  FaultTable& table = FaultTable::Instance();
  const std::lock_guard lock(table.mutex);
  std::string message;
  table.Each([&](FaultTable::Slot& slot) {
    if (slot.file == nullptr || !slot.unreported.exchange(false)) return false;
    unreported_faults.fetch_sub(1);
    message = FaultMessage(*slot.file);
    return true;
  });
  if (!message.empty()) throw MappingFault(message);
}

void ThrowIfFailed(const void* address) {
  FaultTable& table = FaultTable::Instance();
  const std::lock_guard lock(table.mutex);
  const FaultTable::Slot* slot = table.Find(reinterpret_cast<uintptr_t>(address));
  if (slot != nullptr && slot->failed.load()) throw MappingFault(FaultMessage(*slot->file));
}

}  // namespace detail

FileError::FileError(const std::string& action, const std::string& path, int error)
    : std::runtime_error(Message(action, path, error)), error_(error) {}

std::shared_ptr<MappedFile> MappedFile::Open(const std::string& path) {
  InstallHandler();
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  file->fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) throw FileError("cannot open", path, errno);
  struct stat status{};
  if (fstat(file->fd_, &status) != 0) throw FileError("cannot read", path, errno);
  if (S_ISDIR(status.st_mode)) throw FileError("cannot read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw FileError("cannot map", path, ENODEV);
  file->size_ = static_cast<size_t>(status.st_size);
  file->device_ = status.st_dev;
  file->inode_ = status.st_ino;
  if (file->size_ == 0) return file;

  // MAP_NORESERVE: a file larger than the memory is mapped too; its private pages are counted as
  // they are written.
  void* data =
      mmap(nullptr, file->size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file->fd_, 0);
  file->writable_ = data != MAP_FAILED;
  if (data == MAP_FAILED) data = mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, file->fd_, 0);
  if (data == MAP_FAILED) throw FileError("cannot map", path, errno);
  file->data_ = static_cast<uint8_t*>(data);
  mapped_bytes.fetch_add(file->size_);
  FaultTable::Instance().Add(*file);
  file->registered_ = true;
  return file;
}

MappedFile::~MappedFile() {
  if (registered_) FaultTable::Instance().Remove(*this);
  if (data_ != nullptr) {
    munmap(data_, size_);
    mapped_bytes.fetch_sub(size_);
  }
  CloseDescriptor();
}

void MappedFile::CloseDescriptor() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

int MappedFile::Reopen() const {
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -1;
  struct stat status{};
  if (fstat(fd, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) return fd;
  close(fd);
  return -1;
}

void MappedFile::Read(size_t offset, std::span<uint8_t> into) const {
  for (size_t done = 0; done < into.size();) {
    const ssize_t got =
        pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw FileError("cannot read", path_, errno);
    if (got == 0) throw MappingFault("the file '" + path_ + "' became shorter while it was read");
    done += static_cast<size_t>(got);
  }
}

uint64_t MappedBytes() { return mapped_bytes.load(std::memory_order_relaxed); }

}  // namespace tf::io
