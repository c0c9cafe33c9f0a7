// The loops of rows.h, to be included by one file per instruction set inside its anonymous
// namespace. Sums are kept in kLanes parts so that the compiler may use vectors without changing
// what is computed.

constexpr int kLanes = 16;

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

// exp for x <= 88, exact to 2 units in the last place; 0 below -87.3, NaN stays.
static inline float Exp(float x) {
  const float clamped = x < -87.3f ? -87.3f : x > 88.0f ? 88.0f : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding and taking away 1.5 * 2^23 rounds to a whole
  // number.
  const float shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float power = FromBits((ToBits(shifted) + 127u) << 23);
  const float result = (p * r * r + r + 1.0f) * power;
  return x < -87.3f ? 0.0f : x != x ? x : result;
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
  for (int64_t i = 0; i < n; ++i) {
    const float x = T::Get(gate[i]);
    output[i] = T::Put(Rounded<T>(x / (1.0f + Exp(-x))) * T::Get(up[i]));
  }
}

// Keys are taken in blocks; when a block's largest score is a new one, what was summed up so far
// shrinks to it.
template <class T>
void Attend(const Attention& work) {
  using Element = typename T::Element;
  constexpr int64_t kBlock = 64;
  const int64_t width = work.width;
  for (int64_t g = 0; g < work.group; ++g) {
    work.highest[g] = -__builtin_inff();
    work.sum[g] = 0;
    for (int64_t d = 0; d < width; ++d) work.output[g * width + d] = 0;
  }
  float scores[kBlock];
  for (int64_t from = 0; from < work.count; from += kBlock) {
    const int64_t block = work.count - from < kBlock ? work.count - from : kBlock;
    const auto* keys = static_cast<const Element*>(work.keys) + from * work.key_stride;
    const auto* values = static_cast<const Element*>(work.values) + from * work.value_stride;
    for (int64_t g = 0; g < work.group; ++g) {
      const float* query = work.query + g * width;
      float* output = work.output + g * width;
      float highest = work.highest[g];
      for (int64_t s = 0; s < block; ++s) {
        const Element* key = keys + s * work.key_stride;
        float sums[kLanes] = {};
        int64_t d = 0;
        for (; d + kLanes <= width; d += kLanes) {
          for (int lane = 0; lane < kLanes; ++lane)
            sums[lane] += query[d + lane] * T::Get(key[d + lane]);
        }
        for (; d < width; ++d) sums[0] += query[d] * T::Get(key[d]);
        float score = 0;
        for (const float part : sums) score += part;
        if (work.bias != nullptr) score += work.bias[g * work.bias_stride + from + s];
        scores[s] = score;
        highest = score > highest ? score : highest;
      }
      if (highest == -__builtin_inff()) continue;  // all of them masked so far
      if (highest > work.highest[g]) {
        const float shrink = Exp(work.highest[g] - highest);
        work.sum[g] *= shrink;
        for (int64_t d = 0; d < width; ++d) output[d] *= shrink;
        work.highest[g] = highest;
      }
      for (int64_t s = 0; s < block; ++s) scores[s] = Exp(scores[s] - highest);
      for (int64_t s = 0; s < block; ++s) {
        const float share = scores[s];
        if (share == 0) continue;
        work.sum[g] += share;
        const Element* value = values + s * work.value_stride;
        for (int64_t d = 0; d < width; ++d) output[d] += share * T::Get(value[d]);
      }
    }
  }
}

template <class T>
constexpr Kernel KernelOf() {
  return {RmsNorm<T>, Rotary<T>, SwiGlu<T>, Attend<T>};
}
