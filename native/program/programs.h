// Programs of one environment: the recording that is on, and the runs in flight.
#pragma once

#include <ATen/core/stack.h>
#include <node_api.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "native/convert/bind.h"
#include "native/device/run_generator.h"
#include "native/program/effects.h"
#include "native/program/recorder.h"
#include "native/program/run.h"

namespace tf {

class Environment;

// Made when the first recording begins; until then operators pay one load of a null pointer.
class Programs {
 public:
  explicit Programs(Environment& environment);
  ~Programs();
  Programs(const Programs&) = delete;
  Programs& operator=(const Programs&) = delete;

  // Before each operator called from JavaScript. True: it was recorded, and is done.
  // Throws ERR_TRACE for a tensor that a recording left behind, ERR_TENSOR_BUSY for a write to what
  // a run in flight uses.
  bool Intercept(const OpPlan& op, torch::jit::Stack& stack);
  // Whether Intercept may have to do more with the operator than to refuse a recording's tensors.
  bool Watches(const OpPlan& op) const {
    return (recorder_ && !suspended_) || (op.writes && !pending_.empty());
  }
  // Throws ERR_TENSOR_BUSY.
  void RefuseBusy(const at::Tensor& tensor, const char* what) const;
  // As above, where a run in flight looks at or changes the tensor's gradient.
  void RefuseBusyGradient(const at::Tensor& tensor, const char* what) const;
  bool holds_gradients() const;

  // Null while none is on, or while it is suspended.
  Recorder* recorder() { return suspended_ ? nullptr : recorder_.get(); }
  // Until it goes on, operators compute: for constants of the Program.
  void Suspend(bool suspended) { suspended_ = suspended; }
  void Begin(napi_value lines);
  std::shared_ptr<Program> End(const std::vector<at::Tensor>& outputs,
                               const std::optional<std::vector<std::string>>& passes);
  void Abandon() {
    recorder_.reset();
    suspended_ = false;
  }

  // A promise for the handles of the outputs (null for none).
  napi_value Run(std::shared_ptr<const Program> program,
                 std::vector<c10::IValue> registers,
                 uint64_t id,
                 bool profiled,
                 const std::vector<at::Generator>& generators = {});
  // The gradient that the runs which are queued will leave, if one of them has to do with it.
  struct Foreseen {
    bool known = false;
    const TensorFacts* facts = nullptr;  // null: none
  };
  Foreseen Foresee(const at::Tensor& of) const;
  // Whether the gradients are there that the Program expects, once all that is queued has run.
  bool GradientsFit(const Program& program, const std::vector<c10::IValue>& registers) const;
  void Cancel(uint64_t id);

  // A loop is in flight from Enter to Leave; it starts once nothing earlier conflicts with it.
  struct LoopControl {
    std::function<void()> start;
    // While it is paused, what it writes may be written by others.
    std::function<bool()> paused;
  };
  void Enter(uint64_t id, Effects effects, LoopControl loop);
  void Change(uint64_t id, Effects effects);
  void Leave(uint64_t id);

 private:
  // A run whose promise is pending, or a loop. `run` may be used until it is in the mailbox and
  // taken; `waiting` holds it until it starts.
  struct Pending {
    napi_deferred deferred = nullptr;
    std::shared_ptr<const Program> program;
    ProgramRun* run = nullptr;
    std::unique_ptr<ProgramRun> waiting;
    std::optional<LoopControl> loop;
    bool started = false;
    Effects effects;
    std::vector<at::Tensor> gradients_of;  // one per slot of the program
    std::vector<std::unique_ptr<GeneratorLease>> leases;
    std::optional<at::Generator> default_generator;

    bool ConflictsWith(const Pending& other) const;
    void LeaseGenerators(const Program& program,
                         const std::vector<at::Generator>& given,
                         std::vector<c10::IValue>& registers);
  };

  static void Wake(napi_env env, napi_value, void* mailbox, void*);
  // Starts what waits for nothing. Runs take turns on the executor, so one that writes what another
  // uses has to wait for its end, and so has one that draws from a device's default generator for
  // another that does.
  void StartWaiting();
  // The process stays alive while runs are pending; loops see to that themselves.
  void Hold();
  void Deliver(ProgramRun& run);
  // Ends a pending run; `run` is null when it never started.
  void Settle(std::map<uint64_t, Pending>::iterator found,
              ProgramRun* run,
              std::optional<Failure> failure);
  // Fills in the gradients as they are now. False: they are not what the Program expects.
  static bool BindGradients(Pending& pending);
  static void StoreGradients(const Pending& pending, const ProgramRun& run);
  napi_value Outcome(ProgramRun& run);

  Environment& environment_;
  std::unique_ptr<Recorder> recorder_;
  bool suspended_ = false;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::map<uint64_t, Pending> pending_;  // in the order of the calls
};

// A JavaScript object that holds a Program.
struct ProgramRef {
  std::shared_ptr<Program> program;
};

template <>
struct FromJs<ProgramRef> {
  static ProgramRef Get(Environment& environment, napi_value value, Where what);
};

// The registers before a run: the inputs, and what the captured tensors are now. Empty when one no
// longer fits what was recorded.
std::vector<c10::IValue> BindProgram(Environment& environment,
                                     const Program& program,
                                     const std::vector<at::Tensor>& inputs);

// Throws ERR_TRACE while a function is recorded, and for a fake: a value that is read would be a
// constant of the Program. `what` is the function's name.
void RefuseRead(Environment& environment, const at::Tensor& tensor, const char* what);
// Throws ERR_TRACE while a function is recorded.
void RefuseRecording(Environment& environment, const char* what);
// Throws ERR_TENSOR_BUSY when a run in flight uses the tensor's memory.
void RefuseBusy(Environment& environment, const at::Tensor& tensor, const char* what);
void RefuseBusyGradient(Environment& environment, const at::Tensor& tensor, const char* what);

}  // namespace tf
