// The two matrix products of attention on one warp's rows: S = Q K^T and O += P V.
// A warp has kTiles tiles of 16 rows; what it loads of K and V serves them all.
#pragma once

#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile.cuh"

namespace attn::cuda {

// 16-bit elements, m16n8k16. kPrecise plays no part.
template <class Element, bool kPrecise>
struct Gemm {
  // s[tile][key / 8][.] = Q K^T; `q` and `k` are the shared addresses of the warp's first row and
  // of the tile of keys.
  template <int kTiles, int kKeys, int kDim>
  __device__ static void scores(float (&s)[kTiles][kKeys / 8][4], uint32_t q, uint32_t k,
                                uint32_t lane) {
    using Rows = Tile<kDim * 2>;
    const uint32_t q_first = q + Rows::at(lane & 15, lane >> 4);
    const uint32_t k_first = k + Rows::at((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
#pragma unroll
    for (int step = 0; step < kDim / 16; step++) {
      const uint32_t q_step = Rows::moved(q_first, step * 2);
      const uint32_t k_step = Rows::moved(k_first, step * 2);
      uint32_t a[kTiles][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        load_matrix_x4(a[tile], q_step + Rows::rows(tile * 16));
      }
#pragma unroll
      for (int pair = 0; pair < kKeys / 16; pair++) {
        uint32_t b[4];
        load_matrix_x4(b, k_step + Rows::rows(pair * 16));
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
          mma_16816<Element>(s[tile][2 * pair], a[tile], b[0], b[1]);
          mma_16816<Element>(s[tile][2 * pair + 1], a[tile], b[2], b[3]);
        }
      }
    }
  }

  // o[tile][dim / 8][.] += P V. kSums: P is taken as a sum of `terms` roundings; else terms is 1.
  template <int kTiles, int kKeys, int kDim, bool kSums>
  __device__ static void values(float (&o)[kTiles][kDim / 8][4], float (&p)[kTiles][kKeys / 8][4],
                                uint32_t v, uint32_t lane, int terms) {
    using Rows = Tile<kDim * 2>;
    const uint32_t v_first = v + Rows::at(lane & 15, lane >> 4);
#pragma unroll 1
    for (int term = 0; term < terms; term++) {
#pragma unroll
      for (int step = 0; step < kKeys / 16; step++) {
        uint32_t a[kTiles][4];
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
          for (int half = 0; half < 4; half++) {
            float *x = &p[tile][2 * step + half / 2][half % 2 * 2];
            a[tile][half] = Element::pack(x[0], x[1]);
          }
        }
#pragma unroll
        for (int pair = 0; pair < kDim / 16; pair++) {
          uint32_t b[4];
          load_matrix_x4_transposed(b, Rows::moved(v_first, pair * 2) + Rows::rows(step * 16));
#pragma unroll
          for (int tile = 0; tile < kTiles; tile++) {
            mma_16816<Element>(o[tile][2 * pair], a[tile], b[0], b[1]);
            mma_16816<Element>(o[tile][2 * pair + 1], a[tile], b[2], b[3]);
          }
        }
      }
      if (kSums && term + 1 < terms) {
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
          for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
              const uint32_t rounded = Element::pack(p[tile][n][e], p[tile][n][e + 1]);
              p[tile][n][e] -= Element::unpack(rounded & 0xffff);
              p[tile][n][e + 1] -= Element::unpack(rounded >> 16);
            }
          }
        }
      }
    }
  }
};

// fp32 on TF32 tensor cores, m16n8k8. kPrecise: each operand is a sum of two TF32 numbers, and the
// three products that matter are added up, so that the result is as good as fp32's.
template <bool kPrecise>
struct Gemm<Fp32, kPrecise> {
  // x = high + low (+ what 22 bits cannot hold).
  __device__ static void split(uint32_t x, uint32_t &high, uint32_t &low) {
    high = (x + 0x1000u) & 0xffffe000u;
    low = __float_as_uint(__uint_as_float(x) - __uint_as_float(high));
    // A NaN or an infinity would not survive the rounding.
    if (!kPrecise) low = 0;
  }
  struct A {
    uint32_t high[4], low[4];
  };
  __device__ static A split(const uint32_t (&x)[4]) {
    A a;
#pragma unroll
    for (int i = 0; i < 4; i++) split(x[i], a.high[i], a.low[i]);
    return a;
  }
  // d += a b, the small products first.
  __device__ static void mma(float (&d)[4], const A &a, const uint32_t (&b)[4]) {
    if (kPrecise) {
      mma_1688_tf32(d, a.low, b[0], b[1]);
      mma_1688_tf32(d, a.high, b[2], b[3]);
    }
    mma_1688_tf32(d, a.high, b[0], b[1]);
  }
  // {b0 high, b1 high, b0 low, b1 low}
  __device__ static void split_b(uint32_t b0, uint32_t b1, uint32_t (&b)[4]) {
    split(b0, b[0], b[2]);
    split(b1, b[1], b[3]);
  }

  template <int kTiles, int kKeys, int kDim>
  __device__ static void scores(float (&s)[kTiles][kKeys / 8][4], uint32_t q, uint32_t k,
                                uint32_t lane) {
    using Rows = Tile<kDim * 4>;
    const uint32_t q_first = q + Rows::at(lane & 15, lane >> 4);
    const uint32_t k_first = k + Rows::at(lane & 7, lane >> 3);
#pragma unroll
    for (int step = 0; step < kDim / 16; step++) {
      A a[2][kTiles];
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
          uint32_t x[4];
          load_matrix_x4(x, Rows::moved(q_first, step * 4 + half * 2) + Rows::rows(tile * 16));
          a[half][tile] = split(x);
        }
      }
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++) {
        uint32_t x[4];  // four chunks of 4: two steps of 8
        load_matrix_x4(x, Rows::moved(k_first, step * 4) + Rows::rows(n * 8));
#pragma unroll
        for (int half = 0; half < 2; half++) {
          uint32_t b[4];
          split_b(x[2 * half], x[2 * half + 1], b);
#pragma unroll
          for (int tile = 0; tile < kTiles; tile++) mma(s[tile][n], a[half][tile], b);
        }
      }
    }
  }

  // The order of keys within a step of 8 is free: k index t stands for key 2t, t + 4 for 2t + 1, so
  // that the scores' registers are the operand's.
  template <int kTiles, int kKeys, int kDim, bool kSums>
  __device__ static void values(float (&o)[kTiles][kDim / 8][4], float (&p)[kTiles][kKeys / 8][4],
                                uint32_t v, uint32_t lane, int) {
    using Rows = Tile<kDim * 4>;
    const uint32_t column = lane >> 2, word = (column & 3) * 4;
    const uint32_t even = v + Rows::at((lane & 3) * 2, column >> 2) + word;
    const uint32_t odd = v + Rows::at((lane & 3) * 2 + 1, column >> 2) + word;
#pragma unroll
    for (int step = 0; step < kKeys / 8; step++) {
      A a[kTiles];
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        const uint32_t x[4] = {
            __float_as_uint(p[tile][step][0]), __float_as_uint(p[tile][step][2]),
            __float_as_uint(p[tile][step][1]), __float_as_uint(p[tile][step][3])};
        a[tile] = split(x);
      }
#pragma unroll
      for (int n = 0; n < kDim / 8; n++) {
        uint32_t b[4];
        split_b(load_shared_32(Rows::moved(even, n * 2) + Rows::rows(step * 8)),
                load_shared_32(Rows::moved(odd, n * 2) + Rows::rows(step * 8)), b);
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) mma(o[tile][n], a[tile], b);
      }
    }
  }
};

}  // namespace attn::cuda
