// Tensors that stand for others while a function is recorded: shapes, strides and dtypes, no
// values.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace torch::autograd {
struct Node;
}

namespace tf {

// A fake is a tensor on the meta device whose storage carries this mark, so that its views carry it
// too. Views of one real storage are views of one fake storage: aliasing is true in a recording.
struct FakeMark {
  c10::Device device;  // of the tensor that it stands for
  uint64_t recording;  // the one that made it
};

// Null for tensors that are what they seem.
const FakeMark* FindFakeMark(const at::Tensor& tensor);

// Where the values of the tensor are, or will be.
c10::Device RealDevice(const at::Tensor& tensor);

// A storage without memory, marked.
c10::Storage MakeFakeStorage(size_t bytes, FakeMark mark);

// Marks the storage of a meta tensor that an operator made.
void MarkFake(const at::Tensor& tensor, FakeMark mark);

// A tensor over a fake storage with the facts of a real one.
at::Tensor MakeFake(c10::Storage storage, const at::Tensor& real);

// Whether a node stands for what was computed before the recording.
bool IsOutside(const torch::autograd::Node& node);

}  // namespace tf
