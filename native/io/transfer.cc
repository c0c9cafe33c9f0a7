// Reading many tensors from files into tensors that exist: threads read bounded pieces in the order
// of the file and put each where it belongs, in the destination's dtype and on its device. What is
// in flight is one piece per thread on the CPU, two for an accelerator.
#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "native/addon.h"
#include "native/async/worker.h"
#include "native/convert/bind.h"
#include "native/io/mapped_tensors.h"
#include "native/io/open_files.h"
#include "native/io/pieces.h"

namespace tf {
namespace {

// For the CPU a piece stays in the processor's cache between reading and casting; for an
// accelerator a copy must be long enough to hide what starting it costs.
constexpr size_t kCpuPiece = size_t{1} << 20;
constexpr size_t kDevicePiece = size_t{16} << 20;
constexpr unsigned kMostThreads = 4;

// A file of the transfer, opened once for all threads. When its path names another file by now, it
// is read through its mapping.
class Source {
 public:
  explicit Source(std::shared_ptr<io::MappedFile> mapping)
      : mapping_(std::move(mapping)), fd_(mapping_->Reopen()) {}
  ~Source() {
    if (fd_ >= 0) close(fd_);
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  void Read(size_t begin, void* into, size_t length) const {
    if (fd_ < 0) {
      std::memcpy(into, mapping_->bytes().data() + begin, length);
      io::CheckMappingFaults();
      return;
    }
    auto* to = static_cast<char*>(into);
    for (size_t done = 0; done < length;) {
      const ssize_t got = pread(fd_, to + done, length - done, static_cast<off_t>(begin + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw io::FileError("cannot read", mapping_->path(), errno);
      if (got == 0) {
        throw io::MappingFault("the file '" + mapping_->path() +
                               "' became shorter while it was read");
      }
      done += static_cast<size_t>(got);
    }
  }

 private:
  std::shared_ptr<io::MappedFile> mapping_;
  int fd_;
};

// A part of a file's tensor and where it goes.
struct Job {
  std::shared_ptr<Source> source;
  size_t begin;  // byte of the tensor's first element in the file
  c10::ScalarType dtype;
  io::View view;
  at::Tensor into;
};

struct Step {
  const Job* job;
  io::Piece piece;
};

bool FitsEntry(const io::View& view, const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<uint64_t>(size);
  uint64_t last = view.offset;
  for (size_t i = 0; i < view.sizes.size(); ++i) {
    const int64_t size = view.sizes[i];
    const int64_t stride = view.strides[i];
    if (size < 0 || stride < 0) return false;
    if (size == 0) return true;
    const auto most = static_cast<int64_t>(elements);
    if (size > 1 && stride > most) return false;
    if (size - 1 > (stride == 0 ? most : most / stride)) return false;
    last += static_cast<uint64_t>((size - 1) * stride);
  }
  return last < elements;
}

at::Tensor Narrow(at::Tensor tensor, const io::Piece& piece) {
  for (size_t i = 0; i < piece.starts.size(); ++i) {
    const auto dimension = static_cast<int64_t>(i);
    if (piece.view.sizes[i] != tensor.size(dimension))
      tensor = tensor.narrow(dimension, piece.starts[i], piece.view.sizes[i]);
  }
  return tensor;
}

// One thread's part of the ring: buffers, and for an accelerator the stream on which it copies.
class Reader {
 public:
  explicit Reader(c10::Device device) : device_(device) {
    if (device.is_cpu()) return;
    const c10::impl::VirtualGuardImpl guard(device.type());
    stream_ = guard.getStreamFromGlobalPool(device);
  }

  // The stream's work begins after what was queued before the transfer.
  void WaitFor(const c10::Event& event) { event.block(*stream_); }

  void Do(const Step& step) {
    if (device_.is_cpu()) {
      Copy(step);
    } else {
      const c10::StreamGuard here(*stream_);
      Send(step);
    }
  }

  void Finish() {
    if (stream_) stream_->synchronize();
  }

 private:
  struct Buffer {
    at::Tensor bytes;
    std::unique_ptr<c10::Event> free;
  };

  static size_t BytesOf(const Step& step) {
    return io::SpanOf(step.piece.view) * c10::elementSize(step.job->dtype);
  }

  static size_t BeginOf(const Step& step) {
    return step.job->begin + step.piece.view.offset * c10::elementSize(step.job->dtype);
  }

  static at::Tensor Room(at::Tensor& buffer, size_t bytes, bool pinned) {
    if (!buffer.defined() || buffer.nbytes() < bytes) {
      buffer = at::empty({static_cast<int64_t>(bytes)},
                         at::TensorOptions().dtype(at::kByte).pinned_memory(pinned));
    }
    return buffer;
  }

  static at::Tensor Shaped(const Step& step, void* data) {
    const io::View& view = step.piece.view;
    return at::from_blob(
        data, view.sizes, view.strides, at::TensorOptions().dtype(step.job->dtype));
  }

  void Copy(const Step& step) {
    const at::Tensor into = Narrow(step.job->into, step.piece);
    const size_t bytes = BytesOf(step);
    if (into.scalar_type() == step.job->dtype && into.is_contiguous() &&
        io::IsContiguous(step.piece.view)) {
      step.job->source->Read(BeginOf(step), into.data_ptr(), bytes);
      return;
    }
    const at::Tensor buffer = Room(buffers_[0].bytes, bytes, false);
    step.job->source->Read(BeginOf(step), buffer.data_ptr(), bytes);
    into.copy_(Shaped(step, buffer.data_ptr()));
  }

  void Send(const Step& step) {
    Buffer& buffer = buffers_[turn_++ % 2];
    if (buffer.free) buffer.free->synchronize();
    const size_t bytes = BytesOf(step);
    const at::Tensor host =
        Room(buffer.bytes, bytes, true).narrow(0, 0, static_cast<int64_t>(bytes));
    step.job->source->Read(BeginOf(step), host.data_ptr(), bytes);
    // Bytes cross as they are, and are cast and laid out over there.
    const at::Tensor there =
        at::empty(host.sizes(), host.options().pinned_memory(false).device(device_));
    there.copy_(host, true);
    const at::Tensor typed = there.view(step.job->dtype);
    Narrow(step.job->into, step.piece)
        .copy_(typed.as_strided(step.piece.view.sizes, step.piece.view.strides), true);
    if (!buffer.free)
      buffer.free = std::make_unique<c10::Event>(device_.type(), c10::EventFlag::PYTORCH_DEFAULT);
    buffer.free->record(*stream_);
  }

  c10::Device device_;
  std::optional<c10::Stream> stream_;
  Buffer buffers_[2];
  size_t turn_ = 0;
};

// All steps of one device, by as many threads as help.
void Transfer(const std::vector<Step>& steps, c10::Device device) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  std::unique_ptr<c10::Event> before;
  if (!device.is_cpu()) {
    const c10::impl::VirtualGuardImpl guard(device.type());
    before = std::make_unique<c10::Event>(device.type(), c10::EventFlag::PYTORCH_DEFAULT);
    before->record(guard.getStream(device));
  }
  const auto work = [&] {
    try {
      thread_local const bool one_thread = (UseOneThreadHere(), true);
      static_cast<void>(one_thread);
      const c10::InferenceMode no_history;
      Reader reader(device);
      if (before) reader.WaitFor(*before);
      for (size_t i = next++; i < steps.size(); i = next++) reader.Do(steps[i]);
      reader.Finish();
    } catch (...) {
      next = steps.size();
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const size_t wanted = std::min<size_t>(
      {kMostThreads, std::max(std::thread::hardware_concurrency(), 1u), steps.size()});
  std::vector<std::thread> helpers;
  try {
    while (helpers.size() + 1 < wanted) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // Fewer threads do the same work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

// The views as numbers, one after the other: dimensions, offset, sizes, strides; in elements.
io::View TakeView(const std::vector<int64_t>& numbers, size_t& at) {
  const auto take = [&] {
    if (at >= numbers.size())
      throw Failure(code::kInvalidArgument, "[readTensors] a view ends early");
    return numbers[at++];
  };
  io::View view;
  const int64_t dimensions = take();
  view.offset = static_cast<uint64_t>(take());
  for (int64_t i = 0; i < dimensions; ++i) view.sizes.push_back(take());
  for (int64_t i = 0; i < dimensions; ++i) view.strides.push_back(take());
  return view;
}

napi_value ReadTensors(Environment& environment,
                       const std::vector<Handle>& files,
                       const std::vector<int64_t>& indices,
                       const std::vector<int64_t>& views,
                       const std::vector<at::Tensor>& into) {
  const size_t count = files.size();
  if (indices.size() != count || into.size() != count)
    throw Failure(code::kInvalidArgument, "[readTensors] as many files as tensors are needed");
  std::vector<Job> jobs;
  std::unordered_map<const io::MappedFile*, std::shared_ptr<Source>> sources;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const io::SafetensorsFile& file = OpenFiles::File(environment, files[i]);
    const io::SafetensorsEntry& entry = OpenFiles::Entry(file, indices[i]);
    io::View view = TakeView(views, at);
    if (at::IntArrayRef(view.sizes) != into[i].sizes() || !FitsEntry(view, TorchShape(entry)) ||
        into[i].layout() != c10::kStrided || into[i].is_meta()) {
      throw Failure(code::kShape,
                    "[readTensors] tensor '" + entry.name + "' does not fit " + Summary(into[i]));
    }
    std::shared_ptr<Source>& source = sources[file.mapping.get()];
    if (!source) source = std::make_shared<Source>(file.mapping);
    jobs.push_back({source,
                    file.data_offset + entry.begin,
                    TorchDtype(file, entry),
                    std::move(view),
                    into[i].detach()});
  }
  return Promise(
      environment,
      [jobs = std::move(jobs)] {
        std::vector<std::pair<c10::Device, std::vector<Step>>> devices;
        for (const Job& job : jobs) {
          const c10::Device device = job.into.device();
          auto found = std::find_if(devices.begin(), devices.end(), [&](const auto& each) {
            return each.first == device;
          });
          if (found == devices.end()) found = devices.insert(found, {device, {}});
          const size_t piece = device.is_cpu() ? kCpuPiece : kDevicePiece;
          io::EachPiece(job.view, piece / c10::elementSize(job.dtype), [&](io::Piece part) {
            found->second.push_back({&job, std::move(part)});
          });
        }
        for (const auto& [device, steps] : devices) Transfer(steps, device);
        return true;
      },
      [](Environment& environment, bool) { return Undefined(environment.env()); });
}

}  // namespace

void InitTransfer(Exports& exports) { exports.Function<"readTensors", ReadTensors>(); }

}  // namespace tf
