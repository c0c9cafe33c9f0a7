// What work in flight reads and writes: work that conflicts with earlier work waits for its end.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <vector>

#include "native/program/program.h"

namespace tf {

struct Effects {
  mutable std::vector<c10::Storage> reads;
  mutable std::vector<c10::Storage> writes;
  // Draws from the default generators, or from these.
  bool draws = false;
  std::vector<at::Generator> generators;

  void AddWrite(c10::Storage storage) {
    sorted_ = false;
    writes.push_back(std::move(storage));
  }
  // Adds what a Program does to the tensors in its first registers and to those that it captured.
  void Add(const Program& program, const std::vector<c10::IValue>& registers);
  bool ConflictsWith(const Effects& other) const;
  bool Reads(const c10::StorageImpl* storage) const;
  bool Writes(const c10::StorageImpl* storage) const;

 private:
  // Brings the storages in order, for quick answers: runs that meet no other need none.
  void Sort() const;
  mutable bool sorted_ = false;
};

// For each register: whether something writes the memory of the tensor that is in it beforehand.
std::vector<bool> WrittenRegisters(const Program& program);

// Whether an instruction draws from the default generator because it names none, so that another
// one can take its place.
bool DrawsByDefault(const Instruction& instruction);

}  // namespace tf
