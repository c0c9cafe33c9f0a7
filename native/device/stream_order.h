// The order between two threads that queue work on one device: each has a stream of its own.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <optional>

namespace tf {

// Does nothing on the CPU.
class StreamOrder {
 public:
  explicit StreamOrder(c10::Device device) : device_(device) {}

  // The thread that asks: what it has queued until now comes first.
  void Ask();
  // The thread that works, before it queues anything after an Ask.
  void Begin();
  // The thread that works: waits until all is done that it has queued. The outputs' memory may then
  // be used on the asking thread's stream.
  void End(c10::ArrayRef<c10::IValue> outputs);

 private:
  const c10::Device device_;
  std::optional<c10::Event> asked_;
  std::optional<c10::Stream> asking_;
};

}  // namespace tf
