#include "native/tensor/shared.h"

#include <ATen/ATen.h>

#include <mutex>
#include <unordered_map>

#include "native/error/error.h"

namespace tf {
namespace {

struct Offers {
  std::mutex mutex;
  std::unordered_map<uint64_t, at::Tensor> tensors;
  uint64_t last = 0;
};

Offers& All() {
  static auto* const offers = new Offers;
  return *offers;
}

}  // namespace

uint64_t SharedTensors::Offer(const at::Tensor& tensor) {
  at::Tensor plain = tensor.is_inference() ? tensor.detach() : tensor.variable_data();
  Offers& offers = All();
  const std::lock_guard lock(offers.mutex);
  offers.tensors.emplace(++offers.last, std::move(plain));
  return offers.last;
}

at::Tensor SharedTensors::Claim(uint64_t token) {
  Offers& offers = All();
  const std::lock_guard lock(offers.mutex);
  const auto offer = offers.tensors.find(token);
  if (offer == offers.tensors.end()) {
    const bool made = token >= 1 && token <= offers.last;
    throw Failure(code::kInvalidArgument,
                  made ? "[fromShared] the token was claimed already; each is good for one claim"
                       : "[fromShared] the token was not made by share()");
  }
  at::Tensor tensor = std::move(offer->second);
  offers.tensors.erase(offer);
  return tensor;
}

}  // namespace tf
