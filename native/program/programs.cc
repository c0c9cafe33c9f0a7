#include "native/program/programs.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "native/addon.h"
#include "native/autograd/gradients.h"
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

// Each tensor that an argument holds, in lists too.
template <class Visit>
void EachTensor(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) EachTensor(item, visit);
  }
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
  const auto refuse_fake = [&](const at::Tensor& tensor) {
    if (FindFakeMark(tensor) == nullptr) return;
    throw Failure(code::kTrace,
                  "[" + op.name + "] a tensor made while a function was recorded has no values",
                  "Return it from the recorded function instead of keeping it elsewhere.");
  };
  const auto refuse_busy = [&](const at::Tensor& tensor) { RefuseBusy(tensor, op.name.c_str()); };
  for (size_t i = 0; i < stack.size(); ++i) {
    EachTensor(stack[i], refuse_fake);
    if (op.arguments[i].written && !pending_.empty()) EachTensor(stack[i], refuse_busy);
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

bool Programs::holds_gradients() const {
  return std::any_of(pending_.begin(), pending_.end(), [](const auto& entry) {
    return !entry.second.gradients_of.empty();
  });
}

void Programs::RefuseBusyGradient(const at::Tensor& tensor, const char* what) const {
  for (const auto& [id, pending] : pending_) {
    for (const at::Tensor& used : pending.gradients_of)
      if (used.is_same(tensor)) FailBusy(what);
  }
}

Programs::Foreseen Programs::Foresee(const at::Tensor& of) const {
  for (auto entry = pending_.rbegin(); entry != pending_.rend(); ++entry) {
    const Pending& earlier = entry->second;
    for (size_t i = 0; i < earlier.gradients_of.size(); ++i) {
      const GradientSlot& slot = earlier.program->gradients[i];
      if (!earlier.gradients_of[i].is_same(of) || (!slot.changed && !slot.looked)) continue;
      const Register at = slot.changed ? earlier.program->outputs[slot.after] : slot.before;
      return {true, at == kNoRegister ? nullptr : &earlier.program->registers[at]};
    }
  }
  return {};
}

bool Programs::GradientsFit(const Program& program,
                            const std::vector<c10::IValue>& registers) const {
  return std::all_of(
      program.gradients.begin(), program.gradients.end(), [&](const GradientSlot& slot) {
        const at::Tensor& of = registers[slot.of].toTensor();
        if (!of.requires_grad() || !of.is_leaf()) return !slot.looked || !slot.defined;
        RefuseGradientHooks(of);
        if (!slot.looked) return true;
        if (const Foreseen foreseen = Foresee(of); foreseen.known)
          return slot.defined == (foreseen.facts != nullptr);
        const at::Tensor& gradient = of.grad();
        if (!slot.defined) return !gradient.defined();
        return gradient.defined() && program.registers[slot.before].FitsLoosely(gradient);
      });
}

void Programs::Begin(napi_value lines) {
  if (recorder_) throw Failure(code::kTrace, "a function is being recorded already");
  recorder_ = std::make_unique<Recorder>(environment_, lines);
}

std::shared_ptr<Program> Programs::End(const std::vector<at::Tensor>& outputs,
                                       const std::optional<std::vector<std::string>>& passes) {
  const std::unique_ptr<Recorder> recorder = std::move(recorder_);
  if (!recorder) throw Failure(code::kTrace, "no function is being recorded");
  return recorder->Finish(outputs, passes);
}

napi_value Programs::Run(std::shared_ptr<const Program> program,
                         std::vector<c10::IValue> registers,
                         uint64_t id,
                         bool profiled,
                         const std::vector<at::Generator>& generators) {
  const napi_env env = environment_.env();
  Pending pending;
  pending.program = program;
  for (const GradientSlot& slot : program->gradients) {
    pending.gradients_of.push_back(registers[slot.of].toTensor());
    if (const at::Tensor& gradient = pending.gradients_of.back().grad(); gradient.defined())
      pending.effects.AddWrite(gradient.storage());
  }
  pending.LeaseGenerators(*program, generators, registers);
  pending.effects.Add(*program, registers);
  pending.effects.draws = program->draws_on_device;
  auto run = std::make_unique<ProgramRun>(
      std::move(program), std::move(registers), mailbox_, id, profiled);
  pending.run = run.get();
  if (pending.default_generator) run->DrawFrom(*pending.default_generator);
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

bool Programs::Pending::ConflictsWith(const Pending& other) const {
  for (const at::Tensor& mine : gradients_of) {
    for (const at::Tensor& its : other.gradients_of)
      if (mine.is_same(its)) return true;
  }
  return effects.ConflictsWith(other.effects);
}

void Programs::Hold() {
  const bool any = std::any_of(pending_.begin(), pending_.end(), [](const auto& pending) {
    return pending.second.run != nullptr;
  });
  mailbox_->Hold(environment_.env(), any);
}

// A generator that is named twice is one.
void Programs::Pending::LeaseGenerators(const Program& program,
                                        const std::vector<at::Generator>& given,
                                        std::vector<c10::IValue>& registers) {
  const auto lease = [&](const at::Generator& source) {
    for (const auto& known : leases)
      if (known->source() == source) return known->own();
    leases.push_back(std::make_unique<GeneratorLease>(source));
    return leases.back()->own();
  };
  if (program.draws_from_default) default_generator = lease(at::detail::getDefaultCPUGenerator());
  for (const BoundGenerator& bound : program.generators) {
    registers[bound.to] =
        lease(bound.input < 0 ? bound.captured : given.at(static_cast<size_t>(bound.input)));
  }
}

bool Programs::BindGradients(Pending& pending) {
  for (size_t i = 0; i < pending.program->gradients.size(); ++i) {
    const GradientSlot& slot = pending.program->gradients[i];
    at::Tensor& gradient = pending.gradients_of[i].mutable_grad();
    if (!slot.looked) {
      // It is replaced: nobody needs what is there.
      if (slot.changed) gradient.reset();
      continue;
    }
    if (slot.defined != gradient.defined()) return false;
    if (!slot.defined) continue;
    if (!pending.program->registers[slot.before].FitsLoosely(gradient)) return false;
    pending.run->SetRegister(slot.before, gradient);
    pending.effects.AddWrite(gradient.storage());
  }
  return true;
}

void Programs::StoreGradients(const Pending& pending, const ProgramRun& run) {
  for (size_t i = 0; i < pending.program->gradients.size(); ++i) {
    const GradientSlot& slot = pending.program->gradients[i];
    if (!slot.changed) continue;
    at::Tensor& gradient = pending.gradients_of[i].mutable_grad();
    const Register at = pending.program->outputs[slot.after];
    if (at == kNoRegister) {
      gradient.reset();
    } else {
      gradient = run.interpreter().registers()[at].toTensor();
    }
  }
}

void Programs::StartWaiting() {
  std::vector<uint64_t> unfit;
  for (auto pending = pending_.begin(); pending != pending_.end(); ++pending) {
    if (pending->second.started) continue;
    const bool waits = std::any_of(pending_.begin(), pending, [&](const auto& earlier) {
      return pending->second.ConflictsWith(earlier.second);
    });
    if (waits) continue;
    if (pending->second.run != nullptr && !BindGradients(pending->second)) {
      unfit.push_back(pending->first);
      continue;
    }
    pending->second.started = true;
    if (pending->second.loop) {
      pending->second.loop->start();
    } else {
      ProgramRun::Start(std::move(pending->second.waiting));
    }
  }
  for (const uint64_t id : unfit) {
    Settle(pending_.find(id),
           nullptr,
           Failure(code::kAborted,
                   "the gradients that this run was queued for are not there: the run before it "
                   "did not end",
                   "Await a training step before the next one where steps may be aborted."));
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
  const auto found = pending_.find(run.id());
  if (found == pending_.end()) return;
  std::optional<Failure> failure = run.failure();
  if (!failure && run.cancelled() && !run.interpreter().finished())
    failure = Failure(code::kAborted, "the run was cancelled");
  Settle(found, &run, std::move(failure));
}

void Programs::Settle(std::map<uint64_t, Pending>::iterator found,
                      ProgramRun* run,
                      std::optional<Failure> failure) {
  const napi_env env = environment_.env();
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  for (const auto& lease : pending.leases) lease->Return();
  if (!failure) StoreGradients(pending, *run);
  // What is garbage need not fail the next run too.
  if (failure && failure->code == std::string_view(code::kOutOfMemory))
    environment_.tensors().CollectNow();
  StartWaiting();
  Hold();

  napi_value value = nullptr;
  if (!failure) {
    try {
      value = Outcome(*run);
    } catch (...) {
      failure = CurrentFailure();
    }
  }
  if (!failure) {
    napi_resolve_deferred(env, pending.deferred, value);
    return;
  }
  napi_value error = MakeError(environment_, *failure);
  if (run != nullptr) {
    napi_set_named_property(env,
                            error,
                            "instruction",
                            FromDouble(env, static_cast<double>(run->interpreter().position())));
  }
  napi_reject_deferred(env, pending.deferred, error);
}

napi_value Programs::Outcome(ProgramRun& run) {
  std::vector<napi_value> handles;
  for (size_t i = 0; i < run.program().results; ++i) {
    const Register at = run.program().outputs[i];
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

void RefuseBusyGradient(Environment& environment, const at::Tensor& tensor, const char* what) {
  if (environment.programs() != nullptr) environment.programs()->RefuseBusyGradient(tensor, what);
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

namespace {

// Whether memory is shared as it was when a function was recorded that writes.
bool SharingFits(const Program& program, const std::vector<c10::IValue>& registers) {
  if (!program.writes) return true;
  std::unordered_map<int32_t, const void*> storages;
  std::unordered_map<const void*, int32_t> groups;
  const auto fits = [&](Register at, const at::Tensor& tensor) {
    // Passes add registers for tensors of their own.
    if (static_cast<size_t>(at) >= program.sharing.size() || program.sharing[at] < 0) return true;
    if (!tensor.has_storage()) return true;
    const void* storage = tensor.storage().unsafeGetStorageImpl();
    return storages.try_emplace(program.sharing[at], storage).first->second == storage &&
           groups.try_emplace(storage, program.sharing[at]).first->second == program.sharing[at];
  };
  for (Register at = 0; at < program.inputs; ++at)
    if (!fits(at, registers[at].toTensor())) return false;
  for (const CapturedTensor& capture : program.captures)
    if (!fits(capture.to, registers[capture.to].toTensor())) return false;
  return std::all_of(
      program.gradients.begin(), program.gradients.end(), [&](const GradientSlot& slot) {
        const at::Tensor& gradient = registers[slot.of].toTensor().grad();
        return slot.before == kNoRegister || !gradient.defined() || fits(slot.before, gradient);
      });
}

}  // namespace

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
  if (!SharingFits(program, registers)) return {};
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

napi_value EndRecording(Environment& environment,
                        const std::vector<at::Tensor>& outputs,
                        std::optional<std::vector<std::string>> passes) {
  std::shared_ptr<Program> program = environment.Room<Programs>().End(outputs, passes);
  std::vector<Handle> captured;
  for (const CapturedTensor& capture : program->captures)
    if (capture.handle != kNoHandle) captured.push_back(capture.handle);
  std::vector<double> lines;
  for (const Instruction& instruction : program->code) lines.push_back(instruction.line);
  const bool draws = program->draws;
  return Record(environment,
                {{"program", ToExternal(environment, std::move(program))},
                 {"captured", ToJs(environment, captured)},
                 {"lines", ToJs(environment, lines)},
                 {"draws", ToJs(environment, draws)}});
}

void AbandonRecording(Environment& environment) { environment.Room<Programs>().Abandon(); }

void SuspendRecording(Environment& environment, bool suspended) {
  environment.Room<Programs>().Suspend(suspended);
}

bool IsFake(Environment&, const at::Tensor& tensor) { return FindFakeMark(tensor) != nullptr; }

void RecordGenerator(Environment& environment, Handle generator) {
  Recording(environment).AddGenerator(environment.generators().Get(generator));
}

void BindNumber(Environment& environment, int64_t argument, int64_t input) {
  Recording(environment).BindNumber(static_cast<size_t>(argument), static_cast<int32_t>(input));
}

// Numbers that may differ in each run, as their operators take them.
void BindNumbers(const Program& program,
                 const std::vector<double>& numbers,
                 std::vector<c10::IValue>& registers) {
  for (const BoundNumber& bound : program.numbers) {
    const double number = numbers.at(static_cast<size_t>(bound.input));
    if (!bound.as_tensor) {
      registers[bound.to] = number;
      continue;
    }
    at::Tensor tensor = at::scalar_tensor(number, at::kDouble);
    tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
    registers[bound.to] = tensor;
  }
}

// null: captured tensors have changed, record again. false: gradients are there, or not there,
// other than in this recording.
napi_value RunProgram(Environment& environment,
                      ProgramRef program,
                      const std::vector<at::Tensor>& inputs,
                      int64_t id,
                      bool profiled,
                      const std::vector<double>& generators,
                      const std::vector<double>& numbers) {
  std::vector<c10::IValue> registers = BindProgram(environment, *program.program, inputs);
  if (registers.empty() && !program.program->registers.empty()) return Null(environment.env());
  Programs& programs = environment.Room<Programs>();
  if (!programs.GradientsFit(*program.program, registers)) return ToJs(environment, false);
  BindNumbers(*program.program, numbers, registers);
  std::vector<at::Generator> given;
  for (const double handle : generators)
    given.push_back(environment.generators().Get(HandleFromNumber(handle)));
  return programs.Run(
      program.program, std::move(registers), static_cast<uint64_t>(id), profiled, given);
}

void CancelRun(Environment& environment, int64_t id) {
  environment.Room<Programs>().Cancel(static_cast<uint64_t>(id));
}

// Everything about tensors that a Program depends on; equal texts mean that it fits.
std::string TensorsKey(Environment&, const std::vector<at::Tensor>& tensors) {
  std::string key;
  std::unordered_map<const c10::StorageImpl*, size_t> storages;
  std::vector<size_t> members;
  const auto add = [&](int64_t number) {
    key += std::to_string(number);
    key += ',';
  };
  for (const at::Tensor& tensor : tensors) {
    add(static_cast<int64_t>(tensor.scalar_type()));
    key += tensor.device().str();
    key += !tensor.requires_grad() ? ' ' : tensor.is_leaf() ? 'g' : 'h';
    key += tensor.is_inference() ? 'i' : ' ';
    for (const int64_t size : tensor.sizes()) add(size);
    key += ';';
    for (const int64_t stride : tensor.strides()) add(stride);
    const c10::StorageImpl* storage =
        tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
    const size_t group = storages.try_emplace(storage, storages.size()).first->second;
    if (group < members.size()) {
      ++members[group];
    } else {
      members.push_back(1);
    }
    add(static_cast<int64_t>(group));
    key += '|';
  }
  // Where a tensor lies matters only beside another one in the same memory.
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.has_storage()) continue;
    const size_t group = storages.at(tensor.storage().unsafeGetStorageImpl());
    if (members[group] > 1) add(tensor.storage_offset());
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
  exports.Function<"recordGenerator", RecordGenerator>();
  exports.Function<"bindNumber", BindNumber>();
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
