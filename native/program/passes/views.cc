// Views by torchformers::view, which says outright what the result is, over the tensor that owns
// the memory: the interpreter makes such a view without calling an operator, and a chain of views
// is one.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

// Operators that give nothing but views of their first argument, or copies: where a result shares
// its memory it is a view.
bool MakesViews(const Instruction& instruction) {
  static constexpr std::array<std::string_view, 33> kNames{
      "aten::view",       "aten::reshape",      "aten::_unsafe_view",
      "aten::view_as",    "aten::reshape_as",   "aten::expand",
      "aten::expand_as",  "aten::transpose",    "aten::t",
      "aten::permute",    "aten::unsqueeze",    "aten::squeeze",
      "aten::select",     "aten::slice",        "aten::narrow",
      "aten::chunk",      "aten::split",        "aten::split_with_sizes",
      "aten::unbind",     "aten::flatten",      "aten::unflatten",
      "aten::contiguous", "aten::to",           "aten::detach",
      "aten::alias",      "aten::as_strided",   "aten::movedim",
      "aten::swapaxes",   "aten::diagonal",     "aten::mT",
      "aten::numpy_T",    "aten::tensor_split", "aten::unfold"};
  const std::string_view name = instruction.op->name;
  const std::string_view plain = name.substr(0, name.find('.'));
  return std::find(kNames.begin(), kNames.end(), plain) != kNames.end();
}

class ViewMaker {
 public:
  explicit ViewMaker(Program& program) : program_(program), outputs_(program.registers.size()) {
    for (const Register at : program.outputs)
      if (at != kNoRegister) outputs_[at] = true;
  }

  void Run() {
    std::vector<Instruction> code;
    code.reserve(program_.code.size());
    for (Instruction& instruction : program_.code) {
      const auto views = ViewsOf(instruction);
      if (views.empty()) {
        code.push_back(std::move(instruction));
      } else {
        for (const Register at : views) code.push_back(View(instruction, at));
      }
    }
    program_.code = std::move(code);
  }

 private:
  // All of the results, when each is a view. An output stays what made it.
  std::vector<Register> ViewsOf(const Instruction& instruction) const {
    const Register base = TensorAt(instruction, 0);
    if (base == kNoRegister || !MakesViews(instruction)) return {};
    const TensorFacts& facts = program_.registers[base];
    if (at::isComplexType(facts.dtype)) return {};
    std::vector<Register> views;
    for (const Result& result : instruction.results) {
      for (const Register at : result.registers) {
        if (at == kNoRegister || outputs_[at]) return {};
        const TensorFacts& view = program_.registers[at];
        if (view.storage != facts.storage || view.dtype != facts.dtype) return {};
        views.push_back(at);
      }
    }
    return views;
  }

  Instruction View(const Instruction& from, Register at) {
    Register base = TensorAt(from, 0);
    const auto known = bases_.find(base);
    if (known != bases_.end()) base = known->second;
    bases_.emplace(at, base);
    const TensorFacts& facts = program_.registers[at];
    Instruction view;
    view.op = &OpNamed("torchformers::view");
    view.operands = {TensorOperand(base),
                     ConstantOperand(facts.sizes),
                     ConstantOperand(facts.strides),
                     ConstantOperand(facts.offset - program_.registers[base].offset)};
    view.results.resize(1);
    view.results[0].registers = {at};
    view.modes = from.modes;
    view.line = from.line;
    return view;
  }

  Program& program_;
  std::vector<bool> outputs_;
  std::unordered_map<Register, Register> bases_;
};

at::Tensor View(const at::Tensor& self,
                at::IntArrayRef sizes,
                at::IntArrayRef strides,
                int64_t offset) {
  return self.as_strided(sizes, strides, self.storage_offset() + offset);
}

// torchformers::view(Tensor(a) self, int[] size, int[] stride, int offset) -> Tensor(a)
//   as_strided, with the offset counted from where `self` begins.
TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def("view(Tensor(a) self, int[] size, int[] stride, int offset) -> Tensor(a)");
}
TORCH_LIBRARY_IMPL(torchformers, CompositeImplicitAutograd, m) { m.impl("view", View); }

}  // namespace

void MakeViewsDirect(Program& program) { ViewMaker(program).Run(); }

}  // namespace tf
