// Reads a picture's EXIF orientation without decoding the picture, and turns pictures.

#include <cstring>
#include <utility>

#include "kernels.h"

namespace convoy {
namespace {

constexpr int kTag = 0x0112, kShort = 3, kLong = 4;

uint64_t Number(const uint8_t* data, int bytes, bool big) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | data[big ? i : bytes - 1 - i];
  return value;
}

// Returns the orientation in the first directory of EXIF data, which are a TIFF without pixels.
int OfTiff(const uint8_t* data, size_t size) {
  if (size < 8 || data[0] != data[1] || (data[0] != 'I' && data[0] != 'M')) return 1;
  const bool big = data[0] == 'M';
  if (Number(data + 2, 2, big) != 42) return 1;
  size_t place = Number(data + 4, 4, big);
  if (place + 2 > size) return 1;
  const uint64_t count = Number(data + place, 2, big);
  place += 2;
  int found = 1;
  for (uint64_t i = 0; i < count && place + 12 <= size; ++i, place += 12) {
    if (Number(data + place, 2, big) != kTag) continue;
    const uint64_t type = Number(data + place + 2, 2, big);
    const uint64_t value = Number(data + place + 8, type == kShort ? 2 : 4, big);
    const bool known = (type == kShort || type == kLong) && Number(data + place + 4, 4, big) == 1;
    found = known && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return found;
}

// Goes from segment to segment, up to the first that holds pixels.
int OfJpeg(const uint8_t* data, size_t size) {
  size_t place = 2;
  while (place + 10 <= size) {
    if (data[place] != 0xff) return 1;
    const int marker = data[place + 1];
    if (marker == 0xff) {  // padding
      ++place;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return 1;
    if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {  // has no length field
      place += 2;
      continue;
    }
    const size_t length = Number(data + place + 2, 2, true);
    if (length < 2) return 1;
    if (marker == 0xe1 && std::memcmp(data + place + 4, "Exif\0", 6) == 0) {
      const bool whole = length >= 8 && place + 2 + length <= size;
      return whole ? OfTiff(data + place + 10, length - 8) : 1;
    }
    place += 2 + length;
  }
  return 1;
}

// EXIF may come after the pixels.
int OfPng(const uint8_t* data, size_t size) {
  size_t place = 8;
  while (place + 12 <= size) {
    const size_t length = Number(data + place, 4, true);
    if (std::memcmp(data + place + 4, "eXIf", 4) == 0) {
      return place + 12 + length <= size ? OfTiff(data + place + 8, length) : 1;
    }
    place += 12 + length;
  }
  return 1;
}

bool ReversesRows(int n) { return n == 3 || n == 4 || n == 6 || n == 7; }
bool ReversesColumns(int n) { return n == 2 || n == 3 || n == 7 || n == 8; }

}  // namespace

Window StoredWindow(Window window, Size size, int orientation) {
  if (SwapsSides(orientation)) {
    std::swap(window.y, window.x);
    std::swap(window.height, window.width);
  }
  if (ReversesRows(orientation)) {
    window.y = static_cast<int32_t>(size.height - window.y - window.height);
  }
  if (ReversesColumns(orientation)) {
    window.x = static_cast<int32_t>(size.width - window.x - window.width);
  }
  return window;
}

void Upright(const uint8_t* image, Size size, int orientation, uint8_t* result) {
  const bool swaps = SwapsSides(orientation);
  // Steps in the image that correspond to one down and one to the right in the result.
  int64_t down = 3 * size.width, right = 3;
  if (ReversesRows(orientation)) {
    image += (size.height - 1) * down;
    down = -down;
  }
  if (ReversesColumns(orientation)) {
    image += (size.width - 1) * right;
    right = -right;
  }
  if (swaps) std::swap(down, right);
  const int64_t height = swaps ? size.width : size.height;
  const int64_t width = swaps ? size.height : size.width;
  for (int64_t y = 0; y < height; ++y, image += down) {
    const uint8_t* pixel = image;
    for (int64_t x = 0; x < width; ++x, pixel += right, result += 3) {
      result[0] = pixel[0], result[1] = pixel[1], result[2] = pixel[2];
    }
  }
}

int Orientation(const uint8_t* data, size_t size) {
  if (size >= 2 && data[0] == 0xff && data[1] == 0xd8) return OfJpeg(data, size);
  if (size >= 8 && std::memcmp(data, "\x89PNG", 4) == 0) return OfPng(data, size);
  return 1;
}

}  // namespace convoy
