// Computes swish and ReLU, and their gradients, on vectors of one instruction level.

#ifndef CONVOY_MODEL_NATIVE_SWISH_H_
#define CONVOY_MODEL_NATIVE_SWISH_H_

#include <type_traits>

#include "vectors.h"

namespace convoy {
namespace {

// Returns e to the x for -87 ≤ x ≤ 88. For float32, the relative error is about 1e-7: Cody and
// Waite's reduction and the Cephes library's polynomial. For bfloat16, which rounds to 2e-3, it is
// 8e-5: the cubic with the smallest maximum relative error over ±ln 2 / 2.
template <typename T>
inline Floats Exp(Floats x) {
  x = Clamp(x, -87.0f, 88.0f);
  const Floats whole = Nearest(x * 1.44269504088896341f);
  if constexpr (std::is_same_v<T, BFloat16>) {
    const Floats rest = x - whole * 0.693147181f;
    Floats sum = Splat(0.165668430f);
    sum = sum * rest + 0.504963280f;
    sum = sum * rest + 1.00016419f;
    sum = sum * rest + 0.999928070f;
    return Scaled(sum, whole);
  }
  const Floats rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
  Floats sum = Splat(1.9875691500e-4f);
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  return Scaled(sum * (rest * rest) + (rest + 1.0f), whole);
}

// Returns the sigmoid with the accuracy of a T.
template <typename T>
inline Floats Sigmoid(Floats x) {
  const Floats sum = 1.0f + Exp<T>(-x);
  return std::is_same_v<T, BFloat16> ? RoughInverse(sum) : Inverse(sum);
}

template <typename T, Activation kind>
inline Floats Activate(Floats z) {
  if constexpr (kind == Activation::kRelu) return z < 0.0f ? Splat(0.0f) : z;
  if constexpr (kind == Activation::kSwish) return z * Sigmoid<T>(z);
  return z;
}

// Returns dy · activation'(z).
template <typename T, Activation kind>
inline Floats Deactivate(Floats dy, Floats z) {
  if constexpr (kind == Activation::kRelu) return z > 0.0f ? dy : Splat(0.0f);
  if constexpr (kind == Activation::kSwish) {
    const Floats gate = Sigmoid<T>(z);
    return dy * (gate + z * gate * (1.0f - gate));
  }
  return dy;
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_SWISH_H_
