// Attention over keys and values that are not repeated, on the CPU. fp32 and bf16, sums in fp32;
// CPU and Meta; no derivative: for executors. A row that may look at nothing gives zeros, as
// scaled_dot_product_attention does.
//
// torchformers::attend_one(Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? length,
// float? scale) -> Tensor
//   scaled_dot_product_attention of one query position over a static cache. query [b, heads, 1, d];
//   key and value [b, kv_heads, s, d], heads a multiple of kv_heads; mask bool (true: look) or
//   added to the scores, broadcast to [b, heads, 1, s]; length int64, [b] or one value: only the
//   first so many positions count (absent: all). scale: absent, 1 / sqrt(d). The cache is read only
//   from the first to the last position that a bool mask allows. Result lies as query.
// torchformers::attend(Tensor query, Tensor key, Tensor value, Tensor? mask, bool is_causal,
// float? scale) -> Tensor
//   The same for any number of queries: query [b, heads, q, d]; key [b, kv_heads, s, d]; value
//   [b, kv_heads, s, e]; mask broadcast to [b, heads, q, s]; is_causal: query i looks at the keys
//   up to i, beside what the mask says. Blocks of keys that nobody looks at are skipped, and
//   nothing of size q * s is made. Result [b, heads, q, e] lies as query where e is d, else dense.
#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "native/kernels/cpu_level.h"
#include "native/kernels/pick.h"
#include "native/kernels/scratch.h"

namespace tf {
namespace {

using at::Tensor;

constexpr float kHidden = -std::numeric_limits<float>::infinity();

struct Sizes {
  explicit Sizes(const Tensor& query, const Tensor& key, const Tensor& value)
      : batch(query.size(0)),
        kv_heads(key.size(1)),
        group(query.size(1) / std::max<int64_t>(1, key.size(1))),
        queries(query.size(2)),
        keys(key.size(2)),
        width(query.size(3)),
        value_width(value.size(3)) {}
  int64_t batch, kv_heads, group, queries, keys, width, value_width;
};

void CheckAttention(const char* name,
                    const Tensor& query,
                    const Tensor& key,
                    const Tensor& value,
                    const std::optional<Tensor>& mask) {
  CheckRowType(name, query, {&key, &value});
  TORCH_CHECK(query.dim() == 4,
              name,
              ": query must be [batch, heads, queries, width], but has shape ",
              query.sizes());
  TORCH_CHECK(key.dim() == 4 && value.dim() == 4 && key.size(0) == query.size(0) &&
                  key.size(3) == query.size(3) && key.size(1) > 0 &&
                  query.size(1) % key.size(1) == 0 && value.size(0) == key.size(0) &&
                  value.size(1) == key.size(1) && value.size(2) == key.size(2),
              name,
              ": key of shape ",
              key.sizes(),
              " and value of shape ",
              value.sizes(),
              " do not go with a query of shape ",
              query.sizes());
  if (!mask.has_value() || !mask->defined()) return;
  TORCH_CHECK(mask->scalar_type() == at::kBool || mask->is_floating_point(),
              name,
              ": mask must be boolean or floating point, but has dtype ",
              mask->scalar_type());
  const std::vector<int64_t> scores = {query.size(0), query.size(1), query.size(2), key.size(2)};
  TORCH_CHECK(mask->dim() <= 4 && at::infer_size(mask->sizes(), scores) == scores,
              name,
              ": mask of shape ",
              mask->sizes(),
              " does not go with scores of shape ",
              scores);
}

// Rows of a tensor without gaps between their elements.
Tensor WithDenseRows(const Tensor& tensor) {
  return tensor.stride(3) == 1 || tensor.size(3) == 1 ? tensor : tensor.contiguous();
}

// A mask over [batch, heads, queries, keys], keys side by side: which may be looked at, or what is
// added to the scores in fp32.
class Mask {
 public:
  Mask(const std::optional<Tensor>& mask, const Sizes& sizes) {
    if (!mask.has_value() || !mask->defined()) return;
    Tensor full =
        (mask->scalar_type() == at::kBool ? *mask : mask->to(at::kFloat))
            .expand({sizes.batch, sizes.kv_heads * sizes.group, sizes.queries, sizes.keys});
    if (full.stride(3) != 1 && sizes.keys > 1) full = full.contiguous();
    kept_ = full;
    strides_ = {full.stride(0), full.stride(1), full.stride(2)};
    if (full.scalar_type() == at::kBool) {
      allowed_ = full.const_data_ptr<bool>();
    } else {
      bias_ = full.const_data_ptr<float>();
    }
  }

  const bool* allowed(int64_t b, int64_t head, int64_t query, int64_t key) const {
    return allowed_ == nullptr ? nullptr : allowed_ + Offset(b, head, query, key);
  }
  const float* bias(int64_t b, int64_t head, int64_t query, int64_t key) const {
    return bias_ == nullptr ? nullptr : bias_ + Offset(b, head, query, key);
  }
  int64_t head_stride() const { return strides_[1]; }
  int64_t query_stride() const { return strides_[2]; }

 private:
  int64_t Offset(int64_t b, int64_t head, int64_t query, int64_t key) const {
    return b * strides_[0] + head * strides_[1] + query * strides_[2] + key;
  }
  Tensor kept_;
  const bool* allowed_ = nullptr;
  const float* bias_ = nullptr;
  std::array<int64_t, 3> strides_{};
};

// --- one position --------------------------------------------------------------------------------

Tensor AttendOneMeta(const Tensor& query,
                     const Tensor& key,
                     const Tensor& value,
                     const std::optional<Tensor>& mask,
                     const std::optional<Tensor>& length,
                     std::optional<double>) {
  CheckAttention("attend_one", query, key, value, mask);
  TORCH_CHECK(query.size(2) == 1,
              "attend_one: query must be [batch, heads, 1, width], but has shape ",
              query.sizes());
  TORCH_CHECK(key.size(3) == value.size(3),
              "attend_one: key of shape ",
              key.sizes(),
              " and value of shape ",
              value.sizes(),
              " must have one width");
  TORCH_CHECK(!length.has_value() || !length->defined() ||
                  (length->scalar_type() == at::kLong &&
                   (length->numel() == 1 || length->numel() == query.size(0))),
              "attend_one: length must be int64, with one value or one per row of the batch");
  return at::empty_like(query, at::MemoryFormat::Preserve);
}

struct Range {
  int64_t begin, end;
};

// The positions of each row of the batch from the first to the last that any head may look at.
std::vector<Range> VisiblePositions(const Sizes& sizes,
                                    const Mask& mask,
                                    const std::optional<Tensor>& length) {
  std::vector<Range> ranges(sizes.batch, {0, sizes.keys});
  if (length.has_value() && length->defined()) {
    const Tensor lengths = length->contiguous();
    for (int64_t b = 0; b < sizes.batch; ++b) {
      const int64_t count = lengths.const_data_ptr<int64_t>()[lengths.numel() == 1 ? 0 : b];
      TORCH_CHECK(count >= 0 && count <= sizes.keys,
                  "attend_one: length ",
                  count,
                  " is out of range for a cache of ",
                  sizes.keys);
      ranges[b].end = count;
    }
  }
  if (sizes.keys == 0 || mask.allowed(0, 0, 0, 0) == nullptr) return ranges;
  const int64_t heads = mask.head_stride() == 0 ? 1 : sizes.kv_heads * sizes.group;
  for (int64_t b = 0; b < sizes.batch; ++b) {
    Range& range = ranges[b];
    int64_t first = range.end;
    int64_t last = 0;
    for (int64_t head = 0; head < heads && range.end > 0; ++head) {
      const bool* row = mask.allowed(b, head, 0, 0);
      const void* from = std::memchr(row, 1, range.end);
      if (from == nullptr) continue;
      const void* to = memrchr(row, 1, range.end);
      first = std::min<int64_t>(first, static_cast<const bool*>(from) - row);
      last = std::max<int64_t>(last, static_cast<const bool*>(to) - row + 1);
    }
    range = {std::min(first, last), last};
  }
  return ranges;
}

// Positions that one thread takes at a time; several pieces of a head are put together afterwards.
constexpr int64_t kPiece = 512;
// A thread is worth waking for this many elements of keys and values.
constexpr int64_t kElementsPerThread = 32768;

Tensor AttendOne(const Tensor& query_,
                 const Tensor& key_,
                 const Tensor& value_,
                 const std::optional<Tensor>& mask_,
                 const std::optional<Tensor>& length,
                 std::optional<double> scale_) {
  const Tensor output = AttendOneMeta(query_, key_, value_, mask_, length, scale_);
  const Sizes sizes(query_, key_, value_);
  if (output.numel() == 0) return output;
  const Tensor query = WithDenseRows(query_);
  const Tensor key = WithDenseRows(key_);
  const Tensor value = WithDenseRows(value_);
  const Mask mask(mask_, sizes);
  const auto [batch, kv_heads, group, queries, keys, width, value_width] = sizes;
  const auto scale =
      static_cast<float>(scale_.value_or(1.0 / std::sqrt(static_cast<double>(width))));
  const std::vector<Range> ranges = VisiblePositions(sizes, mask, length);
  int64_t longest = 0;
  for (const Range& range : ranges) longest = std::max(longest, range.end - range.begin);

  const rows::Kernel& kernel = RowKernelFor(query);
  const int64_t pieces = std::max<int64_t>(1, (longest + kPiece - 1) / kPiece);
  const int64_t tasks = batch * kv_heads * pieces;
  // Of each task: the largest scores [group], their sums [group], weighted values [group, width].
  const int64_t partial = group * (width + 2);
  const Scratch<float> partials(tasks * partial);
  const Scratch<float> scaled(batch * kv_heads * group * width);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t head = 0; head < kv_heads * group; ++head) {
      kernel.widen(ElementAt(query, b * query.stride(0) + head * query.stride(1)),
                   width,
                   scale,
                   scaled.data() + (b * kv_heads * group + head) * width);
    }
  }
  const int64_t grain = std::max<int64_t>(
      1, kElementsPerThread / std::max<int64_t>(1, 2 * std::min(longest, kPiece) * width));
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / pieces % kv_heads;
      const int64_t b = i / pieces / kv_heads;
      const int64_t from = ranges[b].begin + i % pieces * kPiece;
      float* results = partials.data() + i * partial;
      rows::Attention work;
      work.query = scaled.data() + (b * kv_heads + head) * group * width;
      work.keys = ElementAt(key, b * key.stride(0) + head * key.stride(1) + from * key.stride(2));
      work.values =
          ElementAt(value, b * value.stride(0) + head * value.stride(1) + from * value.stride(2));
      work.key_stride = key.stride(2);
      work.value_stride = value.stride(2);
      work.bias = mask.bias(b, head * group, 0, from);
      work.mask = mask.allowed(b, head * group, 0, from);
      work.mask_stride = mask.head_stride();
      work.count = std::clamp<int64_t>(ranges[b].end - from, 0, kPiece);
      work.group = group;
      work.width = width;
      work.highest = results;
      work.sum = results + group;
      work.output = results + 2 * group;
      kernel.attention(work);
    }
  });

  const Tensor into = WithDenseRows(output);
  for (int64_t i = 0; i < batch * kv_heads * group; ++i) {
    const int64_t g = i % group;
    const int64_t b = i / group / kv_heads;
    float* first = partials.data() + i / group * pieces * partial;
    float* weighted = first + 2 * group + g * width;
    float highest = first[g];
    for (int64_t p = 1; p < pieces; ++p) highest = std::max(highest, first[p * partial + g]);
    float sum = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      const float* part = first + p * partial;
      const float share = part[group + g] == 0 ? 0 : std::exp(part[g] - highest);
      sum += share * part[group + g];
      const float* values = part + 2 * group + g * width;
      if (pieces == 1) break;
      for (int64_t d = 0; d < width; ++d) {
        weighted[d] = (p == 0 ? 0 : weighted[d]) + (share == 0 ? 0 : share * values[d]);
      }
    }
    kernel.divide(
        weighted,
        sum,
        width,
        MutableElementAt(into, b * into.stride(0) + i % (kv_heads * group) * into.stride(1)));
  }
  if (!into.is_same(output)) output.copy_(into);
  return output;
}

// --- many positions ------------------------------------------------------------------------------

Tensor AttendMeta(const Tensor& query,
                  const Tensor& key,
                  const Tensor& value,
                  const std::optional<Tensor>& mask,
                  bool,
                  std::optional<double>) {
  CheckAttention("attend", query, key, value, mask);
  if (value.size(3) == query.size(3)) return at::empty_like(query, at::MemoryFormat::Preserve);
  return at::empty({query.size(0), query.size(1), query.size(2), value.size(3)}, query.options());
}

// Query rows that share the packing of a block of keys.
constexpr int64_t kRowsOfTask = 128;

class Attending {
 public:
  Attending(const Tensor& query,
            const Tensor& key,
            const Tensor& value,
            const Mask& mask,
            bool causal,
            float scale,
            const Tensor& output)
      : query_(query),
        key_(key),
        value_(value),
        mask_(mask),
        causal_(causal),
        scale_(scale),
        output_(output),
        sizes_(query, key, value),
        kernel_(TileKernelFor(query)) {
    // Whole tiles of positions, for each head of a group.
    const int64_t tiles = std::max<int64_t>(1, kRowsOfTask / sizes_.group / kernel_.rows);
    positions_ = std::min(sizes_.queries, tiles * kernel_.rows);
    blocks_ = (sizes_.queries + positions_ - 1) / positions_;
    units_ = (sizes_.width + kernel_.unit - 1) / kernel_.unit;
    padded_ = (sizes_.value_width + kernel_.lanes - 1) / kernel_.lanes * kernel_.lanes;
  }

  int64_t tasks() const { return sizes_.batch * sizes_.kv_heads * blocks_; }

  // Takes tasks until there are none.
  void Work(std::atomic<int64_t>& next) const {
    const int64_t rows = sizes_.group * positions_;
    const Buffers buffers(
        rows * units_, units_ * tiles::kKeys, padded_ * tiles::kKeys, rows * padded_, rows);
    for (int64_t task = next++; task < tasks(); task = next++) {
      // The last positions first: where only the past is seen they have the most work.
      Run(buffers,
          task / blocks_ / sizes_.kv_heads,
          task / blocks_ % sizes_.kv_heads,
          (blocks_ - 1 - task % blocks_) * positions_);
    }
  }

 private:
  struct Buffers {
    Buffers(int64_t queries, int64_t keys, int64_t values, int64_t outputs, int64_t rows)
        : queries(queries), keys(keys), values(values), output(outputs), highest(rows), sum(rows) {}
    Scratch<uint32_t> queries, keys, values;
    Scratch<float> output, highest, sum;
  };

  void Run(const Buffers& buffers, int64_t b, int64_t kv_head, int64_t position) const {
    const int64_t count = std::min(positions_, sizes_.queries - position);
    const int64_t rows = sizes_.group * count;
    for (int64_t row = 0; row < rows; ++row) {
      kernel_.pack_query(ElementAt(query_,
                                   b * query_.stride(0) +
                                       (kv_head * sizes_.group + row / count) * query_.stride(1) +
                                       (position + row % count) * query_.stride(2)),
                         sizes_.width,
                         buffers.queries.data() + row * units_);
    }
    std::fill_n(buffers.output.data(), rows * padded_, 0.0f);
    std::fill_n(buffers.highest.data(), rows, kHidden);
    std::fill_n(buffers.sum.data(), rows, 0.0f);

    const int64_t end = causal_ ? std::min(sizes_.keys, position + count) : sizes_.keys;
    for (int64_t from = 0; from < end; from += tiles::kKeys) {
      const int64_t keys = std::min(tiles::kKeys, end - from);
      bool packed = false;
      for (int64_t g = 0; g < sizes_.group; ++g) {
        for (int64_t first = 0; first < count; first += kernel_.rows) {
          const auto tile = static_cast<int>(std::min<int64_t>(kernel_.rows, count - first));
          if (!Looks(b, kv_head * sizes_.group + g, position + first, tile, from, keys)) continue;
          if (!packed) Pack(buffers, b, kv_head, from, keys);
          packed = true;
          Tile(buffers,
               b,
               kv_head * sizes_.group + g,
               position + first,
               tile,
               g * count + first,
               from,
               keys);
        }
      }
    }

    for (int64_t row = 0; row < rows; ++row) {
      kernel_.divide(
          buffers.output.data() + row * padded_,
          buffers.sum.data()[row],
          sizes_.value_width,
          MutableElementAt(output_,
                           b * output_.stride(0) +
                               (kv_head * sizes_.group + row / count) * output_.stride(1) +
                               (position + row % count) * output_.stride(2)));
    }
  }

  // Whether any query of a tile may look at any key of a block.
  bool Looks(
      int64_t b, int64_t head, int64_t position, int rows, int64_t from, int64_t keys) const {
    if (causal_ && position + rows <= from) return false;
    if (mask_.allowed(b, head, position, from) == nullptr) return true;
    for (int r = 0; r < rows; ++r) {
      if (std::memchr(mask_.allowed(b, head, position + r, from), 1, keys) != nullptr) return true;
    }
    return false;
  }

  void Pack(const Buffers& buffers, int64_t b, int64_t head, int64_t from, int64_t keys) const {
    kernel_.pack_keys(
        ElementAt(key_, b * key_.stride(0) + head * key_.stride(1) + from * key_.stride(2)),
        key_.stride(2),
        keys,
        sizes_.width,
        buffers.keys.data());
    kernel_.pack_values(
        ElementAt(value_, b * value_.stride(0) + head * value_.stride(1) + from * value_.stride(2)),
        value_.stride(2),
        keys,
        sizes_.value_width,
        buffers.values.data());
  }

  void Tile(const Buffers& buffers,
            int64_t b,
            int64_t head,
            int64_t position,
            int rows,
            int64_t row,
            int64_t from,
            int64_t keys) const {
    int64_t visible[tiles::kMostRows];
    for (int r = 0; r < rows; ++r) {
      visible[r] = causal_ ? std::clamp<int64_t>(position + r + 1 - from, 0, keys) : keys;
    }
    tiles::AttendBlock block;
    block.query = buffers.queries.data() + row * units_;
    block.rows = rows;
    block.keys = buffers.keys.data();
    block.values = buffers.values.data();
    block.count = keys;
    block.width = sizes_.width;
    block.value_width = sizes_.value_width;
    block.scale = scale_;
    block.visible = visible;
    block.mask = mask_.allowed(b, head, position, from);
    block.bias = mask_.bias(b, head, position, from);
    block.mask_stride = mask_.query_stride();
    block.highest = buffers.highest.data() + row;
    block.sum = buffers.sum.data() + row;
    block.output = buffers.output.data() + row * padded_;
    block.output_stride = padded_;
    kernel_.attend(block);
  }

  const Tensor& query_;
  const Tensor& key_;
  const Tensor& value_;
  const Mask& mask_;
  bool causal_;
  float scale_;
  const Tensor& output_;
  Sizes sizes_;
  const tiles::Kernel& kernel_;
  int64_t positions_, blocks_, units_, padded_;
};

Tensor Attend(const Tensor& query_,
              const Tensor& key_,
              const Tensor& value_,
              const std::optional<Tensor>& mask_,
              bool is_causal,
              std::optional<double> scale_) {
  const Tensor output = AttendMeta(query_, key_, value_, mask_, is_causal, scale_);
  if (output.numel() == 0) return output;
  const Tensor into = WithDenseRows(output);
  const Tensor query = WithDenseRows(query_);
  const Tensor key = WithDenseRows(key_);
  const Tensor value = WithDenseRows(value_);
  const Mask mask(mask_, Sizes(query, key, value));
  const auto scale = static_cast<float>(
      scale_.value_or(1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(1, query.size(3))))));
  const Attending attending(query, key, value, mask, is_causal, scale, into);
  std::atomic<int64_t> next = 0;
  at::parallel_for(
      0, std::min<int64_t>(at::get_num_threads(), attending.tasks()), 1, [&](int64_t, int64_t) {
        attending.Work(next);
      });
  if (!into.is_same(output)) output.copy_(into);
  return output;
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def(
      "attend_one(Tensor query, Tensor key, Tensor value, Tensor? mask=None, Tensor? length=None, "
      "float? scale=None) -> Tensor");
  m.def(
      "attend(Tensor query, Tensor key, Tensor value, Tensor? mask=None, bool is_causal=False, "
      "float? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchformers, CPU, m) {
  m.impl("attend_one", AttendOne);
  m.impl("attend", Attend);
}

TORCH_LIBRARY_IMPL(torchformers, Meta, m) {
  m.impl("attend_one", AttendOneMeta);
  m.impl("attend", AttendMeta);
}

TORCH_LIBRARY_IMPL(torchformers, Autograd, m) {
  for (const char* name : {"attend_one", "attend"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace tf
