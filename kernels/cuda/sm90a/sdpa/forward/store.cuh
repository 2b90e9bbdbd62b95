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
    static_cast<float *>(p.lse.data)[p.lse.offset(place(row), w.head)] = lse;
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
      if (lane == 0 && (p.options & kForwardLse) != 0) {
        store_lse(row, queries ? lse_of(p, w, -infinity(), 0) : -infinity());
      }
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

  // Of this thread's rows: the maximum, in log 2, and the sum over all keys.
  struct Ends {
    float max[2], sum[2];
  };
  __device__ static Ends ends_of(const Softmax &softmax) {
    Ends e = {{softmax.power(softmax.max[0]), softmax.power(softmax.max[1])},
              {softmax.sum[0], softmax.sum[1]}};
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
#pragma unroll
      for (float &sum : e.sum) sum += __shfl_xor_sync(~0u, sum, step);
    }
    return e;
  }
  __device__ void store_lses(const Ends &e) const {
    if ((p.options & kForwardLse) == 0 || (lane & 3) != 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first_row() + (lane >> 2) + half * 8;
      if (row < w.used) store_lse(row, lse_of(p, w, e.max[half], e.sum[half]));
    }
  }
  // Computes rows again where `check`, of add_zero_times, says that not all of a row is finite.
  __device__ void repeat_rows(const uint32_t (&check)[2]) const {
    uint32_t again[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first_row() + (lane >> 2) + half * 8;
      again[half] = __ballot_sync(~0u, row < w.used && (check[half] & 0x7fff7fff) != 0);
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

  // Rows, as lanes have them. `check`: see repeat_rows.
  __device__ void write(const float (&out)[kOut], const Ends &ends, uint32_t (&check)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float factor = factor_of(p, w, ends.max[half], ends.sum[half]);
      const int row = first_row() + (lane >> 2) + half * 8;
      uint16_t *to = static_cast<uint16_t *>(p.out.data) + p.out.offset(place(row), w.head);
#pragma unroll
      for (int i = 0; i < kOut / 16; i++) {
        uint32_t x[4];
#pragma unroll
        for (int n = 0; n < 4; n++) {
          const float *pair = &out[(i * 4 + n) * 4 + half * 2];
          x[n] = Element::pack(pair[0] * factor, pair[1] * factor);
          check[half] = add_zero_times<Element>(check[half], x[n]);
        }
        exchange(x);
        const int column = i * 32 + lane % 4 * 8;
        if (row < w.used && column < p.head_dim_v) {
          *reinterpret_cast<uint4 *>(to + column) = make_uint4(x[0], x[1], x[2], x[3]);
        }
      }
    }
  }
  // The same, but rows come together in shared memory, in `tile`, which is laid out as one of q.
  __device__ void write_through(const float (&out)[kOut], const Ends &ends, uint32_t (&check)[2],
                                uint32_t tile) const {
    const float factors[2] = {factor_of(p, w, ends.max[0], ends.sum[0]),
                              factor_of(p, w, ends.max[1], ends.sum[1])};
    // Lanes give the rows of matrices: the upper eight rows, the lower eight, and both again eight
    // columns further.
    const uint32_t rows = tile + (warp & 3) * 16 * 128;
    const uint32_t own = rows + (lane & 15) * 128;
    const uint32_t turned = (lane >> 4 ^ (lane & 7)) * 16;
#pragma unroll
    for (int i = 0; i < kOut / 8; i++) {  // 16 columns
      uint32_t x[4];
#pragma unroll
      for (int n = 0; n < 4; n++) {
        const float *pair = &out[i * 8 + n * 2];
        x[n] = Element::pack(pair[0] * factors[n % 2], pair[1] * factors[n % 2]);
        check[n % 2] = add_zero_times<Element>(check[n % 2], x[n]);
      }
      store_matrix_x4(own + i / 4 * 64 * 128 + (turned ^ i % 4 * 32), x);
    }
    __syncwarp();
    // Eight lanes write 128 bytes of a row, and so the warp four rows at a time.
    const int part = lane & 7;
    char *to = static_cast<char *>(p.out.data) +
               (p.out.offset(place(first_row() + (lane >> 3)), w.head) + part * 8) * 2;
    const int64_t step = p.out.inner * 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; i++, to += step) {
      const int row = i * 4 + (lane >> 3);
      const uint32_t from = rows + row * 128 + (part ^ (row & 7)) * 16;
#pragma unroll
      for (int block = 0; block < kConfig.blocks(kDv); block++) {
        if (first_row() + row < w.used && block * 64 + part * 8 < p.head_dim_v) {
          *reinterpret_cast<uint4 *>(to + block * 128) = load_shared_128(from + block * 64 * 128);
        }
      }
    }
  }

  __device__ void store_padding() const {
    store_nothing(max(w.row0, w.used), min(w.row0 + kBlockM, w.places), false);
  }
  __device__ void store_without_keys() const {
    store_padding();
    store_nothing(w.row0, min(w.row0 + kBlockM, w.used), true);
  }
  // `tile`: for write_through; else not used.
  __device__ void run(const float (&out)[kOut], const Softmax &softmax, uint32_t tile) const {
    const Ends ends = ends_of(softmax);
    uint32_t check[2] = {};
    if constexpr (kThroughQ) {
      write_through(out, ends, check, tile);
    } else {
      write(out, ends, check);
    }
    store_lses(ends);
    repeat_rows(check);
    store_padding();
    __syncwarp();
  }
};

}  // namespace attn::cuda::sm90
