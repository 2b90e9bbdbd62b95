// Additive bias. Its own kind takes it through shared memory, a tile at a time beside k, and begins
// the scores' sums with it; the general kind adds what it reads where it is.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"
#include "kernels/cuda/sm80/sdpa/forward/rows.cuh"

namespace attn::cuda {

__device__ inline int64_t Forward::bias_row(Row row) const {
  return p.bias.offset(query_place(row.i), row.head);
}

template <int kSize>  // of an element, in bytes
struct BiasTile {
  // (Other kinds stage none, and may have tiles that this could not swizzle.)
  using Rows = QueryTile<(kKind == ForwardKind::bias ? kBlockN : 64) * kSize>;
  static constexpr int kPerChunk = 16 / kSize;

  __device__ static uint32_t start() { return Forward::q_tile() + kConfig.bias_at(); }

  __device__ static void load(const Forward &f, const Forward::Block &b, int j0) {
    const int bytes = (b.key_end - j0) * kSize;
    const char *data = static_cast<const char *>(f.p.bias.data) + int64_t{j0} * kSize;
    if (f.p.pack.divisor == 1) {
      copy_rows<Rows, kBlockM, false>(
          start(), bytes,
          Walk<Rows>(data + b.bias_base * kSize, f.p.bias.inner * kSize, b.used - b.row0));
    } else {
      const TokenPlace first = b.sequence.first_q;
      copy_rows<Rows, kBlockM, false>(start(), bytes, [&](int, int local) {
        uint32_t head = static_cast<uint32_t>(b.row0 + local);
        const int i = static_cast<int>(f.p.pack.divide(head));
        const int64_t at =
            f.p.bias.offset({first.outer, first.inner + i}, b.head0 + static_cast<int>(head));
        return Source{data + at * kSize, b.row0 + local < b.used};
      });
    }
  }
  // Calls take(n, two words) for the own keys of a row, 8 bytes at a time.
  template <class Take>
  __device__ static void read(int local, const Take &take) {
    const int first = Forward::own_key() / kPerChunk;
    const char *tile = Forward::smem() + kConfig.bias_at();
#pragma unroll
    for (int n = 0; n < kOwnKeys / kPerChunk; n++) {
      const uint2 *chunk = reinterpret_cast<const uint2 *>(tile + Rows::at(local, first + n));
      take(2 * n, chunk[0]);
      take(2 * n + 1, chunk[1]);
    }
  }
};

__device__ inline float2 unpack_pair(int32_t dtype, uint32_t word) {
  return dtype == ATTN_DTYPE_BF16
             ? make_float2(Bf16::unpack(word & 0xffff), Bf16::unpack(word >> 16))
             : make_float2(Fp16::unpack(word & 0xffff), Fp16::unpack(word >> 16));
}

// Asks for the biases of the tile at j0.
__device__ inline void Forward::load_bias(const Block &b, int j0) const {
  if (p.bias.dtype == ATTN_DTYPE_FP32) {
    BiasTile<4>::load(*this, b, j0);
  } else {
    BiasTile<2>::load(*this, b, j0);
  }
}

// A row's scores before the products: the biases, in units of 1 / softmax_scale.
__device__ inline void Forward::begin_with_bias(float (&s)[kBlockN / 8][4], int half,
                                                int local) const {
  const auto put = [&](int n, float2 pair) {
    s[n][half * 2] = pair.x * p.scale_inverse;
    s[n][half * 2 + 1] = pair.y * p.scale_inverse;
  };
  if (p.bias.dtype == ATTN_DTYPE_FP32) {
    BiasTile<4>::read(local, [&](int n, uint2 words) {
      put(n, make_float2(__uint_as_float(words.x), __uint_as_float(words.y)));
    });
  } else {
    BiasTile<2>::read(local, [&](int n, uint2 words) {
      put(2 * n, unpack_pair(p.bias.dtype, words.x));
      put(2 * n + 1, unpack_pair(p.bias.dtype, words.y));
    });
  }
}

// A key that a bias of -inf hides may be NaN, and so becomes the score; then the row is computed
// again.
__device__ inline void Forward::add_bias(float (&s)[kBlockN / 8][4], int half, Row row, int j0,
                                         float unit) const {
  const int own = j0 + own_key();
  int64_t at = bias_row(row) + own * p.bias.last;
  each(s, half, [&](float &x, int key) {
    if (own + key < block().key_end) {
      x = fmaf(load_float(p.bias.data, p.bias.dtype, at), unit, x);
    }
    at += p.bias.last;
  });
}

}  // namespace attn::cuda
