// D += A B by each wrapper of kernels/cuda/common/wgmma.cuh, for tests/gpu/test_ptx.py. A is 64 x
// 128 and B 128 x n, so that operands have several blocks, and all strides of their descriptors
// count.
#include "kernels/cuda/common/tma.cuh"
#include "kernels/cuda/common/wgmma.cuh"

namespace attn::cuda {

using fp16 = Fp16;
using bf16 = Bf16;
using Element = ATTN_ELEMENT;

inline constexpr int kK = 128;

enum class From { rows, columns, registers };

__device__ inline uint16_t *memory() {
  extern __shared__ __align__(1024) uint16_t halves[];
  return halves;
}

// Where element (r, c) of a tile is: blocks of 64 columns, swizzled as the copy engine does it.
__device__ inline int place(int rows, int r, int c) {
  return c / 64 * rows * 64 + r * 64 + ((c % 64 / 8) ^ (r % 8)) * 8 + c % 8;
}

// All matrices are given row by row. `first`: whether the first product adds to what `d` holds.
template <int kN, From kA, From kB>
__device__ inline void multiply(const uint16_t *a, const uint16_t *b, float *d, int first) {
  uint16_t *const tile_a = memory(), *const tile_b = memory() + 64 * kK;
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < 64 * kK; i += 128) {
    const int m = i / kK, k = i % kK;
    tile_a[kA == From::columns ? place(kK, k, m) : place(64, m, k)] = a[i];
  }
  for (int i = t; i < kK * kN; i += 128) {
    const int k = i / kN, n = i % kN;
    tile_b[kB == From::columns ? place(kK, k, n) : place(kN, n, k)] = b[i];
  }
  async_fence();
  __syncthreads();
  const int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
  float sums[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; i++) {
    sums[i] = d[(row + i / 2 % 2 * 8) * kN + i / 4 * 8 + column + i % 2];
  }
  uint32_t fragments[kK / 16 * 4];
  if constexpr (kA == From::registers) {
#pragma unroll
    for (int i = 0; i < kK / 16 * 4; i++) {
      const int k = i / 4 * 16 + i / 2 % 2 * 8 + column;
      fragments[i] = *reinterpret_cast<const uint32_t *>(a + (row + i % 2 * 8) * kK + k);
    }
    own_registers(fragments);
  }
  const uint32_t at_a = __shfl_sync(~0u, shared_address(tile_a), 0);
  const uint32_t at_b = __shfl_sync(~0u, shared_address(tile_b), 0);
  const WgmmaOperand left = kA == From::columns ? wgmma_columns(at_a, kK * 128) : wgmma_rows(at_a);
  const WgmmaOperand right = kB == From::columns ? wgmma_columns(at_b, kK * 128) : wgmma_rows(at_b);
  const auto step_of = [](From from, int rows, int step) {
    return from == From::columns ? step * 2048 : step / 4 * rows * 128 + step % 4 * 32;
  };
  own_registers(sums);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kK / 16; step++) {
    const int add = step > 0 ? 1 : first;
    const uint64_t b_at = right.at(step_of(kB, kN, step));
    if constexpr (kA == From::registers) {
      Wgmma<kN>::template registers<Element, kB == From::columns>(sums, fragments + step * 4, b_at,
                                                                  add);
    } else {
      Wgmma<kN>::template shared<Element, kA == From::columns, kB == From::columns>(
          sums, left.at(step_of(kA, 64, step)), b_at, add);
    }
    if (step == 3) wgmma_commit();  // two groups
  }
  wgmma_commit();
  wgmma_wait<1>();
  wgmma_wait<0>();
  own_registers(sums);
#pragma unroll
  for (int i = 0; i < kN / 2; i++) {
    d[(row + i / 2 % 2 * 8) * kN + i / 4 * 8 + column + i % 2] = sums[i];
  }
}

}  // namespace attn::cuda

#define ATTN_KERNEL(n, a, b)                                                                    \
  extern "C" __global__ void __launch_bounds__(128, 1)                                          \
      wgmma_##n##_##a##_##b(const uint16_t *left, const uint16_t *right, float *d, int first) { \
    using attn::cuda::From;                                                                     \
    attn::cuda::multiply<n, From::a, From::b>(left, right, d, first);                           \
  }
#define ATTN_KERNELS(n)            \
  ATTN_KERNEL(n, rows, rows)       \
  ATTN_KERNEL(n, rows, columns)    \
  ATTN_KERNEL(n, columns, rows)    \
  ATTN_KERNEL(n, columns, columns) \
  ATTN_KERNEL(n, registers, rows)  \
  ATTN_KERNEL(n, registers, columns)

ATTN_KERNELS(64)
ATTN_KERNELS(80)
ATTN_KERNELS(96)
ATTN_KERNELS(112)
ATTN_KERNELS(128)
ATTN_KERNELS(144)
ATTN_KERNELS(160)
ATTN_KERNELS(176)
ATTN_KERNELS(192)
ATTN_KERNELS(256)
