// Runs random images and arguments through the kernels of dataloader/native. Built with the address
// and undefined-behaviour sanitizers by tests/dataloader/test_native_library.py, which runs
// `fuzz COUNT SEED`.
//
// It also checks that augmenting in place equals augmenting into another buffer, that merged steps
// equal single ones, that a flip mirrors, that crops lie inside the image, and that a rotation can be
// undone. If a check fails it exits with 1 and prints the round's number.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels.h"

namespace {

using convoy::Op;
using convoy::Size;
using convoy::Step;

// Exactly as long as needed, so that the sanitizer notices one byte beyond the end.
using Pixels = std::unique_ptr<uint8_t[]>;

struct Random {
  std::mt19937_64 bits;

  int64_t Below(int64_t limit) { return static_cast<int64_t>(bits() % limit); }
  bool OneIn(int64_t n) { return Below(n) == 0; }
  double Unit() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  double Number() {
    constexpr double special[] = {0.0,
                                  -0.0,
                                  1.0,
                                  255.0,
                                  256.0,
                                  -1.0,
                                  1e-320,
                                  16384.0,
                                  -65536.0,
                                  2147483647.0,
                                  -2147483649.0,
                                  1e18,
                                  3e38,
                                  -1e300,
                                  std::numeric_limits<double>::infinity(),
                                  -std::numeric_limits<double>::infinity(),
                                  std::numeric_limits<double>::quiet_NaN()};
    if (OneIn(12)) return special[Below(std::size(special))];
    constexpr double scales[] = {1.0, 2.0, 40.0, 300.0, 1e5};
    return (2 * Unit() - 1) * scales[Below(std::size(scales))];
  }

  Size ImageSize() {
    if (OneIn(50)) return {Below(2), Below(2)};
    if (OneIn(20)) return {1 + Below(400), 1 + Below(3)};
    if (OneIn(20)) return {1 + Below(3), 1 + Below(400)};
    return {1 + Below(40), 1 + Below(40)};
  }

  Pixels Image(Size size) {
    const int64_t count = 3 * size.height * size.width;
    Pixels pixels(new uint8_t[count]);
    const uint64_t levels = OneIn(4) ? 1 + Below(3) : 256, lowest = Below(256);
    for (int64_t i = 0; i < count; ++i) {
      pixels[i] = static_cast<uint8_t>(lowest + bits() % levels);
    }
    return pixels;
  }

  Step AnyStep() {
    Step step;
    step.op = static_cast<Op>(Below(static_cast<int>(Op::kHue) + 1));
    if (step.op == Op::kUnknown && !OneIn(20)) step.op = Op::kEqualize;
    step.argument = Number();
    step.centre_y = static_cast<float>(Unit()), step.centre_x = static_cast<float>(Unit());
    if (OneIn(30)) step.centre_x = std::numeric_limits<float>::quiet_NaN();
    if (OneIn(30)) step.centre_y = -3e38f;
    return step;
  }
};

bool Augments(Random& random) {
  const Size size = random.ImageSize();
  const size_t bytes = 3 * size.height * size.width;
  const Pixels image = random.Image(size);
  const Pixels before(new uint8_t[bytes]), apart(new uint8_t[bytes]);
  std::memcpy(before.get(), image.get(), bytes);
  std::vector<Step> steps(random.Below(5));
  for (Step& step : steps) step = random.AnyStep();

  const char* error = convoy::Augment(image.get(), size, steps.data(), steps.size(), apart.get());
  if (std::memcmp(image.get(), before.get(), bytes) != 0) return false;
  const char* again =
      convoy::Augment(image.get(), size, steps.data(), steps.size(), image.get());
  if ((error == nullptr) != (again == nullptr)) return false;
  if (error) return true;
  if (std::memcmp(image.get(), apart.get(), bytes) != 0) return false;
  for (const Step& step : steps) {
    if (convoy::Augment(before.get(), size, &step, 1, before.get())) return false;
  }
  return std::memcmp(before.get(), apart.get(), bytes) == 0;
}

bool Resizes(Random& random) {
  const Size from = random.ImageSize(), to = random.ImageSize();
  const Pixels image = random.Image(from);
  const size_t bytes = 3 * to.height * to.width;
  const Pixels plain(new uint8_t[bytes]), flipped(new uint8_t[bytes]);
  const char* error = convoy::Resize(image.get(), from, false, to, plain.get());
  const char* again = convoy::Resize(image.get(), from, true, to, flipped.get());
  const bool possible = from.height && from.width && to.height && to.width;
  if ((error == nullptr) != possible || (again == nullptr) != possible) return false;
  for (int64_t y = 0; possible && y < to.height; ++y) {
    for (int64_t x = 0; x < to.width; ++x) {
      const uint8_t* row = plain.get() + 3 * y * to.width;
      const uint8_t* mirror = flipped.get() + 3 * (y * to.width + to.width - 1 - x);
      if (std::memcmp(row + 3 * x, mirror, 3) != 0) return false;
    }
  }
  return true;
}

bool Crops(Random& random) {
  const Size size = random.OneIn(2) ? random.ImageSize()
                                    : Size{random.Below(70000) - 5, random.Below(70000) - 5};
  const int attempts = static_cast<int>(random.Below(11));
  const auto numbers = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) {
      const double number = random.OneIn(8) ? random.Number() : 1.5 * random.Unit();
      const bool fits = !(number > 3.4e38 || number < -3.4e38);
      value = fits ? static_cast<float>(number) : std::numeric_limits<float>::infinity();
    }
    return values;
  };
  const auto areas = numbers(attempts), stretch = numbers(2 * attempts);
  const auto places = numbers(2 * attempts), limits = numbers(2);
  convoy::Window window;
  const convoy::CropDraws draws{attempts, areas.data(), stretch.data(), places.data(),
                                limits.data()};
  if (convoy::CropWindow(size, draws, &window)) return true;
  return window.y >= 0 && window.x >= 0 && window.height >= 1 && window.width >= 1 &&
         window.y + window.height <= size.height && window.x + window.width <= size.width;
}

// Headers that are cut or have wrong bytes, some inside EXIF data.
bool ReadsOrientation(Random& random) {
  static const char jpeg[] =
      "\xff\xd8\xff\xe0\0\6JFIF\xff\xe1\0\x22" "Exif\0\0II*\0\x08\0\0\0\1\0"
      "\x12\x01\3\0\1\0\0\0\6\0\0\0\0\0\0\0\xff\xda\0\2";
  static const char png[] =
      "\x89PNG\r\n\x1a\n\0\0\0\2IHDR\0\0\0\0\0\0\0\0\0\x1a" "eXIfMM\0*\0\0\0\x08\0\1"
      "\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0\0\0\0\0\0\0IEND";
  const bool is_jpeg = random.OneIn(2);
  const size_t whole = is_jpeg ? sizeof(jpeg) - 1 : sizeof(png) - 1;
  const size_t size = random.OneIn(3) ? random.Below(whole + 1) : whole;
  const auto data = std::make_unique<uint8_t[]>(size);
  std::memcpy(data.get(), is_jpeg ? jpeg : png, size);
  const int changes = size == 0 ? 0 : static_cast<int>(random.Below(4));
  for (int i = 0; i < changes; ++i) {
    constexpr uint8_t special[] = {0, 1, 2, 8, 0x7f, 0x80, 0xff};
    data[random.Below(size)] = random.OneIn(2) ? special[random.Below(std::size(special))]
                                               : static_cast<uint8_t>(random.Below(256));
  }
  const int found = convoy::Orientation(data.get(), size);
  return found >= 1 && found <= 8 && (changes || size < whole || found == 6);
}

// Rotating back restores the image, and a window lies where its pixels were.
bool Turns(Random& random) {
  const Size size{1 + random.Below(20), 1 + random.Below(20)};
  const int number = 1 + static_cast<int>(random.Below(8));
  const bool swaps = convoy::SwapsSides(number);
  const Size turned{swaps ? size.width : size.height, swaps ? size.height : size.width};
  const int64_t count = 3 * size.height * size.width;
  const auto image = std::make_unique<uint8_t[]>(count);
  for (int64_t i = 0; i < count; ++i) image[i] = static_cast<uint8_t>(random.Below(256));
  const auto there = std::make_unique<uint8_t[]>(count);
  const auto back = std::make_unique<uint8_t[]>(count);
  convoy::Upright(image.get(), size, number, there.get());
  const int inverse = number == 6 ? 8 : number == 8 ? 6 : number;
  convoy::Upright(there.get(), turned, inverse, back.get());
  if (std::memcmp(image.get(), back.get(), count) != 0) return false;
  const auto y = static_cast<int32_t>(random.Below(turned.height));
  const auto x = static_cast<int32_t>(random.Below(turned.width));
  const convoy::Window place = convoy::StoredWindow({y, x, 1, 1}, size, number);
  return std::memcmp(image.get() + 3 * (place.y * size.width + place.x),
                     there.get() + 3 * (y * turned.width + x), 3) == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::fputs("usage: fuzz COUNT SEED\n", stderr), 2;
  const long rounds = std::atol(arguments[1]);
  Random random{std::mt19937_64(std::atol(arguments[2]))};
  for (long round = 0; round < rounds; ++round) {
    const auto what = random.Below(10);
    const bool good = what == 0   ? Crops(random)
                      : what == 1 ? Resizes(random)
                      : what == 2 ? ReadsOrientation(random)
                      : what == 3 ? Turns(random)
                                  : Augments(random);
    if (!good) return std::fprintf(stderr, "wrong in round %ld\n", round), 1;
  }
  std::printf("%ld rounds without an error\n", rounds);
}
