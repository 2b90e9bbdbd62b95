// What kernels that all GPU backends share need of their device: indices, a warp's exchange,
// barriers. Indices are those of the x axis; the others are not used.
//
// A warp is 32 lanes everywhere. AMD's waves of 64 hold two of them, which may diverge: whatever
// goes across a warp stays in its half of the wave.
#pragma once

#include <stdint.h>

#include "kernels/common/target.hpp"

namespace attn::gpu {

#if defined(__CUDACC__)

inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline unsigned thread_index() {
  return threadIdx.x;
}
__device__ inline unsigned block_index() {
  return blockIdx.x;
}
__device__ inline unsigned grid_size() {
  return gridDim.x;
}
__device__ inline void sync_block() {
  __syncthreads();
}
__device__ inline void sync_warp() {
  __syncwarp();
}
__device__ inline unsigned ballot(bool x) {
  return __ballot_sync(kAllLanes, x);
}
__device__ inline bool any(bool x) {
  return __any_sync(kAllLanes, x) != 0;
}
__device__ inline float shuffle(float x, int lane) {
  return __shfl_sync(kAllLanes, x, lane);
}
__device__ inline float shuffle_xor(float x, int mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
__device__ inline void atomic_or(uint32_t *to, uint32_t bits) {
  atomicOr(to, bits);
}
__device__ inline int population(unsigned lanes) {
  return __popc(lanes);
}

#elif defined(__HIP__)

#if defined(__GFX9__)
inline constexpr unsigned kWave = 64;
#else
inline constexpr unsigned kWave = 32;
#endif

__device__ inline unsigned thread_index() {
  return __builtin_amdgcn_workitem_id_x();
}
__device__ inline unsigned block_index() {
  return __builtin_amdgcn_workgroup_id_x();
}
// The first of the hidden arguments, as of code object version 5, is the number of blocks.
__device__ inline unsigned grid_size() {
  return *(const __attribute__((address_space(4))) uint32_t *)__builtin_amdgcn_implicitarg_ptr();
}
// A kernel's parameter where it lies. By its name, it would be copied to each thread's memory.
template <class T>
__device__ inline const T &parameters() {
  return *(const T *)__builtin_amdgcn_kernarg_segment_ptr();
}
__device__ inline void sync_block() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
// Lanes of a wave are in step: what has to be kept in order is the compiler's.
__device__ inline void sync_warp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
__device__ inline unsigned wave_lane() {
  const unsigned low = __builtin_amdgcn_mbcnt_lo(~0u, 0);
  return kWave == 64 ? __builtin_amdgcn_mbcnt_hi(~0u, low) : low;
}
__device__ inline unsigned ballot(bool x) {
#if defined(__GFX9__)
  return static_cast<unsigned>(__builtin_amdgcn_ballot_w64(x) >> (wave_lane() & 32u));
#else
  return __builtin_amdgcn_ballot_w32(x);
#endif
}
__device__ inline bool any(bool x) {
  return ballot(x) != 0;
}
__device__ inline float shuffle_in_wave(float x, unsigned lane) {
  const int moved =
      __builtin_amdgcn_ds_bpermute(static_cast<int>(lane * 4), __builtin_bit_cast(int, x));
  return __builtin_bit_cast(float, moved);
}
__device__ inline float shuffle(float x, int lane) {
  return shuffle_in_wave(x, (wave_lane() & 32u) + static_cast<unsigned>(lane));
}
__device__ inline float shuffle_xor(float x, int mask) {
  return shuffle_in_wave(x, wave_lane() ^ static_cast<unsigned>(mask));
}
__device__ inline void atomic_or(uint32_t *to, uint32_t bits) {
  __hip_atomic_fetch_or(to, bits, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
}
__device__ inline int population(unsigned lanes) {
  return __builtin_popcount(lanes);
}

#endif

// How many lanes before this one are in `lanes`.
__device__ inline int rank_in(unsigned lanes, int lane) {
  return population(lanes & ((1u << lane) - 1));
}

}  // namespace attn::gpu
