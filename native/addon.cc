// Registration only: makes the environment's state and asks each room for its functions.
#include "native/addon.h"

#include "native/convert/bind.h"
#include "native/device/run_generator.h"
#include "native/error/guard.h"
#include "native/executor/executor.h"
#include "native/tensor/small_blocks.h"

namespace tf {

Environment::Environment(napi_env env)
    : env_(env), releases_(std::make_shared<ReleaseQueue>()), tensors_(*this) {}

Environment::~Environment() {
  generators_.Clear(env_);
  releases_->Close(env_);
  if (error_factory_ != nullptr) napi_delete_reference(env_, error_factory_);
}

Environment& Environment::Of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

napi_value Environment::ErrorFactory() const {
  napi_value factory = nullptr;
  if (error_factory_ != nullptr) napi_get_reference_value(env_, error_factory_, &factory);
  return factory;
}

void Environment::SetErrorFactory(napi_value factory) {
  if (error_factory_ != nullptr) napi_delete_reference(env_, error_factory_);
  error_factory_ = nullptr;
  Check(env_, napi_create_reference(env_, factory, 1, &error_factory_));
}

namespace {

napi_value Init(napi_env env, napi_value object) {
  auto* environment = new Environment(env);
  const auto end = [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); };
  napi_set_instance_data(env, environment, end, nullptr);
  return Guard(*environment, [&] {
    UseSmallBlocks();
    RouteDraws();
    UseOneThreadHere();
    Exports exports(*environment, object);
    InitErrors(exports);
    InitOps(exports);
    InitTensorFacts(exports);
    InitTensorData(exports);
    InitTensorLife(exports);
    InitAutograd(exports);
    InitCheckpoint(exports);
    InitIo(exports);
    InitPlacement(exports);
    InitDevices(exports);
    InitThreads(exports);
    InitRandom(exports);
    InitPrograms(exports);
    return object;
  });
}

}  // namespace
}  // namespace tf

NAPI_MODULE(torchformers_core, tf::Init)
