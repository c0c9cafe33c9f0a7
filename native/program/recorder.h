// Records the operators that a function calls, on fakes, as a Program.
#pragma once

#include <ATen/core/stack.h>
#include <node_api.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "native/program/fake.h"
#include "native/program/program.h"

namespace tf {

class Environment;

// One recording. While it is on, every operator called from JavaScript comes here instead of to its
// kernel: composite operators stay whole, autograd and autocast are still to come.
class Recorder {
 public:
  // `lines` is a JavaScript array that gets one unformatted Error per instruction: where in the
  // model it was recorded.
  Recorder(Environment& environment, napi_value lines);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // The fake that stands for an argument of the function. All inputs come before the first
  // operator.
  at::Tensor AddInput(const at::Tensor& real);

  // Runs an operator on fakes and records it; the stack then holds its results.
  void Record(const OpPlan& op, torch::jit::Stack& stack);

  // `x.data`: x without its history.
  at::Tensor Detach(const at::Tensor& tensor);

  // Ends the recording. Outputs may be fakes, or real tensors that the function passed through.
  // `passes`: which may rewrite it, by name; absent, all.
  std::shared_ptr<Program> Finish(const std::vector<at::Tensor>& outputs,
                                  const std::optional<std::vector<std::string>>& passes);

 private:
  Register RegisterOf(const at::Tensor& tensor);
  Register NewRegister(const at::Tensor& fake);
  c10::Storage StorageOf(const at::Tensor& real);
  at::Tensor FakeOf(const at::Tensor& real);
  Register Captured(const at::Tensor& real);
  Operand TakeOperand(const ArgumentPlan& argument, c10::IValue& value);
  void ReplaceDevice(const OpPlan& op, torch::jit::Stack& stack);
  Result TakeResult(c10::IValue& value, c10::Device device);
  uint32_t CurrentModes();
  void NoteLine();

  Environment& environment_;
  const uint64_t id_;
  napi_ref lines_ = nullptr;
  std::shared_ptr<Program> program_ = std::make_shared<Program>();
  // Which register a tensor is in, by its address; `held_` keeps the addresses unique.
  std::unordered_map<const c10::TensorImpl*, Register> places_;
  std::vector<at::Tensor> held_;
  std::unordered_map<const c10::StorageImpl*, c10::Storage> storages_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> fakes_;
  // What was in the table when the recording began: captured tensors are bound by these.
  std::unordered_map<const c10::TensorImpl*, Handle> handles_;
  std::vector<std::vector<int64_t>> mode_keys_;
  // The numbers of fake storages; `held_` keeps their addresses unique.
  std::unordered_map<const c10::StorageImpl*, int32_t> storage_numbers_;
};

}  // namespace tf
