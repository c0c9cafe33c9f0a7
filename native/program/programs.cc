#include "native/program/programs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "native/addon.h"
#include "native/error/error.h"
#include "native/program/loops.h"

namespace tf {
namespace {

constexpr napi_type_tag kProgramTag = {0x8f2b4e6c1d3a4f57, 0xa1c09d7e5b3f2468};

[[noreturn]] void FailBusy(const std::string& what) {
  throw Failure(code::kTensorBusy,
                "[" + what + "] the tensor is in use by a program that is running",
                "Await the call that uses it first, or write to a copy.");
}

}  // namespace

Programs::Programs(Environment& environment) : environment_(environment) {
  mailbox_->Open(environment.env(), Wake);
  environment.set_programs(this);
}

Programs::~Programs() {
  environment_.set_programs(nullptr);
  mailbox_->Close();
}

bool Programs::Intercept(const OpPlan& op, torch::jit::Stack& stack) {
  if (recorder_ && !suspended_) {
    recorder_->Record(op, stack);
    return true;
  }
  for (const c10::IValue& value : stack) {
    if (value.isTensor() && FindFakeMark(value.toTensor()) != nullptr) {
      throw Failure(code::kTrace,
                    "[" + op.name + "] a tensor made while a function was recorded has no values",
                    "Return it from the recorded function instead of keeping it elsewhere.");
    }
  }
  if (op.writes && !pending_.empty()) {
    for (size_t i = 0; i < stack.size(); ++i) {
      if (op.arguments[i].written && stack[i].isTensor())
        RefuseBusy(stack[i].toTensor(), op.name.c_str());
    }
  }
  return false;
}

void Programs::RefuseBusy(const at::Tensor& tensor, const char* what) const {
  if (pending_.empty() || !tensor.defined() || !tensor.has_storage()) return;
  const c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  for (const auto& [id, pending] : pending_) {
    if (pending.effects.Writes(storage)) {
      const bool paused = pending.loop && pending.started && pending.loop->paused();
      if (!paused) FailBusy(what);
    } else if (pending.effects.Reads(storage)) {
      FailBusy(what);
    }
  }
}

void Programs::Begin(napi_value lines) {
  if (recorder_) throw Failure(code::kTrace, "a function is being recorded already");
  recorder_ = std::make_unique<Recorder>(environment_, lines);
}

std::shared_ptr<Program> Programs::End(const std::vector<at::Tensor>& outputs) {
  const std::unique_ptr<Recorder> recorder = std::move(recorder_);
  if (!recorder) throw Failure(code::kTrace, "no function is being recorded");
  return recorder->Finish(outputs);
}

napi_value Programs::Run(std::shared_ptr<const Program> program,
                         std::vector<c10::IValue> registers,
                         uint64_t id,
                         bool profiled) {
  const napi_env env = environment_.env();
  Pending pending;
  pending.effects.Add(*program, registers);
  pending.effects.draws = program->draws;
  auto run = std::make_unique<ProgramRun>(
      std::move(program), std::move(registers), mailbox_, id, profiled);
  pending.run = run.get();
  napi_value promise = nullptr;
  Check(env, napi_create_promise(env, &pending.deferred, &promise));
  pending.waiting = std::move(run);
  pending_.emplace(id, std::move(pending));
  Hold();
  StartWaiting();
  return promise;
}

void Programs::Enter(uint64_t id, Effects effects, LoopControl loop) {
  Pending pending;
  pending.effects = std::move(effects);
  pending.loop = std::move(loop);
  pending_.emplace(id, std::move(pending));
  StartWaiting();
}

void Programs::Change(uint64_t id, Effects effects) {
  const auto found = pending_.find(id);
  if (found != pending_.end()) found->second.effects = std::move(effects);
}

void Programs::Leave(uint64_t id) {
  if (pending_.erase(id) > 0) StartWaiting();
}

void Programs::Hold() {
  const bool any = std::any_of(pending_.begin(), pending_.end(), [](const auto& pending) {
    return pending.second.run != nullptr;
  });
  mailbox_->Hold(environment_.env(), any);
}

void Programs::StartWaiting() {
  for (auto pending = pending_.begin(); pending != pending_.end(); ++pending) {
    if (pending->second.started) continue;
    const bool waits = std::any_of(pending_.begin(), pending, [&](const auto& earlier) {
      return pending->second.effects.ConflictsWith(earlier.second.effects);
    });
    if (waits) continue;
    pending->second.started = true;
    if (pending->second.loop) {
      pending->second.loop->start();
    } else {
      ProgramRun::Start(std::move(pending->second.waiting));
    }
  }
}

void Programs::Cancel(uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  if (pending.run == nullptr) return;
  pending.run->Cancel();
  // It ends before its first operator.
  if (std::exchange(pending.started, true)) return;
  ProgramRun::Start(std::move(pending.waiting));
}

void Programs::Wake(napi_env env, napi_value, void* context, void*) {
  // Without an environment the function is only being emptied.
  if (env == nullptr) return;
  Environment& environment = Environment::Of(env);
  Guard(environment, [&]() -> napi_value {
    Programs& programs = environment.Room<Programs>();
    for (const auto& run : static_cast<Mailbox*>(static_cast<Doorbell*>(context))->Take())
      programs.Deliver(*run);
    return nullptr;
  });
}

void Programs::Deliver(ProgramRun& run) {
  const napi_env env = environment_.env();
  const auto found = pending_.find(run.id());
  if (found == pending_.end()) return;
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  StartWaiting();
  Hold();

  std::optional<Failure> failure = run.failure();
  if (!failure && run.cancelled() && !run.interpreter().finished())
    failure = Failure(code::kAborted, "the run was cancelled");
  napi_value value = nullptr;
  if (!failure) {
    try {
      value = Outcome(run);
    } catch (...) {
      failure = CurrentFailure();
    }
  }
  if (!failure) {
    napi_resolve_deferred(env, pending.deferred, value);
    return;
  }
  napi_value error = MakeError(environment_, *failure);
  napi_set_named_property(env,
                          error,
                          "instruction",
                          FromDouble(env, static_cast<double>(run.interpreter().position())));
  napi_reject_deferred(env, pending.deferred, error);
}

napi_value Programs::Outcome(ProgramRun& run) {
  std::vector<napi_value> handles;
  for (const Register at : run.program().outputs) {
    const bool none = at == kNoRegister || !run.interpreter().registers()[at].isTensor();
    handles.push_back(none ? Null(environment_.env())
                           : ToJs(environment_,
                                  environment_.tensors().Add(
                                      run.interpreter().registers()[at].toTensor(), nullptr)));
  }
  std::vector<double> spans;
  for (const Span& span : run.interpreter().spans()) {
    spans.push_back(static_cast<double>(span.begin));
    spans.push_back(static_cast<double>(span.end));
  }
  return Record(environment_,
                {{"outputs", ToJs(environment_, handles)}, {"spans", ToJs(environment_, spans)}});
}

void RefuseRead(Environment& environment, const at::Tensor& tensor, const char* what) {
  Programs* programs = environment.programs();
  if (programs == nullptr) return;
  if (programs->recorder() == nullptr && FindFakeMark(tensor) == nullptr) return;
  throw Failure(code::kTrace,
                "[" + std::string(what) +
                    "] the values of a tensor cannot be read while a function is recorded (" +
                    Summary(tensor) + ")",
                "Compute with tensors instead (torch.where, masks), or run this part eagerly.");
}

void RefuseRecording(Environment& environment, const char* what) {
  Programs* programs = environment.programs();
  if (programs == nullptr || programs->recorder() == nullptr) return;
  throw Failure(code::kTrace,
                "[" + std::string(what) + "] cannot be recorded",
                "Call it outside of the compiled function.");
}

void RefuseBusy(Environment& environment, const at::Tensor& tensor, const char* what) {
  if (environment.programs() != nullptr) environment.programs()->RefuseBusy(tensor, what);
}

// Bindings ----------------------------------------------------------------------------------------

ProgramRef FromJs<ProgramRef>::Get(Environment& environment, napi_value value, Where what) {
  const napi_env env = environment.env();
  bool tagged = false;
  void* data = nullptr;
  if (TypeOf(env, value) != napi_external ||
      napi_check_object_type_tag(env, value, &kProgramTag, &tagged) != napi_ok || !tagged ||
      napi_get_value_external(env, value, &data) != napi_ok) {
    FailArgument(environment, what, "a Program", value);
  }
  return {*static_cast<std::shared_ptr<Program>*>(data)};
}

std::vector<c10::IValue> BindProgram(Environment& environment,
                                     const Program& program,
                                     const std::vector<at::Tensor>& inputs) {
  if (static_cast<Register>(inputs.size()) != program.inputs) {
    throw Failure(code::kInvalidArgument,
                  "[runProgram] takes " + std::to_string(program.inputs) + " tensors, got " +
                      std::to_string(inputs.size()));
  }
  std::vector<c10::IValue> registers(program.registers.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!program.registers[i].Fits(inputs[i])) return {};
    registers[i] = inputs[i];
  }
  for (const CapturedTensor& capture : program.captures) {
    if (capture.handle == kNoHandle) {
      registers[capture.to] = capture.constant;
      continue;
    }
    const at::Tensor* tensor = environment.tensors().Find(capture.handle);
    if (tensor == nullptr || !program.registers[capture.to].Fits(*tensor)) return {};
    registers[capture.to] = *tensor;
  }
  return registers;
}

namespace {

napi_value ToExternal(Environment& environment, std::shared_ptr<Program> program) {
  const napi_env env = environment.env();
  const auto end = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<Program>*>(data);
  };
  auto holder = std::make_unique<std::shared_ptr<Program>>(std::move(program));
  napi_value external = nullptr;
  Check(env, napi_create_external(env, holder.get(), end, nullptr, &external));
  holder.release();
  Check(env, napi_type_tag_object(env, external, &kProgramTag));
  return external;
}

Recorder& Recording(Environment& environment) {
  Recorder* recorder = environment.Room<Programs>().recorder();
  if (recorder == nullptr) throw Failure(code::kTrace, "no function is being recorded");
  return *recorder;
}

void BeginRecording(Environment& environment, Js lines) {
  environment.Room<Programs>().Begin(lines.value);
}

Handle RecordInput(Environment& environment, Owner owner, const at::Tensor& real) {
  return environment.tensors().Add(Recording(environment).AddInput(real), owner.value);
}

napi_value EndRecording(Environment& environment, const std::vector<at::Tensor>& outputs) {
  std::shared_ptr<Program> program = environment.Room<Programs>().End(outputs);
  std::vector<Handle> captured;
  for (const CapturedTensor& capture : program->captures)
    if (capture.handle != kNoHandle) captured.push_back(capture.handle);
  const double length = static_cast<double>(program->code.size());
  const bool draws = program->draws;
  return Record(environment,
                {{"program", ToExternal(environment, std::move(program))},
                 {"captured", ToJs(environment, captured)},
                 {"length", ToJs(environment, length)},
                 {"draws", ToJs(environment, draws)}});
}

void AbandonRecording(Environment& environment) { environment.Room<Programs>().Abandon(); }

void SuspendRecording(Environment& environment, bool suspended) {
  environment.Room<Programs>().Suspend(suspended);
}

bool IsFake(Environment&, const at::Tensor& tensor) { return FindFakeMark(tensor) != nullptr; }

// null: captured tensors have changed, record again.
napi_value RunProgram(Environment& environment,
                      ProgramRef program,
                      const std::vector<at::Tensor>& inputs,
                      int64_t id,
                      bool profiled) {
  std::vector<c10::IValue> registers = BindProgram(environment, *program.program, inputs);
  if (registers.empty() && !program.program->registers.empty()) return Null(environment.env());
  return environment.Room<Programs>().Run(
      program.program, std::move(registers), static_cast<uint64_t>(id), profiled);
}

void CancelRun(Environment& environment, int64_t id) {
  environment.Room<Programs>().Cancel(static_cast<uint64_t>(id));
}

// Everything about tensors that a Program depends on; equal texts mean that it fits.
std::string TensorsKey(Environment&, const std::vector<at::Tensor>& tensors) {
  std::string key;
  std::unordered_map<const c10::StorageImpl*, size_t> storages;
  const auto add = [&](int64_t number) {
    key += std::to_string(number);
    key += ',';
  };
  for (const at::Tensor& tensor : tensors) {
    add(static_cast<int64_t>(tensor.scalar_type()));
    key += tensor.device().str();
    key += tensor.requires_grad() ? 'g' : ' ';
    key += tensor.is_inference() ? 'i' : ' ';
    for (const int64_t size : tensor.sizes()) add(size);
    key += ';';
    for (const int64_t stride : tensor.strides()) add(stride);
    const c10::StorageImpl* storage =
        tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
    const size_t group = storages.try_emplace(storage, storages.size()).first->second;
    // Where a tensor lies matters only beside another one in the same memory.
    add(static_cast<int64_t>(group));
    key += '|';
  }
  return key;
}

std::vector<std::string> ProgramText(Environment&, ProgramRef program) {
  return program.program->Text();
}

}  // namespace

void InitPrograms(Exports& exports) {
  exports.Function<"beginRecording", BeginRecording>();
  exports.Function<"recordInput", RecordInput>();
  exports.Function<"endRecording", EndRecording>();
  exports.Function<"abandonRecording", AbandonRecording>();
  exports.Function<"suspendRecording", SuspendRecording>();
  exports.Function<"isFake", IsFake>();
  exports.Function<"runProgram", RunProgram>();
  exports.Function<"cancelRun", CancelRun>();
  exports.Function<"programText", ProgramText>();
  exports.Function<"tensorsKey", TensorsKey>();
  InitLoops(exports);
}

}  // namespace tf
