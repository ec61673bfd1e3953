// Implements crops and resizing: see kernels.h.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "kernels.h"
#include "vectors.h"

namespace convoy {
namespace {

// The two pixels of an image row or column between which a pixel of the result lies.
struct Between {
  int64_t lower, upper;
  float share;  // weight of the upper one
};

// TensorFlow's ResizeBilinear with half_pixel_centers, with the same float32 arithmetic.
void Interpolate(int64_t size, int64_t result_size, std::vector<Between>* result) {
  result->resize(result_size);
  const float scale = static_cast<float>(size) / static_cast<float>(result_size);
  for (int64_t i = 0; i < result_size; ++i) {
    const float position = (static_cast<float>(i) + 0.5f) * scale - 0.5f;
    const float floor = std::floor(position);
    Between& between = (*result)[i];
    between.lower = std::clamp<int64_t>(static_cast<int64_t>(floor), 0, size - 1);
    between.upper = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(position)), 0, size - 1);
    between.share = position - floor;
  }
}

// Four numbers at once, for three channels: GCC and Clang use the vector instructions they find.
using Four = float __attribute__((vector_size(16)));

inline Four Load(const float* from) {
  Four four;
  std::memcpy(&four, from, sizeof(four));
  return four;
}

CONVOY_VECTORS void ToFloat(const uint8_t* row, int64_t count, float* result) {
  for (int64_t i = 0; i < count; ++i) result[i] = row[i];
}

// Both rows have room for one number beyond their 3 · width: it is read and written.
CONVOY_VECTORS void ResizeRow(const float* row, const Between* columns, int64_t width,
                              float* result) {
  for (int64_t x = 0; x < width; ++x) {
    const Four left = Load(row + 3 * columns[x].lower);
    const Four right = Load(row + 3 * columns[x].upper);
    const Four mixed = left + (right - left) * columns[x].share;
    std::memcpy(result + 3 * x, &mixed, sizeof(mixed));
  }
}

// Adding 2^23 leaves no bits for fractions, so the processor rounds them: half to even.
CONVOY_VECTORS void MixRows(const float* top, const float* bottom, float share, int64_t count,
                            uint8_t* result) {
  for (int64_t i = 0; i < count; ++i) {
    const float rounded = top[i] + (bottom[i] - top[i]) * share + 8388608.0f;
    uint32_t bits;
    std::memcpy(&bits, &rounded, sizeof(bits));
    result[i] = static_cast<uint8_t>(bits);
  }
}

// Keeps two image rows, resized horizontally: neighbouring rows of the result often need the same.
class Rows {
 public:
  Rows(const uint8_t* image, Size size, const std::vector<Between>& columns)
      : image_(image), size_(size), columns_(columns), whole_(3 * size.width + 1) {
    for (auto& row : rows_) row.resize(3 * columns.size() + 1);
  }

  // Returns row y; row `keep` stays valid.
  const float* Get(int64_t y, int64_t keep) {
    if (numbers_[0] == y) return rows_[0].data();
    if (numbers_[1] == y) return rows_[1].data();
    const int slot = numbers_[0] == keep ? 1 : 0;
    numbers_[slot] = y;
    ToFloat(image_ + y * 3 * size_.width, 3 * size_.width, whole_.data());
    ResizeRow(whole_.data(), columns_.data(), columns_.size(), rows_[slot].data());
    return rows_[slot].data();
  }

 private:
  const uint8_t* image_;
  const Size size_;
  const std::vector<Between>& columns_;
  std::vector<float> whole_;
  std::vector<float> rows_[2];
  int64_t numbers_[2] = {-1, -1};
};

bool Fits(Size size) { return size.height >= 1 && size.width >= 1 && IsReasonable(size); }

}  // namespace

const char* Resize(const uint8_t* image, Size size, bool flip, Size result_size, uint8_t* result) {
  if (!Fits(size) || !Fits(result_size)) {
    return "images to resize need at least one pixel, and at most 2^20 a side";
  }
  try {
    std::vector<Between> rows, columns;
    Interpolate(size.height, result_size.height, &rows);
    Interpolate(size.width, result_size.width, &columns);
    if (flip) std::reverse(columns.begin(), columns.end());
    Rows resized(image, size, columns);
    const int64_t count = 3 * result_size.width;
    for (int64_t y = 0; y < result_size.height; ++y) {
      const float* top = resized.Get(rows[y].lower, rows[y].upper);
      const float* bottom = resized.Get(rows[y].upper, rows[y].lower);
      MixRows(top, bottom, rows[y].share, count, result + y * count);
    }
  } catch (const std::bad_alloc&) {
    return "no memory left to resize an image";
  }
  return nullptr;
}

const char* CropWindow(Size size, const CropDraws& draws, Window* window) {
  if (!Fits(size)) return "crops need an image of at least one pixel, and at most 2^20 a side";
  const float sides[2] = {static_cast<float>(size.height), static_cast<float>(size.width)};
  const int attempts = draws.attempts;
  float chosen[2] = {0, 0}, place[2] = {0, 0};
  for (int i = 0; i <= attempts; ++i) {
    for (int axis = 0; axis < 2; ++axis) {
      const float side = i < attempts ? std::sqrt(draws.areas[i] * (sides[0] * sides[1])) *
                                            draws.stretch[axis * attempts + i]
                                      : std::min(sides[axis], sides[1 - axis] * draws.limits[axis]);
      chosen[axis] = std::max(std::nearbyint(side), 1.0f);
      place[axis] = i < attempts ? draws.places[axis * attempts + i] : 0.5f;
    }
    if (chosen[0] <= sides[0] && chosen[1] <= sides[1]) break;
  }
  int32_t start[2];
  for (int axis = 0; axis < 2; ++axis) {
    // This fails if a drawn number is NaN or negative.
    if (!(chosen[axis] <= sides[axis] && place[axis] >= 0)) return "crops need numbers in [0, 1)";
    const float room = sides[axis] - chosen[axis];
    start[axis] = static_cast<int32_t>(std::min(std::floor(place[axis] * (room + 1)), room));
  }
  *window = {start[0], start[1], static_cast<int32_t>(chosen[0]), static_cast<int32_t>(chosen[1])};
  return nullptr;
}

}  // namespace convoy
