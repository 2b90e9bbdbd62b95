#include "any_case.hpp"

namespace fuzz {

check::SdpaCase any_case(Reader &in) {
  check::SdpaCase c;
  c.name = "fuzz";
  constexpr int32_t kFloats[] = {ATTN_DTYPE_FP32, ATTN_DTYPE_FP16, ATTN_DTYPE_BF16};
  c.pass = in.below(3) == 1 ? ATTN_SDPA_BACKWARD : ATTN_SDPA_FORWARD;
  c.q_dtype = in.choose(kFloats);
  c.q_layout = in.below(2) == 1 ? ATTN_LAYOUT_RAGGED : ATTN_LAYOUT_DENSE;
  c.kv_layout = static_cast<int32_t>(in.below(4));
  if (c.kv_layout >= ATTN_LAYOUT_PAGED_TABLE) c.page_size = in.between(1, 9);
  c.hkv = in.between(1, 3);
  c.hq = c.hkv * in.between(1, 4);
  constexpr int32_t kDims[] = {8, 1, 4, 5, 16, 24, 32, 33, 64, 72};
  c.dqk = in.choose(kDims);
  c.dv = in.below(3) == 1 ? in.choose(kDims) : 0;
  const uint32_t batch = in.below(4);
  c.sq.clear();
  c.sk.clear();
  constexpr int32_t kLengths[] = {1, 0, 2, 3, 5, 9, 17, 33, 40, 70};
  for (uint32_t b = 0; b < batch; b++) {
    c.sq.push_back(in.choose(kLengths));
    c.sk.push_back(in.choose(kLengths));
  }
  // Two bytes of options; those that do not fit each other are the library's to refuse.
  c.flags = (uint64_t{in.byte()} | uint64_t{in.byte()} << 8 | uint64_t{in.byte()} << 16) &
            ((ATTN_SDPA_ALLOW_TF32 << 1) - 1);
  if (c.q_dtype != ATTN_DTYPE_FP32) c.flags &= ~ATTN_SDPA_ALLOW_TF32;
  if (c.pass == ATTN_SDPA_BACKWARD) {
    c.flags &= ~(ATTN_SDPA_RETURN_LSE | ATTN_SDPA_RETURN_ROW_MAX);
    c.grads = in.byte() & 0x7f;
    if (!(c.flags & ATTN_SDPA_BIAS)) c.grads &= ~ATTN_SDPA_GRAD_BIAS;
    if (!(c.flags & ATTN_SDPA_SINK)) c.grads &= ~ATTN_SDPA_GRAD_SINK;
    if (!(c.flags & ATTN_SDPA_GATE)) c.grads &= ~ATTN_SDPA_GRAD_GATE;
    if (c.flags & ATTN_SDPA_LATENT_KV) c.grads &= ~ATTN_SDPA_GRAD_V;
    c.grads_fp32 = in.flag();
  } else if (in.below(4) == 1) {
    constexpr int32_t kQuantised[] = {ATTN_DTYPE_INT8,     ATTN_DTYPE_FP8_E4M3FN,
                                      ATTN_DTYPE_FP8_E5M2, ATTN_DTYPE_FP8_E4M3FNUZ,
                                      ATTN_DTYPE_INT4,     ATTN_DTYPE_FP4_E2M1};
    c.k_dtype = in.choose(kQuantised);
    c.k_quant = {static_cast<int32_t>(in.below(6)), 0, 0, 0};
    if (c.k_quant.granularity == ATTN_QUANT_BLOCK) c.k_quant.block_size = in.between(1, 20);
    if (!(c.flags & ATTN_SDPA_LATENT_KV)) c.v_quant = c.k_quant;
    c.dqk += c.dqk % 2;  // two elements a byte
    c.dv += c.dv % 2;
  }
  if (!(c.flags & ATTN_SDPA_SINK)) c.flags &= ~ATTN_SDPA_LSE_INCLUDES_SINK;
  if (c.flags & ATTN_SDPA_LATENT_KV) c.dv = c.dv > c.dqk ? 0 : c.dv;
  if (c.kv_layout == ATTN_LAYOUT_PAGED_CSR) c.flags &= ~ATTN_SDPA_SEQUSED_K;
  if (c.flags & ATTN_SDPA_WINDOW) {
    c.window_left = in.between(-1, 40);
    c.window_right = in.between(-1, 40);
    c.sink_tokens = in.between(0, 3);
  }
  if (in.below(4) == 1) c.chunk = in.between(1, 20);
  if (c.flags & ATTN_SDPA_BLOCK_SPARSE) {
    c.block_q = in.between(1, 20);
    c.block_k = in.between(1, 20);
  }
  if (c.flags & ATTN_SDPA_DROPOUT) c.dropout_p = static_cast<float>(in.byte()) / 256;
  if (in.below(4) == 1) c.softcap = 5;
  if (in.below(6) == 1) {
    c.activation = ATTN_ACTIVATION_SILU;
    c.flags &= ~(ATTN_SDPA_SINK | ATTN_SDPA_LSE_INCLUDES_SINK | ATTN_SDPA_RETURN_LSE |
                 ATTN_SDPA_RETURN_ROW_MAX);
    c.grads &= ~(ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_LSE_IN);
  }
  c.alignment = static_cast<int32_t>(in.below(2));
  c.lse_base = static_cast<int32_t>(in.below(2));
  c.split_policy = static_cast<int32_t>(in.below(3));
  if (c.split_policy == ATTN_SPLIT_FIXED) c.split_size = in.between(1, 50);
  c.determinism = static_cast<int32_t>(in.below(3));
  c.strides = static_cast<check::Strides>(in.below(5));
  const uint8_t sharing = in.byte();
  c.share_batch = sharing & 1;
  c.share_heads = sharing & 2;
  c.share_rows = sharing & 4 && c.q_layout == ATTN_LAYOUT_DENSE;
  c.alibi_per_batch = sharing & 8;
  c.gate_per_head = sharing & 16;
  c.loose_limits = sharing & 32;
  c.bias_dtype = in.choose(kFloats);
  c.gate_dtype = in.choose(kFloats);
  c.data = (in.byte() | static_cast<uint32_t>(in.byte()) << 8) &
           (check::kDataHugeScores | check::kDataSinkMinusInf | check::kDataSinkPlusInf |
            check::kDataBiasMinusInf | check::kDataNanSeenByFew | check::kDataNegativePages |
            check::kDataRepeatedPages | check::kDataRepeatedBlocks);
  if (c.page_size == 0) c.data &= ~(check::kDataNegativePages | check::kDataRepeatedPages);
  c.spare_q = in.between(0, 3);
  c.spare_k = in.between(0, 3);
  return c;
}

}  // namespace fuzz
