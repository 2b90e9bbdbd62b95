// Memory out: rows of out, or of a piece's partial results, and their statistics.
#pragma once

#include "kernels/common/gpu/merge_params.hpp"
#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

// Whether rows have statistics to store.
__device__ inline bool Forward::tells() const {
  return p.num_splits > 1 || option(kForwardLse | kForwardRowMax);
}

// From the maximum (in log 2) and the sum of 2^(s - max).
__device__ inline Forward::Finish Forward::finish(int local, float max, float sum) const {
  if (has(kForwardSilu)) return {1, 0};
  Finish f;
  const bool none = max == -infinity();
  f.lse = none || !tells() ? max : fmaf(max, kLn2F, logf(sum));
  float total = sum;
  if (option(kForwardSink) && p.num_splits == 1) {
    const float sink = p.sink[row_of(local).head * p.sink_head];
    const float weight = exp2f(fmaf(sink, kLog2EF, -max));
    if (!none) total += weight;
    if (option(kForwardLseIncludesSink)) {
      const float high = fmaxf(f.lse, sink), low = fminf(f.lse, sink);
      f.lse = high == -infinity() || high == infinity() ? high : high + log1pf(expf(low - high));
    }
  }
  f.factor = none ? 0 : 1 / total;
  return f;
}

__device__ inline int64_t Forward::partial_row(Row row) const {
  const int64_t place = p.sequences.cu_seqlens_q != nullptr
                            ? block().sequence.first_q.inner + row.i
                            : block().sequence.index * p.sequences.dense_seqlen_q + row.i;
  return (block().split * p.total_q + place) * p.num_q_heads + row.head;
}

__device__ inline void Forward::store_statistics(Row row, float lse, float row_max) const {
  if (p.num_splits > 1) {
    p.partial_lse[partial_row(row)] = lse;
    if (p.partial_max != nullptr) p.partial_max[partial_row(row)] = row_max;
    return;
  }
  if (block().v_offset != 0) return;
  const TokenPlace at = query_place(row.i);
  if (option(kForwardLse)) {
    static_cast<float *>(p.lse.data)[p.lse.offset(at, row.head)] =
        option(kForwardLseBase2) ? lse * kLog2EF : lse;
  }
  if (option(kForwardRowMax)) {
    static_cast<float *>(p.row_max.data)[p.row_max.offset(at, row.head)] = row_max;
  }
}

// One element of the result, finished but for the gate.
__device__ inline void Forward::store_value(Row row, int d, float value) const {
  if (d >= block().v_columns) return;
  if (p.num_splits > 1) {
    p.partial_out[partial_row(row) * p.head_dim_v + block().v_offset + d] = value;
    return;
  }
  const TokenPlace at = query_place(row.i);
  const int64_t column = block().v_offset + d;
  if (has(kForwardGate)) {
    const float gate =
        load_float(p.gate.data, p.gate.dtype, p.gate.offset(at, row.head) + column * p.gate.dim);
    value *= 1 / (1 + expf(-gate));
  }
  store_float(p.out.data, p.out.dtype, p.out.offset(at, row.head) + column * p.out.dim, value);
}

// Queries without a place among the sequence's: 0 and -inf.
__device__ inline void Forward::store_padding(int begin, int end) const {
  for (int r = begin + warp(); r < end; r += kWarps) {
    const Row row = row_at(r);
    if (lane() == 0) {
      const bool marked = p.num_splits > 1 && block().split == 0;
      store_statistics(row, marked ? __uint_as_float(gpu::kPaddingLse) : -infinity(), -infinity());
    }
    if (p.num_splits > 1) continue;  // parts with lse = -inf are not read
    const TokenPlace at = query_place(row.i);
    const int64_t offset = p.out.offset(at, row.head);
    for (int d = lane(); d < block().v_columns; d += 32) {
      store_float(p.out.data, p.out.dtype, offset + (block().v_offset + d) * p.out.dim, 0);
    }
  }
}

// A warp's rows, through its own rows of the q tile, so that they leave with neighbouring lanes
// writing neighbouring elements.
__device__ inline void Forward::store_rows(const Running &r,
                                           const Finish (&done)[kTiles][2]) const {
  char *own = smem() + warp() * kTiles * 16 * kDqk * kBytes;
  const int first = warp() * kTiles * 16;
  if (kBytes == 4 || !option(kForwardVectorOut) || p.num_splits > 1) {
    float *values = reinterpret_cast<float *>(own);  // 8 rows at a time
    each_row([&](int tile, int half) {
      __syncwarp();
      const float factor = done[tile][half].factor;
#pragma unroll
      for (int n = 0; n < kDv / 8; n++) {
        const float *x = &r.out[tile][n][half * 2];
        *reinterpret_cast<float2 *>(&values[(lane() >> 2) * kDv + n * 8 + (lane() & 3) * 2]) =
            make_float2(x[0] * factor, x[1] * factor);
      }
      __syncwarp();
#pragma unroll 1
      for (int index = lane(); index < 8 * kDv; index += 32) {
        const int local = first + tile * 16 + half * 8 + index / kDv;
        if (in_use(local)) store_value(row_of(local), index % kDv, values[index]);
      }
    });
    return;
  }
  if constexpr (kBytes == 2) {
    using Pack = std::conditional_t<kBytes == 2, Element, Bf16>;  // never the latter
    using Rows = QueryTile<kDqk * 2>;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kDv / 8; n++) {
      char *to = own + Rows::at(lane() >> 2, n) + (lane() & 3) * 4;
      each_row([&](int tile, int half) {
        const float *x = &r.out[tile][n][half * 2];
        const float factor = done[tile][half].factor;
        *reinterpret_cast<uint32_t *>(to + Rows::rows(tile * 16 + half * 8)) =
            Pack::pack(x[0] * factor, x[1] * factor);
      });
    }
    __syncwarp();
    // Each lane takes one chunk of every kPass-th row.
    constexpr int kChunks = kDv / 8, kGroup = kChunks % 8 == 0 ? 8 : 4, kPass = 32 / kGroup;
    const int row = lane() / kGroup, chunk = lane() % kGroup;
    uint16_t *out = static_cast<uint16_t *>(p.out.data) + block().v_offset;
    int64_t at = 0;
    if (p.pack.divisor == 1) {
      at = p.out.offset(query_place(block().row0 + first + row), block().head0);
    }
    const int columns = block().v_columns, left = block().used - block().row0 - first - row;
#pragma unroll 4
    for (int n = 0; n < kTiles * 16 / kPass; n++) {
      const int local = n * kPass + row;
      if (p.pack.divisor != 1) {
        const Row place = row_of(first + local);
        at = p.out.offset(query_place(place.i), place.head);
      }
#pragma unroll
      for (int part = chunk; part < kChunks; part += kGroup) {
        if (n * kPass < left && part * 8 < columns) {
          *reinterpret_cast<uint4 *>(out + at + part * 8) =
              *reinterpret_cast<const uint4 *>(own + Rows::at(local, part));
        }
      }
      if (p.pack.divisor == 1) at += kPass * p.out.inner;
    }
  }
}

}  // namespace attn::cuda
