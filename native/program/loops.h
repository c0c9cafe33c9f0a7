// The loops of one environment: what JavaScript starts, asks for news, gives leave and ends.
#pragma once

#include <node_api.h>

#include <map>
#include <memory>
#include <optional>

#include "native/device/run_generator.h"
#include "native/program/loop.h"

namespace tf {

class Environment;
class Exports;

class Loops {
 public:
  explicit Loops(Environment& environment);
  ~Loops();
  Loops(const Loops&) = delete;
  Loops& operator=(const Loops&) = delete;

  // A drawing loop without a generator gets one of its own, in the state of the default one.
  void Start(LoopPlan plan, uint64_t id, int64_t limit);
  // A promise for what came since the last one; it settles when there is something.
  napi_value Next(uint64_t id);
  Loop& Get(uint64_t id);
  // `forgets`: nobody will ask for its news.
  void Cancel(uint64_t id, bool forgets);
  // While it is paused: other stages from here on, and others again (or none) for the next step.
  void Replace(uint64_t id, std::vector<Stage> first, std::vector<Stage> body);

 private:
  struct Entry {
    std::shared_ptr<Loop> loop;
    napi_deferred waiting = nullptr;
    // Of the default generator, when it draws from that.
    std::unique_ptr<GeneratorLease> lease;
    bool left = false;       // its memory may be used again
    bool forgotten = false;  // nobody will ask for its news
  };

  static void Wake(napi_env env, napi_value, void* mailbox, void*);
  // Settles the promise that waits, if there is news.
  void Deliver(Entry& entry);
  void Leave(Entry& entry);
  napi_value News(Loop& loop, const LoopNews& news);
  void Hold();

  Environment& environment_;
  std::shared_ptr<LoopMailbox> mailbox_ = std::make_shared<LoopMailbox>();
  std::map<uint64_t, Entry> entries_;
};

void InitLoops(Exports& exports);

}  // namespace tf
