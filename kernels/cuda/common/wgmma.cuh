// Matrix multiply-accumulate of a warpgroup (sm_90a): D[64 x n] += A[64 x 16] B[16 x n], with A in
// registers or shared memory, B in shared memory, and fp32 sums.
//
// Protocol: wgmma_fence() before the first product that touches registers which other instructions
// wrote, the products, wgmma_commit(), wgmma_wait(). Until the wait, nothing else may touch the
// registers; own_registers() behind it keeps the compiler from moving their use before it.
#pragma once

#include <stdint.h>

#include <type_traits>

#include "kernels/cuda/common/ptx.cuh"

namespace attn::cuda {

// --- operands in shared memory -------------------------------------------------------------------
// Tiles lie in blocks of 128 bytes a row, as the copy engine writes them with its swizzle of 128
// bytes; a block begins at a multiple of 1024 bytes. Its rows come in groups of eight, 1024 bytes
// each, which lie one behind the other unless `group_bytes`, from one to the next, says otherwise.

// A descriptor: where the operand begins, and how its blocks lie. Moving on changes only the low
// word.
struct WgmmaOperand {
  uint32_t low, high;

  __device__ WgmmaOperand(uint32_t address, uint32_t leading, uint32_t stride)
      : low((address & 0x3ffff) >> 4 | leading >> 4 << 16), high(stride >> 4 | kSwizzle128) {}

  __device__ uint64_t at(uint32_t bytes) const {
    return static_cast<uint64_t>(high) << 32 | (low + (bytes >> 4));
  }

 private:
  static constexpr uint32_t kSwizzle128 = 1u << 30;
};
// Rows of the tile are rows of A or columns of B: what is summed over is contiguous. The next 16 of
// it are 32 bytes further, in the same block.
__device__ inline WgmmaOperand wgmma_rows(uint32_t block, uint32_t group_bytes = 1024) {
  return {block, 16, group_bytes};
}
// Rows of the tile are summed over; 64 columns of B a block, blocks `block_bytes` apart. The next
// 16 rows are two groups further.
__device__ inline WgmmaOperand wgmma_columns(uint32_t block, uint32_t block_bytes,
                                             uint32_t group_bytes = 1024) {
  return {block, block_bytes, group_bytes};
}

// --- order ---------------------------------------------------------------------------------------

__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending groups are in flight.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
template <int kCount>
__device__ inline void own_registers(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(r[i])::"memory");
}
template <int kCount>
__device__ inline void own_registers(uint32_t (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+r"(r[i])::"memory");
}

// --- products ------------------------------------------------------------------------------------
// A thread of the warpgroup holds of D, with g = lane / 4, t = lane % 4: d[4 j + 2 h + e] is row
// 16 warp + g + 8 h, column 8 j + 2 t + e. A in registers: rows g and g + 8 with k 2t..2t+1, then
// both with k + 8.

template <int kN>
struct Wgmma;

#define ATTN_F8(i)                                                                            \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ATTN_F16(i) ATTN_F8(i), ATTN_F8(i + 8)
#define ATTN_F32(i) ATTN_F16(i), ATTN_F16(i + 16)
#define ATTN_F64(i) ATTN_F32(i), ATTN_F32(i + 32)

#define ATTN_L8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ATTN_L16 ATTN_L8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ATTN_L24 ATTN_L16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define ATTN_L32 ATTN_L24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ATTN_L40 ATTN_L32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define ATTN_L48 ATTN_L40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define ATTN_L56 ATTN_L48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define ATTN_L64 ATTN_L56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define ATTN_L72 ATTN_L64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define ATTN_L80 ATTN_L72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define ATTN_L88 ATTN_L80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define ATTN_L96 ATTN_L88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define ATTN_L104 ATTN_L96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define ATTN_L112 ATTN_L104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define ATTN_L120 ATTN_L112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define ATTN_L128 ATTN_L120 ", %120, %121, %122, %123, %124, %125, %126, %127"

// r: n / 2 sums a thread; r1 ... r6: r + 1 ...
#define ATTN_WGMMA_SHARED(type, n, r, r1, r2, r3, r4, outs)                           \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2                               \
               ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type  \
               " {" ATTN_L##r "}, %" #r ", %" #r1 ", p, 1, 1, %" #r3 ", %" #r4 ";\n}" \
               : outs                                                                 \
               : "l"(a), "l"(b), "r"(add), "n"(kColumnsA), "n"(kColumnsB))
#define ATTN_WGMMA_REGISTERS(type, n, r, r1, r2, r3, r4, r5, r6, outs)               \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5                              \
               ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type \
               " {" ATTN_L##r "}, {%" #r ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4    \
                              ", p, 1, 1, %" #r6 ";\n}"                              \
               : outs                                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kColumnsB))

// kColumnsA, kColumnsB: the operand is wgmma_columns(), else wgmma_rows(). `add` = 0: D = A B.
#define ATTN_WGMMA(n, r, r1, r2, r3, r4, r5, r6, ...)                                         \
  template <>                                                                                 \
  struct Wgmma<n> {                                                                           \
    template <class Element, int kColumnsA, int kColumnsB>                                    \
    __device__ static void shared(float (&d)[r], uint64_t a, uint64_t b, int add) {           \
      if constexpr (std::is_same_v<Element, Bf16>) {                                          \
        ATTN_WGMMA_SHARED("bf16", n, r, r1, r2, r3, r4, ATTN_LIST(__VA_ARGS__));              \
      } else {                                                                                \
        ATTN_WGMMA_SHARED("f16", n, r, r1, r2, r3, r4, ATTN_LIST(__VA_ARGS__));               \
      }                                                                                       \
    }                                                                                         \
    template <class Element, int kColumnsB>                                                   \
    __device__ static void registers(float (&d)[r], const uint32_t *a, uint64_t b, int add) { \
      if constexpr (std::is_same_v<Element, Bf16>) {                                          \
        ATTN_WGMMA_REGISTERS("bf16", n, r, r1, r2, r3, r4, r5, r6, ATTN_LIST(__VA_ARGS__));   \
      } else {                                                                                \
        ATTN_WGMMA_REGISTERS("f16", n, r, r1, r2, r3, r4, r5, r6, ATTN_LIST(__VA_ARGS__));    \
      }                                                                                       \
    }                                                                                         \
  };
#define ATTN_LIST(...) __VA_ARGS__

ATTN_WGMMA(64, 32, 33, 34, 35, 36, 37, 38, ATTN_F32(0))
ATTN_WGMMA(80, 40, 41, 42, 43, 44, 45, 46, ATTN_F32(0), ATTN_F8(32))
ATTN_WGMMA(96, 48, 49, 50, 51, 52, 53, 54, ATTN_F32(0), ATTN_F16(32))
ATTN_WGMMA(112, 56, 57, 58, 59, 60, 61, 62, ATTN_F32(0), ATTN_F16(32), ATTN_F8(48))
ATTN_WGMMA(128, 64, 65, 66, 67, 68, 69, 70, ATTN_F64(0))
ATTN_WGMMA(144, 72, 73, 74, 75, 76, 77, 78, ATTN_F64(0), ATTN_F8(64))
ATTN_WGMMA(160, 80, 81, 82, 83, 84, 85, 86, ATTN_F64(0), ATTN_F16(64))
ATTN_WGMMA(176, 88, 89, 90, 91, 92, 93, 94, ATTN_F64(0), ATTN_F16(64), ATTN_F8(80))
ATTN_WGMMA(192, 96, 97, 98, 99, 100, 101, 102, ATTN_F64(0), ATTN_F32(64))
ATTN_WGMMA(256, 128, 129, 130, 131, 132, 133, 134, ATTN_F64(0), ATTN_F64(64))

#undef ATTN_LIST
#undef ATTN_WGMMA
#undef ATTN_WGMMA_REGISTERS
#undef ATTN_WGMMA_SHARED
#undef ATTN_L8
#undef ATTN_L16
#undef ATTN_L24
#undef ATTN_L32
#undef ATTN_L40
#undef ATTN_L48
#undef ATTN_L56
#undef ATTN_L64
#undef ATTN_L72
#undef ATTN_L80
#undef ATTN_L88
#undef ATTN_L96
#undef ATTN_L104
#undef ATTN_L112
#undef ATTN_L120
#undef ATTN_L128
#undef ATTN_F8
#undef ATTN_F16
#undef ATTN_F32
#undef ATTN_F64

}  // namespace attn::cuda
