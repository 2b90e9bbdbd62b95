// The sequences of one execute: their lengths, and where a query's or key's elements lie. Reads the
// length arrays and page tables where they are, so on the CPU nothing of it is valid before their
// contents have been checked (src/backend/cpu/sdpa.cpp does).
#pragma once

#include <stdint.h>

#include "attn/sdpa.h"
#include "kernels/common/target.hpp"

namespace attn {

// Where a token's vectors are: (batch entry, position), (0, token) or (page, slot). A negative
// outer index is a page to skip.
struct TokenPlace {
  int64_t outer;
  int64_t inner;

  ATTN_HD bool skipped() const { return outer < 0; }
};

// A tensor of vectors by token and head: [B, S, H, D], [T, H, D], or a pool [pages, slots, H, D].
struct TokenView {
  void *data;
  int32_t dtype;
  int64_t outer, inner, head, dim;  // strides in elements; 0 where the tensor shares an index

  ATTN_HD int64_t offset(TokenPlace place, int64_t h) const {
    return place.outer * outer + place.inner * inner + h * head;
  }
};

// The stride of a dimension, 0 if it is shared.
ATTN_HD inline int64_t shared_stride(const attn_tensor &tensor, int dim) {
  return tensor.shape[dim] == 1 ? 0 : tensor.stride[dim];
}

// A tensor of rank 3 or 4 as a TokenView.
ATTN_HD inline TokenView token_view(const attn_tensor &tensor) {
  const int first = tensor.rank == 4 ? 1 : 0;
  return {tensor.data,
          tensor.dtype,
          first == 1 ? shared_stride(tensor, 0) : 0,
          shared_stride(tensor, first),
          shared_stride(tensor, first + 1),
          shared_stride(tensor, first + 2)};
}

// A tensor by head and query: [B, H, S, n] or, ragged, [H, T, n]; n absent for lse, row_max.
struct QueryView {
  void *data;
  int32_t dtype;
  int64_t outer, head, inner, last;  // strides in elements; 0 where the tensor shares an index

  ATTN_HD int64_t offset(TokenPlace query, int64_t h) const {
    return query.outer * outer + h * head + query.inner * inner;
  }
};

// `has_last`: whether the tensor has a dimension after the query's.
ATTN_HD inline QueryView query_view(const attn_tensor &tensor, bool has_last) {
  const int first = tensor.rank == (has_last ? 4 : 3) ? 1 : 0;
  return {tensor.data,
          tensor.dtype,
          first == 1 ? shared_stride(tensor, 0) : 0,
          shared_stride(tensor, first),
          shared_stride(tensor, first + 1),
          has_last ? tensor.stride[first + 2] : 0};
}

// One sequence of the batch.
struct Sequence {
  int64_t index;
  int64_t seqlen_q;  // queries in use
  int64_t seqlen_k;  // keys in use
  int64_t rows_q;    // places for queries, those after seqlen_q being padding
  TokenPlace first_q;
  // Keys: a first place (dense, ragged), or the list of its pages.
  TokenPlace first_k;
  const int32_t *pages;  // null if not paged
  int64_t page_stride;   // elements between two entries of `pages`
  int64_t page_size;

  ATTN_HD TokenPlace query(int64_t i) const { return {first_q.outer, first_q.inner + i}; }
  ATTN_HD TokenPlace key(int64_t j) const {
    if (page_size == 0) return {first_k.outer, first_k.inner + j};
    return {pages[j / page_size * page_stride], j % page_size};
  }
};

// What sequence() needs of a call.
struct SequenceTable {
  const int32_t *cu_seqlens_q, *cu_seqlens_k;
  const int32_t *seqused_q, *seqused_k;
  const int32_t *page_indptr, *page_indices, *last_page_len;
  const int32_t *block_table;
  int64_t table_batch_stride, table_page_stride;
  int64_t dense_seqlen_q, dense_seqlen_k;
  int64_t page_size;  // 0 if not paged

  ATTN_HD Sequence sequence(int64_t b) const {
    Sequence s;
    s.index = b;
    s.first_q = {b, 0};
    s.rows_q = dense_seqlen_q;
    if (cu_seqlens_q != nullptr) {
      s.first_q = {0, cu_seqlens_q[b]};
      s.rows_q = static_cast<int64_t>(cu_seqlens_q[b + 1]) - cu_seqlens_q[b];
    }
    s.seqlen_q = seqused_q != nullptr ? seqused_q[b] : s.rows_q;

    s.first_k = {b, 0};
    s.pages = nullptr;
    s.page_stride = 0;
    s.page_size = page_size;
    s.seqlen_k = dense_seqlen_k;
    if (cu_seqlens_k != nullptr) {
      s.first_k = {0, cu_seqlens_k[b]};
      s.seqlen_k = static_cast<int64_t>(cu_seqlens_k[b + 1]) - cu_seqlens_k[b];
    } else if (page_indptr != nullptr) {
      const int64_t count = static_cast<int64_t>(page_indptr[b + 1]) - page_indptr[b];
      s.pages = page_indices + page_indptr[b];
      s.page_stride = 1;
      s.seqlen_k = count == 0 ? 0 : (count - 1) * page_size + last_page_len[b];
    } else if (page_size != 0) {
      s.pages = block_table + b * table_batch_stride;
      s.page_stride = table_page_stride;
    }
    if (seqused_k != nullptr) s.seqlen_k = seqused_k[b];
    return s;
  }
};

// seqlen_q, seqlen_k: the extents of dense q and k; not read for other layouts.
ATTN_HD inline SequenceTable make_sequence_table(const attn_sdpa_desc &desc,
                                                 const attn_sdpa_args &args, int64_t seqlen_q,
                                                 int64_t seqlen_k) {
  SequenceTable table = {};
  table.dense_seqlen_q = seqlen_q;
  table.dense_seqlen_k = seqlen_k;
  if (desc.q_layout == ATTN_LAYOUT_RAGGED) table.cu_seqlens_q = args.cu_seqlens_q;
  if ((desc.flags & ATTN_SDPA_SEQUSED_Q) != 0) table.seqused_q = args.seqused_q;
  if ((desc.flags & ATTN_SDPA_SEQUSED_K) != 0) table.seqused_k = args.seqused_k;
  switch (desc.kv_layout) {
    case ATTN_LAYOUT_RAGGED:
      table.cu_seqlens_k = args.cu_seqlens_k;
      break;
    case ATTN_LAYOUT_PAGED_TABLE:
      table.page_size = desc.page_size;
      table.seqused_k = args.seqused_k;
      table.block_table = static_cast<const int32_t *>(args.block_table.data);
      table.table_batch_stride = args.block_table.stride[0];
      table.table_page_stride = args.block_table.stride[1];
      break;
    case ATTN_LAYOUT_PAGED_CSR:
      table.page_size = desc.page_size;
      table.page_indptr = args.kv_page_indptr;
      table.page_indices = args.kv_page_indices;
      table.last_page_len = args.kv_last_page_len;
      break;
    default:
      break;
  }
  return table;
}

}  // namespace attn
