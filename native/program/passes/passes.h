// Rewrites a recorded Program so that it does the same with less: one pass per file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "native/program/program.h"

namespace tf {

// Runs the passes of these names, absent: all, in the order of PassNames; to be called before last
// uses are found. Where a Program needs gradients only those run that keep its operators as they
// are. Throws ERR_INVALID_ARGUMENT for an unknown name.
void Optimize(Program& program, const std::optional<std::vector<std::string>>& names);

std::vector<std::string> PassNames();

// The passes; each says in its file what it does, and what it must leave alone.
void RemoveDeadCode(Program& program);
void RemoveIdentities(Program& program);
void FoldConstants(Program& program);
void MergeCommon(Program& program);
void FuseNorms(Program& program);
void KeepLastPositions(Program& program);
void FuseResiduals(Program& program);
void FuseRotary(Program& program);
void FuseSwiGlu(Program& program);
void GroupLinears(Program& program);
void PickAttention(Program& program);
void MakeViewsDirect(Program& program);
void ReuseBuffers(Program& program);

}  // namespace tf
