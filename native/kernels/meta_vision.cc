// Meta kernels of pooling, padding and sampling of images and volumes.
#include "native/kernels/meta.h"

namespace tf::meta {
namespace {

// [..., spatial] with the last dimensions replaced.
std::vector<int64_t> WithSpatial(const Tensor& input, IntArrayRef spatial) {
  auto sizes = input.sizes().vec();
  std::copy(spatial.begin(), spatial.end(), sizes.end() - static_cast<int64_t>(spatial.size()));
  return sizes;
}

Tensor AdaptiveAvgPool(const Tensor& self,
                       IntArrayRef output_size,
                       int64_t spatial,
                       at::MemoryFormat format) {
  TORCH_CHECK(static_cast<int64_t>(output_size.size()) == spatial,
              "adaptive_avg_pool",
              spatial,
              "d: output_size must be ",
              spatial);
  TORCH_CHECK(self.dim() == spatial + 1 || self.dim() == spatial + 2,
              "adaptive_avg_pool",
              spatial,
              "d(): Expected ",
              spatial + 1,
              "D or ",
              spatial + 2,
              "D tensor, but got ",
              self.sizes());
  for (int64_t d = 1; d <= spatial; ++d) {
    TORCH_CHECK(
        self.size(-d) > 0,
        "adaptive_avg_pool",
        spatial,
        "d(): Expected input to have non-zero size for non-batch dimensions, but input has sizes ",
        self.sizes());
  }
  return Empty(WithSpatial(self, output_size), self, std::nullopt, format);
}

Tensor AdaptiveAvgPool2d(const Tensor& self, IntArrayRef output_size) {
  return AdaptiveAvgPool(self, output_size, 2, self.suggest_memory_format());
}

Tensor AdaptiveAvgPool3d(const Tensor& self, IntArrayRef output_size) {
  return AdaptiveAvgPool(self, output_size, 3, at::MemoryFormat::Contiguous);
}

// One value or one per dimension.
int64_t At(IntArrayRef values, size_t i) { return values.size() == 1 ? values[0] : values[i]; }

int64_t Pooled(
    int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil) {
  const int64_t span = size + 2 * padding - dilation * (kernel - 1) - 1;
  if (span < 0) return 0;
  int64_t pooled = (span + (ceil ? stride - 1 : 0)) / stride + 1;
  // The last window starts inside the input or its left padding.
  if (ceil && (pooled - 1) * stride >= size + padding) --pooled;
  return pooled;
}

std::tuple<Tensor&, Tensor&> MaxPool3dOut(const Tensor& self,
                                          IntArrayRef kernel,
                                          IntArrayRef stride,
                                          IntArrayRef padding,
                                          IntArrayRef dilation,
                                          bool ceil,
                                          Tensor& out,
                                          Tensor& indices) {
  TORCH_CHECK(self.dim() == 4 || self.dim() == 5,
              "max_pool3d: Expected 4D or 5D tensor for input, but got: ",
              self.sizes());
  std::vector<int64_t> spatial;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t step = stride.empty() ? At(kernel, i) : At(stride, i);
    TORCH_CHECK(step > 0, "stride should be greater than zero");
    TORCH_CHECK(2 * At(padding, i) <= At(kernel, i),
                "pad should be at most half of the kernel size");
    spatial.push_back(Pooled(self.size(static_cast<int64_t>(i) - 3),
                             At(kernel, i),
                             step,
                             At(padding, i),
                             At(dilation, i),
                             ceil));
    TORCH_CHECK(
        spatial.back() > 0, "Given input size: ", self.sizes(), ". Output size is too small");
  }
  const auto sizes = WithSpatial(self, spatial);
  const auto format = self.dim() == 5 ? self.suggest_memory_format() : at::MemoryFormat::Contiguous;
  out.resize_(sizes, format);
  indices.resize_(sizes, format);
  return {out, indices};
}

std::tuple<Tensor, Tensor> MaxPool3d(const Tensor& self,
                                     IntArrayRef kernel,
                                     IntArrayRef stride,
                                     IntArrayRef padding,
                                     IntArrayRef dilation,
                                     bool ceil) {
  Tensor out = Empty({0}, self);
  Tensor indices = Empty({0}, self, at::kLong);
  MaxPool3dOut(self, kernel, stride, padding, dilation, ceil, out, indices);
  return {out, indices};
}

Tensor MaxUnpool2d(const Tensor& self, const Tensor& indices, IntArrayRef output_size) {
  TORCH_CHECK(self.dim() == 3 || self.dim() == 4,
              "Input to max_unpooling2d should be a 3d or 4d Tensor");
  TORCH_CHECK(self.sizes() == indices.sizes(),
              "Expected shape of indices to be same as that of the input tensor");
  return Empty(WithSpatial(self, output_size), self, std::nullopt, self.suggest_memory_format());
}

Tensor MaxUnpool3d(
    const Tensor& self, const Tensor& indices, IntArrayRef output_size, IntArrayRef, IntArrayRef) {
  TORCH_CHECK(self.dim() == 4 || self.dim() == 5,
              "Input to max_unpooling3d should be a 4d or 5d Tensor");
  TORCH_CHECK(self.sizes() == indices.sizes(),
              "Expected shape of indices to be same as that of the input tensor");
  return Empty(WithSpatial(self, output_size), self);
}

Tensor ReflectionPad2d(const Tensor& self, IntArrayRef padding) {
  TORCH_CHECK(padding.size() == 4, "reflection_pad2d: padding must have 4 values");
  TORCH_CHECK(self.dim() == 3 || self.dim() == 4,
              "Expected 3D or 4D (batch mode) tensor, but got: ",
              self.sizes());
  const int64_t width = self.size(-1);
  const int64_t height = self.size(-2);
  TORCH_CHECK(
      padding[0] < width && padding[1] < width && padding[2] < height && padding[3] < height,
      "Argument #4: Padding size should be less than the corresponding input dimension, but got: "
      "padding ",
      padding,
      " of input ",
      self.sizes());
  const std::vector<int64_t> spatial = {height + padding[2] + padding[3],
                                        width + padding[0] + padding[1]};
  TORCH_CHECK(spatial[0] >= 1 && spatial[1] >= 1, "reflection_pad2d: the result would be empty");
  const auto format = self.dim() == 4 ? self.suggest_memory_format() : at::MemoryFormat::Contiguous;
  return Empty(WithSpatial(self, spatial), self, std::nullopt, format);
}

// `grid` is [N, spatial..., dims].
Tensor GridSampler(const Tensor& input, const Tensor& grid, int64_t dims) {
  TORCH_CHECK(input.dim() == dims + 2 && grid.dim() == input.dim(),
              "grid_sampler(): expected grid and input to have same number of dimensions, but got "
              "input with sizes ",
              input.sizes(),
              " and grid with sizes ",
              grid.sizes());
  TORCH_CHECK(input.size(0) == grid.size(0) && grid.size(-1) == dims,
              "grid_sampler(): input of sizes ",
              input.sizes(),
              " does not go with a grid of sizes ",
              grid.sizes());
  std::vector<int64_t> sizes = {input.size(0), input.size(1)};
  for (int64_t d = 1; d <= dims; ++d) sizes.push_back(grid.size(d));
  return Empty(sizes, input);
}

Tensor GridSampler2d(const Tensor& input, const Tensor& grid, int64_t, int64_t, bool) {
  return GridSampler(input, grid, 2);
}

Tensor GridSampler3d(const Tensor& input, const Tensor& grid, int64_t, int64_t, bool) {
  return GridSampler(input, grid, 3);
}

Tensor ChannelShuffle(const Tensor& self, int64_t groups) {
  TORCH_CHECK(self.dim() > 2,
              "channel_shuffle expects input with > 2 dims, but got input with sizes ",
              self.sizes());
  TORCH_CHECK(groups > 0 && self.size(1) % groups == 0,
              "Number of channels must be divisible by groups. Got ",
              self.size(1),
              " channels and ",
              groups,
              " groups.");
  if (self.numel() == 0) return self.alias();
  return Empty(self.sizes(), self, std::nullopt, self.suggest_memory_format());
}

// [..., C * f * f, H, W] to [..., C, H * f, W * f].
Tensor PixelShuffle(const Tensor& self, int64_t factor) {
  TORCH_CHECK(self.dim() >= 3,
              "pixel_shuffle expects input to have at least 3 dimensions, but got ",
              self.dim());
  TORCH_CHECK(factor > 0, "pixel_shuffle expects a positive upscale_factor, but got ", factor);
  TORCH_CHECK(
      self.size(-3) % (factor * factor) == 0,
      "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
      "upscale_factor, but input.size(-3)=",
      self.size(-3),
      " is not divisible by ",
      factor * factor);
  const auto sizes = WithSpatial(
      self, {self.size(-3) / (factor * factor), self.size(-2) * factor, self.size(-1) * factor});
  return Empty(sizes, self, std::nullopt, self.suggest_memory_format());
}

// The reverse.
Tensor PixelUnshuffle(const Tensor& self, int64_t factor) {
  TORCH_CHECK(self.dim() >= 3,
              "pixel_unshuffle expects input to have at least 3 dimensions, but got ",
              self.dim());
  TORCH_CHECK(factor > 0, "pixel_unshuffle expects a positive downscale_factor, but got ", factor);
  TORCH_CHECK(self.size(-2) % factor == 0 && self.size(-1) % factor == 0,
              "pixel_unshuffle expects height and width to be divisible by downscale_factor, but ",
              self.sizes(),
              " is not divisible by ",
              factor);
  const auto sizes = WithSpatial(
      self, {self.size(-3) * factor * factor, self.size(-2) / factor, self.size(-1) / factor});
  return Empty(sizes, self, std::nullopt, self.suggest_memory_format());
}

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("_adaptive_avg_pool2d", AdaptiveAvgPool2d);
  m.impl("_adaptive_avg_pool3d", AdaptiveAvgPool3d);
  m.impl("max_pool3d_with_indices", MaxPool3d);
  m.impl("max_pool3d_with_indices.out", MaxPool3dOut);
  m.impl("max_unpool2d", MaxUnpool2d);
  m.impl("max_unpool3d", MaxUnpool3d);
  m.impl("reflection_pad2d", ReflectionPad2d);
  m.impl("grid_sampler_2d", GridSampler2d);
  m.impl("grid_sampler_3d", GridSampler3d);
  m.impl("channel_shuffle", ChannelShuffle);
  m.impl("pixel_shuffle", PixelShuffle);
  m.impl("pixel_unshuffle", PixelUnshuffle);
}

}  // namespace
}  // namespace tf::meta
