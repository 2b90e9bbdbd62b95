// Memory in: tiles of q, k and v; element by element where rows cannot be read 16 bytes at a time.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"
#include "kernels/cuda/sm80/sdpa/forward/rows.cuh"

namespace attn::cuda {

// Sixteen bytes of a row from element `d` on, element by element; zeros from `columns` on.
__device__ inline uint4 gather(const TokenView &view, const char *row, int d, int columns) {
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int e = 0; e < 16 / kBytes; e++) {
    if (d + e < columns) {
      const int64_t at = (d + e) * view.dim;
      if constexpr (kBytes == 4) {
        words[e] = reinterpret_cast<const uint32_t *>(row)[at];
      } else {
        words[e / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(row)[at])
                        << (e % 2 * 16);
      }
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Fills a tile of kRows rows of q, k or v.
template <class Rows, int kRows, class Place>
__device__ inline void load_rows(uint32_t tile, const TokenView &view, int columns, bool vector,
                                 Place place) {
  if (!kGeneral || vector) {
    copy_rows<Rows, kRows, true>(tile, columns * kBytes, place);
    return;
  }
  using T = Turns<Rows>;
#pragma unroll 1
  for (int n = 0; n < kRows / T::kPass; n++) {
    const int row = T::row() + n * T::kPass;
    const Source source = place(n, row);
    char *to = Forward::smem() + (tile - Forward::q_tile()) + Rows::at(row, T::chunk());
#pragma unroll 1
    for (int part = 0; part < T::kParts; part++) {
      const int begin = (part * T::kGroup + T::chunk()) * (16 / kBytes);
      *reinterpret_cast<uint4 *>(to + part * T::kGroup * 16) =
          source.exists ? gather(view, source.row, begin, columns) : make_uint4(0, 0, 0, 0);
    }
  }
}

// Before block() is there.
__device__ inline void Forward::load_q(const Block &b) {
  using Rows = QueryTile<kDqk * kBytes>;
  const bool vector = option(kForwardVectorQ);
  const TokenPlace first = b.sequence.first_q;
  const char *data = static_cast<const char *>(p.q.data);
  const int row0 = b.row0, head0 = b.head0, used = b.used;
  if (p.pack.divisor == 1) {
    const int64_t at = p.q.offset({first.outer, first.inner + row0}, head0);
    load_rows<Rows, kBlockM>(q_tile(), p.q, p.head_dim_qk, vector,
                             Walk<Rows>(data + at * kBytes, p.q.inner * kBytes, used - row0));
  } else {
    load_rows<Rows, kBlockM>(q_tile(), p.q, p.head_dim_qk, vector, [&](int, int local) {
      uint32_t head = static_cast<uint32_t>(row0 + local);
      const int i = static_cast<int>(p.pack.divide(head));
      const int64_t at = p.q.offset({first.outer, first.inner + i}, head0 + static_cast<int>(head));
      return Source{data + at * kBytes, row0 + local < used};
    });
  }
}

// Keys j0 .. j0 + kBlockN - 1 of k or v.
template <int kDim>
__device__ inline void load_keys(const Forward &f, uint32_t tile, const TokenView &view,
                                 int64_t base, int columns, int j0, int count, int buffer) {
  using Rows = KeyTile<kDim * kBytes>;
  const bool vector = f.option(kForwardVectorKv);
  if (f.paged()) {
    const int2 *slot = Forward::slots() + buffer * kBlockN;
    load_rows<Rows, kBlockN>(tile, view, columns, vector, [&](int, int row) {
      const int2 at = slot[row];
      const int64_t offset = base + at.x * view.outer + at.y * view.inner;
      return Source{static_cast<const char *>(view.data) + offset * kBytes, at.x >= 0};
    });
  } else {
    const int64_t at = base + j0 * view.inner;
    load_rows<Rows, kBlockN>(
        tile, view, columns, vector,
        Walk<Rows>(static_cast<const char *>(view.data) + at * kBytes, view.inner * kBytes, count));
  }
}
// The description is handed in because the first k may be asked for before block() is there.
__device__ inline void Forward::load_k(const Block &b, int j0, int buffer) {
  load_keys<kDqk>(*this, k_tile(), p.k, b.k_base, p.head_dim_qk, j0, b.key_end - j0, buffer);
  if constexpr (kKind == ForwardKind::bias) load_bias(b, j0);
}
__device__ inline void Forward::load_v(int j0, int buffer) {
  load_keys<kDv>(*this, v_tile(), p.v, block().v_base, block().v_columns, j0, block().key_end - j0,
                 buffer);
}

__device__ inline void Forward::load_segments(int j0, int buffer) const {
  const int32_t *ids = kv_segments();
  for (int n = tid(); n < kBlockN; n += kThreads) {
    copy_async_4(shared_address(segments(buffer) + n), ids + (j0 + n) * p.kv_segment_inner,
                 j0 + n < block().key_end ? 4 : 0);
  }
}

// Looks up the pages of a tile's keys; true if this thread met one to skip.
__device__ inline bool Forward::find_slots(int j0, int buffer) {
  bool skips = false;
  if (!paged()) return skips;
  for (int n = tid(); n < kBlockN; n += kThreads) {
    const int j = j0 + n;
    int2 slot = make_int2(-1, 0);
    if (j < block().key_end) {
      const TokenPlace at = block().sequence.key(j);
      slot = make_int2(static_cast<int>(at.outer), static_cast<int>(at.inner));
      skips = skips || slot.x < 0;
    }
    slots()[buffer * kBlockN + n] = slot;
  }
  return skips;
}

}  // namespace attn::cuda
