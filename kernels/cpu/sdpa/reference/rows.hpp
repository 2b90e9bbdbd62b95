// Rows of tensors as doubles, and the two things that loops do with them.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.hpp"
#include "kernels/common/query.hpp"
#include "kernels/common/sequence.hpp"

namespace attn::cpu::reference {

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

// A tensor whose rows are loaded as real values.
struct ScaledRows : ScaledView {
  explicit ScaledRows(const ScaledView &view) : ScaledView(view) {}

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
