// Batch norm, the shortcut's sum and the activation after it, for one instruction level.
//
// Memory-bound: x is read twice forward, x and dy twice backward. The second pass goes from the
// end, where the caches still hold the data that the first pass read last.

#ifndef CONVOY_MODEL_NATIVE_NORM_H_
#define CONVOY_MODEL_NATIVE_NORM_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "pool.h"
#include "swish.h"
#include "vectors.h"

namespace convoy {
namespace {

// The order of visiting the values. If rows are not much wider than vectors, several rows make one
// `width`; per-channel values are then repeated, and sums are folded.
struct Walk {
  Walk(int64_t rows, int64_t channels) : channels(channels) {
    while (repeats < 16 && channels * repeats < 128 && rows % (2 * repeats) == 0) repeats *= 2;
    width = channels * repeats;
    lines = rows / repeats;
    each = std::max<int64_t>(32, 16384 / width);
    pieces = (lines + each - 1) / each;
  }

  int64_t Begin(int64_t piece) const { return piece * each; }
  int64_t End(int64_t piece) const { return std::min(lines, (piece + 1) * each); }

  std::vector<float> Repeated(const std::vector<float>& values) const {
    std::vector<float> all(width + kLanes);
    for (int64_t i = 0; i < width; ++i) all[i] = values[i % channels];
    return all;
  }

  int64_t channels, repeats = 1, width, lines, each, pieces;
};

// Calls body(offset, lanes) for each vector of a line; lanes < kLanes only at its end.
template <typename Body>
inline void ForVectors(int64_t width, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) body(i, kLanes);
  if (i < width) body(i, width - i);
}

template <typename T>
inline Floats Get(const T* from, int64_t lanes) {
  return lanes == kLanes ? Load(from) : LoadSome(from, lanes);
}

template <typename T>
inline void Put(Floats values, T* to, int64_t lanes) {
  lanes == kLanes ? Store(values, to) : StoreSome(values, to, lanes);
}

// Bytes of results that caches would no longer hold when the next operation reads them.
constexpr int64_t kLarge = 16 << 20;

// Calls body(line, put) for the lines of all pieces, the last piece first. `put` stores results as
// Put does, or bypasses the caches if the results are large.
template <typename T, typename Body>
void FromTheEnd(const Walk& walk, Body body) {
  const auto each = [&](auto put) {
    Share(walk.pieces, [&](int64_t number) {
      const int64_t piece = walk.pieces - 1 - number;
      for (int64_t line = walk.Begin(piece); line < walk.End(piece); ++line) body(line, put);
      EndStream();
    });
  };
  if (walk.lines * walk.width * static_cast<int64_t>(sizeof(T)) < kLarge) {
    return each([](Floats values, T* to, int64_t lanes) { Put(values, to, lanes); });
  }
  each([](Floats values, T* to, int64_t lanes) {
    lanes == kLanes ? Stream(values, to) : StoreSome(values, to, lanes);
  });
}

// Computes two sums for each position in a line, of what `body(piece, line, offset, lanes, first,
// second)` adds. A piece's sums start at `piece * Stride(walk)`, the second ones half a stride
// later.
inline int64_t Stride(const Walk& walk) { return 2 * (walk.width + kLanes); }

template <typename Body>
std::vector<float> Sums(const Walk& walk, Body body) {
  std::vector<float> sums(walk.pieces * Stride(walk));
  Share(walk.pieces, [&](int64_t piece) {
    float* const first = sums.data() + piece * Stride(walk);
    float* const second = first + Stride(walk) / 2;
    for (int64_t line = walk.Begin(piece); line < walk.End(piece); ++line) {
      ForVectors(walk.width, [&](int64_t i, int64_t lanes) {
        Floats a = Load(first + i), b = Load(second + i);
        body(piece, line, i, lanes, a, b);
        Store(a, first + i);
        Store(b, second + i);
      });
    }
  });
  return sums;
}

// Number of channels that one thread takes together, for calls of body(from, count).
constexpr int64_t kTogether = 64;

template <typename Body>
void ForChannels(const Walk& walk, Body body) {
  Share((walk.channels + kTogether - 1) / kTogether, [&](int64_t number) {
    const int64_t from = number * kTogether;
    body(from, std::min(kTogether, walk.channels - from));
  });
}

// Combines variances by Chan, Golub and LeVeque's method, in double precision. Each piece's sums
// are of differences from its first line.
template <typename T>
void Moments(const Walk& walk, const T* x, const std::vector<float>& sums, float* mean,
             float* variance) {
  const double total = static_cast<double>(walk.lines) * walk.repeats;
  ForChannels(walk, [&](int64_t from, int64_t count) {
    double middle[kTogether] = {}, squares[kTogether] = {}, seen = 0;
    float shift[kTogether];
    for (int64_t piece = 0; piece < walk.pieces; ++piece) {
      const double lines = static_cast<double>(walk.End(piece) - walk.Begin(piece));
      const T* const line = x + walk.Begin(piece) * walk.width + from;
      for (int64_t r = 0; r < walk.repeats; ++r, seen += lines) {
        const double before = seen * lines / (seen + lines), part = lines / (seen + lines);
        const float* const first = sums.data() + piece * Stride(walk) + r * walk.channels + from;
        const float* const second = first + Stride(walk) / 2;
        ForVectors(count, [&](int64_t i, int64_t lanes) {
          Store(Get(line + r * walk.channels + i, lanes), shift + i);
        });
        for (int64_t c = 0; c < count; ++c) {
          const double sum = first[c], offset = sum / lines, delta = shift[c] + offset - middle[c];
          middle[c] += delta * part;
          squares[c] += std::max(second[c] - sum * offset, 0.0) + delta * delta * before;
        }
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      mean[from + c] = static_cast<float>(middle[c]);
      variance[from + c] = static_cast<float>(squares[c] / total);
      // max(own, 0) hides a NaN, but the mean does not.
      if (!std::isfinite(mean[from + c])) variance[from + c] = mean[from + c] - mean[from + c];
    }
  });
}

// Adds the sums of all pieces in double precision.
inline void Totals(const Walk& walk, const std::vector<float>& sums, double* first,
                   double* second) {
  ForChannels(walk, [&](int64_t from, int64_t count) {
    for (int64_t piece = 0; piece < walk.pieces; ++piece) {
      for (int64_t r = 0; r < walk.repeats; ++r) {
        const float* const parts = sums.data() + piece * Stride(walk) + r * walk.channels + from;
        for (int64_t c = 0; c < count; ++c) {
          first[from + c] += parts[c];
          second[from + c] += parts[Stride(walk) / 2 + c];
        }
      }
    }
  });
}

// Normalises with statistics that are known.
template <typename T, Activation kind>
void NormalizeAs(const Norm& norm, const T* x, const float* gamma, const float* beta,
                 const float* mean, const float* variance, const T* shortcut, T* y) {
  const Walk walk(norm.rows, norm.channels);
  std::vector<float> factor(norm.channels), term(norm.channels);
  for (int64_t c = 0; c < norm.channels; ++c) {
    factor[c] = gamma[c] / std::sqrt(variance[c] + norm.epsilon);
    term[c] = beta[c];
  }
  const auto factors = walk.Repeated(factor), terms = walk.Repeated(term);
  const auto means = walk.Repeated(std::vector<float>(mean, mean + norm.channels));
  FromTheEnd<T>(walk, [&](int64_t line, auto put) {
    ForVectors(walk.width, [&](int64_t i, int64_t lanes) {
      const int64_t at = line * walk.width + i;
      Floats z = (Get(x + at, lanes) - Load(&means[i])) * Load(&factors[i]) + Load(&terms[i]);
      if (shortcut) z += Get(shortcut + at, lanes);
      put(Activate<T, kind>(z), y + at, lanes);
    });
  });
}

template <typename T, Activation kind>
void NormGradientAs(const Norm& norm, const T* dy, const T* x, const float* gamma,
                    const float* beta, const float* mean, const float* variance,
                    const T* shortcut, T* dx, float* dgamma, float* dbeta, T* dshortcut) {
  const Walk walk(norm.rows, norm.channels);
  const int64_t channels = norm.channels;
  std::vector<float> scale(channels), factor(channels);
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = 1 / std::sqrt(variance[c] + norm.epsilon);
    factor[c] = gamma[c] * scale[c];
  }
  const auto means = walk.Repeated(std::vector<float>(mean, mean + channels));
  const auto factors = walk.Repeated(factor);
  const auto terms = walk.Repeated(std::vector<float>(beta, beta + channels));
  // computes dz and x - mean at a position
  const auto parts = [&](int64_t at, int64_t i, int64_t lanes, Floats& dz, Floats& centred) {
    centred = Get(x + at, lanes) - Load(&means[i]);
    Floats z = centred * Load(&factors[i]) + Load(&terms[i]);
    if (shortcut) z += Get(shortcut + at, lanes);
    dz = Deactivate<T, kind>(Get(dy + at, lanes), z);
  };
  const auto sums = Sums(walk, [&](int64_t, int64_t line, int64_t i, int64_t lanes, Floats& a,
                                   Floats& b) {
    const int64_t at = line * walk.width + i;
    Floats dz, centred;
    parts(at, i, lanes, dz, centred);
    if (shortcut) {
      Put(dz, dshortcut + at, lanes);
      dz = Get(dshortcut + at, lanes);  // rounded as the second pass reads it
    }
    a += dz;
    b += dz * centred;
  });

  std::vector<double> first(channels), second(channels);
  Totals(walk, sums, first.data(), second.data());
  std::vector<float> constant(channels), slope(channels);
  for (int64_t c = 0; c < channels; ++c) {
    dbeta[c] = static_cast<float>(first[c]);
    dgamma[c] = static_cast<float>(second[c] * scale[c]);
    constant[c] = static_cast<float>(first[c] / norm.rows);
    slope[c] = static_cast<float>(second[c] * scale[c] * scale[c] / norm.rows);
  }
  const auto constants = walk.Repeated(constant), slopes = walk.Repeated(slope);
  FromTheEnd<T>(walk, [&](int64_t line, auto put) {
    ForVectors(walk.width, [&](int64_t i, int64_t lanes) {
      const int64_t at = line * walk.width + i;
      Floats dz, centred;
      if (shortcut) {
        centred = Get(x + at, lanes) - Load(&means[i]);
        dz = Get(dshortcut + at, lanes);
      } else {
        parts(at, i, lanes, dz, centred);
      }
      put(Load(&factors[i]) * (dz - Load(&constants[i]) - centred * Load(&slopes[i])), dx + at,
          lanes);
    });
  });
}

template <typename T>
void Normalize(const Norm& norm, const T* x, const float* gamma, const float* beta,
               const float* mean, const float* variance, const T* shortcut, T* y) {
  const auto as = [&](auto function) {
    function(norm, x, gamma, beta, mean, variance, shortcut, y);
  };
  switch (norm.activation) {
    case Activation::kNone:
      return as(NormalizeAs<T, Activation::kNone>);
    case Activation::kRelu:
      return as(NormalizeAs<T, Activation::kRelu>);
    case Activation::kSwish:
      return as(NormalizeAs<T, Activation::kSwish>);
  }
}

template <typename T>
void NormForward(const Norm& norm, const T* x, const float* gamma, const float* beta,
                 const T* shortcut, T* y, float* mean, float* variance) {
  const Walk walk(norm.rows, norm.channels);
  const auto sums = Sums(walk, [&](int64_t piece, int64_t line, int64_t i, int64_t lanes,
                                   Floats& a, Floats& b) {
    const Floats shift = Get(x + walk.Begin(piece) * walk.width + i, lanes);
    const Floats d = Get(x + line * walk.width + i, lanes) - shift;
    a += d;
    b += d * d;
  });
  Moments(walk, x, sums, mean, variance);
  Normalize(norm, x, gamma, beta, mean, variance, shortcut, y);
}

template <typename T>
void NormGradient(const Norm& norm, const T* dy, const T* x, const float* gamma,
                  const float* beta, const float* mean, const float* variance, const T* shortcut,
                  T* dx, float* dgamma, float* dbeta, T* dshortcut) {
  const auto as = [&](auto function) {
    function(norm, dy, x, gamma, beta, mean, variance, shortcut, dx, dgamma, dbeta, dshortcut);
  };
  switch (norm.activation) {
    case Activation::kNone:
      return as(NormGradientAs<T, Activation::kNone>);
    case Activation::kRelu:
      return as(NormGradientAs<T, Activation::kRelu>);
    case Activation::kSwish:
      return as(NormGradientAs<T, Activation::kSwish>);
  }
}

}  // namespace
}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_NORM_H_
