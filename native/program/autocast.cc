#include "native/program/autocast.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace tf {
namespace {

template <size_t N>
bool OneOf(std::string_view name, const std::array<std::string_view, N>& names) {
  const std::string_view plain = name.substr(0, name.find('.'));
  return std::find(names.begin(), names.end(), plain) != names.end();
}

constexpr std::array<std::string_view, 24> kLowerPrecision{"aten::_convolution",
                                                           "aten::conv1d",
                                                           "aten::conv2d",
                                                           "aten::conv3d",
                                                           "aten::bmm",
                                                           "aten::mm",
                                                           "aten::linalg_vecdot",
                                                           "aten::baddbmm",
                                                           "aten::addmm",
                                                           "aten::addbmm",
                                                           "aten::linear",
                                                           "aten::matmul",
                                                           "aten::conv_tbc",
                                                           "aten::conv_transpose1d",
                                                           "aten::conv_transpose2d",
                                                           "aten::conv_transpose3d",
                                                           "aten::prelu",
                                                           "aten::scaled_dot_product_attention",
                                                           "aten::mv",
                                                           "aten::addmv",
                                                           "aten::addr",
                                                           "aten::chain_matmul",
                                                           "aten::linalg_multi_dot",
                                                           "aten::einsum"};
constexpr std::array<std::string_view, 6> kWidest{"aten::cat",
                                                  "aten::stack",
                                                  "aten::index_copy",
                                                  "aten::index_put",
                                                  "aten::addcdiv",
                                                  "aten::addcmul"};

bool IsEligible(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
}

// Applies `change` to each tensor that autocast would cast.
template <class Change>
void ForEligible(torch::jit::Stack& stack, Change&& change) {
  for (c10::IValue& value : stack) {
    if (value.isTensor()) {
      if (IsEligible(value.toTensor())) value = change(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector())
        list.push_back(IsEligible(tensor) ? change(tensor) : tensor);
      value = list;
    }
  }
}

}  // namespace

void CastAsAutocastWill(const OpPlan& op, c10::Device device, torch::jit::Stack& stack) {
  const c10::DeviceType type = device.type();
  if ((type != at::kCPU && type != at::kCUDA) || !at::autocast::is_autocast_enabled(type)) return;
  const c10::DispatchKey key =
      type == at::kCPU ? c10::DispatchKey::AutocastCPU : c10::DispatchKey::AutocastCUDA;
  if (op.writes) return;
  at::ScalarType to = at::autocast::get_autocast_dtype(type);
  if (!OneOf(op.name, kLowerPrecision)) {
    if (!op.handle.hasKernelForDispatchKey(key)) return;
    if (OneOf(op.name, kWidest)) {
      to = at::autocast::get_autocast_dtype(type);
      ForEligible(stack, [&](const at::Tensor& tensor) {
        if (tensor.scalar_type() == at::kFloat) to = at::kFloat;
        return tensor;
      });
    } else {
      to = at::kFloat;
    }
  }
  ForEligible(stack, [&](const at::Tensor& tensor) { return tensor.to(to); });
}

}  // namespace tf
