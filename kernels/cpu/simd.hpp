// The SIMD instruction set that the tuned kernels use on this machine.
#pragma once

namespace attn::cpu {

// The name of the Highway target that run-time dispatch chose, for example "AVX2". Static storage.
const char *simd_target_name();

}  // namespace attn::cpu
