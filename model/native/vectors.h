// Sixteen floats at a time, and loads and stores of the two kinds of values. Compilers turn these
// into what the processor has: one register of AVX-512, two of AVX2, four of SSE or NEON.

#ifndef CONVOY_MODEL_NATIVE_VECTORS_H_
#define CONVOY_MODEL_NATIVE_VECTORS_H_

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace convoy {
namespace {  // each level has its own

constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

inline Floats Load(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

inline Floats Load(const BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return (Floats)(__builtin_convertvector(halves, Bits) << 16);
}

inline void Store(Floats values, float* to) { std::memcpy(to, &values, sizeof(values)); }

inline void Store(Floats values, BFloat16* to) {
  Bits bits = (Bits)values;
  bits += 0x7fff + ((bits >> 16) & 1);  // to the nearest, ties to even
  const Bits not_a_number = (Bits)(values != values);
  bits = (bits & ~not_a_number) | (not_a_number & 0x7fc00000u);
  const Halves halves = __builtin_convertvector(bits >> 16, Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

// The first `count` lanes; the others are 0.
template <typename T>
inline Floats LoadSome(const T* from, int64_t count) {
  T values[kLanes] = {};
  std::memcpy(values, from, count * sizeof(T));
  return Load(values);
}

template <typename T>
inline void StoreSome(Floats values, T* to, int64_t count) {
  T stored[kLanes];
  Store(values, stored);
  std::memcpy(to, stored, count * sizeof(T));
}

inline Floats Splat(float value) { return value - Floats{}; }

// e to the x, to about 1e-7 of it: Cody and Waite's reduction and the Cephes library's polynomial.
inline Floats Exp(Floats x) {
  x = x < -87.0f ? Splat(-87.0f) : x;  // not a number stays so
  x = x > 88.0f ? Splat(88.0f) : x;
  const Floats magic = Splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to integers
  const Floats whole = (x * 1.44269504088896341f + magic) - magic;
  const Floats rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
  Floats sum = Splat(1.9875691500e-4f);
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = sum * rest * rest + rest + 1.0f;
  const Ints exponent = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return sum * (Floats)exponent;
}

inline Floats Sigmoid(Floats x) { return 1.0f / (1.0f + Exp(-x)); }

template <Activation kind>
inline Floats Activate(Floats z) {
  if constexpr (kind == Activation::kRelu) return z < 0.0f ? Splat(0.0f) : z;
  if constexpr (kind == Activation::kSwish) return z * Sigmoid(z);
  return z;
}

// dy · activation'(z)
template <Activation kind>
inline Floats Deactivate(Floats dy, Floats z) {
  if constexpr (kind == Activation::kRelu) return z > 0.0f ? dy : Splat(0.0f);
  if constexpr (kind == Activation::kSwish) {
    const Floats gate = Sigmoid(z);
    return dy * (gate + z * gate * (1.0f - gate));
  }
  return dy;
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_VECTORS_H_
