#include "native/autograd/hooks.h"

#include <ATen/ThreadLocalState.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <vector>

#include "native/addon.h"
#include "native/convert/value.h"
#include "native/error/error.h"
#include "native/executor/executor.h"

namespace tf {

void HookQueue::Run(const std::function<void()>& call) {
  if (closed_.load())
    throw Failure(code::kOp, "the thread that registered a gradient hook has ended");
  if (std::this_thread::get_id() == owner_) {
    call();
    return;
  }
  // A hook sees the modes of the engine: it records gradients in `create_graph` only.
  const at::ThreadLocalState modes;
  const std::function<void()> here = [&] {
    const at::ThreadLocalStateGuard guard(modes);
    call();
  };
  Request request{&here, nullptr};
  std::unique_lock lock(mutex_);
  if (serving_ == 0) {
    throw Failure(
        code::kOp,
        "a gradient hook was reached outside of its own thread's backward and cannot run");
  }
  requests_.push_back(&request);
  changed_.notify_all();
  Executor& executor = Executor::Cpu();
  if (executor.IsThisThread()) {
    // What the hook computes may need the team.
    lock.unlock();
    executor.HelpUntil(request.done);
  } else {
    changed_.wait(lock, [&] { return request.done.load(); });
  }
  if (request.error) std::rethrow_exception(request.error);
}

void HookQueue::Announce() {
  const std::lock_guard lock(mutex_);
  ++serving_;
}

void HookQueue::Serve(const Work& work) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return !requests_.empty() || work.finished; });
    if (requests_.empty()) break;
    Request* request = requests_.front();
    requests_.pop_front();
    lock.unlock();
    try {
      (*request->call)();
    } catch (...) {
      request->error = std::current_exception();
    }
    lock.lock();
    request->done.store(true);
    changed_.notify_all();
    Executor::Cpu().WakeHelper();
  }
  --serving_;
}

void HookQueue::Finish(Work& work) {
  const std::lock_guard lock(mutex_);
  work.finished = true;
  changed_.notify_all();
}

// Node's scopes are closed on each way out.
class HandleScope {
 public:
  explicit HandleScope(napi_env env) : env_(env) { napi_open_handle_scope(env_, &scope_); }
  ~HandleScope() { napi_close_handle_scope(env_, scope_); }
  HandleScope(const HandleScope&) = delete;
  HandleScope& operator=(const HandleScope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_ = nullptr;
};

Hooks::Function::Function(Hooks& hooks, napi_value function)
    : hooks_(&hooks),
      queue_(hooks.queue_),
      releases_(hooks.environment_.releases()),
      alive_(hooks.alive_) {
  Check(hooks.environment_.env(),
        napi_create_reference(hooks.environment_.env(), function, 1, &reference_));
  ++*alive_;
}

Hooks::Function::~Function() {
  --*alive_;
  releases_->Post(reference_);
}

at::Tensor Hooks::Function::operator()(const at::Tensor& grad) const {
  at::Tensor result;
  queue_->Run([&] { result = hooks_->Call(reference_, grad); });
  return result;
}

void Hooks::Function::Call(const std::vector<at::Tensor>& arguments) const {
  const napi_env env = hooks_->environment_.env();
  const HandleScope scope(env);
  napi_value handles = nullptr;
  Check(env, napi_create_array_with_length(env, arguments.size(), &handles));
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Handle handle = hooks_->environment_.tensors().Add(arguments[i], nullptr);
    napi_set_element(
        env, handles, static_cast<uint32_t>(i), FromDouble(env, static_cast<double>(handle)));
  }
  hooks_->Invoke(reference_, handles);
}

// libtorch holds one object per leaf; ours holds the leaf's hooks, in the order of their
// registration.
struct Hooks::AccumulateHooks : torch::autograd::PostAccumulateGradHook {
  void operator()(const at::Tensor&) override {
    const auto now = functions;  // a hook may remove itself
    for (const auto& function : now) (*function)({});
  }
  std::vector<std::shared_ptr<Function>> functions;
};

Hooks::Hooks(Environment& environment) : environment_(environment) {}

Hooks::~Hooks() {
  queue_->Close();
  if (thrown_ != nullptr) napi_delete_reference(environment_.env(), thrown_);
}

uint32_t Hooks::OnGradient(const at::Tensor& tensor, napi_value function) {
  if (!tensor.requires_grad()) {
    throw Failure(
        code::kOp,
        "[register_hook] a hook needs a tensor that requires grad, got " + Summary(tensor));
  }
  const auto hook = std::make_shared<Function>(*this, function);
  const auto position = tensor.register_hook([hook](const at::Tensor& grad) {
    if (!grad.defined()) return at::Tensor();  // this branch of the graph carries none
    const at::Tensor result = (*hook)(grad);
    if (result.defined() && !result.sizes().equals(grad.sizes())) {
      throw Failure(code::kShape,
                    "[register_hook] the hook must return a gradient of the same shape: expected " +
                        Summary(grad) + ", got " + Summary(result));
    }
    return result;
  });
  return Register(tensor, hook, static_cast<int>(position));
}

uint32_t Hooks::AfterAccumulate(const at::Tensor& leaf, napi_value function) {
  if (!leaf.requires_grad() || !leaf.is_leaf()) {
    throw Failure(code::kOp,
                  "[register_post_accumulate_grad_hook] a hook after accumulation needs a leaf "
                  "that requires grad, got " +
                      Summary(leaf));
  }
  auto& slot = torch::autograd::impl::post_acc_grad_hooks(leaf);
  if (!slot)
    torch::autograd::impl::set_post_acc_grad_hooks(leaf, std::make_unique<AccumulateHooks>());
  auto* hooks =
      dynamic_cast<AccumulateHooks*>(torch::autograd::impl::post_acc_grad_hooks(leaf).get());
  if (hooks == nullptr)
    throw Failure(code::kOp, "[register_post_accumulate_grad_hook] the leaf has foreign hooks");
  hooks->functions.push_back(std::make_shared<Function>(*this, function));
  return Register(leaf, hooks->functions.back(), -1);
}

uint32_t Hooks::Register(const at::Tensor& tensor,
                         const std::shared_ptr<Function>& function,
                         int position) {
  if (registered_.size() >= prune_at_) {
    std::erase_if(registered_, [](const auto& entry) { return entry.second.function.expired(); });
    prune_at_ = std::max<size_t>(64, 2 * registered_.size());
  }
  const uint32_t id = ++last_id_;
  registered_.emplace(
      id,
      Registered{
          c10::weak_intrusive_ptr<c10::TensorImpl>(tensor.getIntrusivePtr()), function, position});
  return id;
}

void Hooks::Remove(uint32_t id) {
  const auto found = registered_.find(id);
  if (found == registered_.end()) return;
  const Registered hook = std::move(found->second);
  registered_.erase(found);
  const auto impl = hook.tensor.lock();
  const auto function = hook.function.lock();
  if (!impl || !function) return;
  const at::Tensor tensor(impl);
  if (hook.position >= 0) {
    tensor.remove_hook(static_cast<unsigned>(hook.position));
  } else if (auto* hooks = dynamic_cast<AccumulateHooks*>(
                 torch::autograd::impl::post_acc_grad_hooks(tensor).get())) {
    std::erase(hooks->functions, function);
  }
}

napi_value Hooks::Invoke(napi_ref reference, napi_value argument) {
  const napi_env env = environment_.env();
  napi_value function = nullptr;
  Check(env, napi_get_reference_value(env, reference, &function));
  napi_value result = nullptr;
  if (napi_call_function(env, Undefined(env), function, 1, &argument, &result) != napi_ok) {
    napi_value thrown = nullptr;
    napi_value holder = nullptr;
    if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok && thrown != nullptr &&
        thrown_ == nullptr && napi_create_array(env, &holder) == napi_ok) {
      napi_set_element(env, holder, 0, thrown);
      napi_create_reference(env, holder, 1, &thrown_);
    }
    throw HookThrew();
  }
  return result;
}

at::Tensor Hooks::Call(napi_ref reference, const at::Tensor& grad) {
  const napi_env env = environment_.env();
  const HandleScope scope(env);
  const Handle handle = grad.defined() ? environment_.tensors().Add(grad, nullptr) : kNoHandle;
  napi_value result = Invoke(reference, FromDouble(env, static_cast<double>(handle)));
  // A hook after accumulation gets no gradient and gives none.
  double number = 0;
  if (!grad.defined() || TypeOf(env, result) != napi_number) return {};
  Check(env, napi_get_value_double(env, result, &number));
  const Handle replacement = HandleFromNumber(number);
  return replacement == kNoHandle ? at::Tensor() : environment_.tensors().Get(replacement);
}

bool Hooks::Watch(const at::Tensor& tensor) {
  const auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
  if (meta == nullptr) return false;
  if (const auto& hooks = meta->cpp_hooks_list_;
      hooks && std::any_of(hooks->begin(), hooks->end(), [](const auto& hook) { return !!hook; })) {
    return true;
  }
  const auto* after = dynamic_cast<const AccumulateHooks*>(meta->post_acc_grad_hooks_.get());
  return after != nullptr && !after->functions.empty();
}

void Hooks::Rethrow() {
  const napi_env env = environment_.env();
  if (thrown_ == nullptr)
    throw Failure(code::kOp, "a gradient hook ended because its environment is closing");
  napi_value holder = nullptr;
  napi_value thrown = nullptr;
  napi_get_reference_value(env, thrown_, &holder);
  napi_get_element(env, holder, 0, &thrown);
  napi_delete_reference(env, thrown_);
  thrown_ = nullptr;
  napi_throw(env, thrown);
  throw PendingException{};
}

}  // namespace tf
