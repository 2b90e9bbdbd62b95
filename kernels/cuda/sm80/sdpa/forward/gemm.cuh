// The two matrix products of attention on one warp's rows: S = Q K^T and O += P V.
// A warp has kTiles tiles of 16 rows; what it loads of K and V serves them all.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/variant.cuh"

namespace attn::cuda {

// What a warp keeps of Q in registers, and so need not load for each tile of keys: the first kSteps
// steps of 16 columns.
template <int kSteps>
struct HeldQ {
  uint32_t a[kSteps > 0 ? kSteps : 1][kTiles][4];
};

// The addresses that a lane gives for the fragments of K and V.
template <int kDim>
struct KeyFragments {
  using Rows = KeyTile<kDim * kBytes>;
  // {keys 0-7, the next eight} x {this chunk, the next}, chunks first.
  __device__ static uint32_t k(uint32_t tile, uint32_t lane) {
    return tile + Rows::at(Rows::fragment_row(lane & 7) + (lane >> 4) * 2, lane >> 3 & 1);
  }
  // The same, keys first.
  __device__ static uint32_t v(uint32_t tile, uint32_t lane) {
    return tile + Rows::at(Rows::fragment_row(lane & 7) + (lane >> 3 & 1) * 2, lane >> 4);
  }
};

// 16-bit elements, m16n8k16. kPrecise plays no part.
template <class Element, bool kPrecise>
struct Gemm {
  static constexpr uint32_t kOnes = Element::kOne | Element::kOne << 16;

  template <int kSteps>
  __device__ static void hold(HeldQ<kSteps> &held, uint32_t q, uint32_t lane) {
    using Rows = QueryTile<kDqk * 2>;
    const uint32_t first = q + Rows::at(lane & 15, lane >> 4);
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        load_matrix_x4(held.a[step][tile], Rows::moved(first, step * 2) + Rows::rows(tile * 16));
      }
    }
  }

  // s += Q K^T; `q` and `k` are the shared addresses of the warp's first row and of the tile of
  // keys.
  template <int kSteps>
  __device__ static void scores(float (&s)[kTiles][kBlockN / 8][4], const HeldQ<kSteps> &held,
                                uint32_t q, uint32_t k, uint32_t lane) {
    using Rows = QueryTile<kDqk * 2>;
    using Keys = KeyTile<kDqk * 2>;
    const uint32_t q_first = q + Rows::at(lane & 15, lane >> 4);
    const uint32_t k_first = KeyFragments<kDqk>::k(k, lane);
#pragma unroll
    for (int step = 0; step < kDqk / 16; step++) {
      const uint32_t k_step = Keys::moved(k_first, step * 2);
      uint32_t a[kTiles][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        if (step < kSteps) {
#pragma unroll
          for (int i = 0; i < 4; i++) a[tile][i] = held.a[step < kSteps ? step : 0][tile][i];
        } else {
          load_matrix_x4(a[tile], Rows::moved(q_first, step * 2) + Rows::rows(tile * 16));
        }
      }
#pragma unroll
      for (int pair = 0; pair < kBlockN / 16; pair++) {
        uint32_t b[4];
        load_matrix_x4(b, k_step + Keys::rows(pair * 4));
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
          mma_16816<Element>(s[tile][2 * pair], a[tile], b[0], b[1]);
          mma_16816<Element>(s[tile][2 * pair + 1], a[tile], b[2], b[3]);
        }
      }
    }
  }

  // out += P V, and with kSums, sums += P 1 (see Running). P is taken as a sum of `terms`
  // roundings.
  template <bool kSums>
  __device__ static void values(float (&out)[kTiles][kDv / 8][4], float (&sums)[4],
                                float (&p)[kTiles][kBlockN / 8][4], uint32_t v, uint32_t lane,
                                int terms) {
    using Keys = KeyTile<kDv * 2>;
    const uint32_t v_first = KeyFragments<kDv>::v(v, lane);
    // Only the general kind has more than one. A number that the compiler does not know keeps it
    // from moving this into what comes before.
    const int count = kGeneral || !kMixes ? terms : 1;
#pragma unroll 1
    for (int term = 0; term < count; term++) {
#pragma unroll
      for (int step = 0; step < kBlockN / 16; step++) {
        uint32_t a[kTiles][4];
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
          for (int half = 0; half < 4; half++) {
            float *x = &p[tile][2 * step + half / 2][half % 2 * 2];
            a[tile][half] = Element::pack(x[0], x[1]);
          }
          if (kSums) {
            const uint32_t ones = (lane >> 2) % 2 == tile ? kOnes : 0;
            mma_16816<Element>(sums, a[tile], ones, ones);
          }
        }
#pragma unroll
        for (int pair = 0; pair < kDv / 16; pair++) {
          uint32_t b[4];
          load_matrix_x4_transposed(b, Keys::moved(v_first, pair * 2) + Keys::rows(step * 4));
#pragma unroll
          for (int tile = 0; tile < kTiles; tile++) {
            mma_16816<Element>(out[tile][2 * pair], a[tile], b[0], b[1]);
            mma_16816<Element>(out[tile][2 * pair + 1], a[tile], b[2], b[3]);
          }
        }
      }
      if constexpr (!kGeneral) break;
      if (term + 1 < terms) {
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
          for (int n = 0; n < kBlockN / 8; n++) {
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
  static constexpr int kGroup = 4;  // columns of 8 that are in work at a time

  // x = high + low, high with the 11 significant bits that tensor cores read; of low they read 11,
  // too. Cut off, low has two bits more than that and the product of two lows, which is left out,
  // is up to 2^-20 of the product of two highs: on the average over a dot product, 2^-21. The
  // general kind, which also serves the shortest dot products, rounds. (Dekker, 1971:
  // multiplications, because integer operations are slower. Where x is so large that they overflow,
  // the result is not finite, and the row is computed again.)
  __device__ static void split(uint32_t bits, uint32_t &high, uint32_t &low) {
    const float x = __uint_as_float(bits);
    if (!kPrecise) {
      high = bits + 0x1000u;  // rounded
      low = 0;
    } else if (kGeneral) {
      const float rounded = fmaf(x, -8192.0f, fmaf(x, 8192.0f, x));
      high = __float_as_uint(rounded);
      low = __float_as_uint(x - rounded);
    } else {
      high = bits & 0xffffe000u;
      low = __float_as_uint(x - __uint_as_float(high));
    }
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
  // d[n][tile] += a[tile] b[n], the small products first. Product by product, so that neighbouring
  // instructions do not wait for one another's sums. d(n, tile) is the accumulator.
  template <int kCount, class D>
  __device__ static void mma(const D &d, const A (&a)[kTiles], const uint32_t (&b)[kCount][4]) {
#pragma unroll
    for (int product = kPrecise ? 0 : 2; product < 3; product++) {
#pragma unroll
      for (int n = 0; n < kCount; n++) {
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
          const uint32_t *low_or_high = &b[n][product == 1 ? 2 : 0];
          mma_1688_tf32(d(n, tile), product == 0 ? a[tile].low : a[tile].high, low_or_high[0],
                        low_or_high[1]);
        }
      }
    }
  }
  // {b0 high, b1 high, b0 low, b1 low}
  __device__ static void split_b(uint32_t b0, uint32_t b1, uint32_t (&b)[4]) {
    split(b0, b[0], b[2]);
    split(b1, b[1], b[3]);
  }

  template <int kSteps>
  __device__ static void hold(HeldQ<kSteps> &, uint32_t, uint32_t) {
    static_assert(kSteps == 0);
  }

  template <int kSteps>
  __device__ static void scores(float (&s)[kTiles][kBlockN / 8][4], const HeldQ<kSteps> &,
                                uint32_t q, uint32_t k, uint32_t lane) {
    using Rows = QueryTile<kDqk * 4>;
    using Keys = KeyTile<kDqk * 4>;
    const uint32_t q_first = q + Rows::at(lane & 15, lane >> 4);
    const uint32_t k_first = k + Keys::at(Keys::fragment_row(lane & 7), lane >> 3);
#pragma unroll
    for (int step = 0; step < kDqk / 16; step++) {
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
      for (int n = 0; n < kBlockN / 8; n += kGroup) {
        uint32_t x[kGroup][4];  // four chunks of 4: two steps of 8
#pragma unroll
        for (int i = 0; i < kGroup; i++) {
          load_matrix_x4(x[i], Keys::moved(k_first, step * 4) + Keys::rows((n + i) * 2));
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
          uint32_t b[kGroup][4];
#pragma unroll
          for (int i = 0; i < kGroup; i++) split_b(x[i][2 * half], x[i][2 * half + 1], b[i]);
          mma([&](int i, int tile) -> float(&)[4] { return s[tile][n + i]; }, a[half], b);
        }
      }
    }
  }

  // The order of keys within a step of 8 is free: k index t stands for a thread's first key, t + 4
  // for its second, so that the scores' registers are the operand's.
  template <bool kSums>
  __device__ static void values(float (&out)[kTiles][kDv / 8][4], float (&)[4],
                                float (&p)[kTiles][kBlockN / 8][4], uint32_t v, uint32_t lane,
                                int) {
    static_assert(!kSums);
    using Keys = KeyTile<kDv * 4>;
    const uint32_t column = lane >> 2, word = (column & 3) * 4;
    const uint32_t row = Keys::fragment_row((lane & 3) * 2);
    const uint32_t even = v + Keys::at(row, column >> 2) + word;
    const uint32_t odd = v + Keys::at(row + 1, column >> 2) + word;
#pragma unroll
    for (int step = 0; step < kBlockN / 8; step++) {
      A a[kTiles];
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        const uint32_t x[4] = {__float_as_uint(p[tile][step][0]), __float_as_uint(p[tile][step][2]),
                               __float_as_uint(p[tile][step][1]),
                               __float_as_uint(p[tile][step][3])};
        a[tile] = split(x);
      }
#pragma unroll
      for (int n = 0; n < kDv / 8; n += kGroup) {
        uint32_t b[kGroup][4];
#pragma unroll
        for (int i = 0; i < kGroup; i++) {
          split_b(load_shared_32(Keys::moved(even, (n + i) * 2) + Keys::rows(step * 2)),
                  load_shared_32(Keys::moved(odd, (n + i) * 2) + Keys::rows(step * 2)), b[i]);
        }
        mma([&](int i, int tile) -> float(&)[4] { return out[tile][n + i]; }, a, b);
      }
    }
  }
};

}  // namespace attn::cuda
