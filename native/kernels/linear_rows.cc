#include "native/kernels/linear_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "native/kernels/cpu_level.h"
#include "native/kernels/pick.h"
#include "native/kernels/scratch.h"

namespace tf {
namespace {

// Rows that share the packing of a panel; more would leave the caches.
constexpr int64_t kMostRows = 1024;
// Units of a product after which lines of the next panel are asked for.
constexpr int64_t kUnitsAtOnce = 256;

// Some columns of one product.
struct Panel {
  const RowsProduct* product;
  int64_t first;
  int64_t columns;
  int64_t width;  // columns, padded to whole vectors
};

std::vector<Panel> PanelsOf(const std::vector<RowsProduct>& products, const tiles::Kernel& kernel) {
  std::vector<Panel> panels;
  for (const RowsProduct& product : products) {
    const int64_t n = product.weight.size(0);
    int64_t left = (n + kernel.columns - 1) / kernel.columns;
    for (int64_t first = 0; first < n; --left) {
      const int64_t vectors = (n - first + kernel.lanes - 1) / kernel.lanes;
      const int64_t width = (vectors + left - 1) / left * kernel.lanes;
      panels.push_back({&product, first, std::min(width, n - first), width});
      first += width;
    }
  }
  return panels;
}

// Asks for the lines of a panel's weights, some at a time, while others are multiplied.
class Ahead {
 public:
  Ahead(const Panel* panel, int64_t k, int64_t steps) {
    if (panel == nullptr) return;
    const at::Tensor& weight = panel->product->weight;
    row_ = ElementAt(weight, panel->first * weight.stride(0));
    stride_ = weight.stride(0) * weight.element_size();
    bytes_ = k * weight.element_size();
    rows_ = panel->columns;
    lines_ = (rows_ * ((bytes_ + kLine - 1) / kLine) + steps - 1) / steps;
  }

  void Step() {
    for (int64_t i = 0; i < lines_ && rows_ > 0; ++i) {
      __builtin_prefetch(row_ + at_, 0, 2);
      at_ += kLine;
      if (at_ < bytes_) continue;
      at_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  const char* row_ = nullptr;
  int64_t stride_ = 0, bytes_ = 0, rows_ = 0, lines_ = 0, at_ = 0;
};

class Multiplication {
 public:
  Multiplication(const char* input,
                 int64_t rows,
                 int64_t k,
                 int64_t first_row,
                 const tiles::Kernel& kernel,
                 const std::vector<Panel>& panels)
      : input_(input),
        rows_(rows),
        k_(k),
        first_row_(first_row),
        kernel_(kernel),
        panels_(panels),
        units_((k + kernel.unit - 1) / kernel.unit),
        tiles_((rows + kernel.rows - 1) / kernel.rows),
        packed_(rows * units_) {}

  void Run() {
    at::parallel_for(0, tiles_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        kernel_.pack_rows(input_ + TileRow(tile) * k_ * 2,
                          k_,
                          static_cast<int>(TileRow(tile + 1) - TileRow(tile)),
                          k_,
                          packed_.data() + TileRow(tile) * units_);
      }
    });
    at::parallel_for(
        0, std::min<int64_t>(at::get_num_threads(), panels_.size()), 1, [&](int64_t, int64_t) {
          Work();
        });
  }

 private:
  // Tiles are as even as they come.
  int64_t TileRow(int64_t tile) const { return tile * rows_ / tiles_; }

  const Panel* Next() {
    const size_t panel = next_++;
    return panel < panels_.size() ? &panels_[panel] : nullptr;
  }

  void Work() {
    const Scratch<uint32_t> panel(units_ * kernel_.columns);
    for (const Panel* one = Next(); one != nullptr;) {
      const Panel* next = Next();
      Multiply(*one, next, panel.data());
      one = next;
    }
  }

  void Multiply(const Panel& panel, const Panel* next, uint32_t* packed) const {
    const at::Tensor& weight = panel.product->weight;
    kernel_.pack_panel(ElementAt(weight, panel.first * weight.stride(0)),
                       weight.stride(0),
                       panel.columns,
                       k_,
                       panel.width,
                       packed);
    const auto& bias = panel.product->bias;
    const void* bias_data = bias ? ElementAt(*bias, panel.first) : nullptr;
    const at::Tensor& output = panel.product->output;
    Ahead ahead(next, k_, tiles_ * ((units_ + kUnitsAtOnce - 1) / kUnitsAtOnce));
    alignas(64) float sums[tiles::kMostRows * tiles::kMostColumns];
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      const int64_t first = TileRow(tile);
      const auto count = static_cast<int>(TileRow(tile + 1) - first);
      for (int64_t u = 0; u < units_; u += kUnitsAtOnce) {
        ahead.Step();
        kernel_.multiply({packed_.data() + first * units_ + u * count, 1, count, count},
                         packed + u * panel.width,
                         panel.width,
                         std::min(kUnitsAtOnce, units_ - u),
                         sums,
                         panel.width,
                         u > 0);
      }
      for (int r = 0; r < count; ++r) {
        kernel_.finish(
            sums + r * panel.width,
            bias_data,
            panel.columns,
            MutableElementAt(output, (first_row_ + first + r) * output.size(-1) + panel.first));
      }
    }
  }

  const char* input_;
  int64_t rows_, k_, first_row_;
  const tiles::Kernel& kernel_;
  const std::vector<Panel>& panels_;
  int64_t units_, tiles_;
  Scratch<uint32_t> packed_;
  std::atomic<size_t> next_ = 0;
};

}  // namespace

bool WorthMultiplyingRows(const at::Tensor& input, int64_t rows) {
  return input.scalar_type() == at::kBFloat16 && UsedCpuLevel() == CpuLevel::kAvx512Bf16 &&
         !HasTileMatrices();
}

void MultiplyRows(const at::Tensor& input, int64_t rows, const std::vector<RowsProduct>& products) {
  const tiles::Kernel& kernel = TileKernelFor(input);
  const std::vector<Panel> panels = PanelsOf(products, kernel);
  const int64_t k = input.size(-1);
  for (int64_t first = 0; first < rows; first += kMostRows) {
    Multiplication(
        ElementAt(input, first * k), std::min(kMostRows, rows - first), k, first, kernel, panels)
        .Run();
  }
}

}  // namespace tf
