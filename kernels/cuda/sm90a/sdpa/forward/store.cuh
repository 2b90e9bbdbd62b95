// Memory out: a warp's 16 rows of results, and their log-sum-exps.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/repeat.cuh"
#include "kernels/cuda/sm90a/sdpa/forward/softmax.cuh"

namespace attn::cuda::sm90 {

// sum + 0 x, of two elements each: NaN if x is not finite.
template <class Element>
__device__ inline uint32_t add_zero_times(uint32_t sum, uint32_t x) {
  uint32_t result;
  if constexpr (std::is_same_v<Element, Bf16>) {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(0), "r"(sum));
  } else {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(0), "r"(sum));
  }
  return result;
}

struct Store {
  const ForwardParams &p;
  const Work &w;
  int warp, lane;  // of all consumers' warps

  __device__ int first_row() const { return w.row0 + warp * 16; }
  __device__ TokenPlace place(int row) const { return {w.outer_q, w.inner_q + row}; }

  __device__ void store_lse(int row, float lse) const {
    if ((p.options & kForwardLse) == 0) return;
    static_cast<float *>(p.lse.data)[p.lse.offset(place(row), w.head)] =
        (p.options & kForwardLseBase2) != 0 ? lse * kLog2EF : lse;
  }
  // 8 columns of a row.
  __device__ void store_chunk(int row, int column, uint4 values) const {
    if (column >= p.head_dim_v) return;
    uint16_t *out = static_cast<uint16_t *>(p.out.data);
    *reinterpret_cast<uint4 *>(out + p.out.offset(place(row), w.head) + column) = values;
  }

  // Rows that see no key, and places that no query is at: 0.
  __device__ void store_nothing(int begin, int end, bool queries) const {
    for (int row = begin + warp; row < end; row += kConsumers * 4) {
      if (lane == 0) store_lse(row, queries ? finish(p, w, -infinity(), 0).lse : -infinity());
      for (int column = lane * 8; column < p.head_dim_v; column += 256) {
        store_chunk(row, column, make_uint4(0, 0, 0, 0));
      }
    }
  }

  // Of a row, four lanes have two columns each of every eight; afterwards, eight of every 32.
  __device__ void exchange(uint32_t (&x)[4]) const {
    swap_with<1>(x[0], x[1]);
    swap_with<1>(x[2], x[3]);
    swap_with<2>(x[0], x[2]);
    swap_with<2>(x[1], x[3]);
  }
  template <int kLane>
  __device__ void swap_with(uint32_t &low, uint32_t &high) const {
    const bool upper = (lane & kLane) != 0;
    const uint32_t other = __shfl_xor_sync(~0u, upper ? low : high, kLane);
    low = upper ? other : low;
    high = upper ? high : other;
  }

  __device__ void store_rows(const float (&out)[kOut], const Softmax &softmax) const {
    uint32_t again[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = softmax.sum[half];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const int row = first_row() + lane / 4 + half * 8;
      const float max = softmax.max[half];
      const Finish done = finish(p, w, max == -infinity() ? max : max * softmax.unit(), total);
      if (lane % 4 == 0 && row < w.used) store_lse(row, done.lse);
      uint16_t *to = static_cast<uint16_t *>(p.out.data) + p.out.offset(place(row), w.head);
      uint32_t check = 0;
#pragma unroll
      for (int i = 0; i < kOut / 16; i++) {
        uint32_t x[4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
          const float *pair = &out[(i * 4 + n) * 4 + half * 2];
          x[n] = Element::pack(pair[0] * done.factor, pair[1] * done.factor);
          check = add_zero_times<Element>(check, x[n]);
        }
        exchange(x);
        const int column = i * 32 + lane % 4 * 8;
        if (row < w.used && column < p.head_dim_v) {
          *reinterpret_cast<uint4 *>(to + column) = make_uint4(x[0], x[1], x[2], x[3]);
        }
      }
      // What is not finite left a NaN.
      again[half] = __ballot_sync(~0u, row < w.used && (check & 0x7fff7fff) != 0);
    }
#pragma unroll 1
    for (int row = 0; (again[0] | again[1]) != 0 && row < 16; row++) {
      const uint32_t bits = row < 8 ? again[0] : again[1];
      if ((bits >> (4 * (row % 8)) & 15) == 0) continue;
      __syncwarp();
      // By way of an address that the compiler cannot see through, lest it read all this ahead.
      const ForwardParams *params = &p;
      asm volatile("" : "+l"(params));
      repeat_row(*params, w, first_row() + row, lane);
    }
  }

  __device__ void store_padding() const {
    store_nothing(max(w.row0, w.used), min(w.row0 + kBlockM, w.places), false);
  }
  __device__ void store_without_keys() const {
    store_padding();
    store_nothing(w.row0, min(w.row0 + kBlockM, w.used), true);
  }
  __device__ void run(const float (&out)[kOut], const Softmax &softmax) const {
    store_padding();
    store_rows(out, softmax);
  }
};

}  // namespace attn::cuda::sm90
