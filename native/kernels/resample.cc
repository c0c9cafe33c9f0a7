// Resampling of images in whole numbers, as Pillow does it: the same bytes come out.
//
// torchformers::resample(Tensor image, int height, int width, int filter) -> Tensor
//   image [..., h, w] of uint8, planes apart; result [..., height, width], dense. `filter` is
//   Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming. All but nearest
//   widen with the scale, so that a smaller image is a mean of what it covers. CPU and Meta; no
//   derivative.
//
// One direction after the other; in between values are rounded to bytes, so it matters which comes
// first (see ColumnsFirst). Weights are whole numbers of kPrecision bits: sums are exact in 32
// bits.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tf {
namespace {

using at::Tensor;

constexpr double kPi = 3.14159265358979323846;
constexpr int kPrecision = 32 - 8 - 2;
constexpr int64_t kElementsPerThread = 16384;

// --- filters: weight at a distance, and the distance from which on it is 0 -----------------------

double Sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

double Lanczos(double x) { return -3.0 <= x && x < 3.0 ? Sinc(x) * Sinc(x / 3) : 0.0; }

double Bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double Bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double Box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double Hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= kPi;
  // In single precision, as there.
  constexpr double a = 0.54F, b = 0.46F;
  return std::sin(x) / x * (a + b * std::cos(x));
}

struct Filter {
  double (*weight)(double);
  double support;
};

constexpr int64_t kNearest = 0;

Filter FilterOf(int64_t number) {
  switch (number) {
    case 1:
      return {Lanczos, 3.0};
    case 2:
      return {Bilinear, 1.0};
    case 3:
      return {Bicubic, 2.0};
    case 4:
      return {Box, 0.5};
    case 5:
      return {Hamming, 1.0};
    default:
      TORCH_CHECK(false, "resample: filter must be from 0 to 5, got ", number);
  }
}

// --- weights -------------------------------------------------------------------------------------

// For each place of the result: where in the source its window begins, and how long it is; the
// weights of place i start at i * width.
struct Weights {
  int64_t width = 0;
  std::vector<int64_t> first;
  std::vector<int64_t> count;
  std::vector<int32_t> values;
};

Weights WeightsFor(int64_t from, int64_t to, const Filter& filter) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch;
  Weights weights;
  weights.width = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  weights.first.resize(to);
  weights.count.resize(to);
  weights.values.assign(to * weights.width, 0);
  std::vector<double> exact(weights.width);
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const auto last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), from);
    const int64_t count = last - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      exact[k] = filter.weight((static_cast<double>(k + first) - center + 0.5) * (1.0 / stretch));
      sum += exact[k];
    }
    int32_t* values = &weights.values[i * weights.width];
    for (int64_t k = 0; k < count; ++k) {
      const double share = sum == 0.0 ? exact[k] : exact[k] / sum;
      values[k] = static_cast<int32_t>((share < 0 ? -0.5 : 0.5) + share * (1 << kPrecision));
    }
    weights.first[i] = first;
    weights.count[i] = count;
  }
  return weights;
}

uint8_t Byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp<int32_t>(sum >> kPrecision, 0, 255));
}

constexpr int32_t kHalf = 1 << (kPrecision - 1);

int64_t RowsPerThread(int64_t work) {
  return std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, work));
}

// --- passes --------------------------------------------------------------------------------------

// [rows, w] -> [rows, width]
void AlongRows(const uint8_t* from, int64_t rows, int64_t w, const Weights& weights, uint8_t* to) {
  const auto width = static_cast<int64_t>(weights.first.size());
  at::parallel_for(0, rows, RowsPerThread(w), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint8_t* source = from + row * w;
      for (int64_t x = 0; x < width; ++x) {
        const uint8_t* window = source + weights.first[x];
        const int32_t* values = &weights.values[x * weights.width];
        int32_t sum = kHalf;
        for (int64_t k = 0; k < weights.count[x]; ++k) sum += window[k] * values[k];
        to[row * width + x] = Byte(sum);
      }
    }
  });
}

// [planes, h, width] -> [planes, height, width]
void AlongColumns(const uint8_t* from,
                  int64_t planes,
                  int64_t h,
                  int64_t width,
                  const Weights& weights,
                  uint8_t* to) {
  const auto height = static_cast<int64_t>(weights.first.size());
  const int64_t grain = RowsPerThread(width * weights.width);
  at::parallel_for(0, planes * height, grain, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sums(width);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t y = row % height;
      const uint8_t* source = from + (row / height * h + weights.first[y]) * width;
      const int32_t* values = &weights.values[y * weights.width];
      std::fill(sums.begin(), sums.end(), kHalf);
      for (int64_t k = 0; k < weights.count[y]; ++k) {
        const int32_t value = values[k];
        const uint8_t* line = source + k * width;
        for (int64_t x = 0; x < width; ++x) sums[x] += line[x] * value;
      }
      for (int64_t x = 0; x < width; ++x) to[row * width + x] = Byte(sums[x]);
    }
  });
}

// Where each place of the result lies in the source. The steps are added up one by one, as there:
// on a border a product could fall on the other side.
std::vector<int64_t> Nearest(int64_t from, int64_t to) {
  const double step = static_cast<double>(from) / static_cast<double>(to);
  std::vector<int64_t> places(to);
  double place = step * 0.5;
  for (int64_t i = 0; i < to; ++i, place += step) {
    places[i] = std::min<int64_t>(static_cast<int64_t>(place), from - 1);
  }
  return places;
}

void PickNearest(const uint8_t* from,
                 int64_t planes,
                 int64_t h,
                 int64_t w,
                 int64_t height,
                 int64_t width,
                 uint8_t* to) {
  const std::vector<int64_t> rows = Nearest(h, height);
  const std::vector<int64_t> columns = Nearest(w, width);
  at::parallel_for(0, planes * height, RowsPerThread(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint8_t* source = from + (row / height * h + rows[row % height]) * w;
      for (int64_t x = 0; x < width; ++x) to[row * width + x] = source[columns[x]];
    }
  });
}

// --- the operator --------------------------------------------------------------------------------

std::vector<int64_t> ResultSizes(const Tensor& image, int64_t height, int64_t width) {
  TORCH_CHECK(image.dim() >= 2 && image.scalar_type() == at::kByte,
              "resample: image must be uint8 with at least two dimensions, got ",
              image.scalar_type(),
              " of shape ",
              image.sizes());
  TORCH_CHECK(image.size(-2) > 0 && image.size(-1) > 0,
              "resample: an image of shape ",
              image.sizes(),
              " has no pixels");
  // Beyond this the number of weights is no longer a number of this machine.
  constexpr int64_t kLongest = std::numeric_limits<int32_t>::max() / 16;
  TORCH_CHECK(height > 0 && width > 0 && height <= kLongest && width <= kLongest,
              "resample: height and width must be from 1 to ",
              kLongest,
              ", got ",
              height,
              " and ",
              width);
  auto sizes = image.sizes().vec();
  sizes[sizes.size() - 2] = height;
  sizes[sizes.size() - 1] = width;
  return sizes;
}

// Pillow 13's choice: where the height shrinks by more than twice of what the width does.
bool ColumnsFirst(int64_t h, int64_t w, int64_t height, int64_t width) {
  return height < h && h - height > 2 * (w - width);
}

Tensor WithWidth(const Tensor& image, int64_t width, const Filter& filter) {
  const int64_t w = image.size(-1);
  if (w == width) return image;
  auto sizes = image.sizes().vec();
  sizes.back() = width;
  Tensor result = at::empty(sizes, image.options());
  AlongRows(image.const_data_ptr<uint8_t>(),
            image.numel() / w,
            w,
            WeightsFor(w, width, filter),
            result.mutable_data_ptr<uint8_t>());
  return result;
}

Tensor WithHeight(const Tensor& image, int64_t height, const Filter& filter) {
  const int64_t h = image.size(-2);
  if (h == height) return image;
  auto sizes = image.sizes().vec();
  sizes[sizes.size() - 2] = height;
  Tensor result = at::empty(sizes, image.options());
  AlongColumns(image.const_data_ptr<uint8_t>(),
               image.numel() / (h * image.size(-1)),
               h,
               image.size(-1),
               WeightsFor(h, height, filter),
               result.mutable_data_ptr<uint8_t>());
  return result;
}

Tensor Resample(const Tensor& image, int64_t height, int64_t width, int64_t filter) {
  const auto sizes = ResultSizes(image, height, width);
  const Tensor source = image.contiguous();
  const int64_t h = source.size(-2);
  const int64_t w = source.size(-1);
  if (filter == kNearest) {
    Tensor result = at::empty(sizes, source.options());
    PickNearest(source.const_data_ptr<uint8_t>(),
                source.numel() / (h * w),
                h,
                w,
                height,
                width,
                result.mutable_data_ptr<uint8_t>());
    return result;
  }
  const Filter chosen = FilterOf(filter);
  if (h == height && w == width) return source.clone();
  return ColumnsFirst(h, w, height, width)
             ? WithWidth(WithHeight(source, height, chosen), width, chosen)
             : WithHeight(WithWidth(source, width, chosen), height, chosen);
}

Tensor ResampleMeta(const Tensor& image, int64_t height, int64_t width, int64_t filter) {
  const auto sizes = ResultSizes(image, height, width);
  if (filter != kNearest) FilterOf(filter);
  return at::empty(sizes, image.options());
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def("resample(Tensor image, int height, int width, int filter) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchformers, CPU, m) { m.impl("resample", Resample); }

TORCH_LIBRARY_IMPL(torchformers, Meta, m) { m.impl("resample", ResampleMeta); }

TORCH_LIBRARY_IMPL(torchformers, Autograd, m) {
  m.impl("resample", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace tf
