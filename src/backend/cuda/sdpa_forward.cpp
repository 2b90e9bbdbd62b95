#include "backend/cuda/sdpa_forward.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "backend/cuda/device.hpp"
#include "backend/cuda/merge.hpp"
#include "backend/gpu/block_map.hpp"
#include "backend/gpu/position_rules.hpp"
#include "backend/gpu/split.hpp"
#include "core/ceil_div.hpp"
#include "core/dtype.hpp"
#include "core/saturating.hpp"
#include "core/workspace.hpp"
#include "kernels/cuda/common/softcap.hpp"
#include "kernels/cuda/sm80/sdpa/forward_params.hpp"

namespace attn::cuda {

#define ATTN_VARIANT(entry, begin, end, ...) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/cuda/sm80/sdpa/forward_table.inc"
#undef ATTN_VARIANT
#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/cuda/sm80/sdpa/block_map_table.inc"
#undef ATTN_VARIANT

namespace {

using sdpa::Call;
using sdpa::Problem;

constexpr Kernel kBlockMap =
#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_KERNEL(entry)
#include "kernels/cuda/sm80/sdpa/block_map_table.inc"
#undef ATTN_VARIANT
    ;

enum class Element { fp16, bf16, fp32, tf32 };
// Kinds of the kernel: see kernels/cuda/sm80/sdpa/forward/variant.cuh.
enum class Kind { plain, paged, mask, segments, alibi, bias, softcap, general };
enum class Sums { exact, products };

constexpr int element_bytes(Element element) {
  return element == Element::fp16 || element == Element::bf16 ? 2 : 4;
}

struct Variant {
  Kernel kernel;
  Element element;
  Kind kind;
  Sums sums;
  int32_t blocks_per_sm;
  ForwardConfig config;
};

constexpr Variant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, element, dim_qk, dim_v, block_m, block_n, warps, blocks, \
                     kind, sums, held_steps)                                                     \
  {ATTN_GPU_KERNEL(entry),                                                                       \
   Element::element,                                                                             \
   Kind::kind,                                                                                   \
   Sums::sums,                                                                                   \
   blocks,                                                                                       \
   {element_bytes(Element::element), dim_qk, dim_v, block_m, block_n, warps}},
#include "kernels/cuda/sm80/sdpa/forward_table.inc"
#undef ATTN_VARIANT
};

Element element_of(const Problem &p) {
  switch (p.d.q_dtype) {
    case ATTN_DTYPE_FP16:
      return Element::fp16;
    case ATTN_DTYPE_BF16:
      return Element::bf16;
    default:
      return p.has(ATTN_SDPA_ALLOW_TF32) ? Element::tf32 : Element::fp32;
  }
}

// The quickest kind that can serve the problem if its tensors can be copied 16 bytes at a time.
Kind kind_of(const Problem &p) {
  constexpr uint64_t kGeneralFlags =
      ATTN_SDPA_DROPOUT | ATTN_SDPA_BLOCK_SPARSE | ATTN_SDPA_GATE | ATTN_SDPA_RETURN_ROW_MAX;
  constexpr uint64_t kMaskFlags = ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK;
  const Element element = element_of(p);
  const int32_t per_chunk = 16 / element_bytes(element);
  // The quick kinds cut fp32 in two, and rely on sums to average what that loses.
  constexpr int32_t kFewProducts = 32;
  if (element == Element::fp32 && p.d.head_dim_qk < kFewProducts) return Kind::general;
  if (p.has(kGeneralFlags) || !p.softmax() || p.d.sink_tokens != 0 || p.d.softmax_scale <= 0 ||
      p.d.head_dim_qk % per_chunk != 0 || p.d.head_dim_v % per_chunk != 0 ||
      p.d.out_dtype != p.d.q_dtype) {
    return Kind::general;
  }
  const struct {
    bool asked;
    Kind kind;
  } options[] = {{p.paged(), Kind::paged},
                 {p.has(kMaskFlags), Kind::mask},
                 {p.has(ATTN_SDPA_SEGMENT_IDS), Kind::segments},
                 {p.has(ATTN_SDPA_ALIBI), Kind::alibi},
                 {p.has(ATTN_SDPA_BIAS), Kind::bias},
                 {p.d.softcap > 0, Kind::softcap}};
  Kind kind = Kind::plain;
  for (const auto &option : options) {
    if (option.asked) kind = kind == Kind::plain ? option.kind : Kind::general;
  }
  return kind;
}

// How a problem is cut up: decided by its limits.
struct Geometry {
  const Variant *variant = nullptr;
  int32_t pack = 1;
  int32_t heads = 0;
  int32_t num_splits = 1;
};

// Query heads that share a block of rows: worth it if one head's queries do not fill one.
int32_t pack_of(const Problem &p) {
  return p.d.max_seqlen_q <= 32 ? p.group : 1;
}

// Shared memory of a block, whose biases may be of up to so many bytes an element.
int32_t smem_bytes(const Variant &v, int32_t bias_bytes = 4) {
  return v.config.smem_bytes(v.kind == Kind::bias ? bias_bytes : 0);
}

// `split`: partial results are merged, for which their log-sum-exps must be exact.
const Variant *find_variant(const Problem &p, const CudaDevice &device, Kind kind, bool split) {
  const Element element = element_of(p);
  const int64_t rows = p.d.max_seqlen_q * pack_of(p);
  const bool exact = split || p.has(ATTN_SDPA_RETURN_LSE);
  const Variant *best = nullptr;
  // The tightest head dims; then large blocks, but no larger than the rows need.
  const auto rank = [&](const Variant &v) {
    const int64_t dims = v.config.head_dim_qk * 1024 + v.config.head_dim_v;
    const int64_t spare = v.config.block_m - rows;
    return dims * 1024 +
           (spare * 2 >= v.config.block_m ? 512 + v.config.block_m : -v.config.block_m);
  };
  for (const Variant &v : kVariants) {
    const bool columns = v.config.head_dim_v >= p.d.head_dim_v ||
                         (v.kind == Kind::general && v.config.head_dim_qk > 256);
    if (v.element != element || v.kind != kind || v.config.head_dim_qk < p.d.head_dim_qk ||
        !columns || (exact && v.sums != Sums::exact) || smem_bytes(v) > device.max_dynamic_smem()) {
      continue;
    }
    if (best == nullptr || rank(v) < rank(*best)) best = &v;
  }
  return best;
}

Geometry geometry_of(const Problem &p, const CudaDevice &device, Kind kind) {
  Geometry g;
  g.variant = find_variant(p, device, kind, false);
  if (g.variant == nullptr) return g;
  const ForwardConfig &config = g.variant->config;
  g.pack = pack_of(p);
  g.heads = p.d.num_q_heads / g.pack;
  g.num_splits = gpu::pieces_of_keys(
      p, {.blocks = saturating_product(
              {p.d.max_batch, g.heads,
               std::max<int64_t>(1, ceil_div(p.d.max_seqlen_q * g.pack, config.block_m))}),
          .places = static_cast<int64_t>(device.num_sms()) * g.variant->blocks_per_sm,
          .tile = config.block_n});
  if (g.num_splits > 1) g.variant = find_variant(p, device, kind, true);
  return g;
}

Geometry planned_geometry(const Problem &p, const CudaDevice &device) {
  const Geometry special = geometry_of(p, device, kind_of(p));
  return special.variant != nullptr ? special : geometry_of(p, device, Kind::general);
}

struct Workspace {
  gpu::Partial partial;
  void *block_bits = nullptr;
};

Workspace carve(const Problem &p, const Geometry &g, int64_t total_q, Carver &carver) {
  Workspace w;
  w.partial = gpu::carve_partial(p, g.num_splits, total_q, carver);
  w.block_bits = carver.take<char>(static_cast<int64_t>(gpu::block_map_bytes(p)));
  return w;
}

// Whether `elements` neighbours, `bytes` in all, can be read at once from any multiple of that on.
bool reads_together(const QueryView &view, int64_t bytes, int64_t elements) {
  return reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(bytes) == 0 &&
         view.last == 1 && view.outer % elements == 0 && view.head % elements == 0 &&
         view.inner % elements == 0;
}

// Least squares on Chebyshev points.
SoftcapTerms softcap_terms(const Problem &p) {
  constexpr double kQuick[] = {kSoftcapCubic, kSoftcapQuintic};
  constexpr double kPrecise[] = {-0.33333331, 0.13333243, -0.05387511, 0.02111607, -0.00627616};
  static_assert(std::size(kQuick) == SoftcapTerms::kQuick &&
                kSoftcapSmall == SoftcapTerms::kQuickSmall);
  static_assert(std::size(kPrecise) == SoftcapTerms::kPrecise);
  const double cap = p.d.softcap, scale = p.d.softmax_scale / cap;
  const bool precise = element_bytes(element_of(p)) == 4;
  SoftcapTerms terms = {.cap = p.d.softcap,
                        .scale = static_cast<float>(scale),
                        .bare_cap = static_cast<float>(1 / scale),
                        .terms = {}};
  double power = scale * scale;
  for (int n = 0; n < (precise ? SoftcapTerms::kPrecise : SoftcapTerms::kQuick); n++) {
    terms.terms[n] = static_cast<float>((precise ? kPrecise[n] : kQuick[n]) * power);
    power *= scale * scale;
  }
  return terms;
}

void describe_score_terms(const Problem &p, const Call &call, ForwardParams &f) {
  const attn_sdpa_args &a = call.args;
  const auto set = [&](uint64_t flag, uint32_t option) {
    if (p.has(flag)) f.options |= option;
    return p.has(flag);
  };
  if (set(ATTN_SDPA_BIAS, kForwardBias)) {
    f.bias = query_view(a.bias, true);
    const int64_t chunk = f.bias.dtype == ATTN_DTYPE_FP32 ? 4 : 8;  // elements
    if (reads_together(f.bias, 16, chunk)) f.options |= kForwardVectorBias;
  }
  bool words = true;
  if (set(ATTN_SDPA_MASK, kForwardMask)) {
    f.mask = query_view(a.mask, true);
    words = words && reads_together(f.mask, 4, 4);
  }
  if (set(ATTN_SDPA_TAIL_MASK, kForwardTailMask)) {
    f.tail_mask = query_view(a.tail_mask, true);
    words = words && reads_together(f.tail_mask, 4, 4);
  }
  if (words) f.options |= kForwardWordMasks;
  if (set(ATTN_SDPA_ALIBI, kForwardAlibi)) {
    const attn_tensor &t = a.alibi_slopes;
    f.alibi_slopes = static_cast<const float *>(t.data);
    f.alibi_batch = t.rank == 2 ? t.stride[0] : 0;
    f.alibi_head = t.stride[t.rank - 1];
  }
  if (set(ATTN_SDPA_SEGMENT_IDS, kForwardSegments)) {
    const attn_tensor &q = a.q_segment_ids, &kv = a.kv_segment_ids;
    f.q_segment_ids = static_cast<const int32_t *>(q.data);
    f.q_segment_outer = q.rank == 2 ? q.stride[0] : 0;
    f.q_segment_inner = q.stride[q.rank - 1];
    f.kv_segment_ids = static_cast<const int32_t *>(kv.data);
    f.kv_segment_outer = kv.rank == 2 ? kv.stride[0] : 0;
    f.kv_segment_inner = kv.stride[kv.rank - 1];
  }
  if (set(ATTN_SDPA_DROPOUT, kForwardDropout)) f.rng_state = a.rng_state;
  if (set(ATTN_SDPA_SINK, kForwardSink)) {
    f.sink = static_cast<const float *>(a.sink.data);
    f.sink_head = a.sink.stride[0];
  }
  set(ATTN_SDPA_LSE_INCLUDES_SINK, kForwardLseIncludesSink);
  if (p.d.softcap > 0) f.options |= kForwardSoftcap;
  if (!p.softmax()) f.options |= kForwardSilu;
  f.softmax_scale = p.d.softmax_scale;
  f.scale_log2 = p.d.softmax_scale * 1.44269504088896f;
  f.scale_inverse = 1 / p.d.softmax_scale;
  if (p.d.softcap > 0) f.softcap = softcap_terms(p);
  f.silu_divisor = p.d.silu_divisor;
  f.dropout_p = p.d.dropout_p;
}

ForwardParams make_params(const Problem &p, const Call &call) {
  const attn_sdpa_args &a = call.args;
  ForwardParams f = {};
  f.sequences = make_sequence_table(p.d, a, call.seqlen_q, call.seqlen_k);
  f.q = token_view(a.q);
  f.k = token_view(a.k);
  f.v = token_view(a.v);
  f.out = token_view(a.out);
  f.rules = gpu::position_rules_32(p.d);
  f.bottom_right = p.d.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? 1 : 0;
  f.batch = static_cast<int32_t>(call.batch);
  f.total_q = call.total_q;
  f.num_q_heads = p.d.num_q_heads;
  f.group = Divider(p.group);
  f.head_dim_qk = p.d.head_dim_qk;
  f.head_dim_v = p.d.head_dim_v;
  f.tail = p.ragged_q() ? 1 : 0;
  if (p.has(ATTN_SDPA_GATE)) {
    f.options |= kForwardGate;
    f.gate = token_view(a.gate);
  }
  if (p.has(ATTN_SDPA_RETURN_LSE)) {
    f.options |= kForwardLse;
    f.lse = query_view(a.lse, false);
  }
  if (p.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    f.options |= kForwardRowMax;
    f.row_max = query_view(a.row_max, false);
  }
  if (p.d.lse_base == ATTN_LSE_BASE_2) f.options |= kForwardLseBase2;
  if (p.has(ATTN_SDPA_CAUSAL)) f.options |= kForwardHeavyLast;
  const int64_t bytes = element_bytes(element_of(p));
  if (copies_whole(f.q, p.d.head_dim_qk, bytes)) f.options |= kForwardVectorQ;
  if (copies_whole(f.k, p.d.head_dim_qk, bytes) && copies_whole(f.v, p.d.head_dim_v, bytes)) {
    f.options |= kForwardVectorKv;
  }
  if (p.d.out_dtype == p.d.q_dtype && copies_whole(f.out, p.d.head_dim_v, bytes) &&
      !p.has(ATTN_SDPA_GATE)) {
    f.options |= kForwardVectorOut;
  }
  f.p_terms = bytes == 2 && p.d.out_dtype != p.d.q_dtype ? 3 : 1;
  describe_score_terms(p, call, f);
  return f;
}

}  // namespace

bool copies_whole(const TokenView &view, int64_t columns, int64_t bytes) {
  const int64_t chunk = 16 / bytes;
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.dim == 1 &&
         columns % chunk == 0 && view.outer % chunk == 0 && view.inner % chunk == 0 &&
         view.head % chunk == 0;
}

Verdict forward_serves(const Problem &p, const Device &device) {
  const int32_t dtype = p.d.q_dtype;
  if (dtype != ATTN_DTYPE_FP16 && dtype != ATTN_DTYPE_BF16 && dtype != ATTN_DTYPE_FP32) {
    return Verdict::refuses("tensor cores take q of FP16, BF16 or FP32 here");
  }
  if (p.d.k_dtype != dtype || p.d.v_dtype != dtype) {
    return Verdict::refuses("k and v have another dtype than q");
  }
  if (p.d.out_quant.granularity != ATTN_QUANT_NONE || p.d.out_dtype == ATTN_DTYPE_NONE ||
      (p.d.out_dtype != ATTN_DTYPE_FP32 && p.d.out_dtype != ATTN_DTYPE_FP16 &&
       p.d.out_dtype != ATTN_DTYPE_BF16)) {
    return Verdict::refuses("out is quantised");
  }
  if (gpu::block_map_bytes(p) > gpu::kMostBlockBytes) {
    return Verdict::refuses("the block lists' bits would take more than 1 GiB of workspace");
  }
  const Geometry g = planned_geometry(p, cuda_of(device));
  if (g.variant == nullptr) {
    return Verdict::refuses(
        "head_dim_qk is above what a tile in this device's shared memory can hold");
  }
  constexpr int64_t kMost = 1 << 30;  // positions are 32-bit inside
  if (p.d.max_seqlen_q * p.group >= kMost || p.d.max_seqlen_k >= kMost ||
      p.most_queries() >= kMost) {
    return Verdict::refuses("sequences are longer than 2^30 rows");
  }
  if (gpu::partial_bytes(p, g.num_splits, p.most_queries()) > gpu::kMostPartialBytes) {
    return Verdict::refuses("partial results of that many pieces take more than 2^48 bytes");
  }
  return Verdict::serves();
}

size_t forward_workspace(const Problem &p, const Device &device) {
  Carver carver;
  carve(p, planned_geometry(p, cuda_of(device)), p.most_queries(), carver);
  return carver.bytes();
}

int32_t forward_prepare(const Problem &p, const Device &device, const ErrorSink &error) {
  const CudaDevice &cuda = cuda_of(device);
  const Geometry g = planned_geometry(p, cuda);
  int32_t status = ATTN_OK;
  // The general kind too, because strides may ask for it.
  for (const Variant *variant :
       {g.variant, find_variant(p, cuda, Kind::general, g.num_splits > 1)}) {
    if (variant == nullptr || status != ATTN_OK) continue;
    status = cuda.load(variant->kernel, static_cast<uint32_t>(smem_bytes(*variant)), error);
  }
  if (status == ATTN_OK && g.num_splits > 1) status = load_combine(cuda, error);
  if (status == ATTN_OK && p.has(ATTN_SDPA_BLOCK_SPARSE)) status = cuda.load(kBlockMap, 0, error);
  return status;
}

int32_t forward_launch(const Problem &p, const Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error) {
  const CudaDevice &cuda = cuda_of(device);
  ForwardParams f = make_params(p, call);
  Geometry g = planned_geometry(p, cuda);
  if (p.d.split_policy == ATTN_SPLIT_FIXED && g.num_splits > 1) {
    f.options |= kForwardFixedSplit;
    f.split_size = p.d.split_size;
    // Pieces that begin between two chunks.
    if (p.d.split_size % 8 != 0) f.options &= ~kForwardVectorBias;
  }
  const uint32_t vectors = kForwardVectorQ | kForwardVectorKv |
                           (g.variant->kind == Kind::bias ? kForwardVectorBias : 0u);
  if (g.variant->kind != Kind::general && (f.options & vectors) != vectors) {
    // Strides that only the general kind can read. The number of pieces stays as planned.
    g.variant = find_variant(p, cuda, Kind::general, g.num_splits > 1);
  }
  const ForwardConfig &config = g.variant->config;

  Carver carver(resources.workspace);
  const Workspace w = carve(p, g, call.total_q, carver);
  f.partial_out = w.partial.out;
  f.partial_lse = w.partial.lse;
  f.partial_max = w.partial.max;
  f.num_splits = g.num_splits;
  f.heads = Divider(g.heads);
  f.pack = Divider(g.pack);
  f.m_blocks = static_cast<int32_t>(
      std::max<int64_t>(f.tail, ceil_div(call.seqlen_q * g.pack, config.block_m)));
  f.v_chunks = static_cast<int32_t>(ceil_div(p.d.head_dim_v, config.head_dim_v));
  const int64_t pairs = (call.batch + f.tail) * g.heads;
  const int64_t blocks = saturating_product({pairs, f.m_blocks, f.num_splits, f.v_chunks});
  if (blocks == 0) return ATTN_OK;  // there is no query
  if (blocks > INT32_MAX) {
    return error.fail(ATTN_ERROR_UNSUPPORTED, "args",
                      "this call needs %lld blocks; a grid has at most %d",
                      static_cast<long long>(blocks), INT32_MAX);
  }
  // Pairs whose keys and values fit in the L2 together take turns block by block, the heaviest
  // blocks first; but enough pairs to fill the chip.
  constexpr int64_t kResident = 16 << 20;
  const int64_t pair_bytes = std::max<int64_t>(
      1, call.seqlen_k * (p.d.head_dim_qk + p.d.head_dim_v) * config.element_bytes);
  const int64_t sharing = p.group / g.pack;  // pairs that share keys and values
  const int64_t at_once = static_cast<int64_t>(cuda.num_sms()) * g.variant->blocks_per_sm;
  const int64_t filling = ceil_div(at_once, std::max(1, f.m_blocks));
  const int64_t section = std::clamp<int64_t>(std::max(kResident / pair_bytes * sharing, filling),
                                              1, std::max<int64_t>(1, pairs));
  f.pairs = static_cast<int32_t>(pairs);
  f.section = Divider(section);
  f.section_blocks = Divider(std::max<int64_t>(1, section * f.m_blocks));
  f.splits = Divider(f.num_splits);
  f.chunks = Divider(f.v_chunks);
  const LaunchShape shape = {.grid = {static_cast<uint32_t>(blocks), 1, 1},
                             .threads = static_cast<uint32_t>(config.threads()),
                             .dynamic_smem = static_cast<uint32_t>(
                                 smem_bytes(*g.variant, f.bias.dtype == ATTN_DTYPE_FP32 ? 4 : 2))};
  int32_t status = ATTN_OK;
  if (p.has(ATTN_SDPA_BLOCK_SPARSE)) {
    const gpu::BlockMap map = gpu::block_map(p, call, w.block_bits);
    f.options |= kForwardBlocks;
    f.block_bits = map.bits;
    f.block_batch = map.batch;
    f.block_head = map.head;
    f.block_row = map.row;
    f.block_size_q = p.d.block_size_q;
    f.block_size_k = p.d.block_size_k;
    status = gpu::write_block_map(cuda, kBlockMap, p, call, map, resources.stream, error);
    if (status != ATTN_OK) return status;
  }
  status = cuda.launch(g.variant->kernel, shape, &f, resources.stream, error);
  if (status != ATTN_OK || g.num_splits == 1) return status;
  return gpu::combine_partial(p, call, cuda, merge_kernel, w.partial, g.num_splits,
                              resources.stream, error);
}

}  // namespace attn::cuda
