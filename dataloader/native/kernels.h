// Declares what the native operations compute, without TensorFlow: plain pointers and numbers.
//
// The specification is Pillow and its TensorFlow version, dataloader/augment/operations.py, for the
// augmentations, and dataloader/images/crops.py for crops and resizing. Every byte agrees with
// them. Images are uint8 (height, width, 3) in rows without gaps. Nothing here starts threads,
// throws, or keeps state between calls.

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

// Returns the operation with this name in dataloader/augment/policies.py, or kUnknown.
Op OpNamed(std::string_view name);

struct Step {
  Op op = Op::kIdentity;
  double argument = 0;  // in the unit of policies.argument
  float centre_y = 0, centre_x = 0;  // for Cutout, as fractions of height and width
};

struct Size {
  int64_t height = 0, width = 0;
};

// Returns whether the arithmetic of coordinates and sums cannot overflow.
constexpr bool IsReasonable(Size size) {
  constexpr int64_t most_side = 1 << 20, most_pixels = int64_t{1} << 31;
  return size.height >= 0 && size.width >= 0 && size.height <= most_side &&
         size.width <= most_side && size.height * size.width <= most_pixels;
}

// Applies the steps in order. `result` has the image's size and may be the image itself. Returns
// nullptr, or the error in the arguments; `result` is then undefined.
[[nodiscard]] const char* Augment(const uint8_t* image, Size size, const Step* steps, size_t count,
                                  uint8_t* result);

// Does tf.image.resize (bilinear, half-pixel centres, no antialias), rounded half to even, then
// flips left to right if asked. Returns nullptr, or the error.
[[nodiscard]] const char* Resize(const uint8_t* image, Size size, bool flip, Size result_size,
                                 uint8_t* result);

struct Window {
  int32_t y = 0, x = 0, height = 0, width = 0;
};

// Does the second half of crops.crop_window: picks the first drawn size that fits, or the fallback.
struct CropDraws {
  int attempts = 0;
  const float* areas = nullptr;  // (attempts): fractions of the image's area
  const float* stretch = nullptr;  // (2, attempts): height, then width, of a crop with area 1
  const float* places = nullptr;  // (2, attempts): y, then x, as fractions of the room left
  const float* limits = nullptr;  // (2): largest height / width, largest width / height
};

[[nodiscard]] const char* CropWindow(Size size, const CropDraws& draws, Window* window);

// Returns the EXIF orientation of an encoded JPEG or PNG, 1 (unchanged) to 8; 1 for anything else.
// The specification is dataloader/images/orientation.py.
[[nodiscard]] int Orientation(const uint8_t* data, size_t size);

// From 5 on, height and width are swapped.
constexpr bool SwapsSides(int orientation) { return orientation >= 5; }

// Maps a part of a turned picture to the stored one, which has this size.
Window StoredWindow(Window window, Size size, int orientation);

// Turns an image as an orientation says; `result` is a different image, of the turned size.
void Upright(const uint8_t* image, Size size, int orientation, uint8_t* result);

}  // namespace convoy

#endif  // CONVOY_DATALOADER_NATIVE_KERNELS_H_
