// RMS norms as one operator: aten::rms_norm in float32, and the sequence that models write out
// because in lower precision they round before the scaling:
//   weight * (h * rsqrt(mean(h^2) + eps)).to(dtype), with h = x.to(float32).
// LayerNorm is one operator already.
#include <algorithm>
#include <limits>
#include <vector>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

struct Norm {
  Register input = kNoRegister;
  Register weight = kNoRegister;
  double eps = 0;
};

class NormFinder {
 public:
  explicit NormFinder(Program& program) : graph_(program) {}

  void Run() {
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (graph_.IsRemoved(i) || !graph_.IsPlain(i)) continue;
      if (const auto norm = FromOperator(i)) Replace(i, *norm);
    }
    // The weight first: what it multiplies would be a norm without weight.
    for (size_t i = graph_.size(); i-- > 0;) {
      if (graph_.IsRemoved(i) || !graph_.IsPlain(i)) continue;
      if (const auto norm = FromProduct(i)) Replace(i, *norm);
    }
  }

 private:
  void Replace(size_t position, const Norm& norm) {
    Instruction fused;
    fused.op = &OpNamed("torchformers::rms_norm");
    fused.operands = {
        TensorOperand(norm.input), TensorOperand(norm.weight), ConstantOperand(norm.eps)};
    fused.results = graph_[position].results;
    graph_.Replace(position, std::move(fused));
  }

  bool IsWeight(Register at, Register input) const {
    const TensorFacts& weight = graph_.FactsOf(at);
    const TensorFacts& facts = graph_.FactsOf(input);
    return weight.dtype == facts.dtype && weight.sizes.size() == 1 && !facts.sizes.empty() &&
           weight.sizes[0] == facts.sizes.back();
  }

  // In lower precision this operator rounds once, after the scaling.
  std::optional<Norm> FromOperator(size_t position) const {
    const Instruction& instruction = graph_[position];
    if (!Is(instruction, "aten::rms_norm")) return std::nullopt;
    Norm norm;
    norm.input = TensorAt(instruction, 0);
    norm.weight = TensorAt(instruction, 2);
    const TensorFacts& input = graph_.FactsOf(norm.input);
    if (input.dtype != at::kFloat || input.sizes.empty()) return std::nullopt;
    if (instruction.operands[1].constant.toIntVector() != std::vector{input.sizes.back()})
      return std::nullopt;
    if (norm.weight != kNoRegister && !IsWeight(norm.weight, norm.input)) return std::nullopt;
    norm.eps = IsNone(instruction, 3) ? std::numeric_limits<float>::epsilon()
                                      : NumberAt(instruction, 3).value_or(0);
    return norm;
  }

  // The operand of a product that is not `one`.
  static Register Other(const Instruction& product, Register one) {
    return TensorAt(product, 0) == one ? TensorAt(product, 1) : TensorAt(product, 0);
  }

  std::optional<Norm> FromProduct(size_t position) const {
    const Instruction& instruction = graph_[position];
    if (Is(instruction, "aten::mul.Tensor")) {
      for (const size_t side : {0, 1}) {
        const Register normalized = TensorAt(instruction, side);
        const Register weight = TensorAt(instruction, 1 - side);
        if (normalized == kNoRegister || weight == kNoRegister) continue;
        const size_t maker = graph_.MakerOf(normalized);
        if (maker == Graph::kNowhere || !graph_.IsOnlyFor(normalized, position)) continue;
        auto norm = FromRounding(maker);
        if (!norm || !IsWeight(weight, norm->input)) continue;
        if (!graph_.SameModes({maker, position}) || !Holds(norm->input, maker, position)) continue;
        norm->weight = weight;
        return norm;
      }
    }
    return FromRounding(position);
  }

  // (h * rsqrt(mean(h^2) + eps)).to(dtype), or without the cast in float32.
  std::optional<Norm> FromRounding(size_t position) const {
    const Instruction& instruction = graph_[position];
    if (!instruction.op->name.starts_with("aten::to.")) return FromScaling(position, position);
    const Register scaled = TensorAt(instruction, 0);
    const Register result = ResultOf(instruction);
    if (scaled == kNoRegister || result == kNoRegister) return std::nullopt;
    const size_t maker = graph_.MakerOf(scaled);
    if (maker == Graph::kNowhere || !graph_.IsOnlyFor(scaled, position)) return std::nullopt;
    if (graph_.FactsOf(result).storage == graph_.FactsOf(scaled).storage) return std::nullopt;
    return FromScaling(maker, position);
  }

  std::optional<Norm> FromScaling(size_t position, size_t root) const {
    const Instruction& product = graph_[position];
    const Register result = ResultOf(graph_[root]);
    if (!Is(product, "aten::mul.Tensor") || result == kNoRegister) return std::nullopt;
    for (const size_t side : {0, 1}) {
      const Register scale = TensorAt(product, side);
      const Register wide = TensorAt(product, 1 - side);
      if (scale == kNoRegister || wide == kNoRegister) continue;
      auto norm = FromScale(scale, wide, position);
      if (!norm) continue;
      // In float32 the input is `wide`; else what it was cast from.
      if (graph_.FactsOf(result).dtype != at::kFloat) {
        const size_t cast = graph_.MakerOf(wide);
        if (cast == Graph::kNowhere || !graph_[cast].op->name.starts_with("aten::to.")) continue;
        norm->input = TensorAt(graph_[cast], 0);
        if (norm->input == kNoRegister || graph_.aliases().IsWritten(wide)) continue;
        if (!graph_.SameModes({cast, root}) || !Holds(norm->input, cast, root)) continue;
      } else if (!Holds(wide, FirstUse(wide), root)) {
        continue;
      }
      if (graph_.FactsOf(norm->input).dtype != graph_.FactsOf(result).dtype) continue;
      if (!graph_.SameModes({position, root})) continue;
      return norm;
    }
    return std::nullopt;
  }

  // scale = rsqrt(mean(wide^2, -1, keepdim) + eps), all of it for this product alone.
  std::optional<Norm> FromScale(Register scale, Register wide, size_t product) const {
    const auto step = [&](Register at, std::string_view name, size_t user) -> size_t {
      const Instruction* maker = graph_.MadeBy(at, name);
      if (maker == nullptr || !graph_.IsOnlyFor(at, user)) return Graph::kNowhere;
      return graph_.MakerOf(at);
    };
    const size_t root = step(scale, "aten::rsqrt", product);
    if (root == Graph::kNowhere) return std::nullopt;
    const Register shifted = TensorAt(graph_[root], 0);
    const size_t sum = step(shifted, "aten::add.Tensor", root);
    if (sum == Graph::kNowhere || IntAt(graph_[sum], 2) != 1) return std::nullopt;
    const auto eps = NumberAt(graph_[sum], 1);
    const size_t mean = step(TensorAt(graph_[sum], 0), "aten::mean.dim", sum);
    if (!eps || mean == Graph::kNowhere) return std::nullopt;
    const Instruction& average = graph_[mean];
    const auto last = static_cast<int64_t>(graph_.FactsOf(wide).sizes.size()) - 1;
    const auto dims = average.operands[1].constant;
    if (!dims.isIntList() || dims.toIntList().size() != 1) return std::nullopt;
    if (dims.toIntList().get(0) != -1 && dims.toIntList().get(0) != last) return std::nullopt;
    if (!BoolAt(average, 2) || !IsNone(average, 3)) return std::nullopt;
    const Register squares = TensorAt(average, 0);
    const size_t square = graph_.MakerOf(squares);
    if (square == Graph::kNowhere || !graph_.IsOnlyFor(squares, mean)) return std::nullopt;
    if (!IsSquareOf(graph_[square], wide) || !graph_.SameModes({square, root, sum, product}))
      return std::nullopt;
    if (graph_.FactsOf(wide).dtype != at::kFloat) return std::nullopt;
    Norm norm;
    norm.input = wide;
    norm.eps = *eps;
    return norm;
  }

  static bool IsSquareOf(const Instruction& instruction, Register of) {
    if (TensorAt(instruction, 0) != of) return false;
    if (Is(instruction, "aten::square")) return true;
    if (Is(instruction, "aten::pow.Tensor_Scalar")) return NumberAt(instruction, 1) == 2;
    return Is(instruction, "aten::mul.Tensor") && TensorAt(instruction, 1) == of;
  }

  size_t FirstUse(Register at) const {
    const auto& users = graph_.UsersOf(at);
    return *std::min_element(users.begin(), users.end());
  }

  bool Holds(Register at, size_t from, size_t to) const { return graph_.IsSameAt(at, from, to); }

  Graph graph_;
};

}  // namespace

void FuseNorms(Program& program) { NormFinder(program).Run(); }

}  // namespace tf
