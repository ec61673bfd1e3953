// What the native operations compute, without TensorFlow: plain pointers and numbers.
//
// The specification is Pillow and its TensorFlow version, dataloader/augment/operations.py, for the
// augmentations, and dataloader/images/crops.py for crops and resizing. Every byte agrees with them.
// Images are uint8 (height, width, 3) in rows without gaps. Nothing here starts threads, throws,
// or keeps state between calls.

#ifndef CONVOY_DATALOADER_NATIVE_KERNELS_H_
#define CONVOY_DATALOADER_NATIVE_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace convoy {

enum class Op : int {
  kUnknown,
  kIdentity,
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,
  kPosterize,
  kSolarize,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
  kCutout,
  kSolarizeAdd,
  kHue,
};

// The operation that dataloader/augment/policies.py calls by this name, or kUnknown.
Op OpNamed(std::string_view name);

struct Step {
  Op op = Op::kIdentity;
  double argument = 0;                 // in the unit that policies.argument gives it
  float centre_y = 0, centre_x = 0;    // of Cutout, as shares of height and width
};

struct Size {
  int64_t height = 0, width = 0;
};

// Whether the arithmetic of coordinates and sums is sure not to overflow.
constexpr bool IsReasonable(Size size) {
  constexpr int64_t most_side = 1 << 20, most_pixels = int64_t{1} << 31;
  return size.height >= 0 && size.width >= 0 && size.height <= most_side &&
         size.width <= most_side && size.height * size.width <= most_pixels;
}

// Applies the steps in order. `result` has the image's size and may be the image itself.
// Returns nullptr, or what is wrong with the arguments; `result` is then undefined.
[[nodiscard]] const char* Augment(const uint8_t* image, Size size, const Step* steps, size_t count,
                                  uint8_t* result);

// tf.image.resize (bilinear, half-pixel centres, no antialias), rounded half to even, then flipped
// left to right if asked. Returns nullptr, or what is wrong.
[[nodiscard]] const char* Resize(const uint8_t* image, Size size, bool flip, Size result_size,
                                 uint8_t* result);

struct Window {
  int32_t y = 0, x = 0, height = 0, width = 0;
};

// The second half of decode.crop_window: the first of the drawn sizes that fits, or the fallback.
struct CropDraws {
  int attempts = 0;
  const float* areas = nullptr;    // (attempts): shares of the image's area
  const float* stretch = nullptr;  // (2, attempts): height, then width, of a crop with area 1
  const float* places = nullptr;   // (2, attempts): y, then x, as shares of the room left
  const float* limits = nullptr;   // (2): greatest height / width, greatest width / height
};

[[nodiscard]] const char* CropWindow(Size size, const CropDraws& draws, Window* window);

// The orientation that EXIF gives an encoded JPEG or PNG, 1 (as it is) to 8; 1 for all else. The
// specification is dataloader/images/orientation.py.
[[nodiscard]] int Orientation(const uint8_t* data, size_t size);

// From 5 on height and width change places.
constexpr bool SwapsSides(int orientation) { return orientation >= 5; }

// Where a part of a turned picture lies in the stored one, which has this size.
Window StoredWindow(Window window, Size size, int orientation);

// Turns an image as an orientation says; `result` is another one, of the turned size.
void Upright(const uint8_t* image, Size size, int orientation, uint8_t* result);

}  // namespace convoy

#endif  // CONVOY_DATALOADER_NATIVE_KERNELS_H_
