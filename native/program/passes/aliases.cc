#include "native/program/passes/aliases.h"

#include <algorithm>

namespace tf {

Aliases::Aliases(const Program& program) : program_(program), kinds_(program.storages) {
  for (Register at = 0; at < program.inputs; ++at) kinds_[Storage(at)].foreign = true;
  for (const CapturedTensor& capture : program.captures) {
    // Nobody but the Program has what a pass computed beforehand.
    if (capture.folded) continue;
    Kind& kind = kinds_[Storage(capture.to)];
    kind.foreign = kind.captured = true;
  }
  for (const GradientSlot& slot : program.gradients) {
    if (slot.before == kNoRegister) continue;
    Kind& kind = kinds_[Storage(slot.before)];
    kind.foreign = kind.captured = true;
  }
  for (const Register at : program.outputs) {
    if (at != kNoRegister) kinds_[Storage(at)].escapes = true;
  }
  for (size_t position = 0; position < program.code.size(); ++position) {
    const Instruction& instruction = program.code[position];
    if (!instruction.op->writes) continue;
    for (size_t i = 0; i < instruction.operands.size(); ++i) {
      if (!instruction.op->arguments[i].written) continue;
      for (const Register at : instruction.operands[i].registers) {
        if (at != kNoRegister) writes_.push_back({position, Storage(at)});
      }
    }
  }
}

bool Aliases::StoragesMayShare(int32_t a, int32_t b) const {
  if (a == b) return true;
  // The signature says which arguments share memory; of captured tensors nobody says it.
  const Kind one = KindOf(a);
  const Kind other = KindOf(b);
  return one.foreign && other.foreign && (one.captured || other.captured);
}

bool Aliases::MayShare(Register a, Register b) const {
  return StoragesMayShare(Storage(a), Storage(b));
}

bool Aliases::IsWritten(Register at) const {
  return std::any_of(writes_.begin(), writes_.end(), [&](const Write& write) {
    return StoragesMayShare(write.storage, Storage(at));
  });
}

bool Aliases::IsWrittenBetween(Register at, size_t after, size_t before) const {
  auto write = std::upper_bound(
      writes_.begin(), writes_.end(), after, [](size_t position, const Write& each) {
        return position < each.position;
      });
  for (; write != writes_.end() && write->position < before; ++write) {
    if (StoragesMayShare(write->storage, Storage(at))) return true;
  }
  return false;
}

}  // namespace tf
