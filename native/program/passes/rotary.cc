// x * cos + rotate_half(x) * sin, for queries and keys, as one operator.
#include <algorithm>
#include <vector>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

struct Turn {
  size_t root = 0;       // the addition
  size_t first_use = 0;  // of x
  Register x = kNoRegister;
  Register cos = kNoRegister;  // [batch, length, width]
  Register sin = kNoRegister;
};

class TurnFinder {
 public:
  explicit TurnFinder(Program& program) : graph_(program) {}

  void Run() {
    std::vector<Turn> turns;
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (const auto turn = Match(i)) turns.push_back(*turn);
    }
    for (size_t i = 0; i + 1 < turns.size(); ++i) {
      if (Fuse(turns[i], turns[i + 1])) ++i;
    }
  }

 private:
  bool Fuse(const Turn& query, const Turn& key) {
    if (query.cos != key.cos || query.sin != key.sin) return false;
    if (!graph_.SameModes({query.root, key.root})) return false;
    const Register turned = ResultOf(graph_[query.root]);
    if (graph_.aliases().IsWritten(turned) || graph_.IsOutput(turned)) return false;
    // Both are there only after the second.
    for (const size_t user : graph_.UsersOf(turned))
      if (user <= key.root) return false;
    for (const Register at : {query.x, query.cos, query.sin})
      if (!graph_.IsSameAt(at, query.first_use, key.root)) return false;
    Instruction fused;
    fused.op = &OpNamed("torchformers::rotary");
    fused.operands = {TensorOperand(query.x),
                      TensorOperand(key.x),
                      TensorOperand(query.cos),
                      TensorOperand(query.sin)};
    fused.results.resize(2);
    fused.results[0].registers = {turned};
    fused.results[1].registers = {ResultOf(graph_[key.root])};
    if (!graph_.Replace(key.root, std::move(fused))) return false;
    graph_.Remove(query.root);
    return true;
  }

  std::optional<Turn> Match(size_t position) const {
    const Instruction& sum = graph_[position];
    if (!Is(sum, "aten::add.Tensor") || IntAt(sum, 2) != 1 || !graph_.IsPlain(position))
      return std::nullopt;
    for (const size_t side : {0, 1}) {
      const auto straight = Product(TensorAt(sum, side), position);
      const auto crossed = Product(TensorAt(sum, 1 - side), position);
      if (!straight || !crossed) continue;
      for (const size_t a : {0, 1}) {
        for (const size_t b : {0, 1}) {
          Turn turn;
          turn.root = position;
          turn.x = TensorAt(*straight->instruction, a);
          turn.cos = Angle(TensorAt(*straight->instruction, 1 - a));
          turn.sin = Angle(TensorAt(*crossed->instruction, 1 - b));
          if (turn.x == kNoRegister || turn.cos == kNoRegister || turn.sin == kNoRegister) continue;
          const Register half = TensorAt(*crossed->instruction, b);
          const auto from = HalfTurnOf(half, turn.x, crossed->position);
          if (!from || !graph_.SameModes({position, straight->position, crossed->position, *from}))
            continue;
          turn.first_use = std::min({*from, straight->position, crossed->position});
          const bool same = std::all_of(
              std::initializer_list<Register>{turn.x, turn.cos, turn.sin}.begin(),
              std::initializer_list<Register>{turn.x, turn.cos, turn.sin}.end(),
              [&](Register at) { return graph_.IsSameAt(at, turn.first_use, position); });
          if (same) return turn;
        }
      }
    }
    return std::nullopt;
  }

  struct Made {
    size_t position;
    const Instruction* instruction;
  };

  // The product behind a register that is only for the addition.
  std::optional<Made> Product(Register at, size_t user) const {
    const Instruction* product = graph_.MadeBy(at, "aten::mul.Tensor");
    if (product == nullptr || !graph_.IsOnlyFor(at, user)) return std::nullopt;
    return Made{graph_.MakerOf(at), product};
  }

  // [batch, 1, length, width] over [batch, length, width].
  Register Angle(Register at) const {
    const Instruction* unsqueeze = graph_.MadeBy(at, "aten::unsqueeze");
    if (unsqueeze == nullptr || IntAt(*unsqueeze, 1) != 1) return kNoRegister;
    const Register angle = TensorAt(*unsqueeze, 0);
    return graph_.FactsOf(angle).sizes.size() == 3 ? angle : kNoRegister;
  }

  // Where cat([-x's second half, x's first half], -1) begins, when the register is that.
  std::optional<size_t> HalfTurnOf(Register at, Register x, size_t user) const {
    const Instruction* cat = graph_.MadeBy(at, "aten::cat");
    if (cat == nullptr || !graph_.IsOnlyFor(at, user)) return std::nullopt;
    const TensorFacts& facts = graph_.FactsOf(x);
    if (facts.sizes.size() != 4 || (IntAt(*cat, 1) != -1 && IntAt(*cat, 1) != 3))
      return std::nullopt;
    const auto& parts = cat->operands[0].registers;
    if (parts.size() != 2 || facts.sizes[3] % 2 != 0) return std::nullopt;
    const size_t where = graph_.MakerOf(at);
    const Instruction* neg = graph_.MadeBy(parts[0], "aten::neg");
    if (neg == nullptr || !graph_.IsOnlyFor(parts[0], where)) return std::nullopt;
    const int64_t half = facts.sizes[3] / 2;
    if (!IsHalf(TensorAt(*neg, 0), x, half) || !IsHalf(parts[1], x, 0)) return std::nullopt;
    return graph_.MakerOf(parts[0]);
  }

  // However it was cut off: a view of x's memory says where it lies.
  bool IsHalf(Register at, Register x, int64_t from) const {
    if (at == kNoRegister) return false;
    const TensorFacts& half = graph_.FactsOf(at);
    const TensorFacts& whole = graph_.FactsOf(x);
    if (half.storage != whole.storage || half.dtype != whole.dtype || half.sizes.size() != 4 ||
        half.offset != whole.offset + from * whole.strides[3] ||
        half.sizes[3] * 2 != whole.sizes[3])
      return false;
    for (size_t i = 0; i < 4; ++i) {
      if (i < 3 && half.sizes[i] != whole.sizes[i]) return false;
      if (half.sizes[i] != 1 && half.strides[i] != whole.strides[i]) return false;
    }
    return true;
  }

  Graph graph_;
};

}  // namespace

void FuseRotary(Program& program) { TurnFinder(program).Run(); }

}  // namespace tf
