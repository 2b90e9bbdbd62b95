// A thin layer over the PTX that kernels from sm_80 on use: asynchronous copies, matrix fragments,
// matrix multiply-accumulate, and the few scalar instructions without a C++ spelling.
#pragma once

#include <stdint.h>

#include "kernels/common/dtype.hpp"

namespace attn::cuda {

__device__ inline uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- asynchronous copies, global to shared -----------------------------------------------------

// Writes 16 bytes: the first `bytes` of `source`, of which no more is read, and zeros.
__device__ inline void copy_async_16(uint32_t destination, const void *source, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(destination),
               "l"(source), "r"(bytes)
               : "memory");
}
// The same with 4.
__device__ inline void copy_async_4(uint32_t destination, const void *source, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(destination), "l"(source),
               "r"(bytes)
               : "memory");
}
__device__ inline void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of this thread's groups are in flight.
template <int kPending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- matrix fragments --------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements; lanes 8n..8n+7 give the addresses of the rows of matrix n.
__device__ inline void load_matrix_x4(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}
__device__ inline void load_matrix_x4_transposed(uint32_t (&r)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row_address));
}
__device__ inline uint32_t load_shared_32(uint32_t address) {
  uint32_t value;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(address));
  return value;
}

// --- element types -----------------------------------------------------------------------------

// pack: two floats, rounded to nearest even; `low` goes to the lower half. unpack: of the lower
// half.
struct Fp16 {
  static constexpr int kBytes = 2;
  static constexpr uint32_t kOne = 0x3c00;
  __device__ static uint32_t pack(float low, float high) { return pack_fp16(low, high); }
  __device__ static float unpack(uint32_t half) { return decode_fp16(static_cast<uint16_t>(half)); }
};
struct Bf16 {
  static constexpr int kBytes = 2;
  static constexpr uint32_t kOne = 0x3f80;
  __device__ static uint32_t pack(float low, float high) { return pack_bf16(low, high); }
  __device__ static float unpack(uint32_t half) { return decode_bf16(static_cast<uint16_t>(half)); }
};
struct Fp32 {
  static constexpr int kBytes = 4;
  __device__ static float unpack(uint32_t bits) { return __uint_as_float(bits); }
};

// --- matrix multiply-accumulate ----------------------------------------------------------------
// D[16 x 8] += A[16 x k] B[k x 8]. With g = lane / 4, t = lane % 4, a thread holds of D: row g,
// columns 2t and 2t+1, then row g+8, the same columns.

// k = 16. A: row g k 2t..2t+1, row g+8 the same, then both with k + 8. B: column g, k 2t..2t+1, and
// k + 8.
template <class Element>
__device__ inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void mma_16816<Fp16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma_16816<Bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// TF32, k = 8. A: row g k t, row g+8 k t, then both with k + 4. B: column g, k t and k t + 4. The
// low 13 bits of an operand are ignored.
__device__ inline void mma_1688_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                     uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// --- scalars -----------------------------------------------------------------------------------

// 2^x with a relative error below 2^-22; 2^-inf = 0; results below 2^-126 become 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace attn::cuda
