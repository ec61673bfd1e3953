// Contains the kernels for one instruction level: built once per level, with CONVOY_LEVEL as its
// name.

#include "depthwise.h"
#include "norm.h"
#include "squeeze.h"

namespace convoy {

namespace CONVOY_LEVEL {
extern const Kernels<float> floats;
extern const Kernels<BFloat16> halves;
template <typename T>
constexpr Kernels<T> kEvery = {
    NormForward<T>, Normalize<T>, NormGradient<T>, DepthwiseGradient<T>, Gate<T>,
    GateGradient<T>, Squeeze<T>, SqueezeGradient<T>, Sum<T>,
};
const Kernels<float> floats = kEvery<float>;
const Kernels<BFloat16> halves = kEvery<BFloat16>;
}  // namespace CONVOY_LEVEL

}  // namespace convoy
