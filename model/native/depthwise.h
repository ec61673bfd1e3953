// Computes the gradients of depthwise convolution, for one instruction level.

#ifndef CONVOY_MODEL_NATIVE_DEPTHWISE_H_
#define CONVOY_MODEL_NATIVE_DEPTHWISE_H_

#include <algorithm>
#include <vector>

#include "norm.h"
#include "packed.h"
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

// Adds to the gradient of kRows × kWidth positions of the kernel, for `lanes` channels of one image:
// sums[i][j] += Σ dy · x. All sums stay in registers.
template <int kRows, int kWidth, typename T>
void AddPositions(const Depthwise& d, int64_t rows, const T* dy, const float* x, int64_t x_row,
                  int64_t lanes, float* sums) {
  Floats sum[kRows * kWidth];
  const auto place = [&](int k) {
    return sums + (k / kWidth * d.kernel_width + k % kWidth) * d.channels;
  };
  for (int k = 0; k < kRows * kWidth; ++k) sum[k] = Get(place(k), lanes);
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * d.stride * x_row;
    for (int64_t column = 0; column < d.out_width; ++column) {
      const Floats out = Get(dy, lanes);
#pragma GCC unroll 32
      for (int k = 0; k < kRows * kWidth; ++k) {
        sum[k] += out * Load(in + k / kWidth * x_row + k % kWidth * kLanes);
      }
      dy += d.channels;
      in += d.stride * kLanes;
    }
  }
  for (int k = 0; k < kRows * kWidth; ++k) Put(sum[k], place(k), lanes);
}

// The same for all positions of the kernel; as many at a time as registers hold sums.
template <int kWidth, typename T>
void AddKernel(const Depthwise& d, int64_t rows, const T* dy, const float* x, int64_t x_row,
               int64_t lanes, float* sums) {
  constexpr int kRows = std::max(1, (kLanes == 16 ? 25 : 10) / kWidth);
  const auto from = [&](auto add, int64_t i, int64_t j) {
    add(d, rows, dy, x + i * x_row + j * kLanes, x_row, lanes,
        sums + (i * d.kernel_width + j) * d.channels);
  };
  for (int64_t j = 0; j < d.kernel_width; j += kWidth) {
    int64_t i = 0;
    for (; i + kRows <= d.kernel_height; i += kRows) from(AddPositions<kRows, kWidth, T>, i, j);
    for (; i < d.kernel_height; ++i) from(AddPositions<1, kWidth, T>, i, j);
  }
}

template <typename T>
void AddKernel(const Depthwise& d, int64_t rows, const T* dy, const float* x, int64_t x_row,
               int64_t lanes, float* sums) {
  switch (d.kernel_width) {
    case 3:
      return AddKernel<3>(d, rows, dy, x, x_row, lanes, sums);
    case 5:
      return AddKernel<5>(d, rows, dy, x, x_row, lanes, sums);
    case 7:
      return AddKernel<7>(d, rows, dy, x, x_row, lanes, sums);
  }
  AddKernel<1>(d, rows, dy, x, x_row, lanes, sums);
}

// Adds to the kernel's gradient of one image.
template <typename T>
void AddImage(const Depthwise& d, const Image<T>& dy, const Image<T>& x, float* sums) {
  static thread_local std::vector<float> room;
  const int64_t columns = (d.out_width - 1) * d.stride + d.kernel_width;
  const int64_t most = PackedRows(columns, d.channels) - d.kernel_height;
  const int64_t band = std::max<int64_t>(1, most / d.stride + 1);
  for (int64_t row = 0; row < d.out_height; row += band) {
    const int64_t rows = std::min(band, d.out_height - row);
    const T* const out = dy.values + row * d.out_width * d.channels;
    const Packed in = Pack(x, {row * d.stride - d.pad_top, (rows - 1) * d.stride + d.kernel_height,
                               -d.pad_left, columns}, room);
    for (int64_t c = 0; c < d.channels; c += kLanes) {
      AddKernel(d, rows, out + c, in.Block(c), in.row, std::min(kLanes, d.channels - c),
                sums + c);
    }
  }
}

template <typename T>
void DepthwiseKernelGradient(const Depthwise& d, const T* dy, const T* x, T* dkernel) {
  const int64_t size = d.kernel_height * d.kernel_width * d.channels;
  const Image<T> out{dy, d.out_height, d.out_width, d.channels};
  const Image<T> in{x, d.in_height, d.in_width, d.channels};
  std::vector<float> sums(d.batch * size);
  Share(d.batch, [&](int64_t image) {
    AddImage(d, Nth(out, image), Nth(in, image), sums.data() + image * size);
  });
  ForVectors(size, [&](int64_t i, int64_t lanes) {
    Floats sum{};
    for (int64_t image = 0; image < d.batch; ++image) {
      sum += Get(sums.data() + image * size + i, lanes);
    }
    Put(sum, dkernel + i, lanes);
  });
}

// ---- the input's gradient with stride 1 ------------------------------------------------------

// Columns of the result that are computed together: as many as registers hold.
constexpr int kColumns = kLanes == 16 ? 8 : 4;

// Computes kColumns columns of a row, for kLanes channels: to[k] = Σ dy · weights. `dy` is the first
// of the packed values that the kernel meets.
template <int kWidth>
inline void Columns(const Depthwise& d, const float* dy, int64_t dy_row, const float* weights,
                    Floats* to) {
  for (int k = 0; k < kColumns; ++k) to[k] = Floats{};
  for (int64_t i = 0; i < d.kernel_height; ++i) {
    const float* const row = dy + (d.kernel_height - 1 - i) * dy_row;
    Floats weight[kWidth];
    for (int j = 0; j < kWidth; ++j) weight[j] = Load(weights + (i * kWidth + j) * kLanes);
    // From the right, so that each sum adds the kernel's positions in their order.
#pragma GCC unroll 16
    for (int p = kColumns + kWidth - 2; p >= 0; --p) {
      const Floats out = Load(row + p * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < kWidth; ++j) {
        const int k = p - (kWidth - 1) + j;
        if (k >= 0 && k < kColumns) to[k] += out * weight[j];
      }
    }
  }
}

template <int kWidth, typename T>
void InputGradient(const Depthwise& d, const T* dy, const T* kernel, T* dx) {
  std::vector<float> kernel_room;
  const int64_t size = d.kernel_height * kWidth;
  const Packed weights = Pack(Image<T>{kernel, 1, size, d.channels}, {0, 1, 0, size}, kernel_room);
  const int64_t filled = (d.in_width + kColumns - 1) / kColumns * kColumns;
  const int64_t columns = filled + kWidth - 1;
  const int64_t band = std::max<int64_t>(1, PackedRows(columns, d.channels) - d.kernel_height + 1);
  const int64_t bands = (d.in_height + band - 1) / band;
  const Image<T> images{dy, d.out_height, d.out_width, d.channels};
  Share(d.batch * bands, [&](int64_t piece) {
    static thread_local std::vector<float> room;
    const int64_t image = piece / bands, first = piece % bands * band;
    const int64_t rows = std::min(band, d.in_height - first);
    const Packed out = Pack(Nth(images, image),
                            {first + d.pad_top - (d.kernel_height - 1), rows + d.kernel_height - 1,
                             d.pad_left - (kWidth - 1), columns}, room);
    for (int64_t c = 0; c < d.channels; c += kLanes) {
      const int64_t lanes = std::min(kLanes, d.channels - c);
      for (int64_t row = 0; row < rows; ++row) {
        T* const to = dx + (image * d.in_height + first + row) * d.in_width * d.channels + c;
        for (int64_t column = 0; column < d.in_width; column += kColumns) {
          Floats sums[kColumns];
          Columns<kWidth>(d, out.Block(c) + row * out.row + column * kLanes, out.row,
                          weights.Block(c), sums);
          const int64_t count = std::min<int64_t>(kColumns, d.in_width - column);
          for (int64_t k = 0; k < count; ++k) Put(sums[k], to + (column + k) * d.channels, lanes);
        }
      }
    }
  });
}

// `dx` may be the same memory as `x`.
template <typename T>
void DepthwiseGradient(const Depthwise& d, const T* dy, const T* x, const T* kernel, T* dx,
                       T* dkernel) {
  DepthwiseKernelGradient(d, dy, x, dkernel);
  if (d.stride == 1 && d.kernel_width == 3) return InputGradient<3>(d, dy, kernel, dx);
  if (d.stride == 1 && d.kernel_width == 5) return InputGradient<5>(d, dy, kernel, dx);
  std::vector<float> room;
  DepthwiseInputGradient(
      d, dy, AsFloats(kernel, d.kernel_height * d.kernel_width * d.channels, room), dx);
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_DEPTHWISE_H_
