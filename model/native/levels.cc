// Chooses the build of level.cc for this processor.

#include <algorithm>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "kernels.h"

namespace convoy {

#define CONVOY_DECLARE(level)              \
  namespace level {                        \
  extern const Kernels<float> floats;      \
  extern const Kernels<BFloat16> halves;   \
  }
CONVOY_DECLARE(baseline)
#ifdef __x86_64__
CONVOY_DECLARE(v3)
CONVOY_DECLARE(v4)
CONVOY_DECLARE(v4bf16)
#endif

namespace {

int Best() {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4 && __builtin_cpu_supports("avx512bf16")) return 5;
  return v4 ? 4 : v3 ? 3 : 0;
#else
  return 0;
#endif
}

int& Chosen() {
  static int level = Best();
  return level;
}

}  // namespace

template <>
const Kernels<float>& BestKernels<float>() {
#ifdef __x86_64__
  if (Chosen() == 5) return v4bf16::floats;
  if (Chosen() == 4) return v4::floats;
  if (Chosen() == 3) return v3::floats;
#endif
  return baseline::floats;
}

template <>
const Kernels<BFloat16>& BestKernels<BFloat16>() {
#ifdef __x86_64__
  if (Chosen() == 5) return v4bf16::halves;
  if (Chosen() == 4) return v4::halves;
  if (Chosen() == 3) return v3::halves;
#endif
  return baseline::halves;
}

void LimitLevel(int level) { Chosen() = std::min(level < 3 ? 0 : level, Best()); }

bool HasTiles() {
#ifdef __x86_64__
  // Compilers before GCC 11 have no name for this feature.
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
#else
  return false;
#endif
}

const char* Level() {
  switch (Chosen()) {
    case 5:
      return "x86-64-v4 with bfloat16";
    case 4:
      return "x86-64-v4";
    case 3:
      return "x86-64-v3";
  }
  return "baseline";
}

}  // namespace convoy
