// One row of the table of sdpa cases: a problem, its lengths, and how its data and memory look.
// A row says nothing about backends: every backend and implementation runs the same rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attn/attn.h"
#include "tensor.hpp"

namespace check {

// What is special about a case's values.
enum SdpaData : uint32_t {
  kDataPlain = 0,
  kDataHugeScores = 1 << 0,      // scores around +-1e4
  kDataNegativeScores = 1 << 1,  // all scores around -1e4
  kDataSinkMinusInf = 1 << 2,
  kDataSinkPlusInf = 1 << 3,
  kDataBiasMinusInf = 1 << 4,   // a third of all biases, and whole rows, are -inf
  kDataNanSeenByFew = 1 << 5,   // some keys are NaN or Inf: rows that do not see them stay clean
  kDataInfScores = 1 << 6,      // some queries are Inf: other rows stay clean
  kDataNegativePages = 1 << 7,  // entries < 0 in page lists
  kDataRepeatedPages = 1 << 8,
  kDataWholeRowsMasked = 1 << 9,  // MASK: every third row sees nothing
  kDataSaturatedOut = 1 << 10,    // out_scale so small that outputs saturate
  kDataRepeatedBlocks = 1 << 11,  // BLOCK_SPARSE: entries < 0, repeated, shuffled, counts of 0
};

struct SdpaCase {
  std::string name;
  int32_t pass = ATTN_SDPA_FORWARD;
  uint64_t flags = 0;
  uint32_t grads = 0;
  int32_t q_dtype = ATTN_DTYPE_FP32, k_dtype = 0, v_dtype = 0, out_dtype = 0;
  int32_t bias_dtype = ATTN_DTYPE_FP32, gate_dtype = ATTN_DTYPE_FP32;
  bool grads_fp32 = false;  // gradients in FP32, else in the dtype of what they belong to
  int32_t q_layout = ATTN_LAYOUT_DENSE, kv_layout = ATTN_LAYOUT_DENSE, page_size = 0;
  int32_t hq = 2, hkv = 0, dqk = 32, dv = 0;
  // The lengths of each sequence. Dense without SEQUSED: all alike.
  std::vector<int32_t> sq = {8}, sk = {16};
  int32_t spare_q = 0, spare_k = 0;  // with SEQUSED: places beyond the longest that are not used
  int32_t rest_q = 0, rest_k = 0;    // ragged: tokens after the last sequence
  bool loose_limits = false;         // limits in the descriptor beyond what the call uses
  float scale = 0;                   // 0: 1/sqrt(dqk)
  float softcap = 0;
  int32_t alignment = ATTN_ALIGN_BOTTOM_RIGHT;
  int32_t window_left = 0, window_right = 0, chunk = 0, sink_tokens = 0;
  int32_t block_q = 0, block_k = 0;
  float dropout_p = 0;
  int32_t activation = ATTN_ACTIVATION_SOFTMAX;
  int32_t lse_base = ATTN_LSE_BASE_E;
  int32_t split_policy = ATTN_SPLIT_AUTO, split_size = 0;
  int32_t determinism = ATTN_DETERMINISM_FAST;
  attn_quant q_quant = {}, k_quant = {}, v_quant = {}, out_quant = {};
  Strides strides = Strides::kContiguous;
  bool share_batch = false, share_heads = false, share_rows = false;  // masks, bias, blocks
  bool alibi_per_batch = false, gate_per_head = false;
  double mask_density = 0.7;
  uint32_t data = kDataPlain;
  bool quick = false;   // part of --quick
  bool finite = false;  // gradients also against finite differences
  bool bench = false;   // worth timing: see --bench
};

// Tables: named rows, one for each known edge; rows over element types and head dims; rows
// generated to cover all pairs of options; and rows that are new with every seed.
std::vector<SdpaCase> sdpa_named_cases();
std::vector<SdpaCase> sdpa_dim_cases();
std::vector<SdpaCase> sdpa_pair_cases();
std::vector<SdpaCase> sdpa_fresh_cases(uint64_t seed, int count);

}  // namespace check
