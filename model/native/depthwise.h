// Computes the gradients of depthwise convolution, for one instruction level.

#ifndef CONVOY_MODEL_NATIVE_DEPTHWISE_H_
#define CONVOY_MODEL_NATIVE_DEPTHWISE_H_

#include <algorithm>
#include <vector>

#include "norm.h"
#include "pool.h"
#include "vectors.h"

namespace convoy {
namespace {

constexpr int64_t kMostTaps = 256;

inline const float* AsFloats(const float* values, int64_t, std::vector<float>&) { return values; }

inline const float* AsFloats(const BFloat16* values, int64_t count, std::vector<float>& room) {
  room.resize(count + kLanes);
  ForVectors(count, [&](int64_t i, int64_t lanes) {
    StoreSome(Get(values + i, lanes), room.data() + i, lanes);
  });
  return room.data();
}

// to[c] = Σ from[tap][c] · weights[tap][c]
template <typename T>
inline void SumOfTaps(int64_t taps, const T* const* from, const float* const* weights,
                      int64_t channels, T* to) {
  int64_t c = 0;
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) {
    Floats s0{}, s1{}, s2{}, s3{};
    for (int64_t tap = 0; tap < taps; ++tap) {
      const T* const x = from[tap] + c;
      const float* const w = weights[tap] + c;
      s0 += Load(x) * Load(w);
      s1 += Load(x + kLanes) * Load(w + kLanes);
      s2 += Load(x + 2 * kLanes) * Load(w + 2 * kLanes);
      s3 += Load(x + 3 * kLanes) * Load(w + 3 * kLanes);
    }
    Store(s0, to + c);
    Store(s1, to + c + kLanes);
    Store(s2, to + c + 2 * kLanes);
    Store(s3, to + c + 3 * kLanes);
  }
  for (; c < channels; c += kLanes) {
    const int64_t lanes = std::min(kLanes, channels - c);
    Floats sum{};
    for (int64_t tap = 0; tap < taps; ++tap) {
      sum += Get(from[tap] + c, lanes) * Get(weights[tap] + c, lanes);
    }
    Put(sum, to + c, lanes);
  }
}

// The positions that one result sums over: their values and weights.
template <typename T>
struct Taps {
  int64_t count = 0;
  const T* from[kMostTaps];
  const float* weights[kMostTaps];

  void Move(int64_t by) {
    for (int64_t i = 0; i < count; ++i) from[i] += by;
  }
};

// Computes a row of results. `gather(column, &taps)` finds their taps. From `begin` to `end`, the
// taps are those of the column `period` before, moved by `by`.
template <typename T, typename Gather>
inline void Row(int64_t width, int64_t period, int64_t begin, int64_t end, int64_t by,
                int64_t channels, T* to, Gather gather) {
  Taps<T> taps;
  for (int64_t first = 0; first < period; ++first) {
    for (int64_t column = first; column < width; column += period) {
      if (column - period >= begin && column < end) {
        taps.Move(by);
      } else {
        taps.count = 0;
        gather(column, taps);
      }
      SumOfTaps(taps.count, taps.from, taps.weights, channels, to + column * channels);
    }
  }
}

template <typename T>
void DepthwiseInputGradient(const Depthwise& d, const T* dy, const float* weights, T* dx) {
  // Columns that every column of the kernel reaches from inside dy.
  const int64_t begin = d.kernel_width - 1 - d.pad_left;
  const int64_t end = (d.out_width - 1) * d.stride - d.pad_left + 1;
  Share(d.batch * d.in_height, [&](int64_t piece) {
    const int64_t image = piece / d.in_height, row = piece % d.in_height;
    const auto gather = [&](int64_t column, Taps<T>& taps) {
      for (int64_t i = 0; i < d.kernel_height; ++i) {
        const int64_t place = row + d.pad_top - i, out_row = place / d.stride;
        if (place < 0 || place % d.stride || out_row >= d.out_height) continue;
        for (int64_t j = 0; j < d.kernel_width; ++j) {
          const int64_t spot = column + d.pad_left - j, out_column = spot / d.stride;
          if (spot < 0 || spot % d.stride || out_column >= d.out_width) continue;
          taps.from[taps.count] =
              dy + ((image * d.out_height + out_row) * d.out_width + out_column) * d.channels;
          taps.weights[taps.count++] = weights + (i * d.kernel_width + j) * d.channels;
        }
      }
    };
    Row(d.in_width, d.stride, begin, end, d.channels, d.channels,
        dx + piece * d.in_width * d.channels, gather);
  });
}

// Adds to one row of the kernel's gradient, from one row of dy and one of x: sums[j][c] += Σ dy ·
// x.
template <typename T, int kWidth>
void KernelRowGradient(const Depthwise& d, const T* dy, const T* x, float* sums) {
  const int64_t channels = d.channels;
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t lanes = std::min(kLanes, channels - c);
    Floats sum[kWidth];
    for (int j = 0; j < kWidth; ++j) sum[j] = Get(sums + j * channels + c, lanes);
    for (int64_t column = 0; column < d.out_width; ++column) {
      const Floats out = Get(dy + column * channels + c, lanes);
      const int64_t left = column * d.stride - d.pad_left;
      const T* const in = x + left * channels + c;
      if (left >= 0 && left + kWidth <= d.in_width) {
#pragma GCC unroll 8
        for (int j = 0; j < kWidth; ++j) sum[j] += out * Get(in + j * channels, lanes);
      } else {
#pragma GCC unroll 8
        for (int j = 0; j < kWidth; ++j) {
          if (left + j >= 0 && left + j < d.in_width) {
            sum[j] += out * Get(in + j * channels, lanes);
          }
        }
      }
    }
    for (int j = 0; j < kWidth; ++j) Put(sum[j], sums + j * channels + c, lanes);
  }
}

template <typename T>
void KernelRowGradient(const Depthwise& d, const T* dy, const T* x, float* sums) {
  switch (d.kernel_width) {
    case 3:
      return KernelRowGradient<T, 3>(d, dy, x, sums);
    case 5:
      return KernelRowGradient<T, 5>(d, dy, x, sums);
    case 7:
      return KernelRowGradient<T, 7>(d, dy, x, sums);
  }
  for (int64_t j = 0; j < d.kernel_width; ++j) {  // column by column
    Depthwise one = d;
    one.pad_left -= j;
    KernelRowGradient<T, 1>(one, dy, x, sums + j * d.channels);
  }
}

template <typename T>
void DepthwiseKernelGradient(const Depthwise& d, const T* dy, const T* x, T* dkernel) {
  const int64_t size = d.kernel_height * d.kernel_width * d.channels;
  std::vector<float> sums(d.batch * size);
  Share(d.batch, [&](int64_t image) {
    float* const own = sums.data() + image * size;
    for (int64_t row = 0; row < d.out_height; ++row) {
      const T* const out = dy + (image * d.out_height + row) * d.out_width * d.channels;
      for (int64_t i = 0; i < d.kernel_height; ++i) {
        const int64_t in_row = row * d.stride + i - d.pad_top;
        if (in_row < 0 || in_row >= d.in_height) continue;
        const T* const in = x + (image * d.in_height + in_row) * d.in_width * d.channels;
        KernelRowGradient(d, out, in, own + i * d.kernel_width * d.channels);
      }
    }
  });
  ForVectors(size, [&](int64_t i, int64_t lanes) {
    Floats sum{};
    for (int64_t image = 0; image < d.batch; ++image) {
      sum += Get(sums.data() + image * size + i, lanes);
    }
    Put(sum, dkernel + i, lanes);
  });
}

// `dx` may be the same memory as `x`.
template <typename T>
void DepthwiseGradient(const Depthwise& d, const T* dy, const T* x, const T* kernel, T* dx,
                       T* dkernel) {
  std::vector<float> room;
  DepthwiseKernelGradient(d, dy, x, dkernel);
  DepthwiseInputGradient(
      d, dy, AsFloats(kernel, d.kernel_height * d.kernel_width * d.channels, room), dx);
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_DEPTHWISE_H_
