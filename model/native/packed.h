// Packs rows of an image for loops over windows, for one instruction level.

#ifndef CONVOY_MODEL_NATIVE_PACKED_H_
#define CONVOY_MODEL_NATIVE_PACKED_H_

#include <algorithm>
#include <vector>

#include "norm.h"
#include "vectors.h"

namespace convoy {
namespace {

// An image's values, (height, width, channels).
template <typename T>
struct Image {
  const T* values;
  int64_t height, width, channels;
};

// Returns one of several images that lie one behind the other.
template <typename T>
Image<T> Nth(const Image<T>& first, int64_t number) {
  Image<T> image = first;
  image.values += number * image.height * image.width * image.channels;
  return image;
}

// A part of an image. It may extend beyond the image, where values are 0.
struct Part {
  int64_t top, rows, left, columns;
};

// Rows of an image as floats, kLanes channels at a time: (block of channels, row, column, lane). In
// this order a window's values lie close together, at the same distances in all windows.
struct Packed {
  float* values;
  int64_t row, block;  // distances of rows, and of blocks of channels

  const float* Block(int64_t channel) const { return values + channel / kLanes * block; }
};

// `room` is the result's memory. Its callers keep it, because fresh memory costs page faults.
template <typename T>
Packed Pack(const Image<T>& image, const Part& part, std::vector<float>& room) {
  const int64_t blocks = (image.channels + kLanes - 1) / kLanes;
  // An odd number of lines, so that blocks do not compete for the same places in the caches.
  const int64_t row = part.columns * kLanes, block = (part.rows * part.columns | 1) * kLanes;
  if (static_cast<int64_t>(room.size()) < blocks * block) room.resize(blocks * block);
  for (int64_t i = 0; i < part.rows; ++i) {
    const int64_t y = part.top + i;
    for (int64_t j = 0; j < part.columns; ++j) {
      const int64_t x = part.left + j;
      float* to = room.data() + i * row + j * kLanes;
      if (y < 0 || y >= image.height || x < 0 || x >= image.width) {
        for (int64_t c = 0; c < image.channels; c += kLanes, to += block) Store(Floats{}, to);
        continue;
      }
      const T* const from = image.values + (y * image.width + x) * image.channels;
      int64_t c = 0;
      for (; c + kLanes <= image.channels; c += kLanes, to += block) Store(Load(from + c), to);
      if (c < image.channels) Store(LoadSome(from + c, image.channels - c), to);
    }
  }
  return {room.data(), row, block};
}

// Returns how many rows fit into half a megabyte, so that a core's second cache holds them; at least
// 1.
inline int64_t PackedRows(int64_t columns, int64_t channels) {
  return std::max<int64_t>(1, (1 << 17) / (columns * (channels + kLanes)));
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_PACKED_H_
