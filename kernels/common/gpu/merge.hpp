// Merging parts by their log-sum-exp: out = sum_s w_s v_s / sum_s w_s with w_s = exp(lse_s - max).
//
// A (row, head) pair belongs to one or more teams of up to 32 lanes; a lane has a vector of 16
// bytes of each part, a team every n-th part. Weights are relative to the largest lse. If that is
// +inf, the parts that have it share equally. A part of weight 0 is not multiplied in, whatever its
// values. Inputs of a pair are read in full before its outputs are written, so that merging in
// place is safe. The order of every sum is fixed by the shapes.
#pragma once

#include "kernels/common/activation.hpp"
#include "kernels/common/dtype.hpp"
#include "kernels/common/gpu/merge_params.hpp"
#include "kernels/common/gpu/threads.hpp"

namespace attn::gpu {
namespace {

constexpr int32_t fp32 = ATTN_DTYPE_FP32, fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;
constexpr int32_t kElement = ATTN_ELEMENT;
enum Path { stream, any };
// The plain case, which memory's bandwidth limits: vectors that a team's lanes take in one go, one
// team a pair, no gate. It needs fewer registers, so more of it is in flight.
constexpr bool kStream = ATTN_PATH == stream;
constexpr int kVector = kElement == fp32 ? 4 : 8;  // elements of 16 bytes
constexpr int kAhead = 4;                          // parts that are read at the same time

// Elements as they were read: 16 bytes, or one element as a float.
struct alignas(16) Raw {
  uint32_t word[4];
};
struct alignas(8) RawHalf {
  uint32_t word[2];
};

ATTN_HD inline uint32_t float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

template <int kWidth>
ATTN_HD inline Raw load(const void *data, int64_t offset) {
  if constexpr (kWidth == 1) {
    const float x = static_cast<float>(Codec<kElement>::load(data, offset));
    return {float_bits(x), 0, 0, 0};
  } else if constexpr (kElement == fp32) {
    return *reinterpret_cast<const Raw *>(static_cast<const float *>(data) + offset);
  } else {
    return *reinterpret_cast<const Raw *>(static_cast<const uint16_t *>(data) + offset);
  }
}

template <int kWidth>
ATTN_HD inline float element(const Raw &raw, int e) {
  if constexpr (kWidth == 1 || kElement == fp32) return float_from_bits(raw.word[e]);
  const uint32_t word = raw.word[e / 2];
  const uint16_t half = static_cast<uint16_t>(e % 2 == 0 ? word : word >> 16);
  return kElement == fp16 ? decode_fp16(half) : decode_bf16(half);
}

// Stores kWidth elements. 16 bytes of the parts make 8, 16 or 32 bytes of the result.
template <int kWidth>
ATTN_HD inline void store(const TokenView &out, int64_t offset, const float (&x)[kWidth]) {
  if constexpr (kWidth == 1) {
    with_codec(out.dtype,
               [&](auto codec) { codec.store(out.data, offset, static_cast<double>(x[0])); });
  } else if (out.dtype == fp32) {
    Raw *to = reinterpret_cast<Raw *>(static_cast<float *>(out.data) + offset);
    for (int e = 0; e < kWidth; e += 4) {
      to[e / 4] = {float_bits(x[e]), float_bits(x[e + 1]), float_bits(x[e + 2]),
                   float_bits(x[e + 3])};
    }
  } else {
    uint16_t *to = static_cast<uint16_t *>(out.data) + offset;
    uint32_t words[kWidth / 2];
    for (int e = 0; e < kWidth; e += 2) {
      words[e / 2] = out.dtype == fp16 ? pack_fp16(x[e], x[e + 1]) : pack_bf16(x[e], x[e + 1]);
    }
    if constexpr (kWidth == 8) {
      *reinterpret_cast<Raw *>(to) = {words[0], words[1], words[2], words[3]};
    } else {
      *reinterpret_cast<RawHalf *>(to) = {words[0], words[1]};
    }
  }
}

// The parts of one (row, head) pair: the partial ones, then `other`.
struct Parts {
  // Without `exists` there is no part: nothing is read, which another pair may just write.
  ATTN_HD Parts(const MergeParams &params, int64_t row, int64_t head, bool exists)
      : p(params),
        partial(row * p.partial_row + head * p.partial_head),
        lse(row * p.lse_row + head * p.lse_head),
        other(row * p.other_row + head * p.other_head),
        other_lse(row * p.other_lse_row + head * p.other_lse_head),
        partials(p.row_mask != nullptr && p.row_mask[row * p.row_mask_row] == 0 ? 0 : p.parts),
        count(exists ? partials + (p.other != nullptr ? 1 : 0) : 0) {}

  ATTN_HD float lse_of(int64_t s) const {
    return s < partials ? p.partial_lse[lse + s * p.lse_part] : p.other_lse[other_lse];
  }
  template <int kWidth>
  ATTN_HD Raw values(int64_t s, int d) const {
    return s < partials ? load<kWidth>(p.partial, partial + s * p.partial_part + d * p.partial_dim)
                        : load<kWidth>(p.other, other + d * p.other_dim);
  }

  const MergeParams &p;
  int64_t partial, lse, other, other_lse;  // offsets of the first element
  int64_t partials, count;
};

// What the weights of a pair are relative to, and what becomes of their sum.
struct Weights {
  float max;    // of the lse, in their unit; NaN if one is
  float unit;   // natural units in one of theirs
  float share;  // factor of the weighted sum of values

  ATTN_HD float of(float lse) const {
    if (lse == -infinity() || max == -infinity()) return 0;
    if (max == infinity()) return lse == infinity() ? 1.0f : 0.0f;
    return expf((lse - max) * unit);
  }
};

__device__ inline float team_max(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    x = fmaxf(x, shuffle_xor(x, step));
  }
  return x;
}
__device__ inline float team_sum(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += shuffle_xor(x, step);
  return x;
}

// Weights of a pair and its lse as the caller wants it. All lanes of the team take part.
__device__ inline Weights weigh(const MergeParams &p, const Parts &parts, int64_t head, int lane,
                                float &out_lse) {
  Weights w;
  w.unit = p.base2 != 0 ? static_cast<float>(kLn2) : 1.0f;
  float max = -infinity(), nans = 0;
  for (int64_t s = lane; s < parts.count; s += p.lanes) {
    const float lse = parts.lse_of(s);
    if (lse != lse) nans = 1;
    max = fmaxf(max, lse);
  }
  max = team_max(max, p.lanes);
  w.max = team_max(nans, p.lanes) != 0 ? quiet_nan() : max;
  float total = 0;
  for (int64_t s = lane; s < parts.count; s += p.lanes) total += w.of(parts.lse_of(s));
  total = team_sum(total, p.lanes);

  // In fp64, as it may be a small difference of large numbers; natural.
  const double largest = static_cast<double>(w.max) * (p.base2 != 0 ? kLn2 : 1.0);
  const bool finite = w.max - w.max == 0;
  double lse = finite ? largest + static_cast<double>(logf(total)) : static_cast<double>(w.max);
  w.share = w.max == -infinity() ? 0.0f : 1 / total;
  if (p.sink != nullptr) {
    const float sink = p.sink[head * p.sink_head];
    double with_sink = lse;
    if (w.max == -infinity() || sink != sink) {
      with_sink = static_cast<double>(sink);
      if (sink != sink && w.max != -infinity()) w.share = sink;
    } else if (sink == infinity()) {
      with_sink = static_cast<double>(sink);
      w.share = 0;
    } else if (w.max != infinity() && sink != -infinity()) {
      // The sink is one more part.
      const float above = static_cast<float>(largest - static_cast<double>(sink));
      const float left = above < 0 ? expf(above) : 1.0f;
      const float all = total * left + (above < 0 ? 1.0f : expf(-above));
      w.share = left / all;
      with_sink =
          (above < 0 ? static_cast<double>(sink) : largest) + static_cast<double>(logf(all));
    }
    if (p.lse_includes_sink != 0) lse = with_sink;
  }
  out_lse = static_cast<float>(p.out_base2 != 0 ? lse * kLog2E : lse);
  // Here, not earlier: other teams of the warp need all lanes above.
  if (!kStream && p.padding != 0 && float_bits(parts.lse_of(0)) == kPaddingLse) {
    w.max = out_lse = -infinity();
    w.share = 0;
  }
  return w;
}

// Merges pairs; kWidth elements a lane. `sums` is shared memory for what other teams summed:
// [items][teams][lanes * kWidth].
template <int kWidth>
__device__ inline void merge_pairs(const MergeParams &p, float *sums) {
  const int lane = static_cast<int>(thread_index()) & (p.lanes - 1);
  const int group = static_cast<int>(thread_index()) / p.lanes;
  const int teams = kStream ? 1 : p.teams;
  const int team = group & (teams - 1), slot = group / teams;
  const int64_t pairs = p.rows * p.heads;
  for (int64_t first = static_cast<int64_t>(block_index()) * p.items; first < pairs;
       first += static_cast<int64_t>(grid_size()) * p.items) {
    const bool valid = first + slot < pairs;
    const int64_t pair = valid ? first + slot : 0;
    int64_t row, head;
    if (pairs <= 0xffffffff) {  // the usual case: a 32-bit division
      row = static_cast<uint32_t>(pair) / static_cast<uint32_t>(p.heads);
      head = pair - row * p.heads;
    } else {
      row = pair / p.heads;
      head = pair % p.heads;
    }
    const Parts parts(p, row, head, valid);
    Raw raw[kAhead];  // of the next parts of this team
    const auto read = [&](int64_t s, int d) {
      for (int r = 0; r < kAhead; r++, s += teams) {
        if (s < parts.count) raw[r] = parts.values<kWidth>(s, d);
      }
    };
    bool ready = (kStream || p.preload != 0) && lane * kWidth < p.head_dim;
    if (ready) read(team, lane * kWidth);
    float lse;
    const Weights weights = weigh(p, parts, head, lane, lse);
    TokenPlace place = {0, row};
    if (!kStream && p.inner != p.rows) place = {row / p.inner, row % p.inner};

    const int end = kStream ? 1 : p.head_dim;  // one pass
    for (int begin = 0; begin < end; begin += p.lanes * kWidth) {
      const int d = begin + lane * kWidth;
      float sum[kWidth] = {};
      for (int64_t s0 = team; d < p.head_dim && s0 < parts.count; s0 += kAhead * teams) {
        float weight[kAhead];
        for (int r = 0; r < kAhead; r++) {
          const int64_t s = s0 + static_cast<int64_t>(r) * teams;
          weight[r] = s < parts.count ? weights.of(parts.lse_of(s)) : 0.0f;
          if (!ready && weight[r] != 0) raw[r] = parts.values<kWidth>(s, d);
        }
        ready = false;
        for (int r = 0; r < kAhead; r++) {
          if (weight[r] == 0) continue;
          for (int e = 0; e < kWidth; e++) sum[e] += weight[r] * element<kWidth>(raw[r], e);
        }
      }
      if (teams > 1) {
        float *mine = sums + (group * p.lanes + lane) * kWidth;
        sync_block();
        for (int e = 0; e < kWidth; e++) mine[e] = sum[e];
        sync_block();
        for (int t = 1; team == 0 && t < teams; t++) {
          for (int e = 0; e < kWidth; e++) sum[e] += mine[t * p.lanes * kWidth + e];
        }
      }
      if (!valid || team != 0 || d >= p.head_dim) continue;
      for (int e = 0; e < kWidth; e++) {
        sum[e] = weights.share == 0 ? 0.0f : sum[e] * weights.share;
      }
      if (!kStream && p.gate.data != nullptr && weights.max != -infinity()) {
        const int64_t at = p.gate.offset(place, head);
        for (int e = 0; e < kWidth; e++) {
          sum[e] *= sigmoid(static_cast<float>(
              load_scalar(p.gate.data, p.gate.dtype, at + (d + e) * p.gate.dim)));
        }
      }
      store<kWidth>(p.out, p.out.offset(place, head) + d * p.out.dim, sum);
    }
    // Every thread has read other_lse, which may be what is written.
    if (teams > 1) {
      sync_block();
    } else {
      sync_warp();
    }
    if (!valid || team != 0 || lane != 0) continue;
    if (p.out_lse.data != nullptr) {
      static_cast<float *>(p.out_lse.data)[p.out_lse.offset(place, head)] = lse;
    }
    if (!kStream && p.partial_max != nullptr) {
      float max = -infinity();
      for (int64_t s = 0; s < parts.partials; s++) {
        const float m = p.partial_max[parts.lse + s * p.lse_part];
        max = m != m || max != max ? quiet_nan() : fmaxf(max, m);
      }
      static_cast<float *>(p.row_max.data)[p.row_max.offset(place, head)] = max;
    }
  }
}

// All that one block does; `memory` is its dynamic shared memory.
__device__ inline void merge(const MergeParams &p, unsigned char *memory) {
  float *sums = reinterpret_cast<float *>(memory);
  if (kStream || p.vector != 0) {
    merge_pairs<kVector>(p, sums);
  } else {
    merge_pairs<1>(p, sums);
  }
}

}  // namespace
}  // namespace attn::gpu
