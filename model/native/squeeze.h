// Squeeze-and-excitation, and the sum of gradients of a tensor that is used twice, for one
// instruction level. All are memory-bound, so each pass does as much as possible.

#ifndef CONVOY_MODEL_NATIVE_SQUEEZE_H_
#define CONVOY_MODEL_NATIVE_SQUEEZE_H_

#include <algorithm>
#include <vector>

#include "norm.h"
#include "pool.h"
#include "vectors.h"

namespace convoy {
namespace {

// Returns one number per channel of an image, repeated as in a line of the walk.
template <typename T>
std::vector<float> Line(const Walk& walk, const T* values, float times = 1.0f) {
  std::vector<float> line(walk.width + kLanes);
  for (int64_t r = 0; r < walk.repeats; ++r) {
    ForVectors(walk.channels, [&](int64_t i, int64_t lanes) {
      StoreSome(Get(values + i, lanes) * times, &line[r * walk.channels + i], lanes);
    });
  }
  return line;
}

// Calls body(place, i, lanes) for each vector of an image: `i` is its offset in the line, `place`
// its offset in the tensor.
template <typename Body>
void ForImage(const Walk& walk, int64_t image, int64_t begin, int64_t end, Body body) {
  for (int64_t line = begin; line < end; ++line) {
    const int64_t start = (image * walk.lines + line) * walk.width;
    ForVectors(walk.width, [&](int64_t i, int64_t lanes) { body(start + i, i, lanes); });
  }
}

template <typename T>
void Gate(const Images& images, const T* x, const T* gate, T* y) {
  Share(images.count, [&](int64_t image) {
    const Walk walk(images.pixels, images.channels);
    const std::vector<float> gates = Line(walk, gate + image * images.channels);
    ForImage(walk, image, 0, walk.lines, [&](int64_t at, int64_t i, int64_t lanes) {
      Put(Get(x + at, lanes) * Load(&gates[i]), y + at, lanes);
    });
  });
}

// Sums over an image's pixels what `body(place, i, lanes, &sum)` adds, times `times`. It first sums
// within pieces of the image, then over pieces, so few digits are lost even with 12,544 pixels.
template <typename T, typename Body>
void SumsOfImage(const Walk& walk, int64_t image, float times, T* to, Body body) {
  std::vector<float> sums(walk.width + kLanes), part(walk.width + kLanes);
  for (int64_t piece = 0; piece < walk.pieces; ++piece) {
    std::fill(part.begin(), part.end(), 0.0f);
    const auto add = [&](int64_t at, int64_t i, int64_t lanes) {
      Floats sum = Load(&part[i]);
      body(at, i, lanes, sum);
      Store(sum, &part[i]);
    };
    ForImage(walk, image, walk.Begin(piece), walk.End(piece), add);
    for (int64_t i = 0; i < walk.width; ++i) sums[i] += part[i];
  }
  for (int64_t r = 1; r < walk.repeats; ++r) {
    for (int64_t c = 0; c < walk.channels; ++c) sums[c] += sums[r * walk.channels + c];
  }
  ForVectors(walk.channels, [&](int64_t i, int64_t lanes) {
    Put(Get(&sums[i], lanes) * times, to + image * walk.channels + i, lanes);
  });
}

template <typename T>
void GateGradient(const Images& images, const T* dy, const T* x, const T* gate, T* dx, T* dgate) {
  Share(images.count, [&](int64_t image) {
    const Walk walk(images.pixels, images.channels);
    const std::vector<float> gates = Line(walk, gate + image * images.channels);
    const auto body = [&](int64_t at, int64_t i, int64_t lanes, Floats& sum) {
      const Floats out = Get(dy + at, lanes);
      sum += out * Get(x + at, lanes);
      Put(out * Load(&gates[i]), dx + at, lanes);
    };
    SumsOfImage(walk, image, 1.0f, dgate, body);
  });
}

template <typename T>
void Squeeze(const Images& images, const T* x, T* mean) {
  Share(images.count, [&](int64_t image) {
    const Walk walk(images.pixels, images.channels);
    const auto body = [&](int64_t at, int64_t, int64_t lanes, Floats& sum) {
      sum += Get(x + at, lanes);
    };
    SumsOfImage(walk, image, 1.0f / images.pixels, mean, body);
  });
}

template <typename T>
void SqueezeGradient(const Images& images, const T* dmaps, const T* dmean, T* dx) {
  Share(images.count, [&](int64_t image) {
    const Walk walk(images.pixels, images.channels);
    const std::vector<float> shares =
        Line(walk, dmean + image * images.channels, 1.0f / images.pixels);
    ForImage(walk, image, 0, walk.lines, [&](int64_t at, int64_t i, int64_t lanes) {
      Put(Get(dmaps + at, lanes) + Load(&shares[i]), dx + at, lanes);
    });
  });
}

template <typename T>
void Sum(int64_t count, const T* a, const T* b, T* sum) {
  constexpr int64_t kPiece = 1 << 15;
  Share((count + kPiece - 1) / kPiece, [&](int64_t piece) {
    const int64_t start = piece * kPiece;
    ForVectors(std::min(kPiece, count - start), [&](int64_t i, int64_t lanes) {
      Put(Get(a + start + i, lanes) + Get(b + start + i, lanes), sum + start + i, lanes);
    });
  });
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_SQUEEZE_H_
