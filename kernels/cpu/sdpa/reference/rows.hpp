// Rows of tensors as doubles, and the two things that loops do with them.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.hpp"
#include "kernels/common/sequence.hpp"

namespace attn::cpu::reference {

// Calls fn with the codec of a tensor's dtype; the switch is per row, not per element.
template <class Fn>
inline void with_codec(int32_t dtype, const Fn &fn) {
  switch (dtype) {
    case ATTN_DTYPE_FP32:
      return fn(Codec<ATTN_DTYPE_FP32>());
    case ATTN_DTYPE_FP16:
      return fn(Codec<ATTN_DTYPE_FP16>());
    case ATTN_DTYPE_BF16:
      return fn(Codec<ATTN_DTYPE_BF16>());
    case ATTN_DTYPE_FP8_E4M3FN:
      return fn(Codec<ATTN_DTYPE_FP8_E4M3FN>());
    case ATTN_DTYPE_FP8_E5M2:
      return fn(Codec<ATTN_DTYPE_FP8_E5M2>());
    case ATTN_DTYPE_FP8_E4M3FNUZ:
      return fn(Codec<ATTN_DTYPE_FP8_E4M3FNUZ>());
    case ATTN_DTYPE_INT8:
      return fn(Codec<ATTN_DTYPE_INT8>());
    case ATTN_DTYPE_INT4:
      return fn(Codec<ATTN_DTYPE_INT4>());
    case ATTN_DTYPE_FP4_E2M1:
      return fn(Codec<ATTN_DTYPE_FP4_E2M1>());
    default:
      return;
  }
}

inline double load_scalar(const void *data, int32_t dtype, int64_t offset) {
  if (dtype == ATTN_DTYPE_FP8_E8M0) return Codec<ATTN_DTYPE_FP8_E8M0>::load(data, offset);
  double value = 0;
  with_codec(dtype, [&](auto codec) { value = codec.load(data, offset); });
  return value;
}

inline void load_row(const TokenView &t, TokenPlace place, int64_t head, int64_t n, double *row) {
  const int64_t offset = t.offset(place, head);
  with_codec(t.dtype, [&](auto codec) {
    if (t.dim == 1) {
      for (int64_t d = 0; d < n; d++) row[d] = codec.load(t.data, offset + d);
    } else {
      for (int64_t d = 0; d < n; d++) row[d] = codec.load(t.data, offset + d * t.dim);
    }
  });
}

inline void store_row(const TokenView &t, TokenPlace place, int64_t head, int64_t n,
                      const double *row) {
  const int64_t offset = t.offset(place, head);
  with_codec(t.dtype, [&](auto codec) {
    for (int64_t d = 0; d < n; d++) codec.store(t.data, offset + d * t.dim, row[d]);
  });
}

inline void store_zeros(const TokenView &t, TokenPlace place, int64_t head, int64_t n) {
  const int64_t offset = t.offset(place, head);
  with_codec(t.dtype, [&](auto codec) {
    for (int64_t d = 0; d < n; d++) codec.store(t.data, offset + d * t.dim, 0.0);
  });
}

// A tensor with its scales: real = stored * scale.
struct ScaledView {
  TokenView values;
  TokenView scales;
  bool scaled;
  int64_t block;  // elements of the last dimension that one scale covers
  int64_t n;      // extent of the last dimension

  ScaledView(const attn_tensor &tensor, const attn_quant &quant, const attn_tensor &scale,
             int64_t extent)
      : values(token_view(tensor)),
        scales(),
        scaled(quant.granularity != ATTN_QUANT_NONE),
        block(quant.granularity == ATTN_QUANT_BLOCK ? quant.block_size : extent),
        n(extent) {
    if (scaled) scales = token_view(scale);
  }

  double scale(TokenPlace place, int64_t head, int64_t d) const {
    return load_scalar(scales.data, scales.dtype,
                       scales.offset(place, head) + d / block * scales.dim);
  }
  void load(TokenPlace place, int64_t head, double *row) const {
    load_row(values, place, head, n, row);
    if (!scaled) return;
    for (int64_t first = 0; first < n; first += block) {
      const double s = scale(place, head, first);
      for (int64_t d = first; d < n && d < first + block; d++) row[d] *= s;
    }
  }
  // Divides `row` by its scales on the way.
  void store(TokenPlace place, int64_t head, double *row) const {
    if (scaled) {
      for (int64_t first = 0; first < n; first += block) {
        const double s = scale(place, head, first);
        for (int64_t d = first; d < n && d < first + block; d++) row[d] /= s;
      }
    }
    store_row(values, place, head, n, row);
  }
};

// Four partial sums, so that the compiler may use vectors; the order is fixed.
inline double dot(const double *a, const double *b, int64_t n) {
  double sum[4] = {0, 0, 0, 0};
  int64_t d = 0;
  for (; d + 4 <= n; d += 4) {
    for (int lane = 0; lane < 4; lane++) sum[lane] += a[d + lane] * b[d + lane];
  }
  for (; d < n; d++) sum[0] += a[d] * b[d];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

inline void add_scaled(double *sum, double factor, const double *row, int64_t n) {
  for (int64_t d = 0; d < n; d++) sum[d] += factor * row[d];
}

}  // namespace attn::cpu::reference
