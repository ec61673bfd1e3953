// Implements the augmentations of AutoAugment and RandAugment: see kernels.h.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "kernels.h"
#include "pixels.h"

namespace convoy {
namespace {

constexpr uint8_t kFill = 128;
constexpr struct {
  std::string_view name;
  Op op;
} kNames[] = {
    {"Identity", Op::kIdentity},       {"AutoContrast", Op::kAutoContrast},
    {"Equalize", Op::kEqualize},       {"Invert", Op::kInvert},
    {"Rotate", Op::kRotate},           {"Posterize", Op::kPosterize},
    {"Solarize", Op::kSolarize},       {"Color", Op::kColor},
    {"Contrast", Op::kContrast},       {"Brightness", Op::kBrightness},
    {"Sharpness", Op::kSharpness},     {"ShearX", Op::kShearX},
    {"ShearY", Op::kShearY},           {"TranslateX", Op::kTranslateX},
    {"TranslateY", Op::kTranslateY},   {"Cutout", Op::kCutout},
    {"SolarizeAdd", Op::kSolarizeAdd}, {"Hue", Op::kHue},
};

// Drops the fraction of a finite number, and clamps the result to int32.
int64_t Whole(double value) {
  constexpr double low = std::numeric_limits<int32_t>::min();
  constexpr double high = std::numeric_limits<int32_t>::max();
  return static_cast<int64_t>(std::clamp(value, low, high));
}

int64_t FloorDivide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

// Narrows [first, last) to the whole numbers x for which 0 <= slope * x + start < limit.
void Restrict(int64_t slope, int64_t start, int64_t limit, int64_t* first, int64_t* last) {
  int64_t low = *first, high = *last - 1;  // both inclusive
  if (slope > 0) {
    low = -FloorDivide(start, slope);
    high = FloorDivide(limit - 1 - start, slope);
  } else if (slope < 0) {
    low = -FloorDivide(limit - 1 - start, -slope);
    high = FloorDivide(start, -slope);
  } else if (start < 0 || start >= limit) {
    high = low - 1;
  }
  *first = std::clamp(low, *first, *last);
  *last = std::clamp(high + 1, *first, *last);
}

// Converts to Pillow's 16.16 fixed point. Values beyond 2^14 pixels never occur in practice.
int64_t Fixed(double value) {
  return static_cast<int64_t>(std::floor(std::clamp(value, -16384.0, 16384.0) * 65536.0 + 0.5));
}

// An image on its way through the steps. Operations that only map each level of a channel to
// another one change just `tables_`; these are applied to the pixels when an operation needs them,
// or at the end.
class Canvas {
 public:
  Canvas(const uint8_t* image, Size size, uint8_t* result)
      : now_(image), result_(result), size_(size) {}

  // Returns false if memory ran out.
  bool Apply(const Step& step);
  void Finish();

 private:
  int64_t pixels() const { return size_.height * size_.width; }
  int64_t row_bytes() const { return 3 * size_.width; }

  uint8_t* Spare();
  void MoveTo(uint8_t* buffer);
  void Flush();
  void Count();

  template <typename F>
  void MapLevels(F level);
  void Map(const Table* tables);
  void AutoContrast();
  void Equalize();
  void Contrast(float factor);
  void Color(float factor);
  bool Sharpness(float factor);
  void Hue(double factor);
  void Cutout(const Step& step);
  bool Rotate(double degrees);
  bool Affine(double a, double b, double c, double d, double e, double f);

  const uint8_t* now_;  // the pixels, before `tables_`
  uint8_t* const result_;
  std::unique_ptr<uint8_t[]> scratch_;
  const Size size_;
  bool mapped_ = false;  // whether `tables_` hold a mapping
  Table tables_[3];
  bool counted_ = false;  // whether `counts_` is the histogram of `now_`
  int64_t counts_[3][kLevels];
};

// Returns a buffer that does not hold the pixels; nullptr if there is no memory.
uint8_t* Canvas::Spare() {
  if (now_ != result_) return result_;
  if (!scratch_) scratch_.reset(new (std::nothrow) uint8_t[3 * pixels()]);
  return scratch_.get();
}

void Canvas::MoveTo(uint8_t* buffer) {
  now_ = buffer;
  counted_ = false;
}

// Applies the tables to the pixels, which are then in `result_`, or were there before.
void Canvas::Flush() {
  if (!mapped_) return;
  MapPixels(now_, 3 * pixels(), tables_, result_);
  MoveTo(result_);
  mapped_ = false;
}

void Canvas::Finish() {
  Flush();
  if (now_ != result_) std::memcpy(result_, now_, 3 * pixels());
}

// Fills `counts_` with the histogram of the pixels, before the tables.
void Canvas::Count() {
  if (counted_) return;
  // Two histograms per channel: neighbours are often equal, and adding twice to one number is slow.
  uint32_t counts[2][3][kLevels] = {};
  std::memset(counts_, 0, sizeof(counts_));
  const int64_t pairs = pixels() / 2;
  const uint8_t* pixel = now_;
  for (int64_t i = 0; i < pairs; ++i, pixel += 6) {
    ++counts[0][0][pixel[0]], ++counts[0][1][pixel[1]], ++counts[0][2][pixel[2]];
    ++counts[1][0][pixel[3]], ++counts[1][1][pixel[4]], ++counts[1][2][pixel[5]];
  }
  if (pixels() % 2) ++counts[0][0][pixel[0]], ++counts[0][1][pixel[1]], ++counts[0][2][pixel[2]];
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < kLevels; ++i) {
      counts_[c][i] = static_cast<int64_t>(counts[0][c][i]) + counts[1][c][i];
    }
  }
  counted_ = true;
}

// Chains tables after the pending ones.
void Canvas::Map(const Table* tables) {
  if (!mapped_) {
    std::memcpy(tables_, tables, sizeof(tables_));
    mapped_ = true;
    return;
  }
  for (int c = 0; c < 3; ++c) {
    for (uint8_t& level : tables_[c]) level = tables[c][level];
  }
}

// The same table for each channel: `level` maps 0-255 to 0-255.
template <typename F>
void Canvas::MapLevels(F level) {
  Table tables[3];
  for (int i = 0; i < kLevels; ++i) tables[0][i] = static_cast<uint8_t>(level(i));
  std::memcpy(tables[1], tables[0], sizeof(Table));
  std::memcpy(tables[2], tables[0], sizeof(Table));
  Map(tables);
}

// The histograms of the visible image: `counts_` mapped through `tables_`.
struct Histogram {
  int64_t of[3][kLevels];

  Histogram(const int64_t counts[3][kLevels], const Table* tables) : of{} {
    for (int c = 0; c < 3; ++c) {
      for (int i = 0; i < kLevels; ++i) of[c][tables ? tables[c][i] : i] += counts[c][i];
    }
  }
};

void Canvas::AutoContrast() {
  Count();
  const Histogram histogram(counts_, mapped_ ? tables_ : nullptr);
  Table tables[3];
  for (int c = 0; c < 3; ++c) {
    const auto& counts = histogram.of[c];
    int low = 0, high = kLevels - 1;
    while (low < high && counts[low] == 0) ++low;
    while (high > low && counts[high] == 0) --high;
    const double scale = high > low ? 255.0 / (high - low) : 1.0;
    const double offset = high > low ? -low * scale : 0.0;
    for (int i = 0; i < kLevels; ++i) {
      tables[c][i] = static_cast<uint8_t>(std::clamp(i * scale + offset, 0.0, 255.0));
    }
  }
  Map(tables);
}

void Canvas::Equalize() {
  Count();
  const Histogram histogram(counts_, mapped_ ? tables_ : nullptr);
  Table tables[3];
  for (int c = 0; c < 3; ++c) {
    const auto& counts = histogram.of[c];
    int brightest = kLevels - 1;
    while (brightest > 0 && counts[brightest] == 0) --brightest;
    const int64_t step = (pixels() - counts[brightest]) / 255;
    int64_t sum = step / 2;
    for (int i = 0; i < kLevels; ++i) {
      tables[c][i] = static_cast<uint8_t>(step > 0 ? std::min<int64_t>(sum / step, 255) : i);
      sum += counts[i];
    }
  }
  Map(tables);
}

void Canvas::Contrast(float factor) {
  Flush();
  const int64_t mean = (2 * SumGrey(now_, pixels()) + pixels()) / (2 * pixels());
  MapLevels([=](int i) { return Blend(static_cast<float>(mean), i, factor); });
}

void Canvas::Color(float factor) {
  Flush();
  ColorRow(now_, 3 * pixels(), factor, result_);
  MoveTo(result_);
}

bool Canvas::Sharpness(float factor) {
  if (size_.height < 3 || size_.width < 3) return true;  // only border
  Flush();
  uint8_t* const to = Spare();
  if (!to) return false;
  const int64_t bytes = row_bytes(), last = (size_.height - 1) * bytes;
  std::memcpy(to, now_, bytes);
  std::memcpy(to + last, now_ + last, bytes);
  for (int64_t start = bytes; start < last; start += bytes) {
    const uint8_t* row = now_ + start;
    uint8_t* const out = to + start;
    std::memcpy(out, row, 3);
    std::memcpy(out + bytes - 3, row + bytes - 3, 3);
    SmoothRow(row - bytes, row, row + bytes, bytes, out);
    BlendRow(out + 3, row + 3, bytes - 6, factor, out + 3);
  }
  MoveTo(to);
  return true;
}

void Canvas::Hue(double factor) {
  Flush();
  const int turn = static_cast<int>(Whole(factor * 255.0) % 256);
  TurnHues(now_, 3 * pixels(), turn, result_);
  MoveTo(result_);
}

void Canvas::Cutout(const Step& step) {
  Flush();
  if (now_ != result_) {
    std::memcpy(result_, now_, 3 * pixels());
    MoveTo(result_);
  }
  const int64_t half = Whole(step.argument);
  const int64_t y = Whole(std::floor(step.centre_y * static_cast<float>(size_.height)));
  const int64_t x = Whole(std::floor(step.centre_x * static_cast<float>(size_.width)));
  const int64_t top = std::max<int64_t>(y - half, 0), bottom = std::min(y + half, size_.height);
  const int64_t left = std::max<int64_t>(x - half, 0), right = std::min(x + half, size_.width);
  if (left >= right) return;
  for (int64_t row = top; row < bottom; ++row) {
    std::memset(result_ + row * row_bytes() + 3 * left, kFill, 3 * (right - left));
  }
  counted_ = false;
}

bool Canvas::Rotate(double degrees) {
  const double angle = degrees * (3.141592653589793 / 180.0);
  const double cos = std::cos(angle), sin = std::sin(angle);
  const double y = 0.5 * static_cast<double>(size_.height);
  const double x = 0.5 * static_cast<double>(size_.width);
  return Affine(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y);
}

// Sets pixel (x, y) to the pixel nearest to (ax + by + c, dx + ey + f).
bool Canvas::Affine(double a, double b, double c, double d, double e, double f) {
  Flush();
  uint8_t* const to = Spare();
  if (!to) return false;
  const int64_t ax = Fixed(a), bx = Fixed(b), cx = Fixed(c + 0.5 * (a + b));
  const int64_t ay = Fixed(d), by = Fixed(e), cy = Fixed(f + 0.5 * (d + e));
  const uint8_t* const from = now_;
  const int64_t bytes = row_bytes();
  for (int64_t y = 0; y < size_.height; ++y) {
    int64_t source_x = bx * y + cx, source_y = by * y + cy;
    int64_t first = 0, last = size_.width;  // the pixels whose source is inside the image
    Restrict(ax, source_x, size_.width << 16, &first, &last);
    Restrict(ay, source_y, size_.height << 16, &first, &last);
    uint8_t* const row = to + y * bytes;
    std::memset(row, kFill, 3 * first);
    std::memset(row + 3 * last, kFill, 3 * (size_.width - last));
    source_x += ax * first, source_y += ay * first;
    if (ay == 0 && ax == 65536 && first < last) {  // a shifted row
      const uint8_t* source = from + (source_y >> 16) * bytes + 3 * (source_x >> 16);
      std::memcpy(row + 3 * first, source, 3 * (last - first));
      continue;
    }
    for (int64_t x = first; x < last; ++x, source_x += ax, source_y += ay) {
      const uint8_t* source = from + (source_y >> 16) * bytes + 3 * (source_x >> 16);
      std::memcpy(row + 3 * x, source, 3);
    }
  }
  MoveTo(to);
  return true;
}

bool Canvas::Apply(const Step& step) {
  const double argument = step.argument;
  const float factor = static_cast<float>(argument);
  const int64_t whole = Whole(argument);
  switch (step.op) {
    case Op::kAutoContrast:
      return AutoContrast(), true;
    case Op::kEqualize:
      return Equalize(), true;
    case Op::kInvert:
      return MapLevels([](int i) { return 255 - i; }), true;
    case Op::kPosterize: {
      const int mask = 256 - (1 << (8 - std::clamp<int64_t>(whole, 1, 8)));
      MapLevels([=](int i) { return i & mask; });
      return true;
    }
    case Op::kSolarize:
      return MapLevels([=](int i) { return i < whole ? i : 255 - i; }), true;
    case Op::kSolarizeAdd: {
      const int addition = static_cast<int>(std::clamp<int64_t>(whole, 0, 255));
      MapLevels([=](int i) { return i < 128 ? std::min(i + addition, 255) : i; });
      return true;
    }
    case Op::kBrightness:
      return MapLevels([=](int i) { return Blend(0.0f, i, factor); }), true;
    case Op::kContrast:
      return Contrast(factor), true;
    case Op::kColor:
      return Color(factor), true;
    case Op::kSharpness:
      return Sharpness(factor);
    case Op::kHue:
      return Hue(argument), true;
    case Op::kCutout:
      return Cutout(step), true;
    case Op::kRotate:
      return Rotate(argument);
    case Op::kShearX:
      return Affine(1, argument, 0, 0, 1, 0);
    case Op::kShearY:
      return Affine(1, 0, 0, argument, 1, 0);
    case Op::kTranslateX:
      return Affine(1, 0, argument, 0, 1, 0);
    case Op::kTranslateY:
      return Affine(1, 0, 0, 0, 1, argument);
    case Op::kIdentity:
    case Op::kUnknown:
      break;
  }
  return true;
}

}  // namespace

Op OpNamed(std::string_view name) {
  for (const auto& known : kNames) {
    if (known.name == name) return known.op;
  }
  return Op::kUnknown;
}

const char* Augment(const uint8_t* image, Size size, const Step* steps, size_t count,
                    uint8_t* result) {
  if (!IsReasonable(size)) return "the image is too large to augment";
  for (size_t i = 0; i < count; ++i) {
    const Step& step = steps[i];
    if (step.op == Op::kUnknown) return "the native operation does not know one of the steps";
    if (!(std::abs(step.argument) <= std::numeric_limits<float>::max()) ||
        !std::isfinite(step.centre_y) || !std::isfinite(step.centre_x)) {
      return "arguments and centres of augmentations must be finite";
    }
  }
  if (size.height == 0 || size.width == 0) return nullptr;
  Canvas canvas(image, size, result);
  for (size_t i = 0; i < count; ++i) {
    if (!canvas.Apply(steps[i])) return "no memory left to augment an image";
  }
  canvas.Finish();
  return nullptr;
}

}  // namespace convoy
