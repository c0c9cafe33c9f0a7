#include "native/program/loops.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "native/addon.h"
#include "native/convert/bind.h"
#include "native/error/error.h"
#include "native/program/effects.h"
#include "native/program/programs.h"

namespace tf {
namespace {

// Whether a Program draws at all, and whether all its draws can take another generator.
struct Draws {
  bool any = false;
  bool only_by_default = true;
};

Draws DrawsOf(const std::vector<Stage>& stages) {
  Draws draws;
  for (const Stage& stage : stages) {
    for (const Instruction& instruction : stage.program->code) {
      if (!instruction.draws) continue;
      draws.any = true;
      draws.only_by_default &= DrawsByDefault(instruction);
    }
  }
  return draws;
}

// The inputs are the loop's own, written or not: while it is paused, others may write them.
Effects EffectsOf(const std::vector<Stage>& first, const std::vector<Stage>& body) {
  Effects effects;
  for (const std::vector<Stage>* stages : {&first, &body}) {
    for (const Stage& stage : *stages) {
      effects.Add(*stage.program, stage.registers);
      for (const BoundGenerator& bound : stage.program->generators)
        effects.generators.push_back(bound.captured);
      for (Register at = 0; at < stage.program->inputs; ++at) {
        const at::Tensor& input = stage.registers[at].toTensor();
        if (input.has_storage()) effects.writes.push_back(input.storage());
      }
    }
  }
  return effects;
}

}  // namespace

Loops::Loops(Environment& environment) : environment_(environment) {
  // Made first, so that it is gone last: loops are entered there.
  environment.Room<Programs>();
  mailbox_->Open(environment.env(), Wake);
}

Loops::~Loops() { mailbox_->Close(); }

void Loops::Start(LoopPlan plan, uint64_t id, int64_t limit) {
  Effects effects = EffectsOf(plan.first, plan.body);
  Draws draws;
  for (const std::vector<Stage>* stages : {&plan.first, &plan.body}) {
    const Draws here = DrawsOf(*stages);
    draws.any |= here.any;
    draws.only_by_default &= here.only_by_default;
  }
  const bool collects = std::any_of(
      plan.body.begin(), plan.body.end(), [](const Stage& stage) { return stage.collects; });
  if (draws.any || collects) plan.ahead = 0;
  Entry entry;
  if (draws.any) {
    if (!draws.only_by_default) {
      effects.draws = true;
    } else if (plan.generator) {
      effects.generators.push_back(*plan.generator);
    } else {
      const c10::Device device = plan.ids.defined() ? plan.ids.device() : c10::Device(at::kCPU);
      entry.lease = std::make_unique<GeneratorLease>(at::globalContext().defaultGenerator(device));
      plan.generator = entry.lease->own();
    }
  }
  entry.loop = std::make_shared<Loop>(std::move(plan), mailbox_, id);
  const std::shared_ptr<Loop> loop = entry.loop;
  entries_.emplace(id, std::move(entry));
  environment_.Room<Programs>().Enter(
      id,
      std::move(effects),
      {[loop, limit] { loop->Start(limit); }, [loop] { return loop->paused(); }});
}

Loop& Loops::Get(uint64_t id) {
  const auto found = entries_.find(id);
  if (found == entries_.end())
    throw Failure(code::kInvalidArgument, "there is no such loop, or it has ended");
  return *found->second.loop;
}

void Loops::Replace(uint64_t id, std::vector<Stage> first, std::vector<Stage> body) {
  Effects effects = EffectsOf(first, body);
  Get(id).Replace(std::move(first), std::move(body));
  environment_.programs()->Change(id, std::move(effects));
}

void Loops::Cancel(uint64_t id, bool forgets) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.forgotten |= forgets;
  found->second.loop->Cancel();
  if (forgets) Deliver(found->second);
}

napi_value Loops::Next(uint64_t id) {
  const napi_env env = environment_.env();
  Get(id);
  Entry& entry = entries_.at(id);
  if (entry.waiting != nullptr)
    throw Failure(code::kInvalidArgument, "somebody waits for news of this loop already");
  napi_value promise = nullptr;
  Check(env, napi_create_promise(env, &entry.waiting, &promise));
  Deliver(entry);
  Hold();
  return promise;
}

void Loops::Hold() {
  const bool any = std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) {
    return entry.second.waiting != nullptr;
  });
  mailbox_->Hold(environment_.env(), any);
}

void Loops::Wake(napi_env env, napi_value, void* context, void*) {
  // Without an environment the function is only being emptied.
  if (env == nullptr) return;
  Environment& environment = Environment::Of(env);
  Guard(environment, [&]() -> napi_value {
    Loops& loops = environment.Room<Loops>();
    auto* mailbox = static_cast<LoopMailbox*>(static_cast<Doorbell*>(context));
    for (const std::shared_ptr<Loop>& loop : mailbox->Take()) {
      const auto found = loops.entries_.find(loop->id());
      if (found != loops.entries_.end()) loops.Deliver(found->second);
    }
    loops.Hold();
    return nullptr;
  });
}

// What it used is free for others, whether or not anybody has asked for the end.
void Loops::Leave(Entry& entry) {
  if (std::exchange(entry.left, true)) return;
  if (entry.lease) entry.lease->Return();
  environment_.programs()->Leave(entry.loop->id());
}

void Loops::Deliver(Entry& entry) {
  const napi_env env = environment_.env();
  if (entry.waiting == nullptr) {
    entry.loop->Heard();
    if (!entry.loop->ended()) return;
    Leave(entry);
    if (entry.forgotten) entries_.erase(entry.loop->id());
    return;
  }
  const LoopNews news = entry.loop->TakeNews();
  if (!news.any()) return;
  if (news.ended) Leave(entry);
  const napi_deferred waiting = std::exchange(entry.waiting, nullptr);
  if (news.failure) {
    napi_value error = MakeError(environment_, *news.failure);
    napi_set_named_property(
        env, error, "instruction", FromDouble(env, static_cast<double>(news.instruction)));
    napi_set_named_property(env, error, "stage", FromDouble(env, static_cast<double>(news.stage)));
    napi_reject_deferred(env, waiting, error);
  } else {
    napi_resolve_deferred(env, waiting, News(*entry.loop, news));
  }
  if (news.ended) entries_.erase(entry.loop->id());
}

napi_value Loops::News(Loop& loop, const LoopNews& news) {
  std::vector<double> ids(news.ids.begin(), news.ids.end());
  std::vector<napi_value> collected;
  if (news.ended) {
    for (const c10::IValue& value : loop.collected()) {
      collected.push_back(
          value.isTensor()
              ? ToJs(environment_, environment_.tensors().Add(value.toTensor(), nullptr))
              : Null(environment_.env()));
    }
  }
  return Record(environment_,
                {{"ids", ToJs(environment_, ids)},
                 {"graphs", ToJs(environment_, news.graphs)},
                 {"noGraph", ToJs(environment_, news.no_graph)},
                 {"steps", ToJs(environment_, news.steps)},
                 {"paused", ToJs(environment_, news.paused)},
                 {"ended", ToJs(environment_, news.ended)},
                 {"cancelled", ToJs(environment_, news.cancelled)},
                 {"collected", ToJs(environment_, collected)}});
}

// Bindings ----------------------------------------------------------------------------------------

namespace {

// Empty when captured tensors have changed: record again.
std::vector<Stage> StagesOf(Environment& environment,
                            const std::vector<ProgramRef>& programs,
                            const std::vector<std::vector<at::Tensor>>& inputs,
                            const std::vector<bool>& collects) {
  std::vector<Stage> stages;
  for (size_t i = 0; i < programs.size(); ++i) {
    std::vector<c10::IValue> registers =
        BindProgram(environment, *programs[i].program, inputs.at(i));
    if (registers.empty() && !programs[i].program->registers.empty()) return {};
    for (const BoundGenerator& bound : programs[i].program->generators)
      registers[bound.to] = bound.captured;
    stages.push_back({programs[i].program, std::move(registers), collects.at(i)});
  }
  return stages;
}

// The stages from `first` on, which `stages` loses.
std::vector<Stage> SplitOff(std::vector<Stage>& stages, int64_t first) {
  const auto begin = stages.begin() + first;
  std::vector<Stage> rest(std::make_move_iterator(begin), std::make_move_iterator(stages.end()));
  stages.erase(begin, stages.end());
  return rest;
}

// false: a captured tensor no longer fits, record again.
bool StartLoop(Environment& environment,
               int64_t id,
               const std::vector<ProgramRef>& programs,
               const std::vector<std::vector<at::Tensor>>& inputs,
               const std::vector<bool>& collects,
               int64_t first,
               const std::optional<at::Tensor>& ids,
               const std::optional<at::Tensor>& going,
               const std::vector<double>& limits,
               std::optional<Handle> generator,
               bool quiet) {
  std::vector<Stage> stages = StagesOf(environment, programs, inputs, collects);
  if (stages.empty()) return false;
  LoopPlan plan;
  plan.body = SplitOff(stages, first);
  plan.first = std::move(stages);
  plan.ids = ids.value_or(at::Tensor());
  plan.going = going.value_or(at::Tensor());
  const double limit = limits.at(0);
  if (std::isfinite(limits.at(1))) plan.most = static_cast<int64_t>(limits.at(1));
  if (std::isfinite(limits.at(2)))
    plan.deadline = NanosecondsNow() + static_cast<int64_t>(limits.at(2) * 1e6);
  for (const Stage& stage : plan.body)
    if (!stage.program->device.is_cpu()) plan.device = stage.program->device;
  // On a device the next step is queued before the ids of the last are read.
  plan.ahead = std::isfinite(limits.at(3)) ? static_cast<size_t>(limits.at(3))
               : plan.device.is_cuda()     ? 1
                                           : 0;
  if (generator) plan.generator = environment.generators().Get(*generator);
  plan.quiet = quiet;
  environment.Room<Loops>().Start(
      std::move(plan), static_cast<uint64_t>(id), static_cast<int64_t>(limit));
  return true;
}

// false: as above.
bool ReplaceLoop(Environment& environment,
                 int64_t id,
                 const std::vector<ProgramRef>& programs,
                 const std::vector<std::vector<at::Tensor>>& inputs,
                 const std::vector<bool>& collects,
                 int64_t first) {
  std::vector<Stage> stages = StagesOf(environment, programs, inputs, collects);
  if (stages.empty()) return false;
  Loops& loops = environment.Room<Loops>();
  if (!loops.Get(static_cast<uint64_t>(id)).paused())
    throw Failure(code::kTensorBusy, "[replaceLoop] the loop is not paused");
  std::vector<Stage> body = SplitOff(stages, first);
  loops.Replace(static_cast<uint64_t>(id), std::move(stages), std::move(body));
  return true;
}

napi_value NextOfLoop(Environment& environment, int64_t id) {
  return environment.Room<Loops>().Next(static_cast<uint64_t>(id));
}

void AllowLoop(Environment& environment, int64_t id, int64_t limit) {
  environment.Room<Loops>().Get(static_cast<uint64_t>(id)).Allow(limit);
}

void CancelLoop(Environment& environment, int64_t id, bool forgets) {
  environment.Room<Loops>().Cancel(static_cast<uint64_t>(id), forgets);
}

}  // namespace

void InitLoops(Exports& exports) {
  exports.Function<"startLoop", StartLoop>();
  exports.Function<"replaceLoop", ReplaceLoop>();
  exports.Function<"nextOfLoop", NextOfLoop>();
  exports.Function<"allowLoop", AllowLoop>();
  exports.Function<"cancelLoop", CancelLoop>();
}

}  // namespace tf
