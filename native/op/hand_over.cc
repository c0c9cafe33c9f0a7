#include "native/op/hand_over.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <utility>

namespace tf {
namespace {

// Two threads change places twice, and on a machine with few cores the waiting one sleeps
// meanwhile: 50 to 100 us where waking is slow. A call is worth it from about 100 us of one
// thread's work on: that many elements read from memory, or that many multiplications where each
// element serves several.
constexpr int64_t kElements = kHandOverElements;
constexpr double kProducts = 4194304;
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

// Of products, convolutions, attention and the like: the two largest tensors are multiplied along
// the last dimension of the smaller one; a tensor alone (an inverse, say) with itself.
class Products {
 public:
  void Add(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.dim() == 0) return;
    const Factor factor{static_cast<double>(tensor.numel()), static_cast<double>(tensor.size(-1))};
    if (factor.elements > first_.elements) {
      second_ = std::exchange(first_, factor);
    } else if (factor.elements > second_.elements) {
      second_ = factor;
    }
  }

  bool AreMany() const {
    const Factor& other = second_.elements > 0 ? second_ : first_;
    return first_.elements * other.elements >= kProducts * std::max(other.last, 1.0);
  }

 private:
  struct Factor {
    double elements = 0;
    double last = 1;
  };
  Factor first_;
  Factor second_;
};

// Of operators that pick rows: what is picked, however large the tensor is from which.
bool PicksMany(const torch::jit::Stack& stack) {
  double row = 0;
  for (const c10::IValue& value : stack) {
    if (!value.isTensor()) continue;
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.is_cpu()) return false;
    const auto elements = static_cast<double>(tensor.numel());
    if (row > 0) return elements * row >= static_cast<double>(kElements);
    row = tensor.dim() == 0 ? 1
                            : elements / static_cast<double>(std::max<int64_t>(tensor.size(0), 1));
  }
  return false;
}

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
  if (plan.picks) return PicksMany(stack);
  Extent extent(kElements);
  Products products;
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      if (!extent.Add(value.toTensor())) return false;
      if (plan.heavy) products.Add(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        if (!extent.Add(tensor)) return false;
      }
    } else if (IsElsewhere(value)) {
      return false;
    }
  }
  if (!extent.any()) return MakesLarge(stack);
  if (!extent.IsLarge() && !(plan.heavy && products.AreMany())) return false;
  // Already as it should be: `contiguous` then only returns its argument.
  return plan.name != "aten::contiguous" || !stack[0].toTensor().is_contiguous();
}

}  // namespace tf
