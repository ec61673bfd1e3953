// The kernels that `dataloader.plain` calls through ctypes: C functions in a library without
// TensorFlow. plain/library.py says what they compute. Each returns nullptr, or an error's text.

#include "dataloader/native/resize.cc"
#include "dataloader/plain/native/cubic.h"

#define CONVOY_C extern "C" __attribute__((visibility("default")))

CONVOY_C const char* convoy_resize(const uint8_t* image, int64_t height, int64_t width,
                                   int64_t result_height, int64_t result_width, uint8_t* result) {
  return convoy::Resize(image, {height, width}, /*flip=*/false, {result_height, result_width},
                        result);
}

CONVOY_C const char* convoy_resize_cubic(const uint8_t* image, int64_t height, int64_t width,
                                         int64_t frame_height, int64_t frame_width, int64_t y,
                                         int64_t x, int64_t size, uint8_t* result) {
  return convoy::ResizeCubic(image, height, width, frame_height, frame_width, y, x, size, result);
}
