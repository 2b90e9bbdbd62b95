// Where queries and keys lie in memory, in every layout.
#include "kernels/common/sequence.hpp"

#include <doctest/doctest.h>

#include <cstdint>

namespace {

using namespace attn;

TEST_CASE("places of queries and keys in every layout") {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;

  SUBCASE("dense") {
    const int32_t used[2] = {3, 0};
    args.seqused_k = used;
    desc.flags = ATTN_SDPA_SEQUSED_K;
    const Sequence s = make_sequence_table(desc, args, 4, 9).sequence(1);
    CHECK(s.seqlen_q == 4);
    CHECK(s.rows_q == 4);
    CHECK(s.seqlen_k == 0);
    CHECK(s.query(2).outer == 1);
    CHECK(s.query(2).inner == 2);
  }
  SUBCASE("ragged") {
    const int32_t cu_q[3] = {0, 2, 5}, cu_k[3] = {0, 7, 11}, used_q[2] = {2, 1};
    desc.q_layout = ATTN_LAYOUT_RAGGED;
    desc.kv_layout = ATTN_LAYOUT_RAGGED;
    desc.flags = ATTN_SDPA_SEQUSED_Q;
    args.cu_seqlens_q = cu_q;
    args.cu_seqlens_k = cu_k;
    args.seqused_q = used_q;
    const Sequence s = make_sequence_table(desc, args, 0, 0).sequence(1);
    CHECK(s.seqlen_q == 1);
    CHECK(s.rows_q == 3);
    CHECK(s.seqlen_k == 4);
    CHECK(s.query(1).inner == 3);
    CHECK(s.key(3).outer == 0);
    CHECK(s.key(3).inner == 10);
  }
  SUBCASE("paged table") {
    int32_t table[2 * 3] = {5, 1, 0, 2, -1, 4};
    const int32_t used[2] = {12, 10};
    desc.kv_layout = ATTN_LAYOUT_PAGED_TABLE;
    desc.page_size = 4;
    args.seqused_k = used;
    args.block_table.data = table;
    args.block_table.rank = 2;
    args.block_table.stride[0] = 3;
    args.block_table.stride[1] = 1;
    const Sequence s = make_sequence_table(desc, args, 1, 0).sequence(1);
    CHECK(s.seqlen_k == 10);
    CHECK(s.key(3).outer == 2);
    CHECK(s.key(3).inner == 3);
    CHECK(s.key(4).skipped());
    CHECK(s.key(9).outer == 4);
    CHECK(s.key(9).inner == 1);
  }
  SUBCASE("paged CSR") {
    const int32_t indptr[3] = {0, 2, 2}, indices[2] = {7, 3}, last[2] = {1, 0};
    desc.kv_layout = ATTN_LAYOUT_PAGED_CSR;
    desc.page_size = 16;
    args.kv_page_indptr = indptr;
    args.kv_page_indices = indices;
    args.kv_last_page_len = last;
    const SequenceTable table = make_sequence_table(desc, args, 1, 0);
    CHECK(table.sequence(0).seqlen_k == 17);
    CHECK(table.sequence(0).key(16).outer == 3);
    CHECK(table.sequence(0).key(16).inner == 0);
    CHECK(table.sequence(1).seqlen_k == 0);
  }
}

TEST_CASE("offsets are computed in 64 bits") {
  attn_tensor pool = ATTN_TENSOR_INIT;
  pool.rank = 4;
  const int64_t shape[] = {1 << 20, 64, 8, 128};
  int64_t stride = 1;
  for (int n = 3; n >= 0; n--) {
    pool.shape[n] = shape[n];
    pool.stride[n] = stride;
    stride *= shape[n];
  }
  CHECK(token_view(pool).offset({(1 << 20) - 1, 63}, 7) == (int64_t{1} << 36) - 128);
}

}  // namespace
