#include "native/program/recorder.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>

#include "native/addon.h"
#include "native/convert/value.h"
#include "native/device/run_generator.h"
#include "native/error/error.h"
#include "native/placement/resting.h"
#include "native/program/autocast.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

std::atomic<uint64_t> last_recording = 0;

bool IsWrappedNumber(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->is_wrapped_number();
}

// Operators that take tensors of different devices.
bool MixesDevices(const std::string& name) {
  return name.starts_with("aten::copy_") || name.starts_with("aten::to.") ||
         name.starts_with("aten::_to_copy") || name.starts_with("aten::index") ||
         name.starts_with("aten::set_");
}

// The device on which an operator's results will be: the one asked for, or the one that its tensors
// have in common.
c10::Device ResultDevice(const OpPlan& op, const torch::jit::Stack& stack) {
  std::optional<c10::Device> common;
  std::optional<c10::Device> scalar;
  const auto meet = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    const c10::Device device = FindRest(tensor) ? HomeDevice(tensor) : RealDevice(tensor);
    // A tensor without dimensions on the CPU goes with any device.
    if (tensor.dim() == 0 && device.is_cpu()) {
      scalar = device;
      return;
    }
    if (!common) common = device;
    if (*common != device && !MixesDevices(op.name)) {
      throw Failure(code::kInvalidArgument,
                    "expected all tensors to be on the same device, got " + common->str() +
                        " and " + device.str());
    }
  };
  for (size_t i = 0; i < stack.size(); ++i) {
    const c10::IValue& value = stack[i];
    if (op.arguments[i].kind == ArgumentKind::kDevice && value.isDevice()) return value.toDevice();
    if (value.isTensor()) {
      meet(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) meet(tensor);
    }
  }
  if (common) return *common;
  return scalar.value_or(c10::Device(at::kCPU));
}

// libtorch's failures on fakes: what a kernel for shapes cannot know, and what does not exist.
[[noreturn]] void FailShapes(const OpPlan& op) {
  Failure failure = CurrentFailure();
  const std::string& text = failure.message;
  const auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (says("'Meta' backend") || says("meta tensor") || says("Meta tensor") || says("meta device") ||
      says("no data")) {
    throw Failure(code::kTrace,
                  "[" + op.name +
                      "] cannot be recorded: its result depends on values, or it has no rule for "
                      "shapes",
                  "Compute with tensors of fixed shapes instead (torch.where, masks), or run this "
                  "part eagerly.");
  }
  throw failure;
}

bool HasTensorResult(const OpPlan& op) {
  for (const ArgumentKind kind : op.returns)
    if (kind == ArgumentKind::kTensor) return true;
  return false;
}

// A fresh meta tensor like a fake, when an operator gives its argument back where the real one
// copies to another device.
bool CopiesToDevice(const torch::jit::Stack& arguments, const at::Tensor& result, c10::Device to) {
  if (arguments.empty() || !arguments[0].isTensor()) return false;
  return result.is_same(arguments[0].toTensor()) && RealDevice(result) != to;
}

// By its arguments, where they say that it need not.
bool Draws(const OpPlan& op, const torch::jit::Stack& stack) {
  const auto may = [&](size_t probability, const char* train) {
    if (stack.size() > probability && stack[probability].isDouble() &&
        stack[probability].toDouble() == 0)
      return false;
    for (size_t i = 0; i < stack.size(); ++i)
      if (op.arguments[i].name == train && stack[i].isBool() && !stack[i].toBool()) return false;
    return true;
  };
  if (op.name == "aten::scaled_dot_product_attention") return may(4, "");
  if (op.name == "aten::dropout") return may(1, "train");
  return op.handle.hasTag(at::Tag::nondeterministic_seeded);
}

}  // namespace

Recorder::Recorder(Environment& environment, napi_value lines)
    : environment_(environment), id_(++last_recording) {
  Check(environment.env(), napi_create_reference(environment.env(), lines, 1, &lines_));
  environment.tensors().FreeDying();
  environment.tensors().ForEach([&](Handle handle, const at::Tensor& tensor) {
    handles_.try_emplace(tensor.unsafeGetTensorImpl(), handle);
  });
}

Recorder::~Recorder() { napi_delete_reference(environment_.env(), lines_); }

at::Tensor Recorder::AddInput(const at::Tensor& real) {
  // Not the fake of the same tensor when it is captured too: another call may differ.
  at::Tensor fake = MakeFake(StorageOf(real), real);
  NewRegister(fake);
  originals_.emplace(fake.unsafeGetTensorImpl(), real);
  ++program_->inputs;
  return fake;
}

c10::Storage Recorder::StorageOf(const at::Tensor& real) {
  if (real.layout() != at::kStrided || !real.has_storage()) {
    throw Failure(code::kTrace, "only dense tensors can take part in a recording");
  }
  const c10::StorageImpl* storage = real.storage().unsafeGetStorageImpl();
  auto& fake_storage = storages_[storage];
  if (!fake_storage) {
    fake_storage = MakeFakeStorage(storage->nbytes(), {HomeDevice(real), id_});
  }
  held_.push_back(real);
  return fake_storage;
}

at::Tensor Recorder::FakeOf(const at::Tensor& real) {
  if (const auto known = fakes_.find(real.unsafeGetTensorImpl()); known != fakes_.end())
    return known->second;
  at::Tensor fake = MakeFake(StorageOf(real), real);
  fakes_.emplace(real.unsafeGetTensorImpl(), fake);
  originals_.emplace(fake.unsafeGetTensorImpl(), real);
  return fake;
}

Register Recorder::NewRegister(const at::Tensor& fake) {
  const auto at = static_cast<Register>(program_->registers.size());
  TensorFacts facts = TensorFacts::Of(fake);
  const c10::StorageImpl* storage = fake.storage().unsafeGetStorageImpl();
  facts.storage = storage_numbers_.try_emplace(storage, program_->storages).first->second;
  program_->storages = static_cast<int32_t>(storage_numbers_.size());
  program_->registers.push_back(std::move(facts));
  places_[fake.unsafeGetTensorImpl()] = at;
  held_.push_back(fake);
  return at;
}

Register Recorder::Captured(const at::Tensor& real) {
  const at::Tensor fake = FakeOf(real);
  CapturedTensor capture;
  capture.to = NewRegister(fake);
  places_[real.unsafeGetTensorImpl()] = capture.to;
  const auto known = handles_.find(real.unsafeGetTensorImpl());
  // A tensor that was freed meanwhile may have left its address to one made since.
  const at::Tensor* held =
      known == handles_.end() ? nullptr : environment_.tensors().Find(known->second);
  if (held != nullptr && held->is_same(real)) {
    capture.handle = known->second;
  } else {
    capture.constant = real;
  }
  program_->captures.push_back(std::move(capture));
  return program_->captures.back().to;
}

Register Recorder::RegisterOf(const at::Tensor& tensor) {
  if (!tensor.defined()) return kNoRegister;
  const auto known = places_.find(tensor.unsafeGetTensorImpl());
  if (known != places_.end()) return known->second;
  if (const FakeMark* mark = FindFakeMark(tensor)) {
    if (mark->recording != id_) {
      throw Failure(code::kTrace, "a tensor that another recording left behind was used");
    }
    throw Failure(code::kTrace, "a tensor was used that no recorded operator made");
  }
  return Captured(tensor);
}

// Replaces the tensors in `value` by their fakes.
Operand Recorder::TakeOperand(const ArgumentPlan& argument, c10::IValue& value) {
  Operand operand;
  const auto fake = [&](const at::Tensor& tensor) -> at::Tensor {
    if (!tensor.defined() || FindFakeMark(tensor) != nullptr) return tensor;
    return FakeOf(tensor);
  };
  if (value.isTensor()) {
    const at::Tensor tensor = value.toTensor();
    if (tensor.defined() && IsWrappedNumber(tensor)) {
      operand.constant = tensor;
      at::Tensor number = at::empty({}, tensor.options().device(at::kMeta));
      number.unsafeGetTensorImpl()->set_wrapped_number(true);
      value = number;
      return operand;
    }
    if (!tensor.defined()) return operand;
    operand.kind = Operand::Kind::kTensor;
    operand.registers.push_back(RegisterOf(tensor));
    value = fake(tensor);
  } else if (value.isTensorList()) {
    operand.kind = Operand::Kind::kTensors;
    c10::List<at::Tensor> fakes;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      operand.registers.push_back(RegisterOf(tensor));
      fakes.push_back(fake(tensor));
    }
    value = fakes;
  } else if (argument.list && argument.kind == ArgumentKind::kTensor && value.isList()) {
    operand.kind = Operand::Kind::kOptionalTensors;
    c10::List<std::optional<at::Tensor>> fakes;
    for (const c10::IValue& item : value.toListRef()) {
      const bool none = item.isNone() || !item.toTensor().defined();
      operand.registers.push_back(none ? kNoRegister : RegisterOf(item.toTensor()));
      fakes.push_back(none ? std::optional<at::Tensor>() : fake(item.toTensor()));
    }
    value = fakes;
  } else if (value.isGenerator() && value.toGenerator().defined()) {
    operand.kind = Operand::Kind::kTensor;
    operand.registers.push_back(GeneratorRegister(value.toGenerator()));
    // Nothing is drawn while a function is recorded.
    value = c10::IValue();
  } else {
    operand.constant = value;
  }
  return operand;
}

// On fakes everything happens on the meta device.
void Recorder::ReplaceDevice(const OpPlan& op, torch::jit::Stack& stack) {
  bool any_tensor = false;
  for (const ArgumentPlan& argument : op.arguments)
    any_tensor |= argument.kind == ArgumentKind::kTensor;
  for (size_t i = 0; i < stack.size(); ++i) {
    const ArgumentPlan& argument = op.arguments[i];
    if (argument.kind == ArgumentKind::kDevice && (stack[i].isDevice() || !any_tensor)) {
      stack[i] = c10::Device(at::kMeta);
    } else if (argument.name == "pin_memory") {
      stack[i] = c10::IValue();
    }
  }
}

Result Recorder::TakeResult(c10::IValue& value, c10::Device device) {
  Result result;
  const auto take = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) {
      result.registers.push_back(kNoRegister);
      return;
    }
    if (FindFakeMark(tensor) == nullptr) MarkFake(tensor, {device, id_});
    result.registers.push_back(NewRegister(tensor));
  };
  if (value.isTensor()) {
    take(value.toTensor());
  } else if (value.isTensorList()) {
    result.list = true;
    for (const at::Tensor& tensor : value.toTensorVector()) take(tensor);
  }
  return result;
}

// Modes of the thread matter to operators; most recordings have one.
uint32_t Recorder::CurrentModes() {
  const c10::impl::LocalDispatchKeySet keys = c10::impl::tls_local_dispatch_key_set();
  std::vector<int64_t> key{static_cast<int64_t>(keys.included_.raw_repr()),
                           static_cast<int64_t>(keys.excluded_.raw_repr()),
                           c10::GradMode::is_enabled(),
                           c10::InferenceMode::is_enabled(),
                           static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCPU)),
                           static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCUDA)),
                           cast_epoch_};
  if (!mode_keys_.empty() && key == mode_keys_.back()) return mode_keys_.size() - 1;
  for (size_t i = 0; i < mode_keys_.size(); ++i)
    if (mode_keys_[i] == key) return i;
  mode_keys_.push_back(std::move(key));
  {
    const c10::impl::IncludeDispatchKeyGuard draws(kDrawKey);
    program_->modes.emplace_back();
  }
  program_->cast_epochs.push_back(cast_epoch_);
  ModeFacts facts{c10::GradMode::is_enabled(), c10::InferenceMode::is_enabled(), false};
  for (const c10::DeviceType type : {at::kCPU, at::kCUDA})
    facts.autocast |= at::autocast::is_autocast_enabled(type);
  program_->mode_facts.push_back(facts);
  program_->autocast |= facts.autocast;
  return mode_keys_.size() - 1;
}

void Recorder::NoteLine() {
  const napi_env env = environment_.env();
  napi_value lines = nullptr;
  napi_value error = nullptr;
  Check(env, napi_get_reference_value(env, lines_, &lines));
  Check(env, napi_create_error(env, nullptr, FromString(env, ""), &error));
  Check(env, napi_set_element(env, lines, program_->code.size(), error));
}

void Recorder::NoteDraws(const Instruction& instruction, c10::Device device) {
  if (!instruction.draws) return;
  program_->draws = true;
  for (size_t i = 0; i < instruction.operands.size(); ++i) {
    // One that is named.
    if (instruction.op->arguments[i].kind == ArgumentKind::kGenerator &&
        instruction.operands[i].kind == Operand::Kind::kTensor) {
      return;
    }
  }
  (device.is_cpu() ? program_->draws_from_default : program_->draws_on_device) = true;
}

void Recorder::Record(const OpPlan& op, torch::jit::Stack& stack) {
  Instruction instruction;
  instruction.op = &op;
  instruction.modes = CurrentModes();
  instruction.draws = Draws(op, stack);
  const c10::Device device = ResultDevice(op, stack);
  for (size_t i = 0; i < stack.size(); ++i)
    instruction.operands.push_back(TakeOperand(op.arguments[i], stack[i]));
  NoteDraws(instruction, device);
  ReplaceDevice(op, stack);
  CastAsAutocastWill(op, device, stack);

  const torch::jit::Stack arguments = stack;
  try {
    op.handle.callBoxed(&stack);
  } catch (...) {
    FailShapes(op);
  }
  // Questions about shapes are answered here and now.
  if (!op.writes && !HasTensorResult(op)) return;

  for (size_t i = 0; i < stack.size(); ++i) {
    c10::IValue& value = stack[i];
    if (i < op.returns_written.size() && op.returns_written[i]) {
      instruction.results.emplace_back();
      continue;
    }
    if (value.isTensor() && CopiesToDevice(arguments, value.toTensor(), device))
      value = at::empty_like(value.toTensor());
    instruction.results.push_back(TakeResult(value, device));
  }
  NoteLine();
  instruction.line = static_cast<int32_t>(program_->code.size());
  program_->code.push_back(std::move(instruction));
}

at::Tensor Recorder::Detach(const at::Tensor& tensor) {
  torch::jit::Stack stack{tensor};
  Record(*OpRegistry::At(OpRegistry::Find("aten::detach", "")), stack);
  return stack[0].toTensor();
}

Register Recorder::GeneratorRegister(const at::Generator& generator) {
  for (const BoundGenerator& known : program_->generators) {
    const at::Generator& its =
        known.input < 0 ? known.captured : input_generators_[static_cast<size_t>(known.input)];
    if (its == generator) return known.to;
  }
  BoundGenerator bound;
  const auto input = std::find(input_generators_.begin(), input_generators_.end(), generator);
  if (input != input_generators_.end()) {
    bound.input = static_cast<int32_t>(input - input_generators_.begin());
  } else {
    bound.captured = generator;
  }
  bound.to = NewRegister(at::empty({0}, at::device(at::kMeta)));
  program_->generators.push_back(std::move(bound));
  return program_->generators.back().to;
}

void Recorder::AddGenerator(const at::Generator& generator) {
  input_generators_.push_back(generator);
}

void Recorder::BindNumber(size_t argument, int32_t input) {
  if (program_->code.empty()) throw Failure(code::kTrace, "there is no operator to bind to");
  Instruction& instruction = program_->code.back();
  if (argument >= instruction.operands.size()) {
    throw Failure(code::kInvalidArgument, "[bindNumber] argument 1 is no argument of the operator");
  }
  BoundNumber number;
  number.input = input;
  number.as_tensor = instruction.op->arguments[argument].kind == ArgumentKind::kNumberTensor;
  number.to = NewRegister(at::empty({}, at::device(at::kMeta).dtype(at::kDouble)));
  Operand& operand = instruction.operands[argument];
  operand.kind = Operand::Kind::kTensor;
  operand.constant = c10::IValue();
  operand.registers = {number.to};
  program_->numbers.push_back(number);
}

// Who shared memory with whom when the function was recorded: what it writes, others saw.
void Recorder::FindSharing() {
  std::vector<int32_t>& sharing = program_->sharing;
  sharing.assign(program_->registers.size(), -1);
  std::unordered_map<const c10::StorageImpl*, int32_t> groups;
  for (const auto& [fake, real] : originals_) {
    const auto place = places_.find(fake);
    if (place == places_.end() || !real.has_storage()) continue;
    const auto [group, fresh] = groups.try_emplace(real.storage().unsafeGetStorageImpl(),
                                                   static_cast<int32_t>(groups.size()));
    sharing[place->second] = group->second;
  }
}

std::shared_ptr<Program> Recorder::Finish(const std::vector<at::Tensor>& outputs,
                                          const std::optional<std::vector<std::string>>& passes) {
  for (const at::Tensor& output : outputs) program_->outputs.push_back(RegisterOf(output));
  program_->results = outputs.size();
  for (const auto& [identity, state] : gradients_) {
    if (!state.outside || !program_->gradients[state.slot].changed) continue;
    program_->gradients[state.slot].after = program_->outputs.size();
    program_->outputs.push_back(state.now.defined() ? RegisterOf(state.now) : kNoRegister);
  }
  Optimize(*program_, passes);
  FindSharing();
  program_->Finish();
  return std::move(program_);
}

}  // namespace tf
