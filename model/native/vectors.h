// Defines vectors of as many floats as one register of the level holds, with loads and stores of
// both value types. GCC keeps vectors of several registers in memory: with AVX2, operations took up
// to five times as long. Where compilers make several instructions and one would do, the code uses
// intrinsics.

#ifndef CONVOY_MODEL_NATIVE_VECTORS_H_
#define CONVOY_MODEL_NATIVE_VECTORS_H_

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernels.h"

namespace convoy {
namespace {  // separate for each level

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX2__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;  // SSE, NEON
#endif
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

inline Floats Splat(float value) { return value - Floats{}; }

#ifdef __AVX512F__
// Masked forms with all lanes: GCC 12 warns about the others.
constexpr __mmask16 kAll = 0xffff;

inline Floats Widen(Halves halves) {
  return (Floats)_mm512_maskz_slli_epi32(
      kAll, _mm512_maskz_cvtepu16_epi32(kAll, (__m256i)halves), 16);
}

inline Halves UpperHalves(Bits bits) {
  return (Halves)_mm512_maskz_cvtepi32_epi16(
      kAll, _mm512_maskz_srli_epi32(kAll, (__m512i)bits, 16));
}

inline Floats Clamp(Floats x, float least, float most) {  // NaN stays NaN
  const __m512 enough = _mm512_maskz_max_ps(kAll, (__m512)Splat(least), (__m512)x);
  return (Floats)_mm512_maskz_min_ps(kAll, (__m512)Splat(most), enough);
}

inline Floats Nearest(Floats x) { return (Floats)_mm512_maskz_roundscale_ps(kAll, (__m512)x, 0); }

// x · 2 to the power of a whole number
inline Floats Scaled(Floats x, Floats whole) {
  return (Floats)_mm512_maskz_scalef_ps(kAll, (__m512)x, (__m512)whole);
}

inline void StorePast(Floats values, float* to) { _mm512_stream_ps(to, (__m512)values); }
inline void StorePast(Halves halves, BFloat16* to) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)halves);
}

// 1 / x for ordinary x, with relative error 2⁻¹⁴
inline Floats RoughInverse(Floats x) { return (Floats)_mm512_maskz_rcp14_ps(kAll, (__m512)x); }

inline Floats Inverse(Floats x) {
  const Floats rough = RoughInverse(x);
  return rough * (2.0f - x * rough);  // Newton's step doubles the digits
}
#else
inline Floats Widen(Halves halves) {
  return (Floats)(__builtin_convertvector(halves, Bits) << 16);
}

#ifdef __AVX2__
inline Halves UpperHalves(Bits bits) {
  const __m256i upper = _mm256_srli_epi32((__m256i)bits, 16);
  const __m128i low = _mm256_castsi256_si128(upper), high = _mm256_extracti128_si256(upper, 1);
  return (Halves)_mm_packus_epi32(low, high);
}

inline Floats Clamp(Floats x, float least, float most) {  // NaN stays NaN
  const __m256 enough = _mm256_max_ps((__m256)Splat(least), (__m256)x);
  return (Floats)_mm256_min_ps((__m256)Splat(most), enough);
}

inline Floats Nearest(Floats x) {
  return (Floats)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline void StorePast(Floats values, float* to) { _mm256_stream_ps(to, (__m256)values); }
inline void StorePast(Halves halves, BFloat16* to) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)halves);
}
#else
inline Halves UpperHalves(Bits bits) { return __builtin_convertvector(bits >> 16, Halves); }

inline Floats Clamp(Floats x, float least, float most) {  // NaN stays NaN
  x = x < least ? Splat(least) : x;
  return x > most ? Splat(most) : x;
}

inline Floats Nearest(Floats x) {
  const Floats magic = Splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to integers
  return (x + magic) - magic;
}
#endif

// x · 2 to the power of a whole number from -126 to 127
inline Floats Scaled(Floats x, Floats whole) {
  const Ints exponent = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return x * (Floats)exponent;
}

inline Floats Inverse(Floats x) { return 1.0f / x; }
inline Floats RoughInverse(Floats x) { return Inverse(x); }
#endif

inline Floats Load(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

inline Floats Load(const BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return Widen(halves);
}

inline void Store(Floats values, float* to) { std::memcpy(to, &values, sizeof(values)); }

#ifdef __AVX512BF16__  // treats numbers below 1.2e-38 as 0
inline void Store(Floats values, BFloat16* to) {
  const __m256bh halves = _mm512_maskz_cvtneps_pbh(kAll, (__m512)values);
  std::memcpy(to, &halves, sizeof(halves));
}
#else
inline void Store(Floats values, BFloat16* to) {
  Bits bits = (Bits)values;
  bits += 0x7fff + ((bits >> 16) & 1);  // to nearest, ties to even
  const Bits not_a_number = (Bits)(values != values);
  bits = (bits & ~not_a_number) | (not_a_number & 0x7fc00000u);
  const Halves halves = UpperHalves(bits);
  std::memcpy(to, &halves, sizeof(halves));
}
#endif

// Stores to memory without using the caches, if the processor can and `to` is aligned.
template <typename T>
inline void Stream(Floats values, T* to) {
#ifdef __AVX2__
  if (reinterpret_cast<uintptr_t>(to) % (kLanes * sizeof(T)) == 0) {
    if constexpr (std::is_same_v<T, float>) {
      return StorePast(values, to);
    } else {
      Halves halves;
      Store(values, reinterpret_cast<T*>(&halves));
      return StorePast(halves, to);
    }
  }
#endif
  Store(values, to);
}

// Must be called before other threads may read streamed values.
inline void EndStream() {
#ifdef __AVX2__
  _mm_sfence();
#endif
}

// Loads the first `count` lanes; the others are 0.
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

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_VECTORS_H_
