// The loops of tiles.h, to be included by one file per instruction set inside its anonymous
// namespace, after lanes.h and
//   kTileRows     the most rows of a tile,
//   kTileVectors  the most vectors of its columns.

static_assert(kTileRows <= kMostRows && kTileVectors <= 3);

constexpr int64_t UnitsOf(int64_t elements, int unit) { return (elements + unit - 1) / unit; }

struct Fp32 {
  using Element = float;
  static constexpr int kUnit = 1;
  static inline float Get(float value) { return value; }
  static inline float Put(float value) { return value; }
  static inline uint32_t Unit(const float* from, int64_t) { return ToBits(*from); }
  static inline WordLanes LoadUnits(const float* from) { return (WordLanes)LoadLanes(from); }
  static inline WordLanes Join(const float* row, const float*) { return (WordLanes)LoadLanes(row); }
  static inline Lanes MultiplyAdd(uint32_t row, WordLanes columns, Lanes sum) {
    return sum + FromBits(row) * (Lanes)columns;
  }
};

// bf16 for processors that do not multiply it: widened when it is packed.
struct Bf16Wide {
  using Element = uint16_t;
  static constexpr int kUnit = 1;
  static inline float Get(uint16_t bits) { return Widen(bits); }
  static inline uint16_t Put(float value) { return Round(value); }
  static inline uint32_t Unit(const uint16_t* from, int64_t) { return uint32_t{*from} << 16; }
  static inline WordLanes LoadUnits(const uint16_t* from) { return (WordLanes)LoadLanes(from); }
  static inline WordLanes Join(const uint16_t* row, const uint16_t*) {
    return (WordLanes)LoadLanes(row);
  }
  static inline Lanes MultiplyAdd(uint32_t row, WordLanes columns, Lanes sum) {
    return sum + FromBits(row) * (Lanes)columns;
  }
};

// Panels of `vectors` vectors of columns, as even as they come.
template <class Function>
static inline void ForPanels(int64_t vectors, Function function) {
  int64_t panels = (vectors + kTileVectors - 1) / kTileVectors;
  for (int64_t first = 0; panels > 0; --panels) {
    const int64_t count = (vectors - first + panels - 1) / panels;
    function(first, count);
    first += count;
  }
}

// --- packing -------------------------------------------------------------------------------------

template <class T>
void PackQuery(const void* from_, int64_t width, uint32_t* to) {
  const auto* from = static_cast<const typename T::Element*>(from_);
  for (int64_t i = 0; i < width; i += T::kUnit) *to++ = T::Unit(from + i, width - i);
}

// a0 b0 a1 b1 …, of the lower and of the upper halves.
static inline void Interleave(WordLanes a, WordLanes b, WordLanes& low, WordLanes& high) {
  WordLanes lower, upper;
  for (int lane = 0; lane < kLanes; ++lane) {
    lower[lane] = lane / 2 + (lane % 2 ? kLanes : 0);
    upper[lane] = lower[lane] + kLanes / 2;
  }
  low = __builtin_shuffle(a, b, lower);
  high = __builtin_shuffle(a, b, upper);
}

// Interleaving rows with those half the matrix away, as often as it takes, transposes.
static inline void Transpose(WordLanes (&rows)[kLanes]) {
  for (int done = 1; done < kLanes; done *= 2) {
    WordLanes next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      Interleave(rows[i], rows[i + kLanes / 2], next[2 * i], next[2 * i + 1]);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

template <class T>
void PackPanel(const void* from_,
               int64_t stride,
               int64_t columns,
               int64_t k,
               int64_t width,
               uint32_t* packed) {
  const auto* from = static_cast<const typename T::Element*>(from_);
  for (int64_t c = 0; c < width; c += kLanes) {
    int64_t i = 0;
    uint32_t* to = packed + c;
    if (c + kLanes <= columns) {
      for (; i + kLanes * T::kUnit <= k; i += kLanes * T::kUnit) {
        WordLanes square[kLanes];
        for (int j = 0; j < kLanes; ++j) square[j] = T::LoadUnits(from + (c + j) * stride + i);
        Transpose(square);
        for (int j = 0; j < kLanes; ++j, to += width)
          __builtin_memcpy(to, &square[j], sizeof(square[j]));
      }
    }
    for (; i < k; i += T::kUnit, to += width) {
      for (int j = 0; j < kLanes; ++j) {
        to[j] = c + j < columns ? T::Unit(from + (c + j) * stride + i, k - i) : 0;
      }
    }
  }
}

// --- products ------------------------------------------------------------------------------------

// sums[r * sums_stride + c] = (add ? itself : 0) + product of row r and column c. Unit u of row
// r is rows[r * row_stride + u]; a panel is [units, kVectors * kLanes].
template <class T, int kRows, int kVectors>
void MultiplyTile(const uint32_t* rows,
                  int64_t row_stride,
                  const uint32_t* panel,
                  int64_t units,
                  float* sums,
                  int64_t sums_stride,
                  bool add) {
  Lanes tile[kRows][kVectors];
  TF_EACH(int r = 0; r < kRows; ++r) {
    TF_EACH(int v = 0; v < kVectors; ++v) {
      tile[r][v] = add ? LoadLanes(sums + r * sums_stride + v * kLanes) : Lanes{};
    }
  }
  for (int64_t u = 0; u < units; ++u, ++rows, panel += kVectors * kLanes) {
    WordLanes columns[kVectors];
    TF_EACH(int v = 0; v < kVectors; ++v) {
      __builtin_memcpy(&columns[v], panel + v * kLanes, sizeof(columns[v]));
    }
    TF_EACH(int r = 0; r < kRows; ++r) {
      TF_EACH(int v = 0; v < kVectors; ++v) {
        tile[r][v] = T::MultiplyAdd(rows[r * row_stride], columns[v], tile[r][v]);
      }
    }
  }
  TF_EACH(int r = 0; r < kRows; ++r) {
    TF_EACH(int v = 0; v < kVectors; ++v) {
      StoreLanes(tile[r][v], sums + r * sums_stride + v * kLanes);
    }
  }
}

using TileFunction =
    void (*)(const uint32_t*, int64_t, const uint32_t*, int64_t, float*, int64_t, bool);

template <class T, int kRows = kTileRows, int kVectors = kTileVectors>
TileFunction TileOf(int rows, int64_t vectors) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return TileOf<T, kRows - 1, kVectors>(rows, vectors);
  }
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return TileOf<T, kRows, kVectors - 1>(rows, vectors);
  }
  return MultiplyTile<T, kRows, kVectors>;
}

// --- attention -----------------------------------------------------------------------------------

template <class T>
void PackKeys(const void* from_, int64_t stride, int64_t count, int64_t width, uint32_t* to) {
  const auto* from = static_cast<const typename T::Element*>(from_);
  ForPanels(kKeys / kLanes, [&](int64_t first, int64_t vectors) {
    const int64_t begin = first * kLanes;
    const int64_t left = count - begin;
    PackPanel<T>(from + begin * stride, stride, left, width, vectors * kLanes, to);
    to += UnitsOf(width, T::kUnit) * vectors * kLanes;
  });
}

template <class T>
void PackValues(const void* from_, int64_t stride, int64_t count, int64_t width, uint32_t* to) {
  using Element = typename T::Element;
  const auto* from = static_cast<const Element*>(from_);
  static const Element zeros[kLanes] = {};
  ForPanels((width + kLanes - 1) / kLanes, [&](int64_t first, int64_t vectors) {
    for (int64_t s = 0; s < kKeys; s += T::kUnit) {
      for (int64_t v = first; v < first + vectors; ++v, to += kLanes) {
        const int64_t left = width - v * kLanes;
        Element partial[2][kLanes] = {};
        const Element* rows[2];
        for (int i = 0; i < 2; ++i) {
          rows[i] = s + i < count ? from + (s + i) * stride + v * kLanes : zeros;
          if (s + i < count && left < kLanes) {
            for (int64_t d = 0; d < left; ++d) partial[i][d] = rows[i][d];
            rows[i] = partial[i];
          }
        }
        const WordLanes units = T::Join(rows[0], rows[1]);
        __builtin_memcpy(to, &units, sizeof(units));
      }
    }
  });
}

// The scores of a row, scaled, with its bias, and hidden where it may not look; the highest of
// them.
static inline float Score(const AttendBlock& block, int r, float* scores) {
  constexpr float kHidden = -__builtin_inff();
  const int64_t count = block.visible[r];
  if (block.bias != nullptr) {
    const float* bias = block.bias + r * block.mask_stride;
    for (int64_t i = 0; i < count; ++i) scores[i] = scores[i] * block.scale + bias[i];
  } else {
    for (int64_t i = 0; i < kKeys; i += kLanes) {
      StoreLanes(LoadLanes(scores + i) * block.scale, scores + i);
    }
  }
  if (block.mask != nullptr) {
    const bool* mask = block.mask + r * block.mask_stride;
    for (int64_t i = 0; i < count; ++i) scores[i] = mask[i] ? scores[i] : kHidden;
  }
  for (int64_t i = count; i < kKeys; ++i) scores[i] = kHidden;
  Lanes most = LoadLanes(scores);
  for (int64_t i = kLanes; i < kKeys; i += kLanes) {
    const Lanes next = LoadLanes(scores + i);
    most = most > next ? most : next;
  }
  float lanes[kLanes];
  StoreLanes(most, lanes);
  float highest = lanes[0];
  for (int lane = 1; lane < kLanes; ++lane) highest = lanes[lane] > highest ? lanes[lane] : highest;
  return highest;
}

// Scores to shares: the row's highest score and sum go on, and its weighted values shrink to them.
// Where the row may look at nothing, all shares are zero.
static inline void Soften(const AttendBlock& block, int r, float* scores) {
  const float before = block.highest[r];
  const float here = Score(block, r, scores);
  const float highest = here > before ? here : before;
  if (highest == -__builtin_inff()) {
    bool seen = false;  // NaN is above nothing
    for (int64_t i = 0; i < kKeys; ++i) seen |= scores[i] != highest;
    if (!seen) {
      for (int64_t i = 0; i < kKeys; ++i) scores[i] = 0;
      return;
    }
  }
  Lanes sum = {};
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    const Lanes shares = Exp(LoadLanes(scores + i) - highest);
    sum += shares;
    StoreLanes(shares, scores + i);
  }
  if (highest != before) {
    const float shrink = Exp(Lanes{} + (before - highest))[0];
    float* output = block.output + r * block.output_stride;
    for (int64_t d = 0; d < block.value_width; ++d) output[d] *= shrink;
    block.sum[r] *= shrink;
    block.highest[r] = highest;
  }
  block.sum[r] += SumLanes(sum);
}

template <class T>
void Attend(const AttendBlock& block) {
  using Element = typename T::Element;
  constexpr int kUnit = T::kUnit;
  float scores[kTileRows * kKeys];
  const int64_t units = UnitsOf(block.width, kUnit);
  const uint32_t* keys = block.keys;
  ForPanels(kKeys / kLanes, [&](int64_t first, int64_t vectors) {
    if (first * kLanes < block.count) {
      TileOf<T>(block.rows, vectors)(
          block.query, units, keys, units, scores + first * kLanes, kKeys, false);
    } else {
      for (int r = 0; r < block.rows; ++r) {
        for (int64_t i = 0; i < vectors * kLanes; ++i) scores[r * kKeys + first * kLanes + i] = 0;
      }
    }
    keys += units * vectors * kLanes;
  });

  uint32_t shares[kTileRows * kKeys / kUnit];
  const int64_t vectors = (block.value_width + kLanes - 1) / kLanes;
  for (int r = 0; r < block.rows; ++r) {
    float* row = scores + r * kKeys;
    Soften(block, r, row);
    if constexpr (kUnit == 1) {
      // What the dtype would keep of a share, as where it multiplies pairs.
      for (int64_t i = 0; i < kKeys; ++i) {
        shares[r * kKeys + i] = ToBits(T::Get(T::Put(row[i])));
      }
    } else {
      auto* rounded = reinterpret_cast<Element*>(shares) + r * kKeys;
      for (int64_t i = 0; i < kKeys; ++i) rounded[i] = T::Put(row[i]);
    }
  }

  const int64_t used = UnitsOf(block.count, kUnit);
  const uint32_t* values = block.values;
  ForPanels(vectors, [&](int64_t first, int64_t width) {
    TileOf<T>(block.rows, width)(shares,
                                 kKeys / kUnit,
                                 values,
                                 used,
                                 block.output + first * kLanes,
                                 block.output_stride,
                                 true);
    values += kKeys / kUnit * width * kLanes;
  });
}

template <class T>
void Divide(const float* weighted, float sum, int64_t width, void* output_) {
  auto* output = static_cast<typename T::Element*>(output_);
  const float divisor = sum == 0 ? 1.0f : sum;
  for (int64_t d = 0; d < width; ++d) output[d] = T::Put(weighted[d] / divisor);
}

template <class T>
constexpr Kernel KernelOf() {
  return {
      kTileRows, kLanes, T::kUnit, PackQuery<T>, PackKeys<T>, PackValues<T>, Attend<T>, Divide<T>};
}
