// bf16 as bits, for files that may include no library. Everything here is static: each file keeps
// its own copy.
#pragma once

#include <stdint.h>

static inline float FromBits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline uint32_t ToBits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float Widen(uint16_t bits) { return FromBits(static_cast<uint32_t>(bits) << 16); }

// To the nearest, ties to even.
static inline uint16_t Round(float value) {
  const uint32_t bits = ToBits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}
