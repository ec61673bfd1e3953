// The kernels for one level of instructions: built once for each, with CONVOY_LEVEL its name.

#include "depthwise.h"
#include "norm.h"

namespace convoy {

namespace CONVOY_LEVEL {
extern const Kernels<float> floats;
extern const Kernels<BFloat16> halves;
const Kernels<float> floats = {NormForward<float>, NormGradient<float>, DepthwiseGradient<float>,
                               GateGradient<float>};
const Kernels<BFloat16> halves = {NormForward<BFloat16>, NormGradient<BFloat16>,
                                  DepthwiseGradient<BFloat16>, GateGradient<BFloat16>};
}  // namespace CONVOY_LEVEL

}  // namespace convoy
