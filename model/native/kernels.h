// Declares what the native operations of training compute, without TensorFlow: plain pointers and
// numbers.
//
// Tensors are channels-last without gaps. Values are float32, or bfloat16 with all arithmetic in
// float32. Only shapes decide how work is cut into pieces, and sums are combined in a fixed order,
// so results do not depend on the number of threads. levels.cc picks the code for this processor.

#ifndef CONVOY_MODEL_NATIVE_KERNELS_H_
#define CONVOY_MODEL_NATIVE_KERNELS_H_

#include <cstdint>

namespace convoy {

struct BFloat16 {
  uint16_t bits;
};

enum class Activation : int { kNone, kRelu, kSwish };

// Batch norm over `rows` of `channels` values, then an activation.
struct Norm {
  int64_t rows = 0, channels = 0;
  float epsilon = 0;
  Activation activation = Activation::kNone;
};

// A depthwise convolution with channel multiplier 1. Kernels are (height, width, channels).
struct Depthwise {
  int64_t batch = 0, channels = 0;
  int64_t in_height = 0, in_width = 0, out_height = 0, out_width = 0;
  int64_t kernel_height = 0, kernel_width = 0;
  int64_t stride = 1, pad_top = 0, pad_left = 0;
};

struct Images {
  int64_t count = 0, pixels = 0, channels = 0;
};

// The kernels for one type of value. `gamma`, `beta`, `mean`, `variance` and their gradients are
// (channels).
template <typename T>
struct Kernels {
  // y = activation(gamma · (x - mean) / √(variance + ε) + beta + shortcut), with the batch's own
  // mean and biased variance, which are outputs too. `shortcut` may be null: nothing is added.
  void (*norm)(const Norm&, const T* x, const float* gamma, const float* beta, const T* shortcut,
               T* y, float* mean, float* variance);
  // The same y to the bit, from the statistics that `norm` returned.
  void (*normalize)(const Norm&, const T* x, const float* gamma, const float* beta,
                    const float* mean, const float* variance, const T* shortcut, T* y);
  // Gradients of `norm`, from `dy` and its inputs; `dshortcut` is null if `shortcut` is. `dy` may be
  // `dshortcut`, or without a shortcut `dx`.
  void (*norm_gradient)(const Norm&, const T* dy, const T* x, const float* gamma,
                        const float* beta, const float* mean, const float* variance,
                        const T* shortcut, T* dx, float* dgamma, float* dbeta, T* dshortcut);
  // Gradients of depthwise convolution. dx may be `x`.
  void (*depthwise_gradient)(const Depthwise&, const T* dy, const T* x, const T* kernel, T* dx,
                             T* dkernel);
  // y = x · gate, with one gate per image and channel.
  void (*gate)(const Images&, const T* x, const T* gate, T* y);
  // Gradients of `gate`: dx = dy · gate, and dgate = Σ dy · x over an image's pixels. dx may be
  // `dy` or `x`.
  void (*gate_gradient)(const Images&, const T* dy, const T* x, const T* gate, T* dx, T* dgate);
  // The mean over an image's pixels.
  void (*squeeze)(const Images&, const T* x, T* mean);
  // Gradient of x, which is used as `maps` and in its mean: dx = dmaps + dmean / pixels. dx may be
  // `dmaps`.
  void (*squeeze_gradient)(const Images&, const T* dmaps, const T* dmean, T* dx);
  // a + b of `count` values each. The sum may be `a`.
  void (*sum)(int64_t count, const T* a, const T* b, T* sum);
};

// Returns the fastest kernels that this processor can run.
template <typename T>
const Kernels<T>& BestKernels();

// Returns whether it multiplies bfloat16 matrices in tiles (AMX).
bool HasTiles();

// Returns the instruction level of the kernels: "x86-64-v4 with bfloat16", "x86-64-v4", "x86-64-v3"
// or "baseline".
const char* Level();

// Limits the level to 5 (v4 with bfloat16), 4, 3 or 0, the baseline: for tests.
void LimitLevel(int level);

}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_KERNELS_H_
