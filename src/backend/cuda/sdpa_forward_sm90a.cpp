#include "backend/cuda/sdpa_forward_sm90a.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "backend/cuda/device.hpp"
#include "backend/cuda/sdpa_forward.hpp"
#include "backend/cuda/work_order.hpp"
#include "backend/gpu/position_rules.hpp"
#include "core/ceil_div.hpp"
#include "core/saturating.hpp"
#include "kernels/cuda/common/softcap.hpp"
#include "kernels/cuda/sm90a/sdpa/forward_params.hpp"

namespace attn::cuda {

#define ATTN_VARIANT(entry, begin, end, ...) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/cuda/sm90a/sdpa/forward_table.inc"
#undef ATTN_VARIANT

namespace {

using sdpa::Call;
using sdpa::Problem;
using sm90::ForwardConfig;
using sm90::ForwardParams;

enum class Element { fp16, bf16 };
// See kernels/cuda/sm90a/sdpa/forward/variant.cuh.
enum class Kind { plain, pages, alibi, softcap, options };

struct Variant {
  Kernel kernel;
  Element element;
  ForwardConfig config;
  Kind kind;
};

constexpr Variant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, element, dim_qk, dim_v, block_m, block_n, q_stages, \
                     kv_stages, kind)                                                       \
  {ATTN_GPU_KERNEL(entry),                                                                  \
   Element::element,                                                                        \
   {dim_qk, dim_v, block_m, block_n, q_stages, kv_stages},                                  \
   Kind::kind},
#include "kernels/cuda/sm90a/sdpa/forward_table.inc"
#undef ATTN_VARIANT
};

Kind kind_of(const Problem &p) {
  const bool alibi = p.has(ATTN_SDPA_ALIBI), softcap = p.d.softcap > 0;
  if (alibi + softcap + p.paged() > 1) return Kind::options;
  return alibi ? Kind::alibi : softcap ? Kind::softcap : p.paged() ? Kind::pages : Kind::plain;
}

int64_t most_blocks(const Problem &p, const Variant &v) {
  return saturating_product(
      {p.d.max_batch, p.d.num_q_heads, ceil_div(p.d.max_seqlen_q, v.config.block_m)});
}

// The tightest head dims that serve; among those, the tile that takes least time. A tile costs as
// much as so many keys more, measured at 128 columns, and the last one may be half empty; a block
// costs as much as so many queries more, measured at 64 columns, and a multiprocessor may have one
// more than another.
const Variant *find_variant(const Problem &p, const CudaDevice &device, ForwardTile tile) {
  constexpr int64_t kTileCost = 24, kBlockCost = 235;
  const Element element = p.d.q_dtype == ATTN_DTYPE_BF16 ? Element::bf16 : Element::fp16;
  const Kind kind = kind_of(p);
  const int64_t keys = p.has(ATTN_SDPA_CAUSAL) ? p.d.max_seqlen_k / 2 : p.d.max_seqlen_k;
  const auto dims = [](const Variant &v) {
    return v.config.head_dim_qk * 1024 + v.config.head_dim_v;
  };
  const auto time = [&](const Variant &v) {
    const int64_t rounds = ceil_div(most_blocks(p, v), device.num_sms());
    const int64_t tiles = ceil_div(keys, v.config.block_n);
    return saturating_product(
        {rounds, v.config.block_m + kBlockCost, tiles, v.config.block_n + kTileCost});
  };
  const Variant *best = nullptr;
  for (const Variant &v : kVariants) {
    if (v.element != element || v.kind != kind || v.config.head_dim_qk < p.d.head_dim_qk ||
        v.config.head_dim_v < p.d.head_dim_v) {
      continue;
    }
    if (best == nullptr || dims(v) < dims(*best) ||
        (dims(v) == dims(*best) && time(v) < time(*best))) {
      best = &v;
    }
  }
  if (best == nullptr || tile == ForwardTile{}) return best;
  const int32_t tightest = dims(*best);
  for (const Variant &v : kVariants) {
    if (v.element == element && v.kind == kind && dims(v) == tightest &&
        tile == ForwardTile{v.config.block_m, v.config.block_n}) {
      return &v;
    }
  }
  return nullptr;
}

// Dimensions from the contiguous one on, and steps between elements of the others. False: the copy
// engine does not take them.
template <size_t kRank>
bool encode(const CudaDevice &device, const attn_tensor &tensor, const int64_t (&extents)[kRank],
            const int64_t (&steps)[kRank - 1], const uint32_t (&box)[kRank], TensorMap &map) {
  uint64_t counts[kRank], bytes[kRank - 1];
  for (size_t i = 0; i < kRank; i++) {
    if (extents[i] <= 0 || extents[i] > int64_t{1} << 32) return false;
    counts[i] = static_cast<uint64_t>(extents[i]);
  }
  for (size_t i = 0; i + 1 < kRank; i++) {
    // The step of a dimension of 1 is never taken.
    const int64_t step = extents[i + 1] == 1 ? 16 : steps[i] * 2;
    if (step <= 0 || step % 16 != 0 || step >= int64_t{1} << 40) return false;
    bytes[i] = static_cast<uint64_t>(step);
  }
  return reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0 &&
         device.make_tensor_map(tensor.dtype == ATTN_DTYPE_BF16, tensor.data, kRank, counts, bytes,
                                box, map);
}

// A tensor by token and head as the copy engine sees it, `box` tokens at a time. `outer_extent`:
// what its first dimension must be, if it has rank 4. False: it cannot.
bool make_map(const CudaDevice &device, const attn_tensor &t, int64_t outer_extent, int32_t box,
              TensorMap &map) {
  const int first = t.rank == 4 ? 1 : 0;
  const int64_t outer = first == 1 ? t.shape[0] : 1;
  // (A tensor that all sequences share is not worth a variant.)
  if (t.stride[first + 2] != 1 || (first == 1 && outer != outer_extent)) return false;
  return encode<4>(device, t, {t.shape[first + 2], t.shape[first], t.shape[first + 1], outer},
                   {t.stride[first], t.stride[first + 1], t.stride[0]},
                   {ForwardConfig::kColumns, static_cast<uint32_t>(box), 1, 1}, map);
}

// Pages for grouped tiles: see ForwardParams. `columns`: the tile's blocks of 64, if a box has all
// of them. Pages must be a number of groups apart. False: it cannot.
bool make_page_map(const CudaDevice &device, const attn_tensor &t, int32_t page_size, int32_t box,
                   bool whole, int32_t columns, int32_t &page_groups, TensorMap &map) {
  const int64_t pages = t.shape[0], group = 8 * t.stride[1], head_dim = t.shape[3];
  int64_t groups = page_size / 8;
  if (pages > 1) {
    if (group <= 0 || t.stride[0] % group != 0 || t.stride[0] / group < groups) return false;
    groups = t.stride[0] / group;
  }
  const int64_t all = (pages - 1) * groups + page_size / 8;
  if (t.stride[3] != 1 || all > INT32_MAX) return false;
  page_groups = static_cast<int32_t>(groups);
  constexpr int32_t kColumns = ForwardConfig::kColumns;
  return encode<5>(
      device, t, {whole ? kColumns : head_dim, 8, whole ? head_dim / kColumns : 1, all, t.shape[2]},
      {t.stride[1], kColumns, group, t.stride[2]},
      {kColumns, 8, static_cast<uint32_t>(whole ? columns : 1), static_cast<uint32_t>(box / 8), 1},
      map);
}

bool make_kv_maps(const Problem &p, const Call &call, const CudaDevice &device, const Variant &v,
                  ForwardParams &f) {
  const attn_sdpa_args &a = call.args;
  const ForwardConfig &c = v.config;
  if (!p.paged()) {
    return make_map(device, a.k, call.batch, c.block_n, f.k) &&
           make_map(device, a.v, call.batch, c.block_n, f.v);
  }
  int32_t box = std::gcd(p.d.page_size, c.block_n);
  f.box_groups = box / 8;
  f.page_size = Divider(p.d.page_size);
  f.page_step = p.d.kv_layout == ATTN_LAYOUT_PAGED_TABLE ? a.block_table.stride[1] : 1;
  if (v.kind != Kind::pages || !ForwardConfig::groups(c.head_dim_qk, c.head_dim_v)) {
    return make_map(device, a.k, a.k.shape[0], box, f.k) &&
           make_map(device, a.v, a.v.shape[0], box, f.v);
  }
  const bool whole = ForwardConfig::groups(p.d.head_dim_qk, p.d.head_dim_v);
  f.box_whole = whole ? 1 : 0;
  if (!whole) {
    box = 8;
    f.box_groups = 1;
  }
  return make_page_map(device, a.k, p.d.page_size, box, whole, c.blocks(c.head_dim_qk),
                       f.k_page_groups, f.k) &&
         make_page_map(device, a.v, p.d.page_size, box, whole, c.blocks(c.head_dim_v),
                       f.v_page_groups, f.v);
}

// False: strides or addresses that the copy engine does not take.
bool make_params(const Problem &p, const Call &call, const CudaDevice &device, const Variant &v,
                 ForwardParams &f) {
  const attn_sdpa_args &a = call.args;
  if (!make_map(device, a.q, call.batch, 64, f.q) || !make_kv_maps(p, call, device, v, f) ||
      !copies_whole(token_view(a.out), p.d.head_dim_v, 2)) {
    return false;
  }
  f.sequences = make_sequence_table(p.d, a, call.seqlen_q, call.seqlen_k);
  f.q_view = token_view(a.q);
  f.k_view = token_view(a.k);
  f.v_view = token_view(a.v);
  f.out = token_view(a.out);
  f.rules = gpu::position_rules_32(p.d);
  f.bottom_right = p.d.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? 1 : 0;
  f.batch = static_cast<int32_t>(call.batch);
  f.total_q = call.total_q;
  f.head_dim_qk = p.d.head_dim_qk;
  f.head_dim_v = p.d.head_dim_v;
  if (p.has(ATTN_SDPA_RETURN_LSE)) {
    f.options |= sm90::kForwardLse;
    f.lse = query_view(a.lse, false);
  }
  if (p.d.lse_base == ATTN_LSE_BASE_2) f.options |= sm90::kForwardLseBase2;
  if (p.has(ATTN_SDPA_SINK)) {
    f.options |= sm90::kForwardSink;
    f.sink = static_cast<const float *>(a.sink.data);
    f.sink_head = a.sink.stride[0];
  }
  if (p.has(ATTN_SDPA_LSE_INCLUDES_SINK)) f.options |= sm90::kForwardLseIncludesSink;
  if (!p.ragged_q() && !p.has(ATTN_SDPA_SEQUSED_Q)) f.options |= sm90::kForwardWholeQ;
  if (!p.ragged_k() && !p.paged() && !p.has(ATTN_SDPA_SEQUSED_K))
    f.options |= sm90::kForwardWholeKv;
  if (p.has(ATTN_SDPA_ALIBI)) {
    const attn_tensor &t = a.alibi_slopes;
    f.options |= sm90::kForwardAlibi;
    f.alibi_slopes = static_cast<const float *>(t.data);
    f.alibi_batch = t.rank == 2 ? t.stride[0] : 0;
    f.alibi_head = t.stride[t.rank - 1];
  }
  if (p.d.softcap > 0) {
    f.options |= sm90::kForwardSoftcap;
    f.softcap_scale = p.d.softmax_scale / p.d.softcap;
    f.bare_softcap = 1 / f.softcap_scale;
    const float square = f.softcap_scale * f.softcap_scale;
    // (Products' squares are not to overflow.)
    f.softcap_small = std::min(kSoftcapSmall * f.bare_softcap, 1e10f);
    const double tiny = softcap_tiny(p.d.softcap);
    f.softcap_tiny = std::min(static_cast<float>(tiny) * f.bare_softcap, 1e10f);
    f.softcap_tiny_cubic = static_cast<float>(softcap_tiny_cubic(tiny)) * square;
    f.softcap_cubic = kSoftcapCubic * square;
    f.softcap_quintic = kSoftcapQuintic * square * square;
  }
  f.scale_inverse = 1 / p.d.softmax_scale;
  f.scale_log2 = p.d.softmax_scale * 1.44269504088896f;
  return true;
}

// best_tail_pairs(), which takes microseconds, unless the call before was the same.
int64_t tail_pairs_of(const RisingWork &work) {
  thread_local RisingWork last = {};
  thread_local int64_t tail_pairs = 0;
  if (last != work) {
    tail_pairs = best_tail_pairs(work);
    last = work;
  }
  return tail_pairs;
}

// Whether most queries see a window of keys that is much shorter than the sequence.
bool narrow_window(const Problem &p, int64_t seqlen_k) {
  return p.has(ATTN_SDPA_WINDOW) && p.d.window_left >= 0 && p.d.window_left < seqlen_k / 4;
}

}  // namespace

Verdict forward_sm90a_serves(const Problem &p, const Device &device, ForwardTile tile) {
  const CudaDevice &cuda = cuda_of(device);
  if (cuda.compute_capability() != 90) {
    return Verdict::refuses("these kernels need compute capability 9.0");
  }
  if (!cuda.makes_tensor_maps()) {
    return Verdict::refuses("the driver lacks cuTensorMapEncodeTiled");
  }
  const int32_t dtype = p.d.q_dtype;
  if (dtype != ATTN_DTYPE_FP16 && dtype != ATTN_DTYPE_BF16) {
    return Verdict::refuses("these kernels take q of FP16 or BF16");
  }
  if (p.d.k_dtype != dtype || p.d.v_dtype != dtype || p.d.out_dtype != dtype ||
      p.d.out_quant.granularity != ATTN_QUANT_NONE) {
    return Verdict::refuses("k, v or out have another dtype than q");
  }
  if (p.d.head_dim_qk % 8 != 0 || p.d.head_dim_v % 8 != 0) {
    return Verdict::refuses("a head dim is no multiple of 8");
  }
  const Variant *v = find_variant(p, cuda, {});
  if (v == nullptr || v->config.smem_bytes() > cuda.max_dynamic_smem()) {
    return Verdict::refuses("head dims are above what a tile in shared memory can hold");
  }
  if (tile != ForwardTile{}) {
    const Variant *with = find_variant(p, cuda, tile);
    if (with == nullptr) return Verdict::refuses("these head dims have no such tile");
    if (with == v) return Verdict::refuses("cuda/sdpa/forward/sm90a has this tile here");
    v = with;
  }
  constexpr int32_t kPageRows = 8;  // after which the order of bytes in a tile repeats
  constexpr uint64_t kLacks = ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS |
                              ATTN_SDPA_BIAS | ATTN_SDPA_DROPOUT | ATTN_SDPA_BLOCK_SPARSE |
                              ATTN_SDPA_GATE | ATTN_SDPA_RETURN_ROW_MAX;
  if (p.has(kLacks)) {
    return Verdict::refuses(
        "these kernels have no masks, segments, bias, dropout, block lists, gate and row_max");
  }
  if (!p.softmax() || p.d.softmax_scale <= 0 || p.d.sink_tokens != 0 || p.d.chunk_size != 0) {
    return Verdict::refuses(
        "these kernels have no other activation than softmax, no scale of 0 or below, no sink "
        "tokens and no chunks");
  }
  if (p.paged() && p.d.page_size % kPageRows != 0) {
    return Verdict::refuses(
        "a page's size is no multiple of 8, so no box of a tile's rows fits it");
  }
  if (p.d.split_policy == ATTN_SPLIT_FIXED && p.d.split_size < p.d.max_seqlen_k) {
    return Verdict::refuses("these kernels do not split keys");
  }
  constexpr int64_t kFewQueries = 64, kManyKeys = 2048;
  if (p.d.max_seqlen_q <= kFewQueries) {
    return Verdict::refuses("few queries a sequence: tiles of this height would be half empty");
  }
  if (p.d.split_policy == ATTN_SPLIT_AUTO && p.d.determinism != ATTN_DETERMINISM_BATCH_INVARIANT &&
      p.d.max_seqlen_k > kManyKeys && most_blocks(p, *v) * 2 < cuda.num_sms()) {
    return Verdict::refuses("few queries against many keys, which are better split");
  }
  constexpr int64_t kMost = 1 << 30;  // positions are 32-bit inside
  if (p.d.max_seqlen_q >= kMost || p.d.max_seqlen_k >= kMost || p.d.max_total_q >= kMost ||
      p.d.max_batch * p.d.max_seqlen_q >= kMost) {
    return Verdict::refuses("sequences are longer than 2^30 rows");
  }
  return forward_serves(p, device);  // which takes strides that these kernels cannot
}

size_t forward_sm90a_workspace(const Problem &p, const Device &device) {
  return forward_workspace(p, device);
}

int32_t forward_sm90a_prepare(const Problem &p, const Device &device, ForwardTile tile,
                              const ErrorSink &error) {
  const CudaDevice &cuda = cuda_of(device);
  const Variant *v = find_variant(p, cuda, tile);
  const int32_t status = cuda.load(v->kernel, static_cast<uint32_t>(v->config.smem_bytes()), error);
  return status == ATTN_OK ? forward_prepare(p, device, error) : status;
}

int32_t forward_sm90a_launch(const Problem &p, const Call &call, const Device &device,
                             ForwardTile tile, const Resources &resources, const ErrorSink &error) {
  const CudaDevice &cuda = cuda_of(device);
  const Variant *v = find_variant(p, cuda, tile);
  ForwardParams f = {};
  if (!make_params(p, call, cuda, *v, f)) return forward_launch(p, call, device, resources, error);
  const ForwardConfig &config = v->config;
  const int64_t heads = p.d.num_q_heads;
  f.heads = Divider(heads);
  f.group = Divider(p.group);
  f.m_blocks = static_cast<int32_t>(ceil_div(call.seqlen_q, config.block_m));
  const int64_t pairs = call.batch * heads;
  int64_t blocks = saturating_product({call.batch, heads, f.m_blocks});
  if (p.ragged_q()) {
    // As many as there may be, whatever the lengths.
    f.classes = sm90::length_class(static_cast<int32_t>(p.d.max_seqlen_k)) + 1;
    const int64_t most = call.total_q / config.block_m + call.batch + 1;
    blocks = call.total_q == 0 ? 0 : saturating_product({heads, most});
  }
  if (blocks == 0) return ATTN_OK;  // there is no query
  if (blocks > INT32_MAX) {
    return error.fail(ATTN_ERROR_UNSUPPORTED, "args",
                      "this call needs %lld blocks of queries; there may be %d",
                      static_cast<long long>(blocks), INT32_MAX);
  }
  const int64_t grid = std::min<int64_t>(blocks, cuda.num_sms());
  // Causal: later blocks have more keys, unless all that they see is a window.
  const bool rising = p.has(ATTN_SDPA_CAUSAL) && !narrow_window(p, call.seqlen_k);
  f.blocks_an_item = rising ? 2 : 1;
  if (!p.ragged_q()) {
    const int64_t tail_pairs =
        rising ? tail_pairs_of({pairs, f.m_blocks, grid, call.seqlen_k,
                                f.bottom_right != 0 ? call.seqlen_k - call.seqlen_q : 0,
                                config.block_m, config.block_n})
               : 0;
    const int64_t items_a_pair = ceil_div(f.m_blocks, f.blocks_an_item);
    f.items = static_cast<int32_t>((pairs - tail_pairs) * items_a_pair);
    f.even_rounds = static_cast<int32_t>(f.items / grid);
    f.tail_blocks = static_cast<int32_t>(tail_pairs * f.m_blocks);
    f.first_tail_pair = static_cast<int32_t>(pairs - tail_pairs);
    f.items_a_pair = Divider(items_a_pair);
    f.tail_pairs = Divider(std::max<int64_t>(tail_pairs, 1));
  }
  const LaunchShape shape = {.grid = {static_cast<uint32_t>(grid), 1, 1},
                             .threads = static_cast<uint32_t>(config.threads()),
                             .dynamic_smem = static_cast<uint32_t>(config.smem_bytes())};
  return cuda.launch(v->kernel, shape, &f, resources.stream, error);
}

}  // namespace attn::cuda
