// Operators whose result's shape, or the result itself, depends on data: on meta tensors they say
// so. The wording becomes a TraceError.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

void Refuse(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK(false,
              op.schema().name().substr(6),
              ": the result depends on data, which a meta tensor does not have");
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  for (const char* name : {"_ctc_loss.Tensor",
                           "_local_scalar_dense",
                           "_unique",
                           "_unique2",
                           "bincount",
                           "equal",
                           "masked_select",
                           "nonzero",
                           "unique_consecutive",
                           "unique_dim",
                           "unique_dim_consecutive"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&Refuse>());
  }
}

}  // namespace
}  // namespace tf::meta
