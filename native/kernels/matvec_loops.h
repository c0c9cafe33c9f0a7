// The loops of matvec.h, to be included by one file per instruction set inside its anonymous
// namespace, after lanes.h and
//   kSums       how many sums of a tile the registers hold.

struct Fp32 {
  using Element = float;
  using Weights = Lanes;
  static constexpr int64_t kStep = kLanes;
  static constexpr bool kPrepares = false;
  static inline float Get(float value) { return value; }
  static inline float Put(float value) { return value; }
  static inline Weights Load(const float* from) { return LoadLanes(from); }
  static inline void Add(Weights weights, const float* x, Lanes& sum) {
    sum += weights * LoadLanes(x);
  }
};

// A vector of bf16 holds pairs: shifted left it gives the even elements as fp32, masked the odd
// ones, so the input is prepared as runs of even and odd elements.
struct Bf16 {
  using Element = uint16_t;
  struct Weights {
    Lanes even, odd;
  };
  static constexpr int64_t kStep = 2 * kLanes;
  static constexpr bool kPrepares = true;
  static inline float Get(uint16_t bits) { return Widen(bits); }
  static inline uint16_t Put(float value) { return Round(value); }
  static inline Weights Load(const uint16_t* from) {
    WordLanes pairs;
    __builtin_memcpy(&pairs, from, sizeof(pairs));
    return {(Lanes)(pairs << 16), (Lanes)(pairs & 0xffff0000u)};
  }
  static inline void Add(const Weights& weights, const float* x, Lanes& sum) {
    sum += weights.even * LoadLanes(x);
    sum += weights.odd * LoadLanes(x + kLanes);
  }
};

void PreparePairs(const void* elements, int64_t rows, int64_t k, float* prepared) {
  const auto* bits = static_cast<const uint16_t*>(elements);
  for (int64_t r = 0; r < rows; ++r, bits += k, prepared += k) {
    int64_t i = 0;
    for (; i + Bf16::kStep <= k; i += Bf16::kStep) {
      const Bf16::Weights pairs = Bf16::Load(bits + i);
      StoreLanes(pairs.even, prepared + i);
      StoreLanes(pairs.odd, prepared + i + kLanes);
    }
    for (; i < k; ++i) prepared[i] = Widen(bits[i]);
  }
}

// What kernels of T read: fp32 where the input was prepared, else its elements.
template <class T, bool kPrepared = T::kPrepares>
struct Read {
  using Element = float;
  static inline const float* From(const Input& input) { return input.prepared; }
  static inline float Get(float value) { return value; }
};
template <class T>
struct Read<T, false> {
  using Element = typename T::Element;
  static inline const Element* From(const Input& input) {
    return static_cast<const Element*>(input.elements);
  }
  static inline float Get(Element value) { return T::Get(value); }
};

// `kRows` input rows by `kColumns` outputs from `n` on; every weight is read once.
template <class T, int kRows, int kColumns>
void Tile(const Input& input, const Product& product, int64_t n) {
  using Element = typename T::Element;
  const int64_t k = input.k;
  const auto* x = Read<T>::From(input);
  const Element* weight[kColumns];
  for (int c = 0; c < kColumns; ++c) {
    weight[c] = static_cast<const Element*>(product.weight) + (n + c) * product.weight_stride;
  }
  Lanes sums[kRows][kColumns];
  TF_EACH(int r = 0; r < kRows; ++r) { TF_EACH(int c = 0; c < kColumns; ++c) sums[r][c] = Lanes{}; }
  int64_t i = 0;
  for (; i + T::kStep <= k; i += T::kStep) {
    TF_EACH(int c = 0; c < kColumns; ++c) {
      const typename T::Weights weights = T::Load(weight[c] + i);
      TF_EACH(int r = 0; r < kRows; ++r) T::Add(weights, x + r * k + i, sums[r][c]);
    }
  }
  const auto* bias = static_cast<const Element*>(product.bias);
  auto* output = static_cast<Element*>(product.output) + n;
  TF_EACH(int c = 0; c < kColumns; ++c) {
    TF_EACH(int r = 0; r < kRows; ++r) {
      float sum = SumLanes(sums[r][c]);
      for (int64_t j = i; j < k; ++j) sum += T::Get(weight[c][j]) * Read<T>::Get(x[r * k + j]);
      if (bias != nullptr) sum += T::Get(bias[n + c]);
      output[r * product.output_stride + c] = T::Put(sum);
    }
  }
}

template <class T, int kRows>
void RunRows(const Input& input, const Product& product, int64_t begin, int64_t end) {
  // Eight rows of weights side by side, read without prefetching by hand, come fastest from memory.
  // Powers of two leave no rest of a piece.
  constexpr int kMost = kSums / kRows;
  constexpr int kColumns = kMost >= 8 ? 8 : kMost >= 4 ? 4 : kMost >= 2 ? 2 : 1;
  int64_t n = begin;
  for (; n + kColumns <= end; n += kColumns) Tile<T, kRows, kColumns>(input, product, n);
  for (; n < end; ++n) Tile<T, kRows, 1>(input, product, n);
}

template <class T>
void Run(const Input& input, const Product& product, int64_t begin, int64_t end) {
  switch (input.rows) {
    case 1:
      return RunRows<T, 1>(input, product, begin, end);
    case 2:
      return RunRows<T, 2>(input, product, begin, end);
    case 3:
      return RunRows<T, 3>(input, product, begin, end);
    case 4:
      return RunRows<T, 4>(input, product, begin, end);
    case 5:
      return RunRows<T, 5>(input, product, begin, end);
    case 6:
      return RunRows<T, 6>(input, product, begin, end);
    case 7:
      return RunRows<T, 7>(input, product, begin, end);
    default:
      return RunRows<T, 8>(input, product, begin, end);
  }
}

template <class T>
constexpr Kernel KernelOf() {
  return {T::kPrepares ? PreparePairs : nullptr, Run<T>};
}
