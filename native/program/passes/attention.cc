// scaled_dot_product_attention by shape and mask: one query position goes to attend_one, which
// reads only as far as the mask allows, several with grouped heads to attend. Both take the heads
// of keys and values as they are, from before a repetition. The rest stays with ATen.
#include <vector>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

constexpr std::string_view kAttention = "aten::scaled_dot_product_attention";

class AttentionPicker {
 public:
  explicit AttentionPicker(Program& program) : graph_(program) {}

  void Run() {
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (graph_.IsRemoved(i) || !Is(graph_[i], kAttention) || !graph_.IsPlain(i)) continue;
      if (graph_[i].draws) continue;
      if (!PickOne(i) && !PickPacked(i)) PickMany(i);
    }
  }

 private:
  // [batch, kv_heads, s, d] behind [batch, kv_heads * n, s, d] with each head n times in a row, or
  // the register itself.
  Register BeforeRepeat(Register at, size_t user) const {
    const Instruction* reshape = graph_.MadeBy(at, "aten::reshape");
    if (reshape == nullptr) return at;
    const Register repeated = TensorAt(*reshape, 0);
    const Instruction* expand = graph_.MadeBy(repeated, "aten::expand");
    if (expand == nullptr) return at;
    const Register single = TensorAt(*expand, 0);
    const Instruction* unsqueeze = graph_.MadeBy(single, "aten::unsqueeze");
    if (unsqueeze == nullptr || IntAt(*unsqueeze, 1) != 2) return at;
    const Register before = TensorAt(*unsqueeze, 0);
    const auto& from = graph_.FactsOf(before).sizes;
    const auto& wide = graph_.FactsOf(repeated).sizes;
    const auto& to = graph_.FactsOf(at).sizes;
    if (from.size() != 4 || wide.size() != 5 || to.size() != 4) return at;
    const std::vector<int64_t> expected = {from[0], from[1] * wide[2], from[2], from[3]};
    if (to != expected) return at;
    // The repetition is a copy: of what was there then.
    if (!graph_.IsSameAt(before, graph_.MakerOf(at), user) || graph_.aliases().IsWritten(at))
      return at;
    return before;
  }

  Instruction AttendOne(size_t position, Register query, Register key, Register value) const {
    const Instruction& attention = graph_[position];
    Instruction fused;
    fused.op = &OpNamed("torchformers::attend_one");
    fused.operands = {TensorOperand(query),
                      TensorOperand(key),
                      TensorOperand(value),
                      attention.operands[3],
                      ConstantOperand({}),
                      attention.operands[6]};
    return fused;
  }

  bool PickOne(size_t position) {
    const Instruction& attention = graph_[position];
    const Register query = TensorAt(attention, 0);
    const auto& sizes = graph_.FactsOf(query).sizes;
    if (sizes.size() != 4 || sizes[2] != 1 || BoolAt(attention, 5)) return false;
    const Register key = BeforeRepeat(TensorAt(attention, 1), position);
    const Register value = BeforeRepeat(TensorAt(attention, 2), position);
    if (!MaskFits(attention)) return false;
    const int64_t heads = graph_.FactsOf(key).sizes.size() == 4 ? graph_.FactsOf(key).sizes[1] : 0;
    if (heads == 0 || sizes[1] % heads != 0) return false;
    Instruction fused = AttendOne(position, query, key, value);
    fused.results = attention.results;
    return graph_.Replace(position, std::move(fused));
  }

  // One query per head, packed as a query per head of its group, [batch, kv_heads, n, d]:
  //   sdpa(q.reshape(packed), ...).reshape(as q was).
  bool PickPacked(size_t position) {
    const Instruction& attention = graph_[position];
    const Register packed = TensorAt(attention, 0);
    const Register result = ResultOf(attention);
    const Instruction* pack = graph_.MadeBy(packed, "aten::reshape");
    if (pack == nullptr || BoolAt(attention, 5) || BoolAt(attention, 7)) return false;
    const Register query = TensorAt(*pack, 0);
    const auto& sizes = graph_.FactsOf(query).sizes;
    const auto& grouped = graph_.FactsOf(packed).sizes;
    if (sizes.size() != 4 || grouped.size() != 4 || sizes[2] != 1) return false;
    if (grouped[0] != sizes[0] || grouped[1] * grouped[2] != sizes[1] || grouped[3] != sizes[3])
      return false;
    if (graph_.FactsOf(TensorAt(attention, 1)).sizes[1] != grouped[1]) return false;
    if (!MaskFits(attention) || !graph_.IsSameAt(query, graph_.MakerOf(packed), position))
      return false;
    // Every head of a group must see the same keys.
    if (const Register mask = TensorAt(attention, 3); mask != kNoRegister) {
      const auto& shape = graph_.FactsOf(mask).sizes;
      const size_t n = shape.size();
      if ((n > 1 && shape[n - 2] != 1) || (n > 2 && shape[n - 3] != 1)) return false;
    }
    if (graph_.IsOutput(result) || graph_.UsersOf(result).size() != 1) return false;
    const size_t unpack = graph_.UsersOf(result)[0];
    if (!Is(graph_[unpack], "aten::reshape") || !graph_.SameModes({position, unpack})) return false;
    if (graph_.FactsOf(ResultOf(graph_[unpack])).sizes != sizes) return false;
    const TensorFacts& unpacked = graph_.FactsOf(ResultOf(graph_[unpack]));
    if (unpacked.storage == graph_.FactsOf(result).storage &&
        graph_.IsOutput(ResultOf(graph_[unpack])))
      return false;
    for (const size_t i : {1, 2}) {
      if (!graph_.IsSameAt(TensorAt(attention, i), position, unpack)) return false;
    }
    if (const Register mask = TensorAt(attention, 3);
        mask != kNoRegister && !graph_.IsSameAt(mask, position, unpack))
      return false;
    if (!graph_.IsSameAt(query, position, unpack)) return false;
    Instruction fused = AttendOne(position, query, TensorAt(attention, 1), TensorAt(attention, 2));
    fused.results = graph_[unpack].results;
    return graph_.Replace(unpack, std::move(fused));
  }

  // Several queries, of more heads than keys and values have: ATen would repeat those.
  bool PickMany(size_t position) {
    const Instruction& attention = graph_[position];
    const Register query = TensorAt(attention, 0);
    const Register key = BeforeRepeat(TensorAt(attention, 1), position);
    const Register value = BeforeRepeat(TensorAt(attention, 2), position);
    if (graph_.FactsOf(query).sizes.size() != 4 || graph_.FactsOf(key).sizes.size() != 4)
      return false;
    if (graph_.FactsOf(query).sizes[1] == graph_.FactsOf(key).sizes[1]) return false;
    if (!MaskFits(attention)) return false;
    Instruction fused;
    fused.op = &OpNamed("torchformers::attend");
    fused.operands = {TensorOperand(query),
                      TensorOperand(key),
                      TensorOperand(value),
                      attention.operands[3],
                      attention.operands[5],
                      attention.operands[6]};
    fused.results = attention.results;
    return graph_.Replace(position, std::move(fused));
  }

  bool MaskFits(const Instruction& attention) const {
    const Register mask = TensorAt(attention, 3);
    if (mask == kNoRegister) return IsNone(attention, 3);
    return graph_.FactsOf(mask).sizes.size() <= 4;
  }

  Graph graph_;
};

}  // namespace

void PickAttention(Program& program) { AttentionPicker(program).Run(); }

}  // namespace tf
