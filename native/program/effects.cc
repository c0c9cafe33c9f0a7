#include "native/program/effects.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace tf {
namespace {

struct ByAddress {
  bool operator()(const c10::Storage& a, const c10::Storage& b) const {
    return a.unsafeGetStorageImpl() < b.unsafeGetStorageImpl();
  }
  bool operator()(const c10::Storage& a, const c10::StorageImpl* b) const {
    return a.unsafeGetStorageImpl() < b;
  }
};

bool Has(const std::vector<c10::Storage>& sorted, const c10::StorageImpl* wanted) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), wanted, ByAddress());
  return at != sorted.end() && at->unsafeGetStorageImpl() == wanted;
}

bool Meet(const std::vector<c10::Storage>& some, const std::vector<c10::Storage>& sorted) {
  return std::any_of(some.begin(), some.end(), [&](const c10::Storage& storage) {
    return Has(sorted, storage.unsafeGetStorageImpl());
  });
}

}  // namespace

std::vector<bool> WrittenRegisters(const Program& program) {
  // Shared memory has one number, whatever made the views.
  std::vector<bool> storages(program.storages, false);
  for (const Instruction& instruction : program.code) {
    const OpPlan& op = *instruction.op;
    if (!op.writes) continue;
    for (size_t i = 0; i < instruction.operands.size(); ++i) {
      if (!op.arguments[i].written) continue;
      for (const Register at : instruction.operands[i].registers)
        if (at != kNoRegister) storages[program.registers[at].storage] = true;
    }
  }
  std::vector<bool> written(program.registers.size(), false);
  const auto look = [&](Register at) { written[at] = storages[program.registers[at].storage]; };
  for (Register at = 0; at < program.inputs; ++at) look(at);
  for (const CapturedTensor& capture : program.captures) look(capture.to);
  return written;
}

bool DrawsByDefault(const Instruction& instruction) {
  for (size_t i = 0; i < instruction.operands.size(); ++i) {
    if (instruction.op->arguments[i].kind == ArgumentKind::kGenerator)
      return instruction.operands[i].constant.isNone();
  }
  return false;
}

void Effects::Add(const Program& program, const std::vector<c10::IValue>& registers) {
  sorted_ = false;
  for (size_t at = 0; at < registers.size(); ++at) {
    if (!registers[at].isTensor() || !registers[at].toTensor().has_storage()) continue;
    (program.written[at] ? writes : reads).push_back(registers[at].toTensor().storage());
  }
}

void Effects::Sort() const {
  if (std::exchange(sorted_, true)) return;
  for (std::vector<c10::Storage>* list : {&reads, &writes}) {
    std::sort(list->begin(), list->end(), ByAddress());
    const auto same = [](const c10::Storage& a, const c10::Storage& b) {
      return a.unsafeGetStorageImpl() == b.unsafeGetStorageImpl();
    };
    list->erase(std::unique(list->begin(), list->end(), same), list->end());
  }
}

bool Effects::ConflictsWith(const Effects& other) const {
  if (draws && other.draws) return true;
  for (const at::Generator& mine : generators)
    for (const at::Generator& its : other.generators)
      if (mine == its) return true;
  if (writes.empty() && other.writes.empty()) return false;
  Sort();
  other.Sort();
  return Meet(writes, other.writes) || Meet(writes, other.reads) || Meet(other.writes, reads);
}

bool Effects::Reads(const c10::StorageImpl* storage) const {
  Sort();
  return Has(reads, storage);
}

bool Effects::Writes(const c10::StorageImpl* storage) const {
  Sort();
  return Has(writes, storage);
}

}  // namespace tf
