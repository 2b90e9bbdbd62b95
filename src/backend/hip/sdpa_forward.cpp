#include "backend/hip/sdpa_forward.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "backend/gpu/block_map.hpp"
#include "backend/gpu/device.hpp"
#include "backend/gpu/split.hpp"
#include "backend/hip/merge.hpp"
#include "backend/hip/rows.hpp"
#include "core/ceil_div.hpp"
#include "core/saturating.hpp"
#include "core/workspace.hpp"
#include "kernels/hip/any/sdpa/forward_params.hpp"

namespace attn::hip {

#define ATTN_VARIANT(entry, begin, end, kind, element, head_dim) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/hip/any/sdpa/forward_table.inc"
#undef ATTN_VARIANT
#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/hip/any/sdpa/block_map_table.inc"
#undef ATTN_VARIANT

namespace {

using sdpa::Call;
using sdpa::Problem;

constexpr int32_t fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;

// Kinds of the kernel: see kernels/hip/any/sdpa/forward.hip.
enum class Kind { plain, general };

struct Variant {
  gpu::Kernel kernel;
  Kind kind;
  int32_t element, head_dim;
};
constexpr Variant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, kind, element, head_dim) \
  {ATTN_GPU_KERNEL(entry), Kind::kind, element, head_dim},
#include "kernels/hip/any/sdpa/forward_table.inc"
#undef ATTN_VARIANT
};
constexpr gpu::Kernel kBlockMap =
#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_KERNEL(entry)
#include "kernels/hip/any/sdpa/block_map_table.inc"
#undef ATTN_VARIANT
    ;
constexpr int32_t kRows = 16;  // of a tile, which is what a block has
constexpr int32_t kKeys = 16;  // of a tile
static_assert(sizeof(SdpaForwardParams) <= 4096);

// The quickest kind that can serve the problem if its tensors can be read 16 bytes at a time.
Kind kind_of(const Problem &p) {
  constexpr uint64_t kGeneralFlags = ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS |
                                     ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI | ATTN_SDPA_DROPOUT |
                                     ATTN_SDPA_BLOCK_SPARSE | ATTN_SDPA_GATE;
  const bool plain = !p.has(kGeneralFlags) && p.softmax() && p.d.softcap == 0 &&
                     p.d.out_dtype == p.d.q_dtype && p.d.head_dim_qk % 16 == 0 &&
                     p.d.head_dim_v % 8 == 0;
  return plain ? Kind::plain : Kind::general;
}

// The smallest that holds the head dims; null if none does.
const Variant *find(const Problem &problem, Kind kind) {
  const int32_t dim = std::max(problem.d.head_dim_qk, problem.d.head_dim_v);
  const Variant *best = nullptr;
  for (const Variant &v : kVariants) {
    if (v.kind != kind || v.element != problem.d.q_dtype || v.head_dim < dim) continue;
    if (best == nullptr || v.head_dim < best->head_dim) best = &v;
  }
  return best;
}

// How a problem is cut up: decided by its limits.
struct Geometry {
  int32_t pack;    // query heads of a tile's rows
  int32_t splits;  // pieces of the keys
};

Geometry geometry_of(const Problem &p, const Device &device) {
  const Variant &v = *find(p, Kind::general);
  Geometry g;
  // Worth it if one head's queries do not fill a tile or two.
  g.pack = p.d.max_seqlen_q <= 2 * kRows ? p.group : 1;
  // Each of a unit's four SIMDs has registers for two waves at least.
  const int64_t at_once = std::max<int64_t>(1, int64_t{8} * kWaveDim / v.head_dim);
  g.splits = gpu::pieces_of_keys(
      p, {.blocks = saturating_product(
              {p.d.max_batch, p.d.num_q_heads / g.pack,
               std::max<int64_t>(1, ceil_div(p.d.max_seqlen_q * g.pack, kRows))}),
          .places = device.info().num_units * at_once,
          .tile = kKeys});
  return g;
}

struct Workspace {
  gpu::Partial partial;
  char *block_bits;
};

Workspace carve(const Problem &p, const Geometry &g, int64_t total_q, Carver &carver) {
  Workspace w = {};
  w.partial = gpu::carve_partial(p, g.splits, total_q, carver);
  w.block_bits = carver.take<char>(static_cast<int64_t>(gpu::block_map_bytes(p)));
  return w;
}

int64_t blocks_of(const Problem &p, const Geometry &g, int64_t batch, int64_t tiles) {
  return saturating_product({batch, tiles, p.d.num_q_heads / g.pack, g.splits});
}

}  // namespace

Verdict forward_serves(const Problem &p, const Device &device) {
  const attn_sdpa_desc &d = p.d;
  if (find(p, Kind::general) == nullptr)
    return Verdict::refuses("it takes fp16 or bf16, head dims up to 256");
  if (d.k_dtype != d.q_dtype || d.v_dtype != d.q_dtype) {
    return Verdict::refuses("it takes q, k and v of one dtype");
  }
  if (d.out_quant.granularity != ATTN_QUANT_NONE ||
      (d.out_dtype != ATTN_DTYPE_FP32 && d.out_dtype != fp16 && d.out_dtype != bf16)) {
    return Verdict::refuses("out is quantised");
  }
  if (gpu::block_map_bytes(p) > gpu::kMostBlockBytes) {
    return Verdict::refuses("the block lists' bits would take more than 1 GiB of workspace");
  }
  constexpr int64_t kMost = 1 << 30;  // rows and keys are counted in 32 bits
  if (saturating_product({d.max_seqlen_q, p.group}) >= kMost || d.max_seqlen_k >= kMost) {
    return Verdict::refuses("sequences are longer than 2^30 rows");
  }
  const Geometry g = geometry_of(p, device);
  const int64_t tiles = std::max<int64_t>(1, ceil_div(d.max_seqlen_q * g.pack, kRows));
  if (blocks_of(p, g, int64_t{d.max_batch} + 1, tiles) > INT32_MAX) {
    return Verdict::refuses("there are more tiles and pieces than a grid has blocks");
  }
  if (gpu::partial_bytes(p, g.splits, p.most_queries()) > gpu::kMostPartialBytes) {
    return Verdict::refuses("partial results of that many pieces take more than 2^48 bytes");
  }
  return Verdict::serves();
}

size_t forward_workspace(const Problem &p, const Device &device) {
  Carver carver;
  carve(p, geometry_of(p, device), p.most_queries(), carver);
  return carver.bytes();
}

int32_t forward_prepare(const Problem &p, const Device &device, const ErrorSink &error) {
  // The general kind too, because strides may ask for it.
  int32_t status = ATTN_OK;
  for (const Kind kind : {kind_of(p), Kind::general}) {
    if (status == ATTN_OK) status = gpu::gpu_of(device).load(find(p, kind)->kernel, 0, error);
  }
  if (status == ATTN_OK && p.has(ATTN_SDPA_BLOCK_SPARSE)) {
    status = gpu::gpu_of(device).load(kBlockMap, 0, error);
  }
  if (status != ATTN_OK || geometry_of(p, device).splits == 1) return status;
  return gpu::load_combine(gpu::gpu_of(device), merge_kernel, error);
}

int32_t forward_launch(const Problem &problem, const Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error) {
  const attn_sdpa_desc &d = problem.d;
  const attn_sdpa_args &a = call.args;
  const Geometry g = geometry_of(problem, device);
  Carver carver(resources.workspace);
  const Workspace w = carve(problem, g, call.total_q, carver);
  SdpaForwardParams p = {};
  p.in = make_score_inputs(d, a, call.seqlen_q, call.seqlen_k);
  p.q = token_view(a.q);
  p.k = token_view(a.k);
  p.v = token_view(a.v);
  p.out = token_view(a.out);
  if (problem.has(ATTN_SDPA_RETURN_LSE)) p.lse = query_view(a.lse, false);
  if (problem.has(ATTN_SDPA_RETURN_ROW_MAX)) p.row_max = query_view(a.row_max, false);
  p.batch = call.batch;
  p.places = call.total_q;
  p.tiles = static_cast<int32_t>(std::max<int64_t>(ceil_div(call.seqlen_q * g.pack, kRows), 1));
  p.pack = g.pack;
  p.heads = d.num_q_heads;
  p.head_blocks = d.num_q_heads / g.pack;
  p.group = problem.group;
  p.head_dim_qk = d.head_dim_qk;
  p.head_dim_v = d.head_dim_v;
  p.vector = reads_whole_rows(p.q) && reads_whole_rows(p.k);
  p.vector_values = reads_whole_rows(p.v);
  p.terms = d.out_dtype == d.q_dtype ? 1 : 3;
  p.splits = g.splits;
  p.split_size = g.splits > 1 && d.split_policy == ATTN_SPLIT_FIXED ? d.split_size : 0;
  p.partial_out = w.partial.out;
  p.partial_lse = w.partial.lse;
  p.partial_max = w.partial.max;
  // Behind the last sequence, ragged queries may have tokens of none.
  const int64_t rows = call.batch + (problem.ragged_q() ? 1 : 0);
  if (call.total_q == 0) return ATTN_OK;
  const bool whole = p.vector != 0 && p.vector_values != 0;
  const Variant &variant = *find(problem, whole ? kind_of(problem) : Kind::general);
  const gpu::LaunchShape launch = {
      .grid = {static_cast<uint32_t>(blocks_of(problem, g, rows, p.tiles)), 1, 1},
      .threads = threads_for(device, variant.head_dim),
      .dynamic_smem = 0};
  const gpu::GpuDevice &gpu = gpu::gpu_of(device);
  int32_t status = ATTN_OK;
  if (problem.has(ATTN_SDPA_BLOCK_SPARSE)) {
    p.blocks = gpu::block_map(problem, call, w.block_bits);
    status = gpu::write_block_map(gpu, kBlockMap, problem, call, p.blocks, resources.stream, error);
    if (status != ATTN_OK) return status;
  }
  status = gpu.launch(variant.kernel, launch, &p, resources.stream, error);
  if (status != ATTN_OK || g.splits == 1) return status;
  return gpu::combine_partial(problem, call, gpu, merge_kernel, w.partial, g.splits,
                              resources.stream, error);
}

}  // namespace attn::hip
