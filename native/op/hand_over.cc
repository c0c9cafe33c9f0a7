#include "native/op/hand_over.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

namespace tf {
namespace {

// Handing over takes a few microseconds, about what 20,000 additions take. ATen itself uses several
// threads from 32,768 elements on; where it does more than a few operations per element, a call
// that is smaller gains too.
constexpr int64_t kElements = 65536;
constexpr int64_t kHeavyElements = 16384;
constexpr size_t kMaxDims = 8;

// Bounds the elements that a call touches, from the shapes of its tensors: no more than the largest
// size at each position from the right. That covers broadcasting, and a matrix product's result.
class Extent {
 public:
  explicit Extent(int64_t limit) : limit_(limit) {}

  // False when the tensor says that the executor is not for it.
  bool Add(const at::Tensor& tensor) {
    if (!tensor.defined()) return true;
    if (!tensor.is_cpu()) return false;
    const int64_t numel = tensor.numel();
    largest_ = std::max(largest_, numel);
    product_ = std::min(product_ * std::max<int64_t>(numel, 1), limit_);
    const auto sizes = tensor.sizes();
    for (size_t i = 0; i < std::min(sizes.size(), kMaxDims); ++i) {
      sizes_[i] = std::max(sizes_[i], sizes[sizes.size() - 1 - i]);
    }
    any_ = true;
    return true;
  }

  bool any() const { return any_; }

  bool IsLarge() const {
    if (largest_ >= limit_) return true;
    if (product_ < limit_) return false;
    int64_t elements = 1;
    for (const int64_t size : sizes_) {
      elements *= size;
      if (elements >= limit_) return true;
    }
    return false;
  }

 private:
  int64_t limit_;
  bool any_ = false;
  int64_t largest_ = 0;
  int64_t product_ = 1;  // of all element counts, cut off
  std::array<int64_t, kMaxDims> sizes_{1, 1, 1, 1, 1, 1, 1, 1};
};

// `zeros([1000, 1000])`: the first list of integers is the size.
bool MakesLarge(const torch::jit::Stack& stack) {
  for (const c10::IValue& value : stack) {
    if (!value.isIntList()) continue;
    int64_t elements = 1;
    for (const int64_t size : value.toIntList()) {
      elements = std::min(elements * std::max<int64_t>(std::min(size, kElements), 0), kElements);
    }
    return elements >= kElements;
  }
  return false;
}

bool IsElsewhere(const c10::IValue& value) {
  return value.isDevice() && !value.toDevice().is_cpu();
}

}  // namespace

bool WorthHandingOver(const OpPlan& plan, const torch::jit::Stack& stack) {
  if (!plan.hand_over) return false;
  Extent extent(plan.heavy ? kHeavyElements : kElements);
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      if (!extent.Add(value.toTensor())) return false;
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        if (!extent.Add(tensor)) return false;
      }
    } else if (IsElsewhere(value)) {
      return false;
    }
  }
  if (!extent.any()) return MakesLarge(stack);
  if (!extent.IsLarge()) return false;
  // Already as it should be: `contiguous` then only returns its argument.
  return plan.name != "aten::contiguous" || !stack[0].toTensor().is_contiguous();
}

}  // namespace tf
