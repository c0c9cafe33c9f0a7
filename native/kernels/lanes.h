// A vector of kLanes floats, for files that are compiled once per instruction set: included inside
// their anonymous namespace, after kLanes is defined and bits.h is included. The compiler keeps a
// vector in as many registers as the instruction set needs.

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t WordLanes __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t HalfLanes __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// Loops over registers are unrolled from the start: only then does the compiler keep arrays of
// vectors in them.
#define TF_EACH _Pragma("GCC unroll 16") for

static inline Lanes LoadLanes(const float* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

static inline Lanes LoadLanes(const uint16_t* from) {
  HalfLanes bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return (Lanes)(__builtin_convertvector(bits, WordLanes) << 16);
}

static inline void StoreLanes(Lanes lanes, float* to) {
  __builtin_memcpy(to, &lanes, sizeof(lanes));
}

// By halves, always in the same order.
static inline float SumLanes(Lanes x) {
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  Four parts[kLanes / 4];
  __builtin_memcpy(parts, &x, sizeof(parts));
  for (int count = kLanes / 8; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i) parts[i] += parts[i + count];
  }
  return (parts[0][0] + parts[0][2]) + (parts[0][1] + parts[0][3]);
}

// exp for x <= 88, exact to 2 units in the last place; 0 below -87.3, NaN stays.
static inline Lanes Exp(Lanes x) {
  const Lanes low = Lanes{} - 87.3f;
  const Lanes high = Lanes{} + 88.0f;
  Lanes clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding and taking away 1.5 * 2^23 rounds to a whole
  // number.
  const Lanes shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const Lanes n = shifted - 12582912.0f;
  const Lanes r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Lanes power = (Lanes)(((WordLanes)shifted + 127u) << 23);
  const Lanes result = (p * r * r + r + 1.0f) * power;
  return x < low ? Lanes{} : x != x ? x : result;
}
