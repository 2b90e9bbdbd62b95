/* Scaled dot-product attention, forward and backward.
 *
 * For each sequence b, query head h and query i (semantics as in FlashAttention, unless stated):
 *
 *   s_j   = softcap(softmax_scale * <q_i, k_j>) + bias_ij - slope_h * |p_i - j|
 *   p_i   = i + offset, where offset = seqlen_k - seqlen_q (bottom-right) or 0 (top-left)
 *   softcap(x) = cap * tanh(x / cap), or x where softcap is 0
 *   out_i = sum over visible j of P_ij v_j,  P = softmax(s) with sink_h as one more logit
 *   lse_i = log(sum over visible j of exp(s_j) [+ exp(sink_h)])
 *
 * Key head of query head h: h / (num_q_heads / num_kv_heads) (GQA, MQA).
 *
 * A key is visible if ALL that are asked for allow it: its position is below the sequence's key
 * length, causal, window or chunk, bit mask, tail mask, segment ids, block list. A query without a
 * visible key (or a sequence with no key) gives out = 0 and lse = -inf, always written; with
 * a sink and LSE_INCLUDES_SINK, lse = sink. Masked keys are never read into the result: NaN or Inf
 * in them, or in unused cache tails, has no effect.
 *
 * One plan serves every step of a server's life: the descriptor holds limits, and lengths,
 * offsets and page tables are read at execute from the device's memory. Head dims of a tensor may
 * have any stride. */
#ifndef ATTN_SDPA_H
#define ATTN_SDPA_H

#include <stddef.h>
#include <stdint.h>

#include "context.h"
#include "plan.h"
#include "status.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which way a plan goes. */
typedef enum attn_sdpa_pass {
  ATTN_SDPA_FORWARD = 0, /* execute with attn_sdpa_forward */
  ATTN_SDPA_BACKWARD = 1 /* execute with attn_sdpa_backward */
} attn_sdpa_pass;

/* How the tokens of a batch lie in memory. */
typedef enum attn_layout {
  /* [batch, seqlen, heads, head_dim]; lengths may be shortened by seqused_q, seqused_k. */
  ATTN_LAYOUT_DENSE = 0,
  /* [total_tokens, heads, head_dim]: sequences one after the other (varlen). cu_seqlens[b] ..
   * cu_seqlens[b+1] are the tokens of sequence b. Tokens after the last sequence are padding: keys
   * that none sees, queries that get 0, -inf. */
  ATTN_LAYOUT_RAGGED = 1,
  /* K and V only: a pool [num_pages, page_size, heads, head_dim] and a block_table
   * [batch, max_pages_per_seq]; lengths in seqused_k. (vLLM, FlashAttention) */
  ATTN_LAYOUT_PAGED_TABLE = 2,
  /* K and V only: the same pool; sequence b has the pages kv_page_indices[kv_page_indptr[b] ..
   * kv_page_indptr[b+1]], the last of which holds kv_last_page_len[b] tokens. (FlashInfer) */
  ATTN_LAYOUT_PAGED_CSR = 3
} attn_layout;

/* Options of a problem, or'ed into attn_sdpa_desc.flags. */
#define ATTN_SDPA_CAUSAL (1ull << 0) /* j <= p_i */
#define ATTN_SDPA_WINDOW (1ull << 1) /* p_i - window_left <= j <= p_i + window_right */
/* args.mask: packed bits, 1 = visible. */
#define ATTN_SDPA_MASK (1ull << 2)
/* args.tail_mask: packed bits over the last seqlen_q keys (tree attention); the keys before them
 * are not affected. */
#define ATTN_SDPA_TAIL_MASK (1ull << 3)
/* args.q_segment_ids, args.kv_segment_ids: visible if equal and not negative. */
#define ATTN_SDPA_SEGMENT_IDS (1ull << 4)
#define ATTN_SDPA_BIAS (1ull << 5)  /* args.bias is added to the scores */
#define ATTN_SDPA_ALIBI (1ull << 6) /* args.alibi_slopes */
#define ATTN_SDPA_SINK (1ull << 7)  /* args.sink: one more logit a head, without a value */
/* The returned lse includes the sink (FA4, cuDNN). Without it the lse excludes the sink
 * (FlashMLA), so that partial results can be merged and the sink applied once. */
#define ATTN_SDPA_LSE_INCLUDES_SINK (1ull << 8)
#define ATTN_SDPA_DROPOUT (1ull << 9)       /* desc.dropout_p, args.rng_state */
#define ATTN_SDPA_BLOCK_SPARSE (1ull << 10) /* args.block_counts, args.block_indices */
#define ATTN_SDPA_GATE (1ull << 11)         /* out *= sigmoid(args.gate) */
#define ATTN_SDPA_SEQUSED_Q (1ull << 12)    /* args.seqused_q is given */
#define ATTN_SDPA_SEQUSED_K (1ull << 13)    /* args.seqused_k is given */
/* One tensor holds K and V: V is the first head_dim_v columns of K (absorbed MLA); args.v must be
 * absent, and in the backward pass dv too: dk gets both contributions. */
#define ATTN_SDPA_LATENT_KV (1ull << 14)
#define ATTN_SDPA_RETURN_LSE (1ull << 15)     /* args.lse is written */
#define ATTN_SDPA_RETURN_ROW_MAX (1ull << 16) /* args.row_max is written */
/* Products of an fp32 problem may round their factors to TF32 (10 bits of mantissa), which tensor
 * cores multiply several times faster. Without it, results are those of fp32 products. It is a
 * permission: a backend that multiplies in fp32 anyway, as the CPU's does, serves it with its fp32
 * results. q_dtype must be FP32. Since ABI 1.1. */
#define ATTN_SDPA_ALLOW_TF32 (1ull << 17)

/* Gradients to compute, or'ed into attn_sdpa_desc.grads. */
#define ATTN_SDPA_GRAD_Q (1u << 0) /* args.dq */
#define ATTN_SDPA_GRAD_K (1u << 1) /* args.dk */
/* args.dv. Not with LATENT_KV, where GRAD_K covers it. */
#define ATTN_SDPA_GRAD_V (1u << 2)
#define ATTN_SDPA_GRAD_BIAS (1u << 3) /* args.dbias */
#define ATTN_SDPA_GRAD_SINK (1u << 4) /* args.dsink */
#define ATTN_SDPA_GRAD_GATE (1u << 5) /* args.dgate */
/* dlse is given: the gradient that reaches the (natural or base-2) lse. */
#define ATTN_SDPA_GRAD_LSE_IN (1u << 6)

/* Where the diagonal of CAUSAL, WINDOW, chunk_size and ALIBI lies. */
typedef enum attn_alignment {
  ATTN_ALIGN_BOTTOM_RIGHT = 0, /* the last query sees the last key (FlashAttention, FlashInfer) */
  ATTN_ALIGN_TOP_LEFT = 1      /* query 0 sees key 0 (PyTorch is_causal) */
} attn_alignment;

/* How scores become weights. */
typedef enum attn_activation {
  ATTN_ACTIVATION_SOFTMAX = 0, /* as in the formulas above */
  /* P_ij = silu(s_ij) / silu_divisor over visible keys, no normalisation (HSTU). Has no lse, row
   * max or sink: asking for one is refused. */
  ATTN_ACTIVATION_SILU = 1
} attn_activation;

/* Whether the keys of a sequence are split into pieces that run side by side. */
typedef enum attn_split_policy {
  ATTN_SPLIT_AUTO = 0, /* split the keys of a sequence among units if that is faster */
  ATTN_SPLIT_NONE = 1, /* never */
  ATTN_SPLIT_FIXED = 2 /* pieces of split_size keys, whatever the batch */
} attn_split_policy;

/* What is promised about the bits of a result. */
typedef enum attn_determinism {
  ATTN_DETERMINISM_FAST = 0,           /* no promise */
  ATTN_DETERMINISM_RUN_TO_RUN = 1,     /* same inputs, same bits */
  ATTN_DETERMINISM_BATCH_INVARIANT = 2 /* and a sequence's bits do not depend on its batch, nor on
                                          the number of threads */
} attn_determinism;

/* How a tensor's scales are shared. A scale is a DEQUANTISATION multiplier: real = stored * scale.
 * The scale tensor has the rank of the tensor that it scales, and in each dimension either that
 * dimension's extent or 1 (shared); the granularity says which may be more than 1. */
typedef enum attn_quant_granularity {
  ATTN_QUANT_NONE = 0,       /* no scale: stored values are used as they are */
  ATTN_QUANT_TENSOR = 1,     /* all extents 1 */
  ATTN_QUANT_HEAD = 2,       /* batch (dense layout only) and head */
  ATTN_QUANT_TOKEN = 3,      /* token (batch and position, or page and slot) */
  ATTN_QUANT_TOKEN_HEAD = 4, /* token and head */
  ATTN_QUANT_BLOCK = 5 /* token, head, and ceil(head_dim / block_size) in the last dimension */
} attn_quant_granularity;

/* How one of q, k, v, out is quantised. All zero: not at all. */
typedef struct attn_quant {
  int32_t granularity; /* attn_quant_granularity */
  int32_t block_size;  /* BLOCK: elements of head_dim a scale covers, e.g. 16 for NVFP4; else 0 */
  int32_t scale_dtype; /* FP32 (default), FP16, BF16, FP8_E4M3FN (NVFP4) or FP8_E8M0 (MX) */
  int32_t reserved;    /* must be 0 */
} attn_quant;

#define ATTN_QUANT_INIT \
  { 0, 0, 0, 0 }

/* A problem by its limits. Zero in a field means its default; fields without a default are marked
 * "required". All lengths and counts at execute must stay within the limits. */
typedef struct attn_sdpa_desc {
  uint32_t struct_size; /* sizeof(attn_sdpa_desc): set by ATTN_SDPA_DESC_INIT */
  int32_t pass;         /* attn_sdpa_pass */
  uint64_t flags;       /* ATTN_SDPA_...; an unknown bit is refused */
  uint32_t grads;       /* BACKWARD: ATTN_SDPA_GRAD_...; 0 = q, k and v. FORWARD: must be 0 */

  int32_t q_dtype;   /* required. FP32, FP16, BF16; forward: quantised dtypes too */
  int32_t k_dtype;   /* default q_dtype. Any floating or quantised dtype */
  int32_t v_dtype;   /* default k_dtype; with LATENT_KV it must be k_dtype */
  int32_t out_dtype; /* default q_dtype if that is FP32, FP16 or BF16, else BF16 */

  /* attn_layout: DENSE or RAGGED; also the layout of out, lse, gate and all that is a query's */
  int32_t q_layout;
  int32_t kv_layout; /* attn_layout */
  int32_t page_size; /* paged layouts: required, >= 1; else 0 */

  int32_t num_q_heads;  /* required, >= 1 */
  int32_t num_kv_heads; /* default num_q_heads; must divide it */
  int32_t head_dim_qk;  /* required, 1 .. 4096 */
  int32_t head_dim_v;   /* default head_dim_qk, 1 .. 4096; with LATENT_KV <= head_dim_qk */

  int64_t max_batch;    /* required, >= 0: sequences */
  int64_t max_seqlen_q; /* required, >= 0: queries of one sequence */
  int64_t max_seqlen_k; /* required, >= 0: keys of one sequence */
  int64_t max_total_q;  /* RAGGED q: tokens in all; default max_batch * max_seqlen_q */
  int64_t max_total_k;  /* RAGGED k: tokens in all; default max_batch * max_seqlen_k */

  float softmax_scale; /* required: finite and not 0. Usually 1 / sqrt(head_dim_qk) */
  float softcap;       /* 0 = none; > 0: cap * tanh(scale * qk / cap), before bias and ALiBi */

  int32_t alignment;    /* attn_alignment */
  int32_t window_left;  /* WINDOW: keys left of p_i, itself not counted; -1 = unbounded */
  int32_t window_right; /* WINDOW: keys right of p_i; -1 = unbounded */
  int32_t chunk_size;   /* 0 = none; c: visible only if floor(j/c) == floor(p_i/c) (Llama 4) */
  int32_t sink_tokens;  /* the first n keys of a sequence are visible whatever WINDOW and chunk_size
                           say (StreamingLLM); other masks still apply */
  int32_t block_size_q; /* BLOCK_SPARSE: queries a block, >= 1 */
  int32_t block_size_k; /* BLOCK_SPARSE: keys a block, >= 1 */

  float dropout_p;    /* DROPOUT: 0 <= p < 1, the probability that a weight is dropped */
  int32_t activation; /* attn_activation */
  float silu_divisor; /* SILU: required, finite and not 0 (HSTU: the largest sequence length) */
  int32_t lse_base;   /* attn_lse_base of lse, and of dlse; row_max is always natural */

  int32_t split_policy; /* attn_split_policy */
  int32_t split_size;   /* SPLIT_FIXED: keys a piece, >= 1; else 0 */
  int32_t determinism;  /* attn_determinism */

  attn_quant q_quant;   /* for q of an int8, fp8, int4 or fp4 dtype */
  attn_quant k_quant;   /* for k; with LATENT_KV it also scales v */
  attn_quant v_quant;   /* for v; not with LATENT_KV */
  attn_quant out_quant; /* out is stored as round(real / out_scale), saturated */
} attn_sdpa_desc;

#define ATTN_SDPA_DESC_INIT                                                                      \
  {                                                                                              \
    sizeof(attn_sdpa_desc), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ATTN_QUANT_INIT, ATTN_QUANT_INIT, ATTN_QUANT_INIT,   \
        ATTN_QUANT_INIT                                                                          \
  }

/* The tensors of one forward pass. "[B, Sq]" stands for a query's place: dense [batch, seqlen_q],
 * ragged [total_q]. "1|n" means that the extent may be 1 (shared) or n. Everything lives in the
 * device's memory (CPU: host memory). Outputs must not overlap inputs or each other. What belongs
 * to an option that the descriptor does not have must be absent: a tensor by rank 0, an array by
 * NULL. */
typedef struct attn_sdpa_args {
  uint32_t struct_size; /* sizeof(attn_sdpa_args): set by ATTN_SDPA_ARGS_INIT */
  uint32_t reserved;    /* must be 0 */
  /* Sequences, B. RAGGED q: required, 0 .. max_batch. DENSE q: 0 or q's first extent. */
  int64_t batch;

  attn_tensor q;   /* [B, Sq, num_q_heads, head_dim_qk] */
  attn_tensor k;   /* [B, Sk, num_kv_heads, head_dim_qk], or the pool of a paged layout */
  attn_tensor v;   /* [B, Sk, num_kv_heads, head_dim_v], or the pool; absent with LATENT_KV */
  attn_tensor out; /* [B, Sq, num_q_heads, head_dim_v]; written, in the backward pass read */
  /* [B, num_q_heads, Sq], ragged [num_q_heads, total_q], FP32. RETURN_LSE: written; in the
   * backward pass (softmax): read, required. Any other order by strides. */
  attn_tensor lse;
  /* Shape as lse, FP32. RETURN_ROW_MAX: the largest visible s_j of each query (natural units, no
   * sink), -inf if there is none. */
  attn_tensor row_max;

  /* int32 arrays, contiguous. Those that the descriptor asks for must be there, unless the batch
   * is 0. */
  const int32_t *cu_seqlens_q; /* RAGGED q: [batch + 1], starts with 0, never falls */
  const int32_t *cu_seqlens_k; /* RAGGED k: [batch + 1] */
  const int32_t *seqused_q;    /* SEQUSED_Q: [batch] queries in use; those after them get 0, -inf */
  const int32_t *seqused_k;    /* SEQUSED_K, PAGED_TABLE: [batch] keys in use */
  const int32_t *kv_page_indptr; /* PAGED_CSR: [batch + 1] */
  /* PAGED_CSR: [kv_page_indptr[batch]]; negative = skip its keys. Not NULL even where it is empty,
   * unless max_seqlen_k is 0. */
  const int32_t *kv_page_indices;
  const int32_t *kv_last_page_len; /* PAGED_CSR: [batch], 1..page_size where there is a page */
  /* DROPOUT: {seed, offset}. Weight (b, h, i, j) is kept iff u >= p, with
   *   u = (word[j % 4] >> 8) / 2^24,  word = Philox4x32-10(key, counter),
   *   key = {low half of seed, high half of seed XOR high half of offset},
   *   counter = {j / 4, i, b * num_q_heads + h, low half of offset},
   * i and j being positions in sequence b, the same on every backend. Kept weights are divided by
   * 1 - p; lse does not see dropout. (Salmon et al., Parallel Random Numbers, SC 2011) */
  const uint64_t *rng_state;

  attn_tensor block_table; /* PAGED_TABLE: INT32 [batch, max_pages_per_seq]; negative = skip */
  /* MASK: UINT8 [1|B, 1|Hq, Sq, ceil(Sk / 8)], ragged q: [1|Hq, total_q, ceil(max Sk / 8)].
   * Key j is bit j % 8 of byte j / 8. */
  attn_tensor mask;
  /* TAIL_MASK: UINT8 [1|B, 1|Hq, Sq, ceil(Sq / 8)], ragged q: [1|Hq, total_q, ceil(max Sq / 8)].
   * Bit t stands for key seqlen_k - seqlen_q + t. */
  attn_tensor tail_mask;
  attn_tensor q_segment_ids;  /* INT32 [B, Sq] or [total_q] */
  attn_tensor kv_segment_ids; /* INT32 [B, Sk]; ragged k: [total_k]; paged: [B, max Sk] */
  /* FP32, FP16 or BF16 [1|B, 1|Hq, 1|Sq, Sk], ragged q: [1|Hq, total_q, max Sk]; natural units;
   * -inf hides a key. */
  attn_tensor bias;
  attn_tensor alibi_slopes; /* FP32 [Hq] or [B, Hq] */
  attn_tensor sink;         /* FP32 [Hq]; natural units; -inf = none, +inf takes all weight */
  /* FP32, FP16 or BF16 [B, Sq, Hq, 1|head_dim_v]. The lse is not affected. (Qwen3-Next) */
  attn_tensor gate;
  /* BLOCK_SPARSE: INT32 [1|B, 1|Hq, nbq] and [1|B, 1|Hq, nbq, max_blocks] with nbq =
   * ceil(Sq / block_size_q). Entry (.., r, 0 .. count-1) lists the visible key blocks of query
   * block r in any order; negative = skip, repeats count once. (FlexAttention's BlockMask) */
  attn_tensor block_counts;
  attn_tensor block_indices; /* BLOCK_SPARSE */
  attn_tensor q_scale;       /* see attn_quant_granularity; present iff q_quant is */
  attn_tensor k_scale;       /* iff k_quant */
  attn_tensor v_scale;       /* iff v_quant */
  attn_tensor out_scale;     /* iff out_quant */
} attn_sdpa_args;

#define ATTN_SDPA_ARGS_INIT                                                                       \
  {                                                                                               \
    sizeof(attn_sdpa_args), 0, 0, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT,           \
        ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, NULL, NULL, NULL, NULL, NULL, NULL, \
        NULL, NULL, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT,       \
        ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, \
        ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, \
        ATTN_TENSOR_INIT                                                                          \
  }

/* The tensors of one backward pass. Gradients that the descriptor's grads ask for are written in
 * full (not accumulated): zeros where nothing contributes, padded and unused positions included;
 * a page used twice gets the sum. Others must be absent. */
typedef struct attn_sdpa_backward_args {
  uint32_t struct_size; /* sizeof(attn_sdpa_backward_args) */
  uint32_t reserved;    /* must be 0 */
  /* What the forward pass was given and gave: inputs, out (after the gate) and lse. row_max is not
   * needed and ignored. */
  const attn_sdpa_args *forward;
  attn_tensor dout;  /* shape of out; FP32, FP16 or BF16 */
  attn_tensor dlse;  /* GRAD_LSE_IN: shape of lse, FP32, in the units of lse_base */
  attn_tensor dq;    /* shape of q; FP32 or q's dtype. The same holds for the others */
  attn_tensor dk;    /* shape of k (paged: of the pool) */
  attn_tensor dv;    /* shape of v */
  attn_tensor dbias; /* shape of bias: summed over the dimensions that bias shares */
  attn_tensor dsink; /* FP32 [Hq] */
  attn_tensor dgate; /* shape of gate */
} attn_sdpa_backward_args;

#define ATTN_SDPA_BACKWARD_ARGS_INIT                                                              \
  {                                                                                               \
    sizeof(attn_sdpa_backward_args), 0, NULL, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT,                 \
        ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, \
        ATTN_TENSOR_INIT                                                                          \
  }

/* Says whether attn_sdpa_plan_create would succeed: it runs the same planner. options may be NULL.
 * UNSUPPORTED names what no implementation serves, and why. Host only; thread-safe. */
ATTN_API int32_t attn_sdpa_supported(const attn_context *context, const attn_sdpa_desc *desc,
                                     const attn_plan_options *options, attn_error *error);

/* Makes a plan. options may be NULL. Host only: touches no device. On error *plan is NULL. Free it
 * with attn_plan_destroy. Thread-safe. */
ATTN_API int32_t attn_sdpa_plan_create(const attn_context *context, const attn_sdpa_desc *desc,
                                       const attn_plan_options *options, attn_plan **plan,
                                       attn_error *error);

/* Computes one forward pass.
 *
 * workspace: at least attn_plan_info.workspace_bytes, in the device's memory, aligned as it says;
 * its contents do not matter. stream: see attn_stream. Never allocates or waits; on error nothing
 * is written. Thread-safe with a workspace and outputs of the call's own. */
ATTN_API int32_t attn_sdpa_forward(const attn_plan *plan, const attn_sdpa_args *args,
                                   void *workspace, size_t workspace_bytes, attn_stream stream,
                                   attn_error *error);

/* Computes one backward pass; the plan's pass must be BACKWARD. Otherwise as attn_sdpa_forward. */
ATTN_API int32_t attn_sdpa_backward(const attn_plan *plan, const attn_sdpa_backward_args *args,
                                    void *workspace, size_t workspace_bytes, attn_stream stream,
                                    attn_error *error);

/* Times every implementation that serves the plan's problem on the caller's tensors and gives a
 * new plan with the fastest (NULL on error; free it with attn_plan_destroy); `plan` stays as it is.
 * The outputs hold a correct result afterwards.
 * workspace: at least attn_plan_info.tune_workspace_bytes. Waits for the device; not for graph
 * capture. Exactly one of args and backward_args is given, as the plan's pass asks. */
ATTN_API int32_t attn_sdpa_plan_tune(const attn_plan *plan, const attn_sdpa_args *args,
                                     const attn_sdpa_backward_args *backward_args, void *workspace,
                                     size_t workspace_bytes, attn_stream stream, attn_plan **tuned,
                                     attn_error *error);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_SDPA_H */
