#include "kernels/cpu/sdpa/tuned/simd_target.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace attn::cpu::tuned {
namespace {

#if defined(__x86_64__) || defined(__i386__)
// clang 14 does not know "f16c" as a name for __builtin_cpu_supports. The registers that it works
// on are those of avx2, which that function checks.
bool supports_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
}
#endif

SimdTarget detect() {
#if defined(__x86_64__) || defined(__i386__)
  // Also checks that the operating system saves the registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    supports_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return SimdTarget::kAvx512;
  if (avx2) return SimdTarget::kAvx2;
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") &&
      __builtin_cpu_supports("aes")) {
    return SimdTarget::kSse4;
  }
#endif
  return SimdTarget::kBaseline;
}

SimdTarget detect_with_cap() {
  static constexpr struct {
    const char *name;
    SimdTarget target;
  } kNames[] = {{"baseline", SimdTarget::kBaseline},
                {"sse4", SimdTarget::kSse4},
                {"avx2", SimdTarget::kAvx2},
                {"avx512", SimdTarget::kAvx512}};
  const SimdTarget best = detect();
  if (const char *cap = std::getenv("ATTN_CPU_TARGET")) {
    for (const auto &row : kNames) {
      if (std::strcmp(cap, row.name) == 0) return std::min(best, row.target);
    }
  }
  return best;
}

}  // namespace

SimdTarget simd_target() {
  static const SimdTarget target = detect_with_cap();
  return target;
}

const char *simd_target_name() {
  static constexpr const char *kNames[] = {"baseline", "SSE4", "AVX2", "AVX-512"};
  return kNames[static_cast<int>(simd_target())];
}

}  // namespace attn::cpu::tuned
