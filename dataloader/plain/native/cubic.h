// Declares bicubic resizing, without TensorFlow: plain pointers and numbers.

#ifndef CONVOY_DATALOADER_PLAIN_NATIVE_CUBIC_H_
#define CONVOY_DATALOADER_PLAIN_NATIVE_CUBIC_H_

#include <cstdint>

namespace convoy {

// Does TensorFlow's ResizeBicubic (half-pixel centres, Keys' kernel) with the same float32
// arithmetic, rounded half to even. Of the image resized to a frame it computes the square of `size`
// at (y, x). Images are uint8 (height, width, 3) in rows without gaps, with at least one pixel.
// Returns nullptr, or the error.
[[nodiscard]] const char* ResizeCubic(const uint8_t* image, int64_t height, int64_t width,
                                      int64_t frame_height, int64_t frame_width, int64_t y,
                                      int64_t x, int64_t size, uint8_t* result);

}  // namespace convoy

#endif  // CONVOY_DATALOADER_PLAIN_NATIVE_CUBIC_H_
