// Rows over element types, head dims and kinds of problem: kernels are compiled for some of each,
// so every combination must be met, once with nothing but the result asked for, as benchmarks do.
#include "sdpa_case.hpp"

namespace check {
namespace {

struct Element {
  const char *name;
  int32_t dtype;
  uint64_t flags;
};

struct Dims {
  int32_t qk, v;
};

std::string name_of(const Element &element, const Dims &dims, const std::string &kind) {
  std::string name = "sdpa/dims/";
  name.append(element.name).append("-").append(std::to_string(dims.qk));
  if (dims.v != dims.qk) name.append("x").append(std::to_string(dims.v));
  return name.append("-").append(kind);
}

}  // namespace

std::vector<SdpaCase> sdpa_dim_cases() {
  constexpr uint64_t kCausal = ATTN_SDPA_CAUSAL, kLse = ATTN_SDPA_RETURN_LSE,
                     kMax = ATTN_SDPA_RETURN_ROW_MAX, kWindow = ATTN_SDPA_WINDOW,
                     kSink = ATTN_SDPA_SINK, kMask = ATTN_SDPA_MASK, kBias = ATTN_SDPA_BIAS,
                     kTail = ATTN_SDPA_TAIL_MASK, kSegments = ATTN_SDPA_SEGMENT_IDS,
                     kAlibi = ATTN_SDPA_ALIBI;
  constexpr uint32_t kGradQkv = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K | ATTN_SDPA_GRAD_V;
  constexpr int32_t kRagged = ATTN_LAYOUT_RAGGED, kTable = ATTN_LAYOUT_PAGED_TABLE;
  const Element elements[] = {{"fp16", ATTN_DTYPE_FP16, 0},
                              {"bf16", ATTN_DTYPE_BF16, 0},
                              {"fp32", ATTN_DTYPE_FP32, 0},
                              {"tf32", ATTN_DTYPE_FP32, ATTN_SDPA_ALLOW_TF32}};
  const Dims dims[] = {{40, 40},  {64, 64},   {96, 96},   {128, 128},
                       {128, 64}, {192, 128}, {256, 256}, {576, 512}};
  const SdpaCase kinds[] = {
      {.name = "full", .hq = 1, .sq = {200}, .sk = {200}},
      {.name = "causal", .flags = kCausal | kLse, .hq = 1, .sq = {150}, .sk = {200}},
      {.name = "causal-varlen",
       .flags = kCausal,
       .q_layout = kRagged,
       .kv_layout = kRagged,
       .hq = 2,
       .hkv = 1,
       .sq = {129, 0, 3, 40},
       .sk = {129, 40, 3, 100}},
      {.name = "window-sink",
       .flags = kCausal | kWindow | kSink | kLse,
       .hq = 2,
       .hkv = 1,
       .sq = {140},
       .sk = {200},
       .window_left = 70,
       .window_right = 0},
      {.name = "few-queries", .flags = kLse, .hq = 4, .hkv = 2, .sq = {3}, .sk = {900}},
      {.name = "some-queries", .hq = 1, .sq = {50}, .sk = {300}},
      {.name = "one-query", .hq = 2, .hkv = 1, .sq = {1, 1, 1}, .sk = {70, 70, 70}},
      {.name = "masked", .flags = kLse | kMax | kMask | kBias, .hq = 2, .sq = {70}, .sk = {140}},
      {.name = "masked-few-queries",
       .flags = kMax | kMask | kBias,
       .hq = 4,
       .hkv = 2,
       .sq = {3},
       .sk = {700}},
      {.name = "paged",
       .flags = kLse | kCausal,
       .q_layout = kRagged,
       .kv_layout = kTable,
       .page_size = 16,
       .hq = 2,
       .hkv = 1,
       .sq = {1, 100, 17},
       .sk = {300, 100, 40}},
      {.name = "paged-few-queries",
       .flags = kLse,
       .q_layout = kRagged,
       .kv_layout = kTable,
       .page_size = 16,
       .hq = 4,
       .hkv = 2,
       .sq = {1, 2},
       .sk = {300, 77}},
      // One option each, which kernels may be compiled for.
      {.name = "mask", .flags = kLse | kMask, .hq = 2, .hkv = 1, .sq = {140}, .sk = {328}},
      {.name = "mask-odd",
       .flags = kMask | kCausal,
       .hq = 1,
       .sq = {70},
       .sk = {201},
       .share_heads = true,
       .data = kDataWholeRowsMasked},
      {.name = "tree", .flags = kLse | kTail, .hq = 2, .sq = {200}, .sk = {300}},
      {.name = "tree-mask", .flags = kTail | kMask, .hq = 1, .sq = {140}, .sk = {200}},
      {.name = "segments", .flags = kLse | kSegments, .hq = 2, .hkv = 1, .sq = {200}, .sk = {264}},
      {.name = "segments-varlen",
       .flags = kSegments | kCausal,
       .q_layout = kRagged,
       .kv_layout = kRagged,
       .hq = 1,
       .sq = {70, 3, 131},
       .sk = {70, 40, 150}},
      {.name = "alibi",
       .flags = kLse | kAlibi | kCausal,
       .hq = 2,
       .hkv = 1,
       .sq = {140},
       .sk = {200}},
      {.name = "bias",
       .flags = kLse | kBias,
       .hq = 2,
       .sq = {140},
       .sk = {200},
       .data = kDataBiasMinusInf},
      {.name = "bias-bf16",
       .flags = kBias | kCausal,
       .bias_dtype = ATTN_DTYPE_BF16,
       .hq = 2,
       .hkv = 1,
       .sq = {140},
       .sk = {264},
       .share_heads = true},
      {.name = "bias-fp16-few-queries",
       .flags = kLse | kBias,
       .bias_dtype = ATTN_DTYPE_FP16,
       .hq = 4,
       .hkv = 2,
       .sq = {3},
       .sk = {320}},
      {.name = "softcap", .flags = kLse | kCausal, .hq = 2, .sq = {140}, .sk = {200}, .softcap = 2},
      {.name = "padded",
       .flags = kLse,
       .hq = 1,
       .sq = {70},
       .sk = {140},
       .strides = Strides::kPadded},
      {.name = "backward",
       .pass = ATTN_SDPA_BACKWARD,
       .grads = kGradQkv,
       .hq = 1,
       .sq = {50},
       .sk = {70}},
      {.name = "backward-varlen",
       .pass = ATTN_SDPA_BACKWARD,
       .flags = kCausal | kSink,
       .grads = kGradQkv | ATTN_SDPA_GRAD_SINK,
       .q_layout = kRagged,
       .kv_layout = kRagged,
       .hq = 2,
       .hkv = 1,
       .sq = {20, 0, 3, 33},
       .sk = {33, 5, 3, 40}},
  };
  std::vector<SdpaCase> rows;
  for (const Element &element : elements) {
    for (const Dims &d : dims) {
      for (const SdpaCase &kind : kinds) {
        SdpaCase row = kind;
        row.name = name_of(element, d, kind.name);
        row.flags |= element.flags;
        row.q_dtype = element.dtype;
        row.dqk = d.qk;
        row.dv = d.v;
        rows.push_back(std::move(row));
      }
    }
  }
  return rows;
}

}  // namespace check
