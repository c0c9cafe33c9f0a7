// Who may share memory with whom, and when it is written. The one place that passes ask.
#pragma once

#include <cstddef>
#include <vector>

#include "native/program/program.h"

namespace tf {

// Of a Program as it is when this is made: positions are those of its instructions.
//
// The recording's fake storages say exactly who shares memory inside a run. What is bound at each
// run is another matter: a captured tensor may come to lie where another one or an argument lies.
class Aliases {
 public:
  explicit Aliases(const Program& program);

  bool MayShare(Register a, Register b) const;
  // Its memory is there before the run: an argument's, a captured tensor's, or a view of one.
  bool IsForeign(Register at) const { return KindOf(Storage(at)).foreign; }
  // Its memory is there after the run because an output shares it.
  bool Escapes(Register at) const { return KindOf(Storage(at)).escapes; }
  // Some instruction writes to its memory, or may.
  bool IsWritten(Register at) const;
  // An instruction after `after` and before `before` writes to its memory, or may.
  bool IsWrittenBetween(Register at, size_t after, size_t before) const;

 private:
  struct Kind {
    bool foreign = false;
    bool captured = false;
    bool escapes = false;
  };
  struct Write {
    size_t position;
    int32_t storage;
  };

  int32_t Storage(Register at) const { return program_.registers[at].storage; }
  // Memory that a pass has added since is the run's own.
  Kind KindOf(int32_t storage) const {
    return static_cast<size_t>(storage) < kinds_.size() ? kinds_[storage] : Kind{};
  }
  bool StoragesMayShare(int32_t a, int32_t b) const;

  const Program& program_;
  std::vector<Kind> kinds_;    // by storage
  std::vector<Write> writes_;  // by position
};

}  // namespace tf
