// Operators that only write into their arguments, or only check them: on meta tensors there is
// nothing to do.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

void Nothing(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  torch::jit::drop(*stack, op.schema().arguments().size());
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  for (const char* name : {"_amp_foreach_non_finite_check_and_unscale_",
                           "_assert_async",
                           "_assert_async.msg",
                           "_fused_adagrad_",
                           "_fused_adagrad_.tensor_lr",
                           "_fused_adam_",
                           "_fused_adam_.tensor_lr",
                           "_fused_adamw_",
                           "_fused_adamw_.tensor_lr",
                           "_fused_sgd_",
                           "_fused_sgd_.tensor_lr"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&Nothing>());
  }
}

}  // namespace
}  // namespace tf::meta
