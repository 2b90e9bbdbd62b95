// The named rows: one or more for each known edge. To add a case, add a row.
#include "sdpa_case.hpp"

// A table reads best with a row a case.
// clang-format off

namespace check {
namespace {

constexpr int32_t kFp32 = ATTN_DTYPE_FP32, kFp16 = ATTN_DTYPE_FP16, kBf16 = ATTN_DTYPE_BF16,
                  kE4m3 = ATTN_DTYPE_FP8_E4M3FN, kE5m2 = ATTN_DTYPE_FP8_E5M2,
                  kFnuz = ATTN_DTYPE_FP8_E4M3FNUZ, kInt8 = ATTN_DTYPE_INT8,
                  kInt4 = ATTN_DTYPE_INT4, kFp4 = ATTN_DTYPE_FP4_E2M1;
constexpr int32_t kRagged = ATTN_LAYOUT_RAGGED, kTable = ATTN_LAYOUT_PAGED_TABLE,
                  kCsr = ATTN_LAYOUT_PAGED_CSR;
constexpr int32_t kBackward = ATTN_SDPA_BACKWARD;
constexpr uint64_t kCausal = ATTN_SDPA_CAUSAL, kWindow = ATTN_SDPA_WINDOW, kMask = ATTN_SDPA_MASK,
                   kTail = ATTN_SDPA_TAIL_MASK, kSegments = ATTN_SDPA_SEGMENT_IDS,
                   kBias = ATTN_SDPA_BIAS, kAlibi = ATTN_SDPA_ALIBI, kSink = ATTN_SDPA_SINK,
                   kLseSink = ATTN_SDPA_LSE_INCLUDES_SINK, kDropout = ATTN_SDPA_DROPOUT,
                   kBlocks = ATTN_SDPA_BLOCK_SPARSE, kGate = ATTN_SDPA_GATE,
                   kUsedQ = ATTN_SDPA_SEQUSED_Q, kUsedK = ATTN_SDPA_SEQUSED_K,
                   kLatent = ATTN_SDPA_LATENT_KV, kLse = ATTN_SDPA_RETURN_LSE,
                   kMax = ATTN_SDPA_RETURN_ROW_MAX;
constexpr uint64_t kStats = kLse | kMax;
constexpr uint32_t kGradQkv = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K | ATTN_SDPA_GRAD_V;

void edges(std::vector<SdpaCase> &rows) {
  const std::vector<SdpaCase> table = {
      {.name = "empty-batch-dense", .flags = kStats, .sq = {}, .sk = {}, .quick = true},
      {.name = "empty-batch-ragged", .flags = kStats, .q_layout = kRagged, .kv_layout = kRagged,
       .sq = {}, .sk = {}, .loose_limits = true},
      {.name = "empty-batch-paged", .flags = kStats, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 16, .sq = {}, .sk = {}, .loose_limits = true},
      {.name = "empty-batch-csr", .flags = kStats, .kv_layout = kCsr, .page_size = 4, .sq = {},
       .sk = {}},
      {.name = "no-query-dense", .flags = kStats, .sq = {0, 0}, .sk = {5, 5}},
      {.name = "no-token-ragged", .flags = kStats | kCausal, .q_layout = kRagged,
       .kv_layout = kRagged, .sq = {0, 0, 0}, .sk = {0, 0, 0}, .loose_limits = true, .quick = true},
      {.name = "some-without-query", .flags = kStats | kCausal, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .sq = {0, 3, 0, 17, 0}, .sk = {4, 3, 9, 20, 0},
       .quick = true},
      {.name = "some-without-key", .flags = kStats, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 8, .hq = 4, .hkv = 2, .sq = {2, 1, 5}, .sk = {0, 9, 0}, .quick = true},
      {.name = "no-key-dense", .flags = kStats, .sq = {4, 4}, .sk = {0, 0}, .quick = true},
      {.name = "no-key-sink", .flags = kStats | kSink, .sq = {4}, .sk = {0}},
      {.name = "no-key-sink-in-lse", .flags = kStats | kSink | kLseSink, .sq = {4}, .sk = {0}},
      {.name = "no-key-sink-in-lse-base2", .flags = kStats | kSink | kLseSink, .sq = {4},
       .sk = {0}, .lse_base = ATTN_LSE_BASE_2},
      {.name = "no-key-csr", .flags = kStats, .kv_layout = kCsr, .page_size = 4, .sq = {3, 3},
       .sk = {0, 6}},
      {.name = "seqused-zero", .flags = kStats | kUsedQ | kUsedK, .sq = {0, 5, 3}, .sk = {7, 0, 4},
       .spare_q = 2, .spare_k = 3, .quick = true},
      {.name = "one-by-one", .flags = kStats | kCausal, .hq = 1, .dqk = 1, .sq = {1}, .sk = {1},
       .quick = true},
      {.name = "single-key", .flags = kStats, .hq = 4, .dqk = 64, .sq = {33, 33}, .sk = {1, 1}},
      {.name = "single-key-bf16", .flags = kStats, .q_dtype = kBf16, .hq = 4, .dqk = 128, .sq = {7},
       .sk = {1}},
      {.name = "fewer-keys-than-queries", .flags = kStats | kCausal, .hq = 3, .sq = {70}, .sk = {9},
       .quick = true},
      {.name = "fewer-keys-top-left", .flags = kStats | kCausal, .hq = 3, .sq = {70}, .sk = {9},
       .alignment = ATTN_ALIGN_TOP_LEFT},
      {.name = "fewer-keys-window", .flags = kStats | kCausal | kWindow, .hq = 2, .sq = {70},
       .sk = {40}, .window_left = 3, .window_right = 0},
      {.name = "more-keys-top-left", .flags = kStats | kCausal, .sq = {9}, .sk = {80},
       .alignment = ATTN_ALIGN_TOP_LEFT},
      {.name = "masked-rows-in-tile", .flags = kStats | kMask, .hq = 2, .dqk = 64, .sq = {130},
       .sk = {150}, .data = kDataWholeRowsMasked, .quick = true},
      {.name = "masked-rows-in-tile-bf16", .flags = kStats | kMask | kCausal, .q_dtype = kBf16,
       .hq = 2, .dqk = 64, .sq = {130}, .sk = {150}, .data = kDataWholeRowsMasked},
      {.name = "masked-rows-bias", .flags = kStats | kBias, .hq = 2, .sq = {40}, .sk = {77},
       .data = kDataBiasMinusInf, .quick = true},
      {.name = "masked-rows-bias-fp16", .flags = kStats | kBias | kCausal, .q_dtype = kFp16,
       .bias_dtype = kFp16, .hq = 2, .sq = {40}, .sk = {77}, .data = kDataBiasMinusInf},
      {.name = "almost-all-masked", .flags = kStats | kMask, .hq = 4, .hkv = 1, .sq = {20},
       .sk = {300}, .mask_density = 0.01},
      {.name = "window-zero", .flags = kStats | kWindow, .sq = {50}, .sk = {50}, .window_left = 0,
       .window_right = 0},
      {.name = "window-beyond-keys", .flags = kStats | kWindow, .sq = {80}, .sk = {10},
       .alignment = ATTN_ALIGN_TOP_LEFT, .window_left = 2, .window_right = 3},
      {.name = "window-huge", .flags = kStats | kWindow | kCausal, .sq = {30}, .sk = {60},
       .window_left = INT32_MAX, .window_right = INT32_MAX},
      {.name = "window-unbounded-right", .flags = kStats | kWindow, .sq = {40}, .sk = {40},
       .window_left = 5, .window_right = -1},
      {.name = "window-unbounded-left", .flags = kStats | kWindow, .sq = {40}, .sk = {40},
       .window_left = -1, .window_right = 4},
      {.name = "window-sink-tokens", .flags = kStats | kWindow | kCausal, .hq = 4, .hkv = 2,
       .sq = {90}, .sk = {120}, .window_left = 10, .sink_tokens = 4, .quick = true},
      {.name = "chunk", .flags = kStats | kCausal, .sq = {100}, .sk = {130}, .chunk = 32},
      {.name = "chunk-negative-positions", .flags = kStats, .sq = {50}, .sk = {20}, .chunk = 8},
      {.name = "chunk-sink-tokens", .flags = kStats | kCausal, .sq = {64}, .sk = {64}, .chunk = 16,
       .sink_tokens = 3},
      {.name = "sink-tokens-beyond-keys", .flags = kStats | kWindow, .sq = {9}, .sk = {9},
       .window_left = 1, .window_right = 1, .sink_tokens = 100},
      {.name = "last-page-full", .flags = kStats | kCausal, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 4, 16}, .sk = {16, 64, 32},
       .quick = true},
      {.name = "last-page-one-token", .flags = kStats | kCausal, .q_layout = kRagged,
       .kv_layout = kTable, .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 4, 17},
       .sk = {17, 65, 33}},
      {.name = "last-page-full-csr", .flags = kStats | kCausal, .q_layout = kRagged,
       .kv_layout = kCsr, .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 4, 16},
       .sk = {16, 64, 32}},
      {.name = "last-page-one-token-csr", .flags = kStats | kCausal, .q_layout = kRagged,
       .kv_layout = kCsr, .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 4, 17},
       .sk = {17, 65, 33}, .quick = true},
      {.name = "repeated-pages", .flags = kStats, .kv_layout = kTable, .page_size = 8, .hq = 4,
       .hkv = 2, .sq = {3, 3}, .sk = {60, 41}, .data = kDataRepeatedPages},
      {.name = "negative-pages", .flags = kStats | kCausal, .kv_layout = kTable, .page_size = 8,
       .hq = 4, .hkv = 2, .sq = {3, 3}, .sk = {60, 41}, .data = kDataNegativePages, .quick = true},
      {.name = "negative-pages-csr", .flags = kStats, .q_layout = kRagged, .kv_layout = kCsr,
       .page_size = 4, .hq = 2, .sq = {1, 9}, .sk = {60, 41},
       .data = kDataNegativePages | kDataRepeatedPages},
      {.name = "negative-pages-decode", .flags = kStats, .q_dtype = kBf16, .kv_layout = kTable,
       .page_size = 16, .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 1, 1}, .sk = {1, 200, 777},
       .data = kDataNegativePages},
      {.name = "page-size-1", .flags = kStats | kCausal, .q_layout = kRagged, .kv_layout = kCsr,
       .page_size = 1, .hq = 4, .hkv = 1, .sq = {1, 6}, .sk = {37, 40}},
      {.name = "page-size-odd", .flags = kStats | kCausal, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 7, .hq = 4, .hkv = 1, .sq = {1, 6}, .sk = {37, 42}},
      {.name = "page-larger-than-keys", .flags = kStats, .kv_layout = kTable, .page_size = 256,
       .sq = {2, 2}, .sk = {3, 250}},
      {.name = "nan-in-masked-keys-causal", .flags = kStats | kCausal, .hq = 2, .dqk = 64,
       .sq = {100}, .sk = {130}, .data = kDataNanSeenByFew},
      {.name = "nan-in-masked-keys-mask", .flags = kStats | kMask, .hq = 2, .dqk = 32, .sq = {40},
       .sk = {70}, .mask_density = 0.3, .data = kDataNanSeenByFew, .quick = true},
      {.name = "nan-in-masked-keys-window-bf16", .flags = kStats | kCausal | kWindow,
       .q_dtype = kBf16, .hq = 2, .dqk = 64, .sq = {90}, .sk = {90}, .window_left = 7,
       .data = kDataNanSeenByFew},
      {.name = "nan-in-masked-keys-decode", .flags = kStats | kMask, .hq = 8, .hkv = 2, .dqk = 64,
       .sq = {2}, .sk = {500}, .mask_density = 0.05, .data = kDataNanSeenByFew},
      {.name = "nan-in-masked-keys-tree-paged", .flags = kStats | kTail | kCausal,
       .q_layout = kRagged, .kv_layout = kTable, .page_size = 8, .hq = 4, .hkv = 2, .sq = {12, 7},
       .sk = {30, 7}, .mask_density = 0.4, .data = kDataNanSeenByFew},
      {.name = "inf-in-some-queries", .flags = kStats | kCausal, .hq = 2, .dqk = 64, .sq = {65},
       .sk = {65}, .data = kDataInfScores},
      {.name = "sink-minus-inf", .flags = kStats | kSink, .hq = 4, .hkv = 2, .sq = {9}, .sk = {33},
       .data = kDataSinkMinusInf},
      {.name = "sink-minus-inf-no-key", .flags = kStats | kSink | kLseSink, .hq = 4, .sq = {3},
       .sk = {0}, .data = kDataSinkMinusInf},
      {.name = "sink-plus-inf", .flags = kStats | kSink, .hq = 4, .sq = {9}, .sk = {33},
       .data = kDataSinkPlusInf, .quick = true},
      {.name = "sink-plus-inf-in-lse", .flags = kStats | kSink | kLseSink, .hq = 4, .sq = {9},
       .sk = {33}, .data = kDataSinkPlusInf},
      {.name = "scores-1e4", .flags = kStats | kCausal, .hq = 2, .dqk = 64, .sq = {40}, .sk = {99},
       .data = kDataHugeScores, .quick = true},
      {.name = "scores-1e4-base2", .flags = kStats | kSink, .hq = 2, .dqk = 64, .sq = {40},
       .sk = {99}, .lse_base = ATTN_LSE_BASE_2, .data = kDataHugeScores},
      {.name = "scores-1e4-fp16", .flags = kStats | kSink, .q_dtype = kFp16, .hq = 2, .dqk = 64,
       .sq = {40}, .sk = {99}, .data = kDataHugeScores},
      {.name = "scores-minus-1e4", .flags = kStats, .hq = 2, .dqk = 64, .sq = {40}, .sk = {99},
       .data = kDataNegativeScores},
      {.name = "scores-minus-1e4-sink", .flags = kStats | kSink | kLseSink, .hq = 2, .dqk = 64,
       .sq = {40}, .sk = {99}, .data = kDataNegativeScores},
      {.name = "scores-minus-1e4-decode-bf16", .flags = kStats, .q_dtype = kBf16, .hq = 8, .hkv = 2,
       .dqk = 128, .sq = {1}, .sk = {3000}, .data = kDataNegativeScores},
      {.name = "scores-1e4-softcap", .flags = kStats, .hq = 2, .dqk = 64, .sq = {40}, .sk = {99},
       .softcap = 30, .data = kDataHugeScores},
      {.name = "negative-scale", .flags = kStats | kCausal, .sq = {20}, .sk = {20}, .scale = -0.3f},
      {.name = "strides-padded", .flags = kStats | kCausal | kBias | kMask | kGate, .hq = 4,
       .hkv = 2, .dqk = 40, .sq = {33, 33}, .sk = {50, 50}, .strides = Strides::kPadded,
       .quick = true},
      {.name = "strides-permuted", .flags = kStats | kCausal | kBias | kMask | kGate, .hq = 4,
       .hkv = 2, .dqk = 40, .sq = {33, 33}, .sk = {50, 50}, .strides = Strides::kPermuted,
       .quick = true},
      {.name = "strides-negative", .flags = kStats | kCausal | kBias | kMask | kGate, .hq = 4,
       .hkv = 2, .dqk = 40, .sq = {33, 33}, .sk = {50, 50}, .strides = Strides::kNegative,
       .quick = true},
      {.name = "strides-shared-batch", .flags = kStats, .hq = 4, .hkv = 2, .sq = {3, 3, 3},
       .sk = {50, 50, 50}, .strides = Strides::kShared},
      {.name = "strides-permuted-paged", .flags = kStats, .q_dtype = kBf16, .kv_layout = kTable,
       .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 1}, .sk = {100, 31},
       .strides = Strides::kPermuted},
      {.name = "strides-padded-ragged", .flags = kStats | kCausal, .q_dtype = kFp16,
       .q_layout = kRagged, .kv_layout = kRagged, .hq = 4, .hkv = 2, .dqk = 64, .sq = {10, 77},
       .sk = {10, 77}, .strides = Strides::kPadded},
      {.name = "strides-negative-paged", .flags = kStats, .kv_layout = kTable, .page_size = 16,
       .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 1}, .sk = {100, 31}, .strides = Strides::kNegative},
      {.name = "ragged-q-dense-k", .flags = kStats | kCausal | kUsedK, .q_layout = kRagged, .hq = 4,
       .hkv = 2, .sq = {3, 0, 20}, .sk = {9, 5, 20}},
      {.name = "dense-q-ragged-k", .flags = kStats | kCausal, .kv_layout = kRagged, .hq = 4,
       .hkv = 2, .sq = {6, 6, 6}, .sk = {9, 0, 20}},
      {.name = "ragged-both-used", .flags = kStats | kCausal | kUsedQ | kUsedK, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .sq = {6, 0, 13}, .sk = {9, 4, 20}, .spare_q = 3,
       .spare_k = 5},
      {.name = "ragged-rest", .flags = kStats | kCausal, .q_layout = kRagged, .kv_layout = kRagged,
       .hq = 4, .hkv = 2, .dqk = 64, .sq = {20, 0, 33}, .sk = {20, 5, 41}, .rest_q = 70,
       .rest_k = 5, .quick = true},
      {.name = "ragged-rest-bf16", .flags = kStats | kCausal, .q_dtype = kBf16, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .dqk = 64, .sq = {70, 33}, .sk = {70, 41},
       .rest_q = 150, .rest_k = 5, .quick = true},
      {.name = "ragged-rest-options", .flags = kStats | kAlibi | kSink | kLseSink | kGate | kSegments,
       .q_dtype = kBf16, .q_layout = kRagged, .kv_layout = kTable, .page_size = 16, .hq = 4,
       .hkv = 2, .sq = {20, 33}, .sk = {60, 41}, .rest_q = 9, .alibi_per_batch = true},
      {.name = "ragged-rest-decode", .flags = kStats, .q_dtype = kBf16, .q_layout = kRagged,
       .kv_layout = kTable, .page_size = 16, .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 1},
       .sk = {300, 41}, .rest_q = 3},
      {.name = "ragged-rest-only", .flags = kStats, .q_layout = kRagged, .kv_layout = kRagged,
       .sq = {0}, .sk = {0}, .rest_q = 5, .rest_k = 7},
      {.name = "head-dim-1", .flags = kStats | kCausal, .hq = 3, .dqk = 1, .sq = {40}, .sk = {40}},
      {.name = "head-dim-odd", .flags = kStats | kCausal, .q_dtype = kBf16, .hq = 3, .dqk = 37,
       .dv = 19, .sq = {70}, .sk = {70}},
      {.name = "head-dim-192-128", .flags = kStats | kCausal, .q_dtype = kBf16, .hq = 2, .dqk = 192,
       .dv = 128, .sq = {70}, .sk = {70}},
      {.name = "head-dim-64-512", .flags = kStats, .hq = 2, .hkv = 1, .dqk = 64, .dv = 512,
       .sq = {20}, .sk = {70}},
      {.name = "head-dim-512", .flags = kStats | kCausal, .q_dtype = kBf16, .hq = 2, .dqk = 512,
       .sq = {20}, .sk = {70}},
      {.name = "head-dim-4096", .flags = kStats, .hq = 1, .dqk = 4096, .sq = {2}, .sk = {5}},
      {.name = "latent-decode", .flags = kStats | kLatent, .q_dtype = kBf16, .kv_layout = kTable,
       .page_size = 64, .hq = 16, .hkv = 1, .dqk = 576, .dv = 512, .sq = {1, 1}, .sk = {100, 257},
       .scale = 0.0721687837f, .quick = true},
      {.name = "latent-prefill", .flags = kStats | kLatent | kCausal, .hq = 4, .hkv = 1, .dqk = 96,
       .dv = 64, .sq = {50}, .sk = {70}},
      {.name = "latent-equal-dims", .flags = kStats | kLatent, .hq = 4, .hkv = 2, .dqk = 32,
       .sq = {5}, .sk = {70}, .strides = Strides::kPermuted},
      {.name = "everything", .flags = kStats | kCausal | kWindow | kMask | kTail | kSegments | kBias |
       kAlibi | kSink | kLseSink | kDropout | kBlocks | kGate | kUsedQ | kUsedK, .hq = 6, .hkv = 2,
       .dqk = 24, .dv = 16, .sq = {20, 33}, .sk = {60, 41}, .spare_q = 2, .spare_k = 3,
       .loose_limits = true, .softcap = 5, .window_left = 40, .window_right = 3, .chunk = 64,
       .sink_tokens = 2, .block_q = 8, .block_k = 16, .dropout_p = 0.1f,
       .lse_base = ATTN_LSE_BASE_2, .strides = Strides::kPermuted, .mask_density = 0.9,
       .quick = true},
      {.name = "everything-paged", .flags = kStats | kCausal | kWindow | kMask | kTail | kSegments |
       kBias | kAlibi | kSink | kDropout | kBlocks | kGate | kUsedQ, .q_dtype = kBf16,
       .bias_dtype = kBf16, .gate_dtype = kFp16, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 8, .hq = 6, .hkv = 2, .dqk = 24, .dv = 16, .sq = {20, 33}, .sk = {60, 41},
       .spare_q = 2, .softcap = 5, .window_left = 40, .window_right = 3, .chunk = 64,
       .sink_tokens = 2, .block_q = 8, .block_k = 16, .dropout_p = 0.1f,
       .mask_density = 0.9, .data = kDataNegativePages},
  };
  for (SdpaCase row : table) {
    row.name = "sdpa/edge/" + row.name;
    rows.push_back(std::move(row));
  }
}

void options(std::vector<SdpaCase> &rows) {
  const std::vector<SdpaCase> table = {
      {.name = "tree", .flags = kStats | kTail, .hq = 4, .hkv = 2, .sq = {13, 13}, .sk = {60, 60},
       .mask_density = 0.4},
      {.name = "tree-more-queries-than-keys", .flags = kStats | kTail, .sq = {13}, .sk = {6},
       .mask_density = 0.5},
      {.name = "tree-shared", .flags = kStats | kTail | kCausal, .sq = {13, 13}, .sk = {33, 33},
       .share_batch = true, .share_heads = true},
      {.name = "mask-shared", .flags = kStats | kMask, .hq = 4, .sq = {31, 31}, .sk = {61, 61},
       .share_batch = true, .share_heads = true},
      {.name = "segments", .flags = kStats | kSegments | kCausal, .hq = 4, .hkv = 2, .sq = {70},
       .sk = {70}},
      {.name = "segments-ragged", .flags = kStats | kSegments, .q_layout = kRagged,
       .kv_layout = kRagged, .sq = {10, 33}, .sk = {20, 30}},
      {.name = "segments-paged", .flags = kStats | kSegments, .q_layout = kRagged,
       .kv_layout = kTable, .page_size = 16, .sq = {10, 33}, .sk = {20, 30}},
      {.name = "bias-full", .flags = kStats | kBias, .hq = 4, .hkv = 2, .sq = {40, 40},
       .sk = {70, 70}},
      {.name = "bias-shared-rows", .flags = kStats | kBias | kCausal, .hq = 4, .sq = {40, 40},
       .sk = {70, 70}, .share_batch = true, .share_rows = true},
      {.name = "bias-bf16", .flags = kStats | kBias, .q_dtype = kBf16, .bias_dtype = kBf16, .hq = 4,
       .sq = {40, 40}, .sk = {70, 70}, .share_heads = true},
      {.name = "bias-decode", .flags = kStats | kBias, .q_dtype = kBf16, .hq = 8, .hkv = 2,
       .dqk = 64, .sq = {1, 1}, .sk = {333, 333}},
      {.name = "alibi", .flags = kStats | kAlibi | kCausal, .hq = 8, .hkv = 2, .sq = {40},
       .sk = {90}},
      {.name = "alibi-both-sides", .flags = kStats | kAlibi, .hq = 3, .sq = {40, 40},
       .sk = {30, 30}, .alibi_per_batch = true},
      {.name = "alibi-top-left", .flags = kStats | kAlibi, .hq = 3, .sq = {40, 40}, .sk = {90, 90},
       .alignment = ATTN_ALIGN_TOP_LEFT},
      {.name = "alibi-decode-paged", .flags = kStats | kAlibi, .q_dtype = kBf16,
       .kv_layout = kTable, .page_size = 16, .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 1},
       .sk = {333, 40}},
      {.name = "softcap", .flags = kStats | kCausal, .hq = 4, .hkv = 2, .dqk = 64, .sq = {66},
       .sk = {66}, .scale = 1, .softcap = 20},
      {.name = "softcap-bias-alibi-sink", .flags = kStats | kBias | kAlibi | kSink, .hq = 4,
       .hkv = 2, .dqk = 64, .sq = {33}, .sk = {66}, .scale = 1, .softcap = 10},
      {.name = "sink", .flags = kStats | kSink | kCausal | kWindow, .q_dtype = kBf16, .hq = 8,
       .hkv = 2, .dqk = 64, .sq = {70}, .sk = {90}, .window_left = 31},
      {.name = "sink-in-lse-base2", .flags = kStats | kSink | kLseSink, .hq = 8, .hkv = 2,
       .dqk = 64, .sq = {5}, .sk = {90}, .lse_base = ATTN_LSE_BASE_2},
      {.name = "dropout", .flags = kStats | kDropout, .hq = 3, .sq = {20, 20}, .sk = {70, 70},
       .dropout_p = 0.5f, .quick = true},
      {.name = "dropout-zero", .flags = kStats | kDropout, .sq = {20}, .sk = {20}},
      {.name = "dropout-nearly-one", .flags = kStats | kDropout, .sq = {20}, .sk = {50},
       .dropout_p = 0.999f},
      {.name = "dropout-ragged-paged", .flags = kStats | kDropout | kCausal, .q_layout = kRagged,
       .kv_layout = kTable, .page_size = 8, .hq = 4, .hkv = 2, .sq = {3, 20}, .sk = {33, 25},
       .dropout_p = 0.25f},
      {.name = "dropout-silu", .flags = kDropout | kCausal, .sq = {20}, .sk = {30},
       .dropout_p = 0.25f, .activation = ATTN_ACTIVATION_SILU},
      {.name = "blocks", .flags = kStats | kBlocks | kCausal, .hq = 4, .hkv = 2, .sq = {70, 70},
       .sk = {130, 130}, .block_q = 16, .block_k = 32},
      {.name = "blocks-messy", .flags = kStats | kBlocks, .hq = 4, .hkv = 2, .sq = {70}, .sk = {75},
       .block_q = 9, .block_k = 7, .data = kDataRepeatedBlocks, .quick = true},
      {.name = "blocks-shared-ragged", .flags = kStats | kBlocks, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .sq = {10, 40}, .sk = {50, 20}, .block_q = 8,
       .block_k = 8, .share_batch = true, .share_heads = true, .data = kDataRepeatedBlocks},
      {.name = "blocks-bf16", .flags = kStats | kBlocks | kCausal, .q_dtype = kBf16, .hq = 4,
       .hkv = 2, .dqk = 128, .dv = 72, .sq = {70, 70}, .sk = {130, 130}, .block_q = 24,
       .block_k = 40},
      {.name = "blocks-paged-decode", .flags = kStats | kBlocks, .q_dtype = kFp16,
       .kv_layout = kTable, .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {1, 1},
       .sk = {700, 33}, .block_q = 1, .block_k = 5},
      {.name = "gate", .flags = kStats | kGate | kCausal, .hq = 4, .hkv = 2, .dqk = 64, .sq = {40},
       .sk = {40}},
      {.name = "gate-per-head-bf16", .flags = kStats | kGate, .q_dtype = kBf16, .gate_dtype = kBf16,
       .hq = 4, .hkv = 2, .dqk = 64, .sq = {40}, .sk = {40}, .gate_per_head = true},
      {.name = "silu", .flags = kCausal, .hq = 4, .hkv = 2, .dqk = 32, .sq = {40}, .sk = {60},
       .scale = 1, .activation = ATTN_ACTIVATION_SILU},
      {.name = "silu-everything", .flags = kCausal | kMask | kBias | kAlibi | kGate | kSegments,
       .hq = 4, .hkv = 2, .dqk = 32, .sq = {40}, .sk = {60}, .scale = 1, .softcap = 3,
       .activation = ATTN_ACTIVATION_SILU},
      {.name = "silu-bf16", .flags = kCausal | kMask | kBias | kAlibi | kGate | kSegments,
       .q_dtype = kBf16, .hq = 4, .hkv = 2, .dqk = 128, .dv = 72, .sq = {40}, .sk = {60},
       .scale = 1, .activation = ATTN_ACTIVATION_SILU},
      {.name = "silu-blocks-dropout", .flags = kBlocks | kDropout, .q_dtype = kFp16, .hq = 4,
       .hkv = 2, .dqk = 32, .sq = {40}, .sk = {60}, .scale = 1, .block_q = 16, .block_k = 20,
       .dropout_p = 0.25f, .activation = ATTN_ACTIVATION_SILU},
      // Weights that fp16 does not hold, of results that it does.
      {.name = "silu-fp16-huge", .q_dtype = kFp16, .hq = 4, .hkv = 2, .dqk = 32, .sq = {40},
       .sk = {60}, .scale = 3000, .activation = ATTN_ACTIVATION_SILU},
      {.name = "silu-no-key", .sq = {4}, .sk = {0}, .activation = ATTN_ACTIVATION_SILU},
      {.name = "split-none", .flags = kStats, .q_dtype = kBf16, .hq = 8, .hkv = 2, .dqk = 64,
       .sq = {1}, .sk = {5000}, .split_policy = ATTN_SPLIT_NONE},
      {.name = "split-fixed", .flags = kStats, .q_dtype = kBf16, .hq = 8, .hkv = 2, .dqk = 64,
       .sq = {1, 1}, .sk = {3000, 3000}, .split_policy = ATTN_SPLIT_FIXED, .split_size = 256},
      {.name = "split-fixed-1", .flags = kStats | kCausal, .hq = 2, .sq = {5}, .sk = {40},
       .split_policy = ATTN_SPLIT_FIXED, .split_size = 1},
      {.name = "split-fixed-odd", .flags = kStats | kSink | kMask, .kv_layout = kTable,
       .page_size = 16, .hq = 4, .hkv = 2, .sq = {3, 3}, .sk = {1000, 77},
       .split_policy = ATTN_SPLIT_FIXED, .split_size = 37, .mask_density = 0.1, .quick = true},
      {.name = "mixed-dtypes", .flags = kStats | kCausal, .q_dtype = kBf16, .k_dtype = kFp16,
       .v_dtype = kFp32, .out_dtype = kFp32, .hq = 4, .hkv = 2, .sq = {20}, .sk = {40}},
      {.name = "fp32-to-bf16", .flags = kStats, .out_dtype = kBf16, .sq = {20}, .sk = {40}},
  };
  for (SdpaCase row : table) {
    row.name = "sdpa/option/" + row.name;
    rows.push_back(std::move(row));
  }
  for (int32_t group : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}) {
    SdpaCase row{.name = "sdpa/gqa/group-" + std::to_string(group), .flags = kStats | kCausal,
                 .q_dtype = group % 3 == 0 ? kFp32 : group % 3 == 1 ? kBf16 : kFp16,
                 .hq = 2 * group, .hkv = 2, .dqk = 64, .sq = {17, 17}, .sk = {70, 70},
                 .quick = group == 5};
    rows.push_back(row);
    row.name += "-decode";
    row.quick = false;
    row.q_layout = kRagged;
    row.kv_layout = group % 2 == 0 ? kTable : kCsr;
    row.page_size = 16;
    row.sq = {1, 1, 3};
    row.sk = {45, 333, 16};
    rows.push_back(row);
  }
}

// Many queries of 16-bit elements and no row_max, which is what tensor-core kernels with tiles of
// 128 queries and more are for.
void many_queries(std::vector<SdpaCase> &rows) {
  const std::vector<SdpaCase> table = {
      {.name = "page-8", .flags = kLse, .kv_layout = kTable, .page_size = 8, .hq = 2, .hkv = 1,
       .dqk = 128, .sq = {200, 200}, .sk = {289, 161}, .quick = true},
      {.name = "page-16-csr", .flags = kLse | kCausal, .q_layout = kRagged, .kv_layout = kCsr,
       .page_size = 16, .hq = 4, .hkv = 2, .dqk = 128, .sq = {70, 150, 3}, .sk = {289, 150, 700}},
      {.name = "page-24", .flags = kCausal, .kv_layout = kTable, .page_size = 24, .hq = 1,
       .dqk = 128, .sq = {300}, .sk = {420}},
      {.name = "page-48", .kv_layout = kCsr, .page_size = 48, .hq = 2, .hkv = 1, .dqk = 192,
       .sq = {130, 130}, .sk = {333, 48}},
      {.name = "page-64", .flags = kLse, .kv_layout = kTable, .page_size = 64, .hq = 2, .hkv = 1,
       .dqk = 128, .sq = {260, 260}, .sk = {577, 1}},
      {.name = "page-64-narrow", .flags = kLse | kCausal, .kv_layout = kTable, .page_size = 64,
       .hq = 2, .hkv = 1, .dqk = 64, .sq = {390, 390}, .sk = {577, 390}},
      {.name = "page-256", .flags = kCausal | kWindow, .q_layout = kRagged, .kv_layout = kTable,
       .page_size = 256, .hq = 2, .hkv = 1, .dqk = 96, .sq = {200, 100}, .sk = {700, 300},
       .window_left = 100},
      {.name = "page-no-box", .flags = kLse, .kv_layout = kTable, .page_size = 12, .hq = 1,
       .dqk = 128, .sq = {100}, .sk = {200}},
      {.name = "pages-negative", .flags = kLse, .kv_layout = kTable, .page_size = 16, .hq = 2,
       .hkv = 1, .dqk = 128, .sq = {200, 200}, .sk = {400, 290}, .data = kDataNegativePages},
      {.name = "pages-negative-causal", .flags = kLse | kCausal, .q_layout = kRagged,
       .kv_layout = kCsr, .page_size = 64, .hq = 2, .hkv = 1, .dqk = 128, .sq = {200, 90},
       .sk = {640, 290}, .data = kDataNegativePages | kDataRepeatedPages},
      {.name = "pages-nan", .flags = kLse | kCausal, .kv_layout = kTable, .page_size = 16, .hq = 2,
       .hkv = 1, .dqk = 128, .sq = {150, 150}, .sk = {200, 170},
       .data = kDataNanSeenByFew | kDataNegativePages},
      {.name = "pages-permuted", .flags = kLse, .kv_layout = kTable, .page_size = 32, .hq = 4,
       .hkv = 2, .dqk = 128, .sq = {100, 100}, .sk = {130, 200}, .strides = Strides::kPermuted},
      {.name = "pages-no-key", .flags = kLse, .kv_layout = kCsr, .page_size = 16, .hq = 2,
       .dqk = 64, .sq = {100, 100, 100}, .sk = {0, 33, 0}},
      {.name = "softcap-large", .flags = kLse | kCausal, .hq = 2, .dqk = 128, .sq = {150},
       .sk = {300}, .softcap = 30, .data = kDataHugeScores},
      {.name = "alibi-top-left", .flags = kLse | kAlibi, .hq = 3, .dqk = 128, .sq = {100, 100},
       .sk = {150, 150}, .alignment = ATTN_ALIGN_TOP_LEFT, .alibi_per_batch = true},
      {.name = "softcap-alibi-window", .flags = kAlibi | kWindow, .hq = 2, .dqk = 64, .sq = {300},
       .sk = {300}, .scale = 1, .softcap = 10, .window_left = 60, .window_right = 5},
      {.name = "softcap-alibi-pages", .flags = kLse | kAlibi | kCausal | kSink, .q_layout = kRagged,
       .kv_layout = kTable, .page_size = 16, .hq = 4, .hkv = 2, .dqk = 128, .sq = {100, 3, 260},
       .sk = {170, 44, 400}, .softcap = 2, .data = kDataNegativePages},
      {.name = "softcap-alibi-nan", .flags = kLse | kAlibi | kCausal, .hq = 2, .dqk = 128,
       .sq = {150}, .sk = {200}, .softcap = 3, .data = kDataNanSeenByFew},
      // Tiles with scores on either side of the magnitude from which softcap needs an exponential.
      {.name = "softcap-mixed", .flags = kLse, .hq = 2, .dqk = 64, .sq = {200}, .sk = {900},
       .scale = 1, .softcap = 110},
      {.name = "softcap-mixed-sink", .flags = kLse | kCausal | kSink, .hq = 2, .dqk = 128,
       .sq = {300}, .sk = {700}, .scale = 1, .softcap = 150},
      // On either side of the one up to which a shorter polynomial is good.
      {.name = "softcap-mixed-tiny", .flags = kLse, .hq = 2, .dqk = 64, .sq = {200}, .sk = {900},
       .scale = 0.22f, .softcap = 50},
      // No score above 0; far below the cap, and at it.
      {.name = "softcap-minus", .flags = kLse, .hq = 2, .dqk = 64, .sq = {150}, .sk = {400},
       .softcap = 1e5f, .data = kDataNegativeScores},
      {.name = "softcap-minus-large", .flags = kLse | kCausal, .hq = 2, .dqk = 128, .sq = {150},
       .sk = {400}, .softcap = 30, .data = kDataNegativeScores},
      {.name = "softcap-huge", .flags = kLse | kCausal, .hq = 2, .dqk = 128, .sq = {150},
       .sk = {400}, .softcap = 1e30f},
      {.name = "softcap-window", .flags = kLse | kWindow, .hq = 2, .dqk = 128, .sq = {300},
       .sk = {700}, .softcap = 50, .window_left = 150, .window_right = 5},
      {.name = "softcap-nan", .flags = kLse | kCausal, .hq = 2, .dqk = 128, .sq = {150},
       .sk = {400}, .softcap = 50, .data = kDataNanSeenByFew},
      {.name = "softcap-pages-negative", .flags = kLse | kSink, .kv_layout = kTable,
       .page_size = 16, .hq = 2, .hkv = 1, .dqk = 128, .sq = {200, 200}, .sk = {400, 290},
       .softcap = 50, .data = kDataNegativePages},
      {.name = "softcap-ragged", .flags = kLse | kCausal, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 2, .dqk = 96, .sq = {100, 0, 230}, .sk = {150, 9, 400},
       .softcap = 50},
      {.name = "ragged-padding", .flags = kLse | kCausal, .q_layout = kRagged, .kv_layout = kRagged,
       .hq = 2, .hkv = 1, .dqk = 128, .sq = {70, 0, 390}, .sk = {70, 9, 600}, .loose_limits = true},
      {.name = "ragged-used", .flags = kLse | kCausal | kUsedQ | kUsedK, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 2, .dqk = 64, .sq = {100, 0, 400}, .sk = {9, 4, 400},
       .spare_q = 200, .spare_k = 5},
      {.name = "ragged-q-dense-k", .flags = kLse, .q_layout = kRagged, .hq = 2, .dqk = 128,
       .sq = {300, 0, 20}, .sk = {150, 150, 150}},
  };
  const auto add = [&](SdpaCase row) {
    row.name = "sdpa/many-queries/" + row.name;
    row.q_dtype = rows.size() % 2 == 0 ? kFp16 : kBf16;
    rows.push_back(std::move(row));
  };
  for (const SdpaCase &row : table) add(row);
  for (const int32_t dim : {128, 192}) {
    for (const int32_t dtype : {kFp16, kBf16}) {
      const std::string suffix = std::to_string(dim) + (dtype == kFp16 ? "-fp16" : "-bf16");
      SdpaCase row{.name = "sdpa/many-queries/page-16-" + suffix, .flags = kLse, .q_dtype = dtype,
                   .kv_layout = kTable, .page_size = 16, .hq = 1, .dqk = dim, .sq = {140},
                   .sk = {430}};
      rows.push_back(row);
      row.name = "sdpa/many-queries/softcap-page-16-" + suffix;
      row.softcap = 4;
      rows.push_back(row);
    }
  }
  // Each tile of the Hopper kernel that serves softcap and ALiBi.
  struct Tile {
    int32_t dqk, dv, keys;
  };
  for (const Tile &tile : {Tile{64, 64, 430}, Tile{96, 96, 430}, Tile{128, 128, 430},
                           Tile{128, 128, 380}, Tile{192, 128, 430}, Tile{192, 192, 430},
                           Tile{256, 256, 430}}) {
    for (const int32_t dtype : {kFp16, kBf16}) {
      const std::string suffix = std::to_string(tile.dqk) + "x" + std::to_string(tile.dv) + "-" +
                                 std::to_string(tile.keys) + (dtype == kFp16 ? "-fp16" : "-bf16");
      const auto with = [&](const char *name, uint64_t flags, float softcap) {
        rows.push_back({.name = std::string("sdpa/many-queries/") + name + suffix,
                        .flags = kLse | flags, .q_dtype = dtype, .hq = 2, .hkv = 1,
                        .dqk = tile.dqk, .dv = tile.dv, .sq = {140}, .sk = {tile.keys},
                        .softcap = softcap});
      };
      with("softcap-", 0, 50);
      with("alibi-", kAlibi, 0);
      with("softcap-alibi-", kAlibi, 3);
    }
  }
  // More sequences than a warp has lanes, in any order of lengths.
  for (const bool causal : {false, true}) {
    SdpaCase row{.name = causal ? "ragged-many-causal" : "ragged-many",
                 .flags = kLse | (causal ? kCausal : 0), .q_layout = kRagged, .kv_layout = kRagged,
                 .hq = 3, .hkv = 1, .dqk = 64, .sq = {}, .sk = {}};
    for (int32_t n = 0; n < 70; n++) {
      row.sq.push_back(n % 23 == 7 ? 300 + n : n * 37 % 50);
      row.sk.push_back(causal ? row.sq.back() : n * 53 % 400);
    }
    add(row);
  }
}

void sizes(std::vector<SdpaCase> &rows) {
  // Lengths around the borders of anyone's tiles.
  for (int32_t dtype : {kFp32, kFp16, kBf16}) {
    const char *name = dtype == kFp32 ? "fp32" : dtype == kFp16 ? "fp16" : "bf16";
    for (int32_t n : {1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257, 385}) {
      rows.push_back({.name = std::string("sdpa/prefill/") + name + "-" + std::to_string(n),
                      .flags = kStats | (n % 2 != 0 ? kCausal : 0), .q_dtype = dtype, .hq = 4,
                      .hkv = 2, .dqk = n % 3 == 0 ? 128 : 64, .sq = {n}, .sk = {n},
                      .quick = n == 65, .bench = n == 385});
    }
    for (int32_t n : {1, 2, 31, 33, 64, 127, 500, 1024, 1025, 4099}) {
      rows.push_back({.name = std::string("sdpa/decode/") + name + "-" + std::to_string(n),
                      .flags = kLse, .q_dtype = dtype, .hq = 8, .hkv = 2, .dqk = 128,
                      .sq = {1, 1}, .sk = {n, n}, .quick = n == 127, .bench = n == 4099});
      rows.push_back({.name = std::string("sdpa/decode/paged-") + name + "-" + std::to_string(n),
                      .flags = kLse | kCausal, .q_dtype = dtype, .kv_layout = kTable,
                      .page_size = n % 2 == 0 ? 16 : 64, .hq = 8, .hkv = 2, .dqk = 64,
                      .sq = {2, 2, 2}, .sk = {n, n / 2 + 2, 3}, .bench = n == 4099});
    }
    // Heads of a token side by side: odd numbers of heads, rows in fours and eights, head dims that
    // are no whole tiles, whole blocks beside blocks with hidden keys.
    for (int32_t heads : {2, 3, 8}) {
      rows.push_back({.name = std::string("sdpa/decode/heads-") + name + "-" + std::to_string(heads),
                      .flags = kStats | (heads == 3 ? kCausal : 0), .q_dtype = dtype,
                      .kv_layout = heads == 8 ? kTable : ATTN_LAYOUT_DENSE, .page_size = heads == 8 ? 16 : 0,
                      .hq = heads == 2 ? 16 : 4 * heads, .hkv = heads,
                      .dqk = heads == 3 ? 96 : heads == 2 ? 192 : 128, .dv = heads == 2 ? 96 : 0,
                      .sq = {heads == 3 ? 3 : 1, 1}, .sk = {200, 1111}, .quick = heads == 3});
    }
    rows.push_back({.name = std::string("sdpa/prefill/serving-") + name, .flags = kLse | kCausal,
                    .q_dtype = dtype, .q_layout = kRagged, .kv_layout = kTable, .page_size = 16,
                    .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 130, 1, 0, 64, 7},
                    .sk = {300, 130, 17, 20, 200, 7}, .loose_limits = true, .bench = true});
    rows.push_back({.name = std::string("sdpa/prefill/varlen-") + name, .flags = kLse | kCausal,
                    .q_dtype = dtype, .q_layout = kRagged, .kv_layout = kRagged,
                    .hq = 6, .hkv = 6, .dqk = 80, .sq = {5, 200, 1, 0, 64}, .sk = {5, 200, 1, 0, 64}});
    // Many tiles of keys, with and without hidden ones, for each width of the tiles.
    for (int32_t dqk : {64, 96, 128, 192, 256}) {
      const std::string suffix = std::string(name) + "-" + std::to_string(dqk);
      rows.push_back({.name = "sdpa/prefill/long-" + suffix, .flags = kLse | kCausal, .q_dtype = dtype,
                      .hq = 2, .hkv = 1, .dqk = dqk, .sq = {300}, .sk = {1100}});
      rows.push_back({.name = "sdpa/prefill/far-" + suffix, .flags = kLse | kWindow | kSink,
                      .q_dtype = dtype, .hq = 1, .dqk = dqk, .sq = {400}, .sk = {700},
                      .window_left = 300, .window_right = 150});
    }
    rows.push_back({.name = std::string("sdpa/prefill/longest-") + name, .flags = kLse, .q_dtype = dtype,
                    .hq = 1, .dqk = 128, .sq = {150}, .sk = {8300}});
    // More blocks of queries than a GPU has multiprocessors.
    for (uint64_t causal : {uint64_t{0}, kCausal}) {
      rows.push_back({.name = std::string("sdpa/prefill/many-") + (causal ? "causal-" : "") + name,
                      .flags = causal, .q_dtype = dtype, .hq = 24, .hkv = 6, .dqk = 64,
                      .sq = {385, 385, 385}, .sk = {385, 385, 385}});
    }
  }
  // The same bits whatever the batch and the number of threads.
  for (int32_t dtype : {kFp32, kBf16}) {
    const std::string name = dtype == kFp32 ? "fp32" : "bf16";
    const int32_t invariant = ATTN_DETERMINISM_BATCH_INVARIANT;
    rows.push_back({.name = "sdpa/invariant/prefill-" + name, .flags = kStats | kCausal | kBias,
                    .q_dtype = dtype, .hq = 4, .hkv = 2, .dqk = 64, .sq = {130, 130, 130},
                    .sk = {140, 140, 140}, .determinism = invariant});
    rows.push_back({.name = "sdpa/invariant/ragged-" + name, .flags = kStats | kCausal | kSink,
                    .q_dtype = dtype, .q_layout = kRagged, .kv_layout = kRagged, .hq = 4, .hkv = 2,
                    .dqk = 64, .sq = {130, 1, 33}, .sk = {140, 600, 33}, .determinism = invariant,
                    .quick = dtype == kFp32});
    rows.push_back({.name = "sdpa/invariant/decode-" + name, .flags = kStats, .q_dtype = dtype,
                    .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 1, 1}, .sk = {2500, 2500, 2500},
                    .determinism = invariant, .quick = dtype == kBf16});
    rows.push_back({.name = "sdpa/invariant/decode-paged-" + name, .flags = kStats,
                    .q_dtype = dtype, .kv_layout = kTable, .page_size = 16, .hq = 8, .hkv = 2,
                    .dqk = 64, .sq = {1, 1, 1}, .sk = {2500, 1, 777}, .determinism = invariant});
    rows.push_back({.name = "sdpa/invariant/split-fixed-" + name, .flags = kStats | kMask,
                    .q_dtype = dtype, .q_layout = kRagged, .kv_layout = kCsr, .page_size = 16,
                    .hq = 8, .hkv = 2, .dqk = 64, .sq = {1, 4, 1}, .sk = {1500, 30, 777},
                    .split_policy = ATTN_SPLIT_FIXED, .split_size = 100,
                    .determinism = invariant});
    // One head: threads share its queries and keys.
    rows.push_back({.name = "sdpa/invariant/backward-one-head-" + name, .pass = kBackward,
                    .flags = kCausal | kGate | kSink,
                    .grads = kGradQkv | ATTN_SDPA_GRAD_GATE | ATTN_SDPA_GRAD_SINK, .q_dtype = dtype,
                    .hq = 2, .hkv = 1, .dqk = 64, .sq = {500}, .sk = {470},
                    .determinism = invariant});
    rows.push_back({.name = "sdpa/invariant/backward-one-head-paged-" + name, .pass = kBackward,
                    .flags = kLse, .grads = kGradQkv, .q_dtype = dtype, .kv_layout = kTable,
                    .page_size = 16, .hq = 1, .hkv = 1, .dqk = 32, .sq = {230}, .sk = {333},
                    .determinism = invariant, .data = kDataRepeatedPages});
    rows.push_back({.name = "sdpa/invariant/backward-" + name, .pass = kBackward,
                    .flags = kCausal | kBias, .q_dtype = dtype, .hq = 4, .hkv = 2, .dqk = 32,
                    .sq = {70, 70}, .sk = {90, 90}, .determinism = invariant});
  }
}

void quantised(std::vector<SdpaCase> &rows) {
  const struct {
    const char *name;
    int32_t dtype;
    attn_quant quant;
  } kinds[] = {{"int8-tensor", kInt8, {ATTN_QUANT_TENSOR, 0, 0, 0}},
               {"int8-token-head", kInt8, {ATTN_QUANT_TOKEN_HEAD, 0, kFp16, 0}},
               {"int8-token", kInt8, {ATTN_QUANT_TOKEN, 0, kBf16, 0}},
               {"e4m3fn-plain", kE4m3, {ATTN_QUANT_NONE, 0, 0, 0}},
               {"e4m3fn-head", kE4m3, {ATTN_QUANT_HEAD, 0, 0, 0}},
               {"e5m2-tensor", kE5m2, {ATTN_QUANT_TENSOR, 0, 0, 0}},
               {"e4m3fnuz-head", kFnuz, {ATTN_QUANT_HEAD, 0, 0, 0}},
               {"int4-block32", kInt4, {ATTN_QUANT_BLOCK, 32, kFp16, 0}},
               {"int4-token-head", kInt4, {ATTN_QUANT_TOKEN_HEAD, 0, 0, 0}},
               {"nvfp4", kFp4, {ATTN_QUANT_BLOCK, 16, kE4m3, 0}},
               {"mxfp4", kFp4, {ATTN_QUANT_BLOCK, 32, ATTN_DTYPE_FP8_E8M0, 0}},
               {"mxfp8", kE4m3, {ATTN_QUANT_BLOCK, 32, ATTN_DTYPE_FP8_E8M0, 0}}};
  bool first = true;
  for (const auto &kind : kinds) {
    const std::string base = std::string("sdpa/quant/") + kind.name;
    rows.push_back({.name = base + "-kv", .flags = kStats | kCausal, .q_dtype = kBf16,
                    .k_dtype = kind.dtype, .hq = 4, .hkv = 2, .dqk = 64, .sq = {20, 20},
                    .sk = {50, 50}, .k_quant = kind.quant, .v_quant = kind.quant, .quick = first});
    rows.push_back({.name = base + "-kv-paged", .flags = kLse, .q_dtype = kBf16,
                    .k_dtype = kind.dtype, .kv_layout = kTable, .page_size = 16, .hq = 4, .hkv = 2,
                    .dqk = 64, .sq = {1, 1}, .sk = {50, 130}, .k_quant = kind.quant,
                    .v_quant = kind.quant});
    rows.push_back({.name = base + "-q", .flags = kLse, .q_dtype = kind.dtype, .k_dtype = kBf16,
                    .out_dtype = kFp32, .q_layout = kRagged, .hq = 4, .hkv = 2, .dqk = 64,
                    .sq = {20, 20}, .sk = {50, 50}, .q_quant = kind.quant});
    rows.push_back({.name = base + "-out", .flags = kLse, .out_dtype = kind.dtype, .hq = 4,
                    .dqk = 64, .sq = {20, 20}, .sk = {50, 50}, .out_quant = kind.quant,
                    .data = kind.quant.granularity == ATTN_QUANT_TENSOR ? kDataSaturatedOut
                                                                        : kDataPlain});
    first = false;
  }
  const attn_quant block = {ATTN_QUANT_BLOCK, 16, kE4m3, 0}, head = {ATTN_QUANT_HEAD, 0, 0, 0};
  rows.push_back({.name = "sdpa/quant/block-ragged-tail", .flags = kLse, .q_dtype = kBf16,
                  .k_dtype = kFp4, .kv_layout = kRagged, .hq = 2, .dqk = 40, .sq = {3, 3},
                  .sk = {17, 40}, .k_quant = block, .v_quant = block});
  rows.push_back({.name = "sdpa/quant/strides", .flags = kLse, .q_dtype = kBf16, .k_dtype = kInt4,
                  .hq = 4, .hkv = 2, .dqk = 64, .sq = {9, 9}, .sk = {50, 50}, .k_quant = block,
                  .v_quant = block, .strides = Strides::kPadded});
  rows.push_back({.name = "sdpa/quant/latent-fp8", .flags = kLse | kLatent, .q_dtype = kBf16,
                  .k_dtype = kE4m3, .kv_layout = kTable, .page_size = 16, .hq = 16, .hkv = 1,
                  .dqk = 576, .dv = 512, .sq = {1}, .sk = {90},
                  .k_quant = {ATTN_QUANT_BLOCK, 128, 0, 0}});
  rows.push_back({.name = "sdpa/quant/all-fp8", .flags = kLse | kCausal, .q_dtype = kE4m3,
                  .k_dtype = kE4m3, .v_dtype = kE5m2, .out_dtype = kE4m3, .hq = 4, .hkv = 2,
                  .dqk = 64, .sq = {33, 33}, .sk = {50, 50}, .q_quant = head, .k_quant = head,
                  .v_quant = head, .out_quant = {ATTN_QUANT_TOKEN_HEAD, 0, 0, 0}});
  rows.push_back({.name = "sdpa/quant/nan-tails", .flags = kLse | kUsedK, .q_dtype = kBf16,
                  .k_dtype = kE5m2, .hq = 4, .hkv = 2, .dqk = 64, .sq = {3, 3}, .sk = {20, 50},
                  .spare_k = 9, .k_quant = head, .v_quant = head});
}

void backward(std::vector<SdpaCase> &rows) {
  const uint32_t all_but_lse = kGradQkv;
  const std::vector<SdpaCase> small = {
      {.name = "plain", .quick = true},
      {.name = "causal", .flags = kCausal, .hkv = 1},
      {.name = "lse-gradient", .flags = kCausal, .grads = kGradQkv | ATTN_SDPA_GRAD_LSE_IN},
      {.name = "lse-gradient-base2", .grads = kGradQkv | ATTN_SDPA_GRAD_LSE_IN,
       .lse_base = ATTN_LSE_BASE_2},
      {.name = "bias", .flags = kBias, .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS, .quick = true},
      {.name = "bias-shared", .flags = kBias | kCausal, .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS,
       .sq = {3, 3}, .sk = {4, 4}, .share_batch = true, .share_heads = true, .share_rows = true},
      {.name = "bias-minus-inf", .flags = kBias, .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS,
       .data = kDataBiasMinusInf},
      {.name = "sink", .flags = kSink, .grads = kGradQkv | ATTN_SDPA_GRAD_SINK, .quick = true},
      {.name = "sink-lse-gradient", .flags = kSink,
       .grads = kGradQkv | ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_LSE_IN},
      {.name = "sink-in-lse-gradient", .flags = kSink | kLseSink,
       .grads = kGradQkv | ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_LSE_IN,
       .lse_base = ATTN_LSE_BASE_2},
      {.name = "gate", .flags = kGate, .grads = kGradQkv | ATTN_SDPA_GRAD_GATE, .quick = true},
      {.name = "gate-per-head", .flags = kGate | kSink,
       .grads = kGradQkv | ATTN_SDPA_GRAD_GATE | ATTN_SDPA_GRAD_SINK, .gate_per_head = true},
      {.name = "softcap", .flags = kCausal, .scale = 1, .softcap = 2},
      {.name = "softcap-bias-alibi", .flags = kBias | kAlibi,
       .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS, .scale = 1, .softcap = 2},
      {.name = "alibi-window", .flags = kAlibi | kWindow, .window_left = 1, .window_right = 1},
      {.name = "dropout", .flags = kDropout | kGate,
       .grads = kGradQkv | ATTN_SDPA_GRAD_GATE | ATTN_SDPA_GRAD_LSE_IN, .dropout_p = 0.4f},
      {.name = "silu", .flags = kBias, .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS,
       .activation = ATTN_ACTIVATION_SILU},
      {.name = "silu-dropout-softcap", .flags = kDropout | kCausal | kGate,
       .grads = kGradQkv | ATTN_SDPA_GRAD_GATE, .softcap = 3, .dropout_p = 0.3f,
       .activation = ATTN_ACTIVATION_SILU},
      {.name = "latent", .flags = kLatent | kCausal, .hkv = 1},
      {.name = "dv-differs", .dv = 3},
      {.name = "masks", .flags = kMask | kSegments | kTail, .sq = {5}, .sk = {9}},
      {.name = "everything", .flags = kBias | kAlibi | kSink | kLseSink | kDropout | kGate | kCausal,
       .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS | ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_GATE |
                ATTN_SDPA_GRAD_LSE_IN,
       .scale = 0.7f, .softcap = 2, .dropout_p = 0.2f, .lse_base = ATTN_LSE_BASE_2, .quick = true},
  };
  for (SdpaCase row : small) {
    row.name = "sdpa/gradient/" + row.name;
    row.pass = kBackward;
    row.finite = true;
    row.dqk = 4;
    if (row.sq == std::vector<int32_t>{8}) row.sq = {4};
    if (row.sk == std::vector<int32_t>{16}) row.sk = {6};
    if (row.flags & kLatent) row.dv = 3;
    rows.push_back(row);
    // The same option in another layout, with one query head group of three.
    row.name += "-paged";
    row.quick = false;
    row.finite = row.sq.size() == 1;
    row.q_layout = kRagged;
    row.kv_layout = kTable;
    row.page_size = 4;
    row.hq = 3;
    row.hkv = 1;
    row.share_rows = false;
    row.data |= kDataRepeatedPages;
    rows.push_back(row);
  }
  const std::vector<SdpaCase> larger = {
      {.name = "fp32", .flags = kCausal, .hq = 4, .hkv = 2, .dqk = 64, .sq = {130}, .sk = {150},
       .bench = true},
      {.name = "fp32-d128", .hq = 4, .hkv = 2, .dqk = 128, .sq = {65}, .sk = {129}},
      {.name = "fp32-odd", .flags = kCausal | kWindow, .hq = 3, .hkv = 1, .dqk = 37, .dv = 21,
       .sq = {67}, .sk = {71}, .window_left = 20},
      {.name = "bf16", .flags = kCausal, .q_dtype = kBf16, .hq = 4, .hkv = 2, .dqk = 64,
       .sq = {130}, .sk = {150}},
      {.name = "bf16-fp32-grads", .flags = kCausal | kSink,
       .grads = kGradQkv | ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_LSE_IN, .q_dtype = kBf16,
       .grads_fp32 = true, .hq = 4, .hkv = 2, .dqk = 64, .sq = {70}, .sk = {90}},
      {.name = "fp16", .q_dtype = kFp16, .hq = 4, .hkv = 4, .dqk = 64, .sq = {70, 70},
       .sk = {90, 90}},
      {.name = "varlen", .flags = kCausal, .q_layout = kRagged, .kv_layout = kRagged, .hq = 4,
       .hkv = 2, .dqk = 64, .sq = {70, 0, 1, 33}, .sk = {70, 5, 40, 20}},
      {.name = "varlen-used", .flags = kCausal | kUsedQ | kUsedK, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .sq = {30, 0, 1, 33}, .sk = {30, 5, 0, 20},
       .spare_q = 3, .spare_k = 4},
      {.name = "varlen-rest", .flags = kCausal, .q_dtype = kBf16, .q_layout = kRagged,
       .kv_layout = kRagged, .hq = 4, .hkv = 2, .dqk = 64, .sq = {30, 0, 33}, .sk = {30, 5, 40},
       .rest_q = 70, .rest_k = 75},
      {.name = "dense-used", .flags = kUsedQ | kUsedK | kBias, .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS,
       .hq = 4, .hkv = 2, .sq = {30, 0, 7}, .sk = {30, 5, 0}, .spare_q = 3, .spare_k = 4},
      {.name = "paged", .flags = kCausal, .kv_layout = kTable, .page_size = 16, .hq = 4, .hkv = 2,
       .dqk = 64, .sq = {20, 20}, .sk = {70, 33}},
      {.name = "paged-long", .flags = kCausal, .q_dtype = kBf16, .kv_layout = kTable,
       .page_size = 16, .hq = 4, .hkv = 2, .dqk = 64, .sq = {230, 33}, .sk = {300, 125},
       .data = kDataRepeatedPages},
      {.name = "csr-negative-repeated", .kv_layout = kCsr, .page_size = 8, .hq = 4, .hkv = 2,
       .sq = {20, 20}, .sk = {70, 33}, .data = kDataNegativePages | kDataRepeatedPages},
      {.name = "no-key", .grads = kGradQkv | ATTN_SDPA_GRAD_LSE_IN, .sq = {4, 4}, .sk = {0, 0}},
      {.name = "no-batch", .sq = {}, .sk = {}},
      {.name = "masked-rows", .flags = kMask, .grads = kGradQkv | ATTN_SDPA_GRAD_LSE_IN, .hq = 4,
       .hkv = 2, .dqk = 64, .sq = {66}, .sk = {77}, .data = kDataWholeRowsMasked},
      {.name = "fewer-keys", .flags = kCausal, .hq = 4, .hkv = 2, .sq = {66}, .sk = {30}},
      {.name = "nan-in-masked-keys", .flags = kMask, .hq = 2, .sq = {20}, .sk = {40},
       .mask_density = 0.3, .data = kDataNanSeenByFew},
      {.name = "only-dq", .flags = kCausal, .grads = ATTN_SDPA_GRAD_Q, .hq = 4, .hkv = 2,
       .sq = {33}, .sk = {44}},
      {.name = "only-dk", .flags = kCausal, .grads = ATTN_SDPA_GRAD_K, .hq = 4, .hkv = 2,
       .sq = {33}, .sk = {44}},
      {.name = "only-dv", .flags = kCausal, .grads = ATTN_SDPA_GRAD_V, .hq = 4, .hkv = 2,
       .sq = {33}, .sk = {44}},
      {.name = "only-dbias", .flags = kBias, .grads = ATTN_SDPA_GRAD_BIAS, .sq = {33}, .sk = {44}},
      {.name = "only-dsink", .flags = kSink, .grads = ATTN_SDPA_GRAD_SINK, .sq = {33}, .sk = {44}},
      {.name = "only-dgate", .flags = kGate, .grads = ATTN_SDPA_GRAD_GATE, .sq = {33}, .sk = {44}},
      {.name = "sink-plus-inf", .flags = kSink, .grads = kGradQkv | ATTN_SDPA_GRAD_SINK, .hq = 4,
       .sq = {9}, .sk = {20}, .data = kDataSinkPlusInf},
      {.name = "sink-minus-inf", .flags = kSink | kLseSink, .grads = kGradQkv | ATTN_SDPA_GRAD_SINK,
       .hq = 4, .sq = {9}, .sk = {20}, .data = kDataSinkMinusInf},
      {.name = "scores-1e4", .flags = kCausal, .hq = 2, .dqk = 64, .sq = {40}, .sk = {50},
       .data = kDataHugeScores},
      {.name = "strides-permuted", .flags = kCausal | kBias | kGate,
       .grads = kGradQkv | ATTN_SDPA_GRAD_BIAS | ATTN_SDPA_GRAD_GATE, .hq = 4, .hkv = 2, .dqk = 24,
       .sq = {20, 20}, .sk = {33, 33}, .strides = Strides::kPermuted},
      {.name = "strides-padded", .flags = kCausal, .hq = 4, .hkv = 2, .dqk = 24, .sq = {20, 20},
       .sk = {33, 33}, .strides = Strides::kPadded},
      {.name = "strides-negative", .flags = kCausal | kAlibi, .hq = 4, .hkv = 2, .dqk = 24,
       .sq = {20, 20}, .sk = {33, 33}, .strides = Strides::kNegative},
      {.name = "latent-mla", .flags = kLatent | kCausal, .q_dtype = kBf16, .hq = 8, .hkv = 1,
       .dqk = 96, .dv = 64, .sq = {33}, .sk = {50}},
      {.name = "blocks-segments", .flags = kBlocks | kSegments | kCausal, .hq = 4, .hkv = 2,
       .sq = {40}, .sk = {60}, .block_q = 8, .block_k = 16, .data = kDataRepeatedBlocks},
      {.name = "deterministic", .flags = kCausal, .hq = 8, .hkv = 1, .dqk = 64, .sq = {100},
       .sk = {100}, .determinism = ATTN_DETERMINISM_RUN_TO_RUN},
      {.name = "window-sinks", .flags = kCausal | kWindow, .hq = 2, .hkv = 1, .dqk = 64, .sq = {60},
       .sk = {75}, .window_left = 10, .sink_tokens = 3},
      {.name = "window-both", .flags = kWindow, .hq = 2, .dqk = 64, .sq = {60}, .sk = {45},
       .alignment = ATTN_ALIGN_TOP_LEFT, .window_left = 5, .window_right = 20},
      {.name = "chunk", .flags = kCausal, .hq = 2, .hkv = 1, .dqk = 64, .sq = {40}, .sk = {75},
       .chunk = 20},
      {.name = "nan-in-late-keys", .flags = kCausal, .hq = 4, .hkv = 2, .dqk = 64, .sq = {40},
       .sk = {50}, .data = kDataNanSeenByFew},
      {.name = "nan-in-few-keys", .flags = kWindow, .hq = 2, .hkv = 1, .dqk = 40, .sq = {70},
       .sk = {70}, .window_left = 3, .window_right = 2, .data = kDataNanSeenByFew},
      {.name = "inf-queries", .flags = kCausal, .hq = 4, .hkv = 2, .dqk = 64, .sq = {40}, .sk = {50},
       .data = kDataInfScores},
      {.name = "scores-minus-1e4", .hq = 2, .dqk = 64, .sq = {40}, .sk = {50},
       .data = kDataNegativeScores},
  };
  for (SdpaCase row : larger) {
    row.name = "sdpa/backward/" + row.name;
    row.pass = kBackward;
    if (row.grads == 0) row.grads = (row.flags & kLatent) != 0 ? 0 : all_but_lse;
    rows.push_back(row);
    if (row.q_dtype != ATTN_DTYPE_FP32) continue;
    for (const int32_t dtype : {kFp16, kBf16}) {
      SdpaCase narrow = row;
      narrow.name += dtype == kFp16 ? "-fp16" : "-bf16";
      narrow.q_dtype = dtype;
      narrow.bench = false;
      rows.push_back(std::move(narrow));
    }
  }
}

}  // namespace

std::vector<SdpaCase> sdpa_named_cases() {
  std::vector<SdpaCase> rows;
  edges(rows);
  options(rows);
  many_queries(rows);
  sizes(rows);
  quantised(rows);
  backward(rows);
  return rows;
}

}  // namespace check
