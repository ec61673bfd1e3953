// Implements arithmetic on rows of pixels: see pixels.h.

#include "pixels.h"

#include <cmath>

#include "vectors.h"

namespace convoy {
namespace {

// Image.convert("L").
inline int Grey(const uint8_t* pixel) {
  return (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 32768) >> 16;
}

// Does Image.convert("HSV"), turns the hue, and does Image.convert("RGB"). Pillow computes in
// double and stores results in float variables; fractions are dropped, so a difference in the last
// bit would change a level.
void TurnHue(const uint8_t* pixel, int turn, uint8_t* result) {
  const int red = pixel[0], green = pixel[1], blue = pixel[2];
  const int value = std::max({red, green, blue});
  const double chroma = value - std::min({red, green, blue});
  int hue = 0;
  float strength = 0;
  if (chroma > 0) {
    const float from_red = static_cast<float>((value - red) / chroma);
    const float from_green = static_cast<float>((value - green) / chroma);
    const float from_blue = static_cast<float>((value - blue) / chroma);
    const double sixths = red == value     ? static_cast<double>(from_blue) - from_green
                          : green == value ? 2.0 + from_red - from_blue
                                           : 4.0 + from_green - from_red;
    const double circle = static_cast<double>(static_cast<float>(sixths)) / 6.0 + 1.0;
    hue = static_cast<int>(static_cast<float>(circle - std::floor(circle)) * 255.0);
    const int saturation = static_cast<int>(static_cast<float>(chroma / value) * 255.0);
    strength = static_cast<float>(saturation / 255.0);
  }
  const double sixths = ((hue + turn) & 255) * 6.0 / 255.0;
  const double share = static_cast<float>(sixths - std::floor(sixths));
  const auto level = [=](double part) {
    return static_cast<uint8_t>(std::floor(value * (1.0 - part) + 0.5));
  };
  const double much = strength;
  const uint8_t levels[4] = {static_cast<uint8_t>(value), level(much * (1.0 - share)), level(much),
                             level(static_cast<float>(much * share))};
  // For each sixth of the circle, which of the four values red, green and blue take.
  constexpr uint8_t kSectors[6][3] = {{0, 1, 2}, {3, 0, 2}, {2, 0, 1},
                                      {2, 3, 0}, {1, 2, 0}, {0, 2, 3}};
  const uint8_t* sector = kSectors[static_cast<int>(sixths) % 6];
  for (int c = 0; c < 3; ++c) result[c] = levels[sector[c]];
}

}  // namespace

// A separate function: inside a member function, the compiler must assume that writing bytes
// changes the members, and reload them each time.
void MapPixels(const uint8_t* from, int64_t count, const Table* tables, uint8_t* to) {
  for (int64_t i = 0; i < count; i += 3) {
    const uint8_t red = tables[0][from[i]];
    const uint8_t green = tables[1][from[i + 1]];
    const uint8_t blue = tables[2][from[i + 2]];
    to[i] = red, to[i + 1] = green, to[i + 2] = blue;
  }
}

CONVOY_VECTORS void BlendRow(const uint8_t* degenerate, const uint8_t* row, int64_t count,
                             float factor, uint8_t* result) {
#pragma GCC ivdep  // the result may be exactly one of the two rows
  for (int64_t i = 0; i < count; ++i) result[i] = Blend(degenerate[i], row[i], factor);
}

CONVOY_VECTORS void ColorRow(const uint8_t* row, int64_t count, float factor, uint8_t* result) {
#pragma GCC ivdep  // the result may be the row itself
  for (int64_t i = 0; i < count; i += 3) {
    const float grey = static_cast<float>(Grey(row + i));
    const uint8_t red = Blend(grey, row[i], factor);
    const uint8_t green = Blend(grey, row[i + 1], factor);
    const uint8_t blue = Blend(grey, row[i + 2], factor);
    result[i] = red, result[i + 1] = green, result[i + 2] = blue;
  }
}

CONVOY_VECTORS void SmoothRow(const uint8_t* above, const uint8_t* row, const uint8_t* below,
                              int64_t count, uint8_t* result) {
  for (int64_t i = 3; i < count - 3; ++i) {
    const uint16_t sum = above[i - 3] + above[i] + above[i + 3] + row[i - 3] + 5 * row[i] +
                         row[i + 3] + below[i - 3] + below[i] + below[i + 3];
    result[i] = static_cast<uint8_t>(static_cast<uint16_t>(2 * sum + 13) / 26);
  }
}

CONVOY_VECTORS int64_t SumGrey(const uint8_t* image, int64_t pixels) {
  int64_t total = 0;
  while (pixels > 0) {  // in parts whose sums fit into 32 bits
    const int64_t part = std::min<int64_t>(pixels, 1 << 20);
    int32_t sum = 0;
    for (int64_t i = 0; i < part; ++i) sum += Grey(image + 3 * i);
    total += sum;
    image += 3 * part;
    pixels -= part;
  }
  return total;
}

void TurnHues(const uint8_t* from, int64_t count, int turn, uint8_t* to) {
  for (int64_t i = 0; i < count; i += 3) TurnHue(from + i, turn, to + i);
}

}  // namespace convoy
