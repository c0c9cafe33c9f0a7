// The loops of rows.h, to be included by one file per instruction set inside its anonymous
// namespace, after lanes.h. Sums are kept in kLanes = 16 parts so that the compiler may use vectors
// without changing what is computed.

struct Fp32 {
  using Element = float;
  static inline float Get(float value) { return value; }
  static inline float Put(float value) { return value; }
};

struct Bf16 {
  using Element = uint16_t;
  static inline float Get(uint16_t bits) { return Widen(bits); }
  static inline uint16_t Put(float value) { return Round(value); }
};

// What a store and a load would make of the value.
template <class T>
static inline float Rounded(float value) {
  return T::Get(T::Put(value));
}

template <class T>
void RmsNorm(const void* input_,
             const void* residual_,
             const void* weight_,
             void* sum_,
             void* output_,
             int64_t n,
             float eps) {
  using Element = typename T::Element;
  const auto* input = static_cast<const Element*>(input_);
  const auto* weight = static_cast<const Element*>(weight_);
  auto* output = static_cast<Element*>(output_);
  if (residual_ != nullptr) {
    const auto* residual = static_cast<const Element*>(residual_);
    auto* sum = static_cast<Element*>(sum_);
    for (int64_t i = 0; i < n; ++i) sum[i] = T::Put(T::Get(input[i]) + T::Get(residual[i]));
    input = sum;
  }
  float squares[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = T::Get(input[i + lane]);
      squares[lane] += x * x;
    }
  }
  for (; i < n; ++i) squares[0] += T::Get(input[i]) * T::Get(input[i]);
  float total = 0;
  for (const float part : squares) total += part;
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
  if (weight == nullptr) {
    for (i = 0; i < n; ++i) output[i] = T::Put(T::Get(input[i]) * scale);
    return;
  }
  for (i = 0; i < n; ++i) {
    output[i] = T::Put(Rounded<T>(T::Get(input[i]) * scale) * T::Get(weight[i]));
  }
}

template <class T>
void Rotary(const void* input_, const void* cos_, const void* sin_, void* output_, int64_t n) {
  using Element = typename T::Element;
  const auto* input = static_cast<const Element*>(input_);
  const auto* cos = static_cast<const Element*>(cos_);
  const auto* sin = static_cast<const Element*>(sin_);
  auto* output = static_cast<Element*>(output_);
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float first = T::Get(input[i]);
    const float second = T::Get(input[i + half]);
    output[i] = T::Put(Rounded<T>(first * T::Get(cos[i])) + Rounded<T>(-second * T::Get(sin[i])));
    output[i + half] = T::Put(Rounded<T>(second * T::Get(cos[i + half])) +
                              Rounded<T>(first * T::Get(sin[i + half])));
  }
}

template <class T>
void SwiGlu(const void* gate_, const void* up_, void* output_, int64_t n) {
  using Element = typename T::Element;
  const auto* gate = static_cast<const Element*>(gate_);
  const auto* up = static_cast<const Element*>(up_);
  auto* output = static_cast<Element*>(output_);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes;
    float wide[kLanes] = {};
    for (int64_t lane = 0; lane < count; ++lane) wide[lane] = T::Get(gate[i + lane]);
    const Lanes x = LoadLanes(wide);
    StoreLanes(x / (Exp(-x) + 1.0f), wide);
    for (int64_t lane = 0; lane < count; ++lane) {
      output[i + lane] = T::Put(Rounded<T>(wide[lane]) * T::Get(up[i + lane]));
    }
  }
}

static inline float HighestLane(Lanes x) {
  float lanes[kLanes];
  StoreLanes(x, lanes);
  float highest = lanes[0];
  for (int lane = 1; lane < kLanes; ++lane) highest = lanes[lane] > highest ? lanes[lane] : highest;
  return highest;
}

constexpr int64_t kBlock = 64;

// Of a whole block of scores.
static inline float Highest(const float* row) {
  Lanes highest = LoadLanes(row);
  for (int64_t i = kLanes; i < kBlock; i += kLanes) {
    const Lanes next = LoadLanes(row + i);
    highest = next > highest ? next : highest;
  }
  return HighestLane(highest);
}

static inline float Sum(const float* row) {
  Lanes sum = LoadLanes(row);
  for (int64_t i = kLanes; i < kBlock; i += kLanes) sum += LoadLanes(row + i);
  return SumLanes(sum);
}

// Scores of kKeys keys for kGroup query heads; every element of a key is read and widened once.
template <class T, int kGroup, int kKeys>
void ScoreKeys(const float* query,
               const typename T::Element* keys,
               int64_t stride,
               int64_t width,
               float* scores) {
  Lanes sums[kKeys][kGroup] = {};
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) {
    for (int s = 0; s < kKeys; ++s) {
      const Lanes wide = LoadLanes(keys + s * stride + d);
      for (int g = 0; g < kGroup; ++g) sums[s][g] += LoadLanes(query + g * width + d) * wide;
    }
  }
  for (int s = 0; s < kKeys; ++s) {
    for (int g = 0; g < kGroup; ++g) {
      float sum = SumLanes(sums[s][g]);
      for (int64_t e = d; e < width; ++e)
        sum += query[g * width + e] * T::Get(keys[s * stride + e]);
      scores[g * kBlock + s] = sum;
    }
  }
}

// Adds to kVectors vectors of the output of kGroup query heads `block` values, weighted by their
// shares.
template <class T, int kGroup, int kVectors>
void AddValues(const typename T::Element* values,
               int64_t stride,
               int64_t block,
               int64_t width,
               const float* shares,
               float* output) {
  Lanes sums[kGroup][kVectors];
  for (int g = 0; g < kGroup; ++g) {
    for (int v = 0; v < kVectors; ++v) sums[g][v] = LoadLanes(output + g * width + v * kLanes);
  }
  for (int64_t s = 0; s < block; ++s) {
    for (int v = 0; v < kVectors; ++v) {
      const Lanes wide = LoadLanes(values + s * stride + v * kLanes);
      for (int g = 0; g < kGroup; ++g) sums[g][v] += shares[g * kBlock + s] * wide;
    }
  }
  for (int g = 0; g < kGroup; ++g) {
    for (int v = 0; v < kVectors; ++v) StoreLanes(sums[g][v], output + g * width + v * kLanes);
  }
}

// The same over the whole width.
template <class T, int kGroup>
void AddAllValues(const typename T::Element* values,
                  int64_t stride,
                  int64_t block,
                  int64_t width,
                  const float* shares,
                  float* output) {
  constexpr int kVectors = 8 / kGroup;
  int64_t d = 0;
  for (; d + kVectors * kLanes <= width; d += kVectors * kLanes) {
    AddValues<T, kGroup, kVectors>(values + d, stride, block, width, shares, output + d);
  }
  for (; d + kLanes <= width; d += kLanes) {
    AddValues<T, kGroup, 1>(values + d, stride, block, width, shares, output + d);
  }
  for (; d < width; ++d) {
    for (int64_t s = 0; s < block; ++s) {
      const float wide = T::Get(values[s * stride + d]);
      for (int g = 0; g < kGroup; ++g) output[g * width + d] += shares[g * kBlock + s] * wide;
    }
  }
}

// Whether any of kGroup heads may look at any of `block` keys.
template <int kGroup>
static inline bool AnyAllowed(const Attention& work, int64_t first, int64_t from, int64_t block) {
  bool any = false;
  for (int g = 0; g < kGroup; ++g) {
    const bool* mask = work.mask + (first + g) * work.mask_stride + from;
    for (int64_t i = 0; i < block; ++i) any |= mask[i];
    if (work.mask_stride == 0) break;
  }
  return any;
}

// For kGroup query heads from `first` on. Keys are taken in blocks; when a block's largest score is
// a new one, what was summed up so far shrinks to it.
template <class T, int kGroup>
void AttendGroup(const Attention& work, int64_t first) {
  using Element = typename T::Element;
  const int64_t width = work.width;
  const float* query = work.query + first * width;
  float* output = work.output + first * width;
  for (int g = 0; g < kGroup; ++g) {
    work.highest[first + g] = -__builtin_inff();
    work.sum[first + g] = 0;
  }
  for (int64_t i = 0; i < kGroup * width; ++i) output[i] = 0;
  float scores[kGroup * kBlock];
  for (int64_t from = 0; from < work.count; from += kBlock) {
    const int64_t block = work.count - from < kBlock ? work.count - from : kBlock;
    if (work.mask != nullptr && !AnyAllowed<kGroup>(work, first, from, block)) continue;
    const auto* keys = static_cast<const Element*>(work.keys) + from * work.key_stride;
    const auto* values = static_cast<const Element*>(work.values) + from * work.value_stride;
    constexpr int kKeys = 8 / kGroup;
    int64_t s = 0;
    for (; s + kKeys <= block; s += kKeys) {
      ScoreKeys<T, kGroup, kKeys>(
          query, keys + s * work.key_stride, work.key_stride, width, scores + s);
    }
    for (; s < block; ++s) {
      ScoreKeys<T, kGroup, 1>(
          query, keys + s * work.key_stride, work.key_stride, width, scores + s);
    }
    for (int g = 0; g < kGroup; ++g) {
      float* row = scores + g * kBlock;
      if (work.bias != nullptr) {
        const float* bias = work.bias + (first + g) * work.mask_stride + from;
        for (int64_t i = 0; i < block; ++i) row[i] += bias[i];
      }
      if (work.mask != nullptr) {
        const bool* mask = work.mask + (first + g) * work.mask_stride + from;
        for (int64_t i = 0; i < block; ++i) row[i] = mask[i] ? row[i] : -__builtin_inff();
      }
      float& highest_so_far = work.highest[first + g];
      for (int64_t i = block; i < kBlock; ++i) row[i] = -__builtin_inff();
      const float in_block = Highest(row);
      const float highest = in_block > highest_so_far ? in_block : highest_so_far;
      if (highest == -__builtin_inff()) {  // all of them masked so far
        for (int64_t i = 0; i < block; ++i) row[i] = 0;
        continue;
      }
      if (highest > highest_so_far) {
        const float shrink = Exp(Lanes{} + (highest_so_far - highest))[0];
        work.sum[first + g] *= shrink;
        for (int64_t d = 0; d < width; ++d) output[g * width + d] *= shrink;
        highest_so_far = highest;
      }
      for (int64_t i = 0; i < kBlock; i += kLanes) {
        StoreLanes(Exp(LoadLanes(row + i) - highest), row + i);
      }
      work.sum[first + g] += Sum(row);
    }
    AddAllValues<T, kGroup>(values, work.value_stride, block, width, scores, output);
  }
}

template <class T>
void Attend(const Attention& work) {
  int64_t first = 0;
  for (; first + 8 <= work.group; first += 8) AttendGroup<T, 8>(work, first);
  for (; first + 4 <= work.group; first += 4) AttendGroup<T, 4>(work, first);
  for (; first + 2 <= work.group; first += 2) AttendGroup<T, 2>(work, first);
  for (; first < work.group; ++first) AttendGroup<T, 1>(work, first);
}

template <class T>
void WidenRow(const void* input_, int64_t n, float factor, float* output) {
  const auto* input = static_cast<const typename T::Element*>(input_);
  for (int64_t i = 0; i < n; ++i) output[i] = T::Get(input[i]) * factor;
}

template <class T>
void Divide(const float* weighted, float sum, int64_t n, void* output_) {
  auto* output = static_cast<typename T::Element*>(output_);
  const float divisor = sum == 0 ? 1.0f : sum;
  for (int64_t i = 0; i < n; ++i) output[i] = T::Put(weighted[i] / divisor);
}

template <class T>
constexpr Kernel KernelOf() {
  return {RmsNorm<T>, Rotary<T>, SwiGlu<T>, Attend<T>, WidenRow<T>, Divide<T>};
}
