#include "backend/gpu/split.hpp"

#include <algorithm>

#include "core/ceil_div.hpp"
#include "core/saturating.hpp"

namespace attn::gpu {

using sdpa::Call;
using sdpa::Problem;

int32_t pieces_of_keys(const Problem &p, const Filling &filling) {
  if (!p.softmax()) return 1;
  if (p.d.split_policy == ATTN_SPLIT_FIXED) {
    return static_cast<int32_t>(std::max<int64_t>(1, ceil_div(p.d.max_seqlen_k, p.d.split_size)));
  }
  if (p.d.split_policy != ATTN_SPLIT_AUTO || p.d.determinism == ATTN_DETERMINISM_BATCH_INVARIANT) {
    return 1;  // their number must follow from the descriptor alone
  }
  // As many as fill the chip, of at least four tiles each.
  constexpr int64_t kTilesAPiece = 4, kMostPieces = 128;
  if (filling.blocks >= ceil_div(filling.places * 2, 3)) return 1;
  const int64_t most = ceil_div(p.d.max_seqlen_k, kTilesAPiece * filling.tile);
  return static_cast<int32_t>(std::clamp<int64_t>(
      std::min(filling.places / std::max<int64_t>(filling.blocks, 1), most), 1, kMostPieces));
}

Partial carve_partial(const Problem &p, int32_t pieces, int64_t total_q, Carver &carver) {
  Partial partial;
  if (pieces == 1) return partial;
  const int64_t rows = pieces * total_q * p.d.num_q_heads;
  partial.out = carver.take<float>(rows * p.d.head_dim_v);
  partial.lse = carver.take<float>(rows);
  if (p.has(ATTN_SDPA_RETURN_ROW_MAX)) partial.max = carver.take<float>(rows);
  return partial;
}

int64_t partial_bytes(const Problem &p, int32_t pieces, int64_t total_q) {
  if (pieces == 1) return 0;
  return saturating_product({pieces, total_q, p.d.num_q_heads, p.d.head_dim_v, sizeof(float)});
}

int32_t combine_partial(const Problem &p, const Call &call, const GpuDevice &device,
                        MergeKernelOf kernel_of, const Partial &partial, int32_t pieces,
                        attn_stream stream, const ErrorSink &error) {
  const attn_sdpa_args &a = call.args;
  const PartialResults parts = {.out = partial.out,
                                .lse = partial.lse,
                                .max = partial.max,
                                .base2 = false,
                                .parts = pieces,
                                .places = call.total_q,
                                .heads = p.d.num_q_heads,
                                .head_dim = p.d.head_dim_v};
  MergedResults merged = {};
  merged.out = token_view(a.out);
  if (p.has(ATTN_SDPA_GATE)) merged.gate = token_view(a.gate);
  if (p.has(ATTN_SDPA_RETURN_LSE)) merged.lse = query_view(a.lse, false);
  if (p.has(ATTN_SDPA_RETURN_ROW_MAX)) merged.row_max = query_view(a.row_max, false);
  merged.base2 = p.d.lse_base == ATTN_LSE_BASE_2;
  merged.inner = p.ragged_q() ? call.total_q : call.seqlen_q;
  if (p.has(ATTN_SDPA_SINK)) {
    merged.sink = static_cast<const float *>(a.sink.data);
    merged.sink_head = a.sink.stride[0];
  }
  merged.lse_includes_sink = p.has(ATTN_SDPA_LSE_INCLUDES_SINK);
  return combine(device, kernel_of, parts, merged, stream, error);
}

}  // namespace attn::gpu
