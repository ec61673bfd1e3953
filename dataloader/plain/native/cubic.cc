// Implements bicubic resizing: rows first, then columns, as TensorFlow does. See cubic.h.

#include "dataloader/plain/native/cubic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "dataloader/native/vectors.h"

namespace convoy {
namespace {

constexpr int kTable = 1024;  // distances for which weights are known

// The four pixels of a row or column that make up a pixel of the result.
struct Taps {
  int64_t places[4];
  float weights[4];
};

// Weights of pixels at a distance below 1, and from 1 to 2, in 1,024ths.
struct Weights {
  float near[kTable + 1], far[kTable + 1];
  Weights() {
    constexpr double a = -0.5;
    for (int i = 0; i <= kTable; ++i) {
      double x = static_cast<double>(i) / kTable;
      near[i] = static_cast<float>(((a + 2) * x - (a + 3)) * x * x + 1);
      x += 1;
      far[i] = static_cast<float>(((a * x - 5 * a) * x + 8 * a) * x - 4 * a);
    }
  }
};

std::vector<Taps> TapsOf(int64_t side, int64_t frame, int64_t start, int64_t size) {
  static const Weights table;
  const float scale = static_cast<float>(side) / static_cast<float>(frame);
  std::vector<Taps> result(size);
  for (int64_t i = 0; i < size; ++i) {
    const float position = (static_cast<float>(start + i) + 0.5f) * scale - 0.5f;
    const float floor = std::floor(position);
    const int64_t first = static_cast<int64_t>(floor) - 1;
    const int64_t offset = std::lrint((position - floor) * kTable);
    const float weights[4] = {table.far[offset], table.near[offset], table.near[kTable - offset],
                              table.far[kTable - offset]};
    Taps& taps = result[i];
    for (int k = 0; k < 4; ++k) {
      const int64_t place = first + k;
      taps.places[k] = std::clamp<int64_t>(place, 0, side - 1);
      taps.weights[k] = taps.places[k] == place ? weights[k] : 0.0f;  // none outside the image
    }
    const float total = taps.weights[0] + taps.weights[1] + taps.weights[2] + taps.weights[3];
    const float share = 1.0f / total;
    for (float& weight : taps.weights) weight *= share;
  }
  return result;
}

CONVOY_VECTORS void MixFour(const uint8_t* const rows[4], const float weights[4], int64_t count,
                            float* result) {
  for (int64_t i = 0; i < count; ++i) {
    result[i] = rows[0][i] * weights[0] + rows[1][i] * weights[1] + rows[2][i] * weights[2] +
                rows[3][i] * weights[3];
  }
}

void MixColumns(const float* row, const std::vector<Taps>& columns, uint8_t* result) {
  for (const Taps& taps : columns) {
    for (int c = 0; c < 3; ++c) {
      float sum = 0;
      for (int k = 0; k < 4; ++k) sum += row[3 * taps.places[k] + c] * taps.weights[k];
      // Adding 2^23 leaves no bits for fractions, so the processor rounds them: half to even.
      const float rounded = std::clamp(sum, 0.0f, 255.0f) + 8388608.0f;
      uint32_t bits;
      std::memcpy(&bits, &rounded, sizeof(bits));
      *result++ = static_cast<uint8_t>(bits);
    }
  }
}

}  // namespace

const char* ResizeCubic(const uint8_t* image, int64_t height, int64_t width, int64_t frame_height,
                        int64_t frame_width, int64_t y, int64_t x, int64_t size, uint8_t* result) {
  try {
    const std::vector<Taps> rows = TapsOf(height, frame_height, y, size);
    const std::vector<Taps> columns = TapsOf(width, frame_width, x, size);
    std::vector<float> tall(3 * width);
    for (int64_t i = 0; i < size; ++i) {
      const uint8_t* four[4];
      for (int k = 0; k < 4; ++k) four[k] = image + 3 * width * rows[i].places[k];
      MixFour(four, rows[i].weights, 3 * width, tall.data());
      MixColumns(tall.data(), columns, result + 3 * size * i);
    }
  } catch (const std::bad_alloc&) {
    return "no memory left to resize an image";
  }
  return nullptr;
}

}  // namespace convoy
