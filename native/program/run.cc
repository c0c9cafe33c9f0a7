#include "native/program/run.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <chrono>

#include "native/convert/value.h"
#include "native/device/run_generator.h"
#include "native/error/guard.h"
#include "native/io/mapped_tensors.h"

namespace tf {
namespace {

// How long a run keeps the executor when others wait for it.
constexpr int64_t kTurn = 2'000'000;
constexpr std::chrono::seconds kPatience{2};

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// ProgramRun --------------------------------------------------------------------------------------

ProgramRun::ProgramRun(std::shared_ptr<const Program> program,
                       std::vector<c10::IValue> registers,
                       std::shared_ptr<Mailbox> mailbox,
                       uint64_t id,
                       bool profiled)
    : program_(std::move(program)),
      registers_(std::move(registers)),
      mailbox_(std::move(mailbox)),
      id_(id),
      profiled_(profiled) {
  registers_.resize(program_->registers.size());
  if (profiled) spans_.resize(program_->code.size());
}

void ProgramRun::Start(std::unique_ptr<ProgramRun> run) {
  run->began_ = Now();
  Executor::Cpu().Enqueue(*run.release());
}

void ProgramRun::Run() noexcept {
  std::unique_ptr<ProgramRun> self(this);
  const std::shared_ptr<Mailbox> mailbox = mailbox_;
  if (!mailbox->BeginTurn()) return;
  bool finished = false;
  failure_ = Capture([&] { finished = TakeTurn(); });
  mailbox->EndTurn();
  if (!finished && !failure_) {
    Executor::Cpu().Enqueue(*self.release());
  } else {
    mailbox->Post(std::move(self));
  }
}

bool ProgramRun::TakeTurn() {
  const Executor& executor = Executor::Cpu();
  const std::vector<Instruction>& code = program_->code;
  const int64_t turn_ends = Now() + kTurn;
  const tf::DrawFrom draws(generator_);
  std::optional<at::ThreadLocalStateGuard> guard;
  uint32_t modes = 0;
  torch::jit::Stack stack;
  for (; position_ < code.size(); ++position_) {
    if (cancelled() || mailbox_->closed()) {
      cancelled_.store(true, std::memory_order_relaxed);
      registers_.clear();
      return true;
    }
    if (executor.has_waiting() && Now() >= turn_ends) return false;
    const Instruction& instruction = code[position_];
    if (!guard || modes != instruction.modes) {
      if (program_->cast_epochs[instruction.modes] != program_->cast_epochs[modes_])
        at::autocast::clear_cache();
      modes_ = instruction.modes;
      guard.reset();
      guard.emplace(program_->modes[instruction.modes]);
      modes = instruction.modes;
    }
    if (profiled_) spans_[position_].begin = Now() - began_;
    Execute(instruction, stack);
    if (profiled_) spans_[position_].end = Now() - began_;
  }
  // Weights in lower precision are kept as long as the run.
  if (program_->autocast) at::autocast::clear_cache();
  return true;
}

void ProgramRun::Execute(const Instruction& instruction, torch::jit::Stack& stack) {
  stack.clear();
  for (const Operand& operand : instruction.operands) stack.push_back(Load(operand));
  for (const Register at : instruction.dies) registers_[at] = c10::IValue();
  try {
    io::CheckMapped(stack);
    instruction.op->handle.callBoxed(&stack);
    io::CheckMappingFaults();
  } catch (...) {
    Failure failure = CurrentFailure();
    if (failure.from_torch) {
      failure.message = "[" + instruction.op->name + "] " + failure.message;
      failure.from_torch = false;
    }
    registers_.clear();
    throw failure;
  }
  Store(instruction, stack);
}

c10::IValue ProgramRun::Load(const Operand& operand) const {
  switch (operand.kind) {
    case Operand::Kind::kConstant:
      return operand.constant;
    case Operand::Kind::kTensor:
      return registers_[operand.registers[0]];
    case Operand::Kind::kTensors: {
      c10::List<at::Tensor> list;
      list.reserve(operand.registers.size());
      for (const Register at : operand.registers) {
        list.push_back(at == kNoRegister ? at::Tensor() : registers_[at].toTensor());
      }
      return list;
    }
    case Operand::Kind::kOptionalTensors: {
      c10::List<std::optional<at::Tensor>> list;
      list.reserve(operand.registers.size());
      for (const Register at : operand.registers) {
        list.push_back(at == kNoRegister ? std::optional<at::Tensor>() : registers_[at].toTensor());
      }
      return list;
    }
  }
  return {};
}

void ProgramRun::Store(const Instruction& instruction, torch::jit::Stack& stack) {
  for (size_t i = 0; i < instruction.results.size() && i < stack.size(); ++i) {
    const Result& result = instruction.results[i];
    if (result.registers.empty()) continue;
    if (!result.list) {
      if (result.registers[0] != kNoRegister) registers_[result.registers[0]] = std::move(stack[i]);
      continue;
    }
    const auto tensors = stack[i].toTensorVector();
    for (size_t k = 0; k < result.registers.size() && k < tensors.size(); ++k)
      if (result.registers[k] != kNoRegister) registers_[result.registers[k]] = tensors[k];
  }
  for (const Register at : instruction.unused) registers_[at] = c10::IValue();
}

// Mailbox -----------------------------------------------------------------------------------------

void Mailbox::Open(napi_env env, napi_threadsafe_function_call_js wake) {
  Check(env,
        napi_create_threadsafe_function(env,
                                        nullptr,
                                        nullptr,
                                        FromString(env, "torchformers programs"),
                                        /*max_queue_size=*/0,
                                        /*initial_thread_count=*/1,
                                        nullptr,
                                        nullptr,
                                        this,
                                        wake,
                                        &function_));
  Check(env, napi_unref_threadsafe_function(env, function_));
  closed_.store(false, std::memory_order_release);
}

void Mailbox::Close() {
  std::vector<std::unique_ptr<ProgramRun>> dropped;
  std::unique_lock lock(mutex_);
  closed_.store(true, std::memory_order_release);
  // Operators may be reading memory that ends with the environment.
  idle_.wait_for(lock, kPatience, [&] { return turns_ == 0; });
  dropped.swap(done_);
  function_ = nullptr;
}

bool Mailbox::BeginTurn() {
  const std::lock_guard lock(mutex_);
  if (closed()) return false;
  ++turns_;
  return true;
}

void Mailbox::EndTurn() {
  const std::lock_guard lock(mutex_);
  --turns_;
  idle_.notify_all();
}

void Mailbox::Post(std::unique_ptr<ProgramRun> run) {
  const std::lock_guard lock(mutex_);
  if (closed()) return;
  done_.push_back(std::move(run));
  if (std::exchange(awake_, true)) return;
  napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

std::vector<std::unique_ptr<ProgramRun>> Mailbox::Take() {
  const std::lock_guard lock(mutex_);
  awake_ = false;
  return std::exchange(done_, {});
}

void Mailbox::Hold(napi_env env, bool alive) {
  if (alive) {
    napi_ref_threadsafe_function(env, function_);
  } else {
    napi_unref_threadsafe_function(env, function_);
  }
}

}  // namespace tf
