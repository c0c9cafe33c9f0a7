// setErrorFactory: JavaScript says how errors are made.
#include "native/addon.h"
#include "native/convert/bind.h"

namespace tf {
namespace {

void SetErrorFactory(Environment& environment, Js factory) {
  if (TypeOf(environment.env(), factory.value) != napi_function) {
    FailArgument(environment, Where{"setErrorFactory", 1}, "a function", factory.value);
  }
  environment.SetErrorFactory(factory.value);
}

}  // namespace

void InitErrors(Exports& exports) { exports.Function<"setErrorFactory", SetErrorFactory>(); }

}  // namespace tf
