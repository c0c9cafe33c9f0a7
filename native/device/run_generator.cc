#include "native/device/run_generator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace tf {
namespace {

// The leases of the process that will give a state back.
struct Leases {
  std::mutex mutex;
  std::unordered_map<const c10::GeneratorImpl*, std::vector<GeneratorLease*>> out;
};

Leases& All() {
  static auto* const leases = new Leases;
  return *leases;
}

at::Tensor StateOf(at::Generator generator) {
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

bool Same(const at::Tensor& a, const at::Tensor& b) {
  const size_t bytes = a.nbytes();
  return bytes == b.nbytes() && std::equal(a.const_data_ptr<uint8_t>(),
                                           a.const_data_ptr<uint8_t>() + bytes,
                                           b.const_data_ptr<uint8_t>());
}

thread_local const at::Generator* drawing_from = nullptr;

}  // namespace

GeneratorLease::GeneratorLease(at::Generator source) : source_(std::move(source)) {
  Leases& leases = All();
  const std::lock_guard lock(leases.mutex);
  {
    const std::lock_guard own(source_.mutex());
    start_ = source_.get_state();
    own_ = source_.clone();
  }
  std::vector<GeneratorLease*>& out = leases.out[source_.unsafeGetGeneratorImpl()];
  for (GeneratorLease* other : out) {
    if (!Same(other->start_, start_)) continue;
    own_.set_current_seed(at::check_generator<at::CPUGeneratorImpl>(other->forks_)->random64());
    return;
  }
  // A generator of the CPU, for the device's too: it makes seeds only.
  uint64_t mixed = 0;
  if (source_.device().is_cpu()) {
    forks_ = own_.clone();
  } else {
    for (int64_t i = 0; i < start_.numel(); ++i)
      mixed = mixed * 1099511628211ull + start_.const_data_ptr<uint8_t>()[i];
    forks_ = at::make_generator<at::CPUGeneratorImpl>(mixed);
  }
  out.push_back(this);
}

void GeneratorLease::Return() {
  if (!source_.defined()) return;
  Leases& leases = All();
  const std::lock_guard lock(leases.mutex);
  if (forks_.defined()) {
    const auto entry = leases.out.find(source_.unsafeGetGeneratorImpl());
    std::erase(entry->second, this);
    if (entry->second.empty()) leases.out.erase(entry);
    const at::Tensor end = StateOf(own_);
    const std::lock_guard own(source_.mutex());
    if (Same(source_.get_state(), start_)) source_.set_state(end);
  }
  source_ = at::Generator();
}

GeneratorLease::~GeneratorLease() { Return(); }

DrawFrom::DrawFrom(const at::Generator& cpu) : former_(drawing_from) {
  drawing_from = cpu.defined() ? &cpu : nullptr;
}

DrawFrom::~DrawFrom() { drawing_from = former_; }

namespace {

// Names the run's generator where none is named, and goes on to the operator.
void Draw(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const auto values = torch::jit::last(*stack, arguments.size());
  if (drawing_from != nullptr) {
    const bool on_cpu = std::any_of(values.begin(), values.end(), [](const c10::IValue& value) {
      return value.isTensor() && value.toTensor().defined() && value.toTensor().is_cpu();
    });
    for (size_t i = 0; on_cpu && i < arguments.size(); ++i) {
      const bool none =
          values[i].isNone() || (values[i].isGenerator() && !values[i].toGenerator().defined());
      if (none && arguments[i].name() == "generator")
        (*stack)[stack->size() - arguments.size() + i] = *drawing_from;
    }
  }
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kDrawKey), stack);
}

}  // namespace

void RouteDraws() {
  static std::once_flag once;
  std::call_once(once, [] {
    static auto* const drawing =
        new torch::Library(torch::Library::IMPL, "aten", kDrawKey, __FILE__, __LINE__);
    auto& dispatcher = c10::Dispatcher::singleton();
    for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
      const auto op = dispatcher.findSchema(name);
      if (!op || !name.name.starts_with("aten::")) continue;
      const auto& arguments = op->schema().arguments();
      const bool draws = std::any_of(arguments.begin(), arguments.end(), [](const auto& argument) {
        return argument.name() == "generator";
      });
      if (!draws) continue;
      std::string full = name.name.substr(6);
      if (!name.overload_name.empty()) full += "." + name.overload_name;
      drawing->impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&Draw>());
    }
  });
}

}  // namespace tf
