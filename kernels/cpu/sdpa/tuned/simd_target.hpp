// Which of the SIMD targets that the tuned kernels are compiled for serves this machine.
//
// Highway is used header-only: its run-time library holds little but the CPU detection, and distros
// ship it as a shared object only, on which libattn.so must not depend. A kernel file is compiled
// once a target through hwy/foreach_target.h, and ATTN_SIMD_DISPATCH picks the copy to run.
//
// Include this before any Highway header.
#pragma once

#include <cstdint>

// Compiled: AVX-512 (F, BW, CD, DQ, VL), AVX2 with FMA and F16C, SSE4.2, NEON, and plain C++ for
// the rest. Not compiled: what adds size but no speed here, and targets whose vectors have no
// compile-time size (the register tiles are arrays of vectors).
#define HWY_DISABLED_TARGETS \
  (HWY_AVX3_DL | HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

namespace attn::cpu::tuned {

enum class SimdTarget : int32_t { kBaseline = 0, kSse4 = 1, kAvx2 = 2, kAvx512 = 3 };

// The best target of this machine, detected once. The environment variable ATTN_CPU_TARGET
// (baseline, sse4, avx2, avx512) lowers it, never raises it: for tests and comparisons.
SimdTarget simd_target();
// Its name, for people: "AVX-512", "AVX2", "SSE4", or "baseline" (plain C++, or NEON on Arm).
const char *simd_target_name();

// The best of a function's copies that was compiled (not null) and that this machine runs.
template <class Function>
Function pick_target(Function avx512, Function avx2, Function sse4, Function baseline) {
  const SimdTarget best = simd_target();
  if (best >= SimdTarget::kAvx512 && avx512 != nullptr) return avx512;
  if (best >= SimdTarget::kAvx2 && avx2 != nullptr) return avx2;
  if (best >= SimdTarget::kSse4 && sse4 != nullptr) return sse4;
  return baseline;
}

}  // namespace attn::cpu::tuned

// A pointer to the copy of `function` for this machine. For use in the part of a kernel file that
// is compiled once (HWY_ONCE), in the namespace that holds the targets' namespaces.
#define ATTN_SIMD_DISPATCH(function)                                                   \
  ::attn::cpu::tuned::pick_target<decltype(&HWY_STATIC_DISPATCH(function))>(           \
      HWY_CHOOSE_AVX3(function), HWY_CHOOSE_AVX2(function), HWY_CHOOSE_SSE4(function), \
      &HWY_STATIC_DISPATCH(function))
