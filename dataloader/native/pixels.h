// Arithmetic on rows of pixels, for augment.cc. Each function may write its result over its input.

#ifndef CONVOY_DATALOADER_NATIVE_PIXELS_H_
#define CONVOY_DATALOADER_NATIVE_PIXELS_H_

#include <algorithm>
#include <cstdint>

namespace convoy {

inline constexpr int kLevels = 256;
using Table = uint8_t[kLevels];

// Does Image.blend of whole numbers: float32, clipped, fraction dropped.
inline uint8_t Blend(float degenerate, float pixel, float factor) {
  const float mixed = degenerate + factor * (pixel - degenerate);
  return static_cast<uint8_t>(static_cast<int>(std::min(std::max(mixed, 0.0f), 255.0f)));
}

// Looks each level up in its channel's table. `count` is three times the number of pixels.
void MapPixels(const uint8_t* from, int64_t count, const Table* tables, uint8_t* to);

// Blends two rows of `count` levels; the result may be either of them.
void BlendRow(const uint8_t* degenerate, const uint8_t* row, int64_t count, float factor,
              uint8_t* result);

// Blends pixels with their own grey.
void ColorRow(const uint8_t* row, int64_t count, float factor, uint8_t* result);

// Applies ImageFilter.SMOOTH to the levels [3, count - 3) of a row: nine pixels, the centre five
// times. Here the result must be another row.
void SmoothRow(const uint8_t* above, const uint8_t* row, const uint8_t* below, int64_t count,
               uint8_t* result);

// Returns the sum of Image.convert("L").
int64_t SumGrey(const uint8_t* image, int64_t pixels);

// Turns hues by `turn` 256ths of the circle, through Pillow's 8-bit HSV.
void TurnHues(const uint8_t* from, int64_t count, int turn, uint8_t* to);

}  // namespace convoy

#endif  // CONVOY_DATALOADER_NATIVE_PIXELS_H_
