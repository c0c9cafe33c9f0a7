// Meta kernels of convolutions, and of the windows that they are made of.
#include <ATen/native/ConvUtils.h>

#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// On a backend that is not its own, libtorch ends here for every convolution: of 1, 2 or 3
// dimensions, transposed or not.
Tensor Convolution(const Tensor& input,
                   const Tensor& weight,
                   const std::optional<Tensor>&,
                   IntArrayRef stride,
                   IntArrayRef padding,
                   IntArrayRef dilation,
                   bool transposed,
                   IntArrayRef output_padding,
                   int64_t groups) {
  const auto sizes =
      transposed
          ? at::native::conv_input_size(
                input.sizes(), weight.sizes(), padding, output_padding, stride, dilation, groups)
          : at::native::conv_output_size(input.sizes(), weight.sizes(), padding, stride, dilation);
  const auto last =
      input.dim() == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
  const bool channels_last =
      input.suggest_memory_format() == last || weight.suggest_memory_format() == last;
  return Empty(sizes, input, std::nullopt, channels_last ? last : at::MemoryFormat::Contiguous);
}

// How many windows fit along one dimension.
int64_t Windows(int64_t size, int64_t kernel, int64_t dilation, int64_t padding, int64_t stride) {
  return (size + 2 * padding - (dilation * (kernel - 1) + 1)) / stride + 1;
}

void CheckWindow(IntArrayRef kernel,
                 IntArrayRef dilation,
                 IntArrayRef padding,
                 IntArrayRef stride) {
  for (const IntArrayRef pair : {kernel, dilation, padding, stride}) {
    TORCH_CHECK(pair.size() == 2,
                "It is expected kernel_size, dilation, padding and stride equal to 2");
  }
  TORCH_CHECK(
      kernel[0] > 0 && kernel[1] > 0, "kernel size should be greater than zero, but got ", kernel);
  TORCH_CHECK(dilation[0] > 0 && dilation[1] > 0,
              "dilation should be greater than zero, but got ",
              dilation);
  TORCH_CHECK(
      padding[0] >= 0 && padding[1] >= 0, "padding should be non-negative, but got ", padding);
  TORCH_CHECK(
      stride[0] > 0 && stride[1] > 0, "stride should be greater than zero, but got ", stride);
}

// [N, C, H, W] or [C, H, W] to [N, C * kernel, windows] or without N.
Tensor Im2col(const Tensor& self,
              IntArrayRef kernel,
              IntArrayRef dilation,
              IntArrayRef padding,
              IntArrayRef stride) {
  CheckWindow(kernel, dilation, padding, stride);
  const int64_t dims = self.dim();
  TORCH_CHECK((dims == 3 && self.size(0) != 0 && self.size(1) != 0 && self.size(2) != 0) ||
                  (dims == 4 && self.size(1) != 0 && self.size(2) != 0 && self.size(3) != 0),
              "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
              "dimensions "
              "for input, but got: ",
              self.sizes());
  const int64_t rows = Windows(self.size(-2), kernel[0], dilation[0], padding[0], stride[0]);
  const int64_t columns = Windows(self.size(-1), kernel[1], dilation[1], padding[1], stride[1]);
  TORCH_CHECK(rows >= 1 && columns >= 1,
              "the array of sliding blocks has shape (",
              rows,
              ", ",
              columns,
              "), but its components must be at least one");
  const int64_t channels = self.size(-3) * kernel[0] * kernel[1];
  if (dims == 3) return Empty({channels, rows * columns}, self);
  return Empty({self.size(0), channels, rows * columns}, self);
}

// The reverse: overlapping windows are added up into an image.
Tensor Col2im(const Tensor& self,
              IntArrayRef output_size,
              IntArrayRef kernel,
              IntArrayRef dilation,
              IntArrayRef padding,
              IntArrayRef stride) {
  CheckWindow(kernel, dilation, padding, stride);
  TORCH_CHECK(output_size.size() == 2,
              "It is expected output_size equals to 2, but got size ",
              output_size.size());
  TORCH_CHECK(self.dim() == 2 || self.dim() == 3,
              "Expected 2D or 3D (batch mode) tensor for input, but got: ",
              self.sizes());
  const int64_t block = kernel[0] * kernel[1];
  TORCH_CHECK(self.size(-2) % block == 0,
              "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
              "but got ",
              self.size(-2),
              " and kernel_size=",
              kernel);
  const int64_t windows = Windows(output_size[0], kernel[0], dilation[0], padding[0], stride[0]) *
                          Windows(output_size[1], kernel[1], dilation[1], padding[1], stride[1]);
  TORCH_CHECK(
      self.size(-1) == windows,
      "Given output_size=",
      output_size,
      ", expected size of input's dimension 2 to match the calculated number of sliding blocks ",
      windows,
      ", but got ",
      self.size(-1));
  const int64_t channels = self.size(-2) / block;
  if (self.dim() == 2) return Empty({channels, output_size[0], output_size[1]}, self);
  return Empty({self.size(0), channels, output_size[0], output_size[1]}, self);
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("convolution_overrideable", Convolution);
  m.impl("im2col", Im2col);
  m.impl("col2im", Col2im);
}

}  // namespace
}  // namespace tf::meta
