#include "sdpa_call.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "codec.hpp"

namespace check {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");
constexpr int32_t kJunk = 0x7ffffff0;  // an index that nothing may follow

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

bool can_be_nan(int32_t dtype) {
  return is_float16_or_32(dtype) || dtype == ATTN_DTYPE_FP8_E4M3FN ||
         dtype == ATTN_DTYPE_FP8_E5M2 || dtype == ATTN_DTYPE_FP8_E4M3FNUZ;
}

// What stored values should be multiplied by to use a format's range, for real values of about 1.
double storage_unit(int32_t dtype) {
  switch (dtype) {
    case ATTN_DTYPE_INT8:
      return 40;
    case ATTN_DTYPE_INT4:
      return 2.5;
    case ATTN_DTYPE_FP4_E2M1:
      return 2;
    default:
      return 1;
  }
}

double rounded_to_tf32(double x) {
  if (!std::isfinite(x) || x == 0) return x;
  int exponent;
  std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(x, 11 - exponent)), exponent - 11);
}

std::vector<int64_t> shape_of(const HostTensor &t) {
  return {t.view.shape, t.view.shape + t.view.rank};
}

}  // namespace

SdpaCall::SdpaCall(const SdpaCase &row)
    : c(row),
      desc(ATTN_SDPA_DESC_INIT),
      args(ATTN_SDPA_ARGS_INIT),
      grads(ATTN_SDPA_BACKWARD_ARGS_INIT),
      batch_(static_cast<int64_t>(row.sq.size())) {
  lengths();
  describe();
}

SdpaCall::SdpaCall(const SdpaCase &row, uint64_t seed) : SdpaCall(row) {
  rng_.seed(seed);
  data_tensors();
  pages();
  masks();
  score_terms();
  blocks();
  if (c.flags & ATTN_SDPA_DROPOUT) {
    const uint64_t seed_of_call = rng_();
    rng_state_ = {seed_of_call, rng_()};
    args.rng_state = rng_state_.data();
  }
  // K and V come last: what of them is used depends on everything above.
  inputs = read_inputs(desc, args);
  hide_unseen_keys();
  inputs = read_inputs(desc, args);

  const std::vector<int64_t> out_shape = q_shape(c.hq, inputs.desc.head_dim_v);
  const std::vector<int64_t> row_shape = c.q_layout == ATTN_LAYOUT_RAGGED
                                             ? std::vector<int64_t>{c.hq, total_q_}
                                             : std::vector<int64_t>{batch_, c.hq, extent_q_};
  const int32_t out_dtype = c.out_dtype != 0              ? c.out_dtype
                            : is_float16_or_32(c.q_dtype) ? c.q_dtype
                                                          : ATTN_DTYPE_BF16;
  if (c.pass == ATTN_SDPA_FORWARD) {
    add_output("out", &args.out, out_dtype, out_shape);
    if (c.flags & ATTN_SDPA_RETURN_LSE) add_output("lse", &args.lse, ATTN_DTYPE_FP32, row_shape);
    if (c.flags & ATTN_SDPA_RETURN_ROW_MAX) {
      add_output("row_max", &args.row_max, ATTN_DTYPE_FP32, row_shape);
    }
  } else {
    const Strides own = c.strides == Strides::kShared ? Strides::kContiguous : c.strides;
    given_out = HostTensor(out_dtype, out_shape, own, rng_);
    args.out = given_out.view;
    if (c.activation == ATTN_ACTIVATION_SOFTMAX) {
      given_lse = HostTensor(ATTN_DTYPE_FP32, row_shape, own, rng_);
      args.lse = given_lse.view;
    }
    dout = HostTensor(out_dtype, out_shape, c.strides, rng_);
    const bool with_dlse = (c.grads & ATTN_SDPA_GRAD_LSE_IN) != 0;
    if (with_dlse) dlse = HostTensor(ATTN_DTYPE_FP32, row_shape, c.strides, rng_);
    // Gradients of unused queries are not anyone's to read: they stay NaN.
    for (int64_t b = 0; b < batch_; b++) {
      for (int64_t i = 0; i < inputs.seqlen_q(b); i++) {
        for (int64_t h = 0; h < c.hq; h++) {
          const bool ragged = c.q_layout == ATTN_LAYOUT_RAGGED;
          const int64_t token = ragged ? cu_q_[static_cast<size_t>(b)] + i : b * extent_q_ + i;
          for (int64_t d = 0; d < inputs.desc.head_dim_v; d++) {
            dout.set((token * c.hq + h) * inputs.desc.head_dim_v + d, normal(rng_));
          }
          if (with_dlse) {
            dlse.set(ragged ? h * total_q_ + token : (b * c.hq + h) * extent_q_ + i, normal(rng_));
          }
        }
      }
    }
    grads.forward = &args;
    grads.dout = dout.view;
    grads.dlse = dlse.view;
    const bool latent = (c.flags & ATTN_SDPA_LATENT_KV) != 0;
    const uint32_t wanted =
        (c.grads & ~ATTN_SDPA_GRAD_LSE_IN) != 0 || c.grads != 0
            ? c.grads
            : ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K | (latent ? 0 : ATTN_SDPA_GRAD_V);
    const auto grad = [&](uint32_t flag, const char *name, attn_tensor *place,
                          const HostTensor &of) {
      if ((wanted & flag) == 0) return;
      add_output(name, place, c.grads_fp32 ? int32_t{ATTN_DTYPE_FP32} : of.view.dtype,
                 shape_of(of));
    };
    grad(ATTN_SDPA_GRAD_Q, "dq", &grads.dq, q);
    grad(ATTN_SDPA_GRAD_K, "dk", &grads.dk, k);
    grad(ATTN_SDPA_GRAD_V, "dv", &grads.dv, v);
    grad(ATTN_SDPA_GRAD_BIAS, "dbias", &grads.dbias, bias);
    grad(ATTN_SDPA_GRAD_SINK, "dsink", &grads.dsink, sink);
    grad(ATTN_SDPA_GRAD_GATE, "dgate", &grads.dgate, gate);
  }
  if (c.out_quant.granularity != ATTN_QUANT_NONE) {
    const double unit =
        (c.data & kDataSaturatedOut) != 0 ? 40 * largest(out_dtype) : 0.25 * largest(out_dtype);
    out_scale = scale_tensor(c.out_quant, out_shape, c.q_layout == ATTN_LAYOUT_RAGGED, 1 / unit);
    args.out_scale = out_scale.view;
  }
  inputs.args = args;
}

void SdpaCall::lengths() {
  const auto side = [&](const std::vector<int32_t> &used, bool ragged, bool seqused, int32_t spare,
                        int32_t rest, MirroredVector<int32_t> &cu, MirroredVector<int32_t> &in_use,
                        int64_t &longest, int64_t &total, int64_t &extent) {
    extent = used.empty() ? 0 : *std::max_element(used.begin(), used.end());
    if (seqused) extent += spare;
    cu.assign(1, 0);
    for (int32_t n : used) {
      const int32_t room = ragged ? n + (seqused ? spare : 0) : static_cast<int32_t>(extent);
      cu.push_back(cu.back() + room);
      in_use.push_back(ragged || seqused ? n : static_cast<int32_t>(extent));
    }
    longest = extent;
    total = cu.back() + rest;
  };
  const bool paged = c.page_size > 0;
  side(c.sq, c.q_layout == ATTN_LAYOUT_RAGGED, (c.flags & ATTN_SDPA_SEQUSED_Q) != 0, c.spare_q,
       c.rest_q, cu_q_, used_q_, max_q_, total_q_, extent_q_);
  side(c.sk, c.kv_layout == ATTN_LAYOUT_RAGGED, paged || (c.flags & ATTN_SDPA_SEQUSED_K) != 0,
       paged ? 0 : c.spare_k, c.rest_k, cu_k_, used_k_, max_k_, total_k_, extent_k_);
  args.batch = batch_;
  if (c.q_layout == ATTN_LAYOUT_RAGGED) args.cu_seqlens_q = cu_q_.data();
  if (c.kv_layout == ATTN_LAYOUT_RAGGED) args.cu_seqlens_k = cu_k_.data();
  if (c.flags & ATTN_SDPA_SEQUSED_Q) args.seqused_q = used_q_.data();
  if ((c.flags & ATTN_SDPA_SEQUSED_K) || c.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
    args.seqused_k = used_k_.data();
  }
}

void SdpaCall::describe() {
  desc.pass = c.pass;
  desc.flags = c.flags;
  desc.grads = c.grads;
  desc.q_dtype = c.q_dtype;
  desc.k_dtype = c.k_dtype;
  desc.v_dtype = c.v_dtype;
  desc.out_dtype = c.out_dtype;
  desc.q_layout = c.q_layout;
  desc.kv_layout = c.kv_layout;
  desc.page_size = c.page_size;
  desc.num_q_heads = c.hq;
  desc.num_kv_heads = c.hkv;
  desc.head_dim_qk = c.dqk;
  desc.head_dim_v = c.dv;
  desc.max_batch = batch_ + (c.loose_limits ? 3 : 0);
  desc.max_seqlen_q = max_q_ + (c.loose_limits ? 7 : 0);
  desc.max_seqlen_k = max_k_ + (c.loose_limits ? 9 : 0);
  const int64_t beyond = c.loose_limits ? 5 : 0;
  if (c.q_layout == ATTN_LAYOUT_RAGGED && (c.loose_limits || c.rest_q > 0)) {
    desc.max_total_q = total_q_ + beyond;
  }
  if (c.kv_layout == ATTN_LAYOUT_RAGGED && (c.loose_limits || c.rest_k > 0)) {
    desc.max_total_k = total_k_ + beyond;
  }
  desc.softmax_scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<float>(c.dqk));
  desc.softcap = c.softcap;
  desc.alignment = c.alignment;
  desc.window_left = c.window_left;
  desc.window_right = c.window_right;
  desc.chunk_size = c.chunk;
  desc.sink_tokens = c.sink_tokens;
  desc.block_size_q = c.block_q;
  desc.block_size_k = c.block_k;
  desc.dropout_p = c.dropout_p;
  desc.activation = c.activation;
  if (c.activation == ATTN_ACTIVATION_SILU) desc.silu_divisor = static_cast<float>(max_k_ + 1);
  desc.lse_base = c.lse_base;
  desc.split_policy = c.split_policy;
  desc.split_size = c.split_size;
  desc.determinism = c.determinism;
  desc.q_quant = c.q_quant;
  desc.k_quant = c.k_quant;
  desc.v_quant = c.v_quant;
  desc.out_quant = c.out_quant;
}

std::vector<int64_t> SdpaCall::q_shape(int64_t heads, int64_t dim) const {
  if (c.q_layout == ATTN_LAYOUT_RAGGED) return {total_q_, heads, dim};
  return {batch_, extent_q_, heads, dim};
}

HostTensor SdpaCall::scale_tensor(const attn_quant &quant, const std::vector<int64_t> &shape,
                                  bool no_batch, double size) {
  if (quant.granularity == ATTN_QUANT_NONE) return {};
  const size_t rank = shape.size();
  const bool token = quant.granularity >= ATTN_QUANT_TOKEN;
  const bool head =
      quant.granularity == ATTN_QUANT_HEAD || quant.granularity >= ATTN_QUANT_TOKEN_HEAD;
  std::vector<int64_t> extents(rank, 1);
  const auto vary = [&](size_t dim) { extents[dim] = chance(rng_, 0.2) ? 1 : shape[dim]; };
  if (token) vary(rank - 3);
  if (head) vary(rank - 2);
  if (rank == 4 && (token || (head && !no_batch))) vary(0);
  if (quant.granularity == ATTN_QUANT_BLOCK) {
    extents[rank - 1] = ceil_div(shape[rank - 1], quant.block_size);
  }
  const int32_t dtype = quant.scale_dtype == 0 ? int32_t{ATTN_DTYPE_FP32} : quant.scale_dtype;
  HostTensor t(dtype, extents, c.strides == Strides::kShared ? Strides::kContiguous : c.strides,
               rng_);
  for (int64_t i = 0; i < t.elements(); i++) {
    t.set(i, size * std::exp2(static_cast<double>(uniform(rng_, -64, 64)) / 64));
  }
  return t;
}

void SdpaCall::data_tensors() {
  const int32_t k_dtype = c.k_dtype != 0 ? c.k_dtype : c.q_dtype;
  const int32_t v_dtype = c.v_dtype != 0 ? c.v_dtype : k_dtype;
  const int64_t hkv = c.hkv != 0 ? c.hkv : c.hq, dv = c.dv != 0 ? c.dv : c.dqk;
  const bool shared = c.strides == Strides::kShared;
  q = HostTensor(c.q_dtype, q_shape(c.hq, c.dqk), shared ? Strides::kContiguous : c.strides, rng_);
  args.q = q.view;
  fill_queries();
  q_scale = scale_tensor(c.q_quant, shape_of(q), c.q_layout == ATTN_LAYOUT_RAGGED,
                         1 / storage_unit(c.q_dtype));
  args.q_scale = q_scale.view;

  // The pool's number of pages is decided here; who owns which, in pages().
  std::vector<int64_t> kv_shape;
  if (c.kv_layout == ATTN_LAYOUT_DENSE) {
    kv_shape = {batch_, extent_k_, hkv};
  } else if (c.kv_layout == ATTN_LAYOUT_RAGGED) {
    kv_shape = {total_k_, hkv};
  } else {
    int64_t pages = 0;
    for (int32_t n : used_k_) pages += ceil_div(n, c.page_size);
    if (c.data & kDataRepeatedPages) pages = pages / 2 + 1;
    kv_shape = {pages + 2, c.page_size, hkv};
  }
  std::vector<int64_t> k_shape = kv_shape, v_shape = kv_shape;
  k_shape.push_back(c.dqk);
  v_shape.push_back(dv);
  const Strides strides =
      shared && c.kv_layout != ATTN_LAYOUT_DENSE ? Strides::kContiguous : c.strides;
  k = HostTensor(k_dtype, k_shape, strides, rng_);
  args.k = k.view;
  const bool paged_or_ragged = c.kv_layout != ATTN_LAYOUT_DENSE;
  k_scale = scale_tensor(c.k_quant, k_shape, paged_or_ragged, 1 / storage_unit(k_dtype));
  args.k_scale = k_scale.view;
  if (!(c.flags & ATTN_SDPA_LATENT_KV)) {
    v = HostTensor(v_dtype, v_shape, strides, rng_);
    args.v = v.view;
    v_scale = scale_tensor(c.v_quant, v_shape, paged_or_ragged, 1 / storage_unit(v_dtype));
    args.v_scale = v_scale.view;
  }
}

// Queries in use get values; the others keep the NaN that the memory was filled with.
void SdpaCall::fill_queries() {
  const double q_size =
      storage_unit(c.q_dtype) * ((c.data & kDataHugeScores)       ? 1e4
                                 : (c.data & kDataNegativeScores) ? 1e4 / std::sqrt(c.dqk)
                                                                  : 1);
  for (int64_t b = 0; b < batch_; b++) {
    for (int64_t i = 0; i < used_q_[static_cast<size_t>(b)]; i++) {
      const int64_t token =
          c.q_layout == ATTN_LAYOUT_RAGGED ? cu_q_[static_cast<size_t>(b)] + i : b * extent_q_ + i;
      for (int64_t n = 0; n < c.hq; n++) {
        const bool infinite = (c.data & kDataInfScores) != 0 && chance(rng_, 0.2);
        for (int64_t d = 0; d < c.dqk; d++) {
          double x = normal(rng_);
          if (c.data & kDataNegativeScores) x = std::fabs(x) + 0.5;
          q.set((token * c.hq + n) * c.dqk + d, infinite ? kInf : x * q_size);
        }
      }
    }
  }
}

void SdpaCall::pages() {
  if (c.page_size == 0) return;
  const int64_t pool = k.view.shape[0];
  std::vector<int32_t> order(static_cast<size_t>(pool));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng_);
  size_t next = 0;
  int64_t widest = 0;
  std::vector<std::vector<int32_t>> lists;
  for (int64_t b = 0; b < batch_; b++) {
    const int64_t count = ceil_div(used_k_[static_cast<size_t>(b)], c.page_size);
    widest = std::max(widest, count);
    std::vector<int32_t> list;
    for (int64_t n = 0; n < count; n++) {
      if ((c.data & kDataNegativePages) && chance(rng_, 0.25)) {
        list.push_back(chance(rng_, 0.5) ? -1 : INT32_MIN);
      } else if (c.data & kDataRepeatedPages) {
        list.push_back(static_cast<int32_t>(uniform(rng_, 0, pool - 1)));
      } else {
        list.push_back(order[next++]);
      }
    }
    lists.push_back(std::move(list));
  }
  if (c.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
    // Entries past a sequence's pages are junk, as servers leave them.
    block_table =
        HostTensor(ATTN_DTYPE_INT32, {batch_, widest + 1},
                   c.strides == Strides::kShared ? Strides::kContiguous : c.strides, rng_);
    for (int64_t i = 0; i < block_table.elements(); i++) block_table.set(i, kJunk);
    for (int64_t b = 0; b < batch_; b++) {
      const auto &list = lists[static_cast<size_t>(b)];
      for (size_t n = 0; n < list.size(); n++) {
        block_table.set(b * (widest + 1) + static_cast<int64_t>(n), list[n]);
      }
    }
    args.block_table = block_table.view;
    return;
  }
  indptr_.assign(1, 0);
  for (int64_t b = 0; b < batch_; b++) {
    const auto &list = lists[static_cast<size_t>(b)];
    indices_.insert(indices_.end(), list.begin(), list.end());
    indptr_.push_back(static_cast<int32_t>(indices_.size()));
    const int32_t n = used_k_[static_cast<size_t>(b)];
    last_len_.push_back(n == 0 ? kJunk : (n - 1) % c.page_size + 1);
  }
  indices_.push_back(kJunk);  // so that an empty list has an address
  args.kv_page_indptr = indptr_.data();
  args.kv_page_indices = indices_.data();
  args.kv_last_page_len = last_len_.data();
}

void SdpaCall::masks() {
  const bool ragged = c.q_layout == ATTN_LAYOUT_RAGGED;
  const int64_t keys = c.kv_layout == ATTN_LAYOUT_DENSE ? extent_k_ : desc.max_seqlen_k;
  const int64_t queries = ragged ? desc.max_seqlen_q : extent_q_;
  const int64_t heads = c.share_heads ? 1 : c.hq;
  const auto bits = [&](int64_t bytes) {
    const std::vector<int64_t> shape =
        ragged ? std::vector<int64_t>{heads, total_q_, bytes}
               : std::vector<int64_t>{c.share_batch ? 1 : batch_, heads, extent_q_, bytes};
    HostTensor t(ATTN_DTYPE_UINT8, shape,
                 c.strides == Strides::kShared ? Strides::kContiguous : c.strides, rng_);
    for (int64_t i = 0; i < t.elements(); i++) {
      unsigned byte = 0;
      for (int bit = 0; bit < 8; bit++) byte |= unsigned{chance(rng_, c.mask_density)} << bit;
      const int64_t row = bytes == 0 ? 0 : i / bytes;
      if ((c.data & kDataWholeRowsMasked) && row % 3 == 1) byte = 0;
      t.set(i, byte);
    }
    return t;
  };
  if (c.flags & ATTN_SDPA_MASK) {
    mask = bits(ceil_div(keys, 8));
    args.mask = mask.view;
  }
  if (c.flags & ATTN_SDPA_TAIL_MASK) {
    tail_mask = bits(ceil_div(queries, 8));
    args.tail_mask = tail_mask.view;
  }
  if (c.flags & ATTN_SDPA_SEGMENT_IDS) {
    const auto ids = [&](std::vector<int64_t> shape) {
      HostTensor t(ATTN_DTYPE_INT32, std::move(shape),
                   c.strides == Strides::kShared ? Strides::kContiguous : c.strides, rng_);
      for (int64_t i = 0; i < t.elements(); i++) {
        t.set(i, static_cast<double>(uniform(rng_, -1, 2)));
      }
      return t;
    };
    q_ids = ids(ragged ? std::vector<int64_t>{total_q_} : std::vector<int64_t>{batch_, extent_q_});
    kv_ids = ids(c.kv_layout == ATTN_LAYOUT_RAGGED ? std::vector<int64_t>{total_k_}
                                                   : std::vector<int64_t>{batch_, keys});
    args.q_segment_ids = q_ids.view;
    args.kv_segment_ids = kv_ids.view;
  }
}

void SdpaCall::score_terms() {
  const bool ragged = c.q_layout == ATTN_LAYOUT_RAGGED;
  const Strides strides = c.strides == Strides::kShared ? Strides::kContiguous : c.strides;
  const int64_t keys = c.kv_layout == ATTN_LAYOUT_DENSE ? extent_k_ : desc.max_seqlen_k;
  const int64_t heads = c.share_heads ? 1 : c.hq;
  if (c.flags & ATTN_SDPA_BIAS) {
    bias = HostTensor(c.bias_dtype,
                      ragged ? std::vector<int64_t>{heads, total_q_, keys}
                             : std::vector<int64_t>{c.share_batch ? 1 : batch_, heads,
                                                    c.share_rows ? 1 : extent_q_, keys},
                      strides, rng_);
    for (int64_t i = 0; i < bias.elements(); i++) {
      const bool hide = (c.data & kDataBiasMinusInf) != 0 &&
                        (chance(rng_, 0.33) || (keys > 0 && i / keys % 4 == 2));
      bias.set(i, hide ? -kInf : normal(rng_));
    }
    args.bias = bias.view;
  }
  if (c.flags & ATTN_SDPA_ALIBI) {
    alibi = HostTensor(
        ATTN_DTYPE_FP32,
        c.alibi_per_batch ? std::vector<int64_t>{batch_, c.hq} : std::vector<int64_t>{c.hq},
        strides, rng_);
    for (int64_t i = 0; i < alibi.elements(); i++) {
      alibi.set(i, std::exp2(-static_cast<double>(uniform(rng_, 1, 8))));
    }
    args.alibi_slopes = alibi.view;
  }
  if (c.flags & ATTN_SDPA_SINK) {
    sink = HostTensor(ATTN_DTYPE_FP32, {c.hq}, strides, rng_);
    for (int64_t h = 0; h < c.hq; h++) {
      double x = 2 * normal(rng_);
      if ((c.data & kDataSinkMinusInf) && h % 2 == 0) x = -kInf;
      if ((c.data & kDataSinkPlusInf) && h % 3 == 0) x = kInf;
      if (c.data & (kDataHugeScores | kDataNegativeScores)) x *= 3000;
      sink.set(h, x);
    }
    args.sink = sink.view;
  }
  if (c.flags & ATTN_SDPA_GATE) {
    const int64_t dv = c.dv != 0 ? c.dv : c.dqk;
    gate = HostTensor(c.gate_dtype, q_shape(c.hq, c.gate_per_head ? 1 : dv), strides, rng_);
    for (int64_t i = 0; i < gate.elements(); i++) gate.set(i, 2 * normal(rng_));
    args.gate = gate.view;
  }
}

void SdpaCall::blocks() {
  if (!(c.flags & ATTN_SDPA_BLOCK_SPARSE)) return;
  const Strides strides = c.strides == Strides::kShared ? Strides::kContiguous : c.strides;
  const int64_t queries = c.q_layout == ATTN_LAYOUT_RAGGED ? desc.max_seqlen_q : extent_q_;
  const int64_t rows = ceil_div(queries, c.block_q), most = ceil_div(max_k_, c.block_k);
  const int64_t b = c.share_batch ? 1 : batch_, h = c.share_heads ? 1 : c.hq;
  const bool messy = (c.data & kDataRepeatedBlocks) != 0;
  const int64_t width = messy ? most * 2 + 1 : most;
  block_counts = HostTensor(ATTN_DTYPE_INT32, {b, h, rows}, strides, rng_);
  block_indices = HostTensor(ATTN_DTYPE_INT32, {b, h, rows, width}, strides, rng_);
  for (int64_t i = 0; i < block_indices.elements(); i++) block_indices.set(i, kJunk);
  for (int64_t list = 0; list < b * h * rows; list++) {
    std::vector<int32_t> chosen;
    for (int32_t block = 0; block < most; block++) {
      if (chance(rng_, 0.6)) chosen.push_back(block);
    }
    if (messy) {
      if (list % 5 == 3) chosen.clear();
      if (!chosen.empty()) chosen.push_back(chosen.front());
      chosen.push_back(-1);
      std::shuffle(chosen.begin(), chosen.end(), rng_);
    }
    block_counts.set(list, static_cast<double>(chosen.size()));
    for (size_t n = 0; n < chosen.size(); n++) {
      block_indices.set(list * width + static_cast<int64_t>(n), chosen[n]);
    }
  }
  args.block_counts = block_counts.view;
  args.block_indices = block_indices.view;
}

// Fills K and V where some query sees them. All else keeps the NaN that the memory was filled with:
// unused tails, unused pages, and keys that every query of the group masks.
void SdpaCall::hide_unseen_keys() {
  const int64_t hkv = inputs.desc.num_kv_heads, group = c.hq / hkv;
  const int64_t dv = inputs.desc.head_dim_v;
  const std::vector<int64_t> shape = shape_of(k);
  const int64_t slots = shape.size() == 4 ? shape[1] : 1;
  std::vector<uint8_t> filled(static_cast<size_t>(k.elements() / c.dqk));
  const bool latent = (c.flags & ATTN_SDPA_LATENT_KV) != 0;
  // A page or batch entry that all others share is filled for the one that needs it.
  const double k_size = storage_unit(k.view.dtype),
               v_size = v.present() ? storage_unit(v.view.dtype) : 1;
  for (int64_t b = 0; b < batch_; b++) {
    for (int64_t j = 0; j < used_k_[static_cast<size_t>(b)]; j++) {
      int64_t outer, inner;
      inputs.key_place(b, j, outer, inner);
      if (outer < 0) continue;
      for (int64_t hk = 0; hk < hkv; hk++) {
        const int64_t token = (shape.size() == 4 ? outer * slots + inner : inner) * hkv + hk;
        if (filled[static_cast<size_t>(token)]) continue;
        bool seen = !can_be_nan(k.view.dtype);
        for (int64_t h = hk * group; h < (hk + 1) * group && !seen; h++) {
          for (int64_t i = 0; i < used_q_[static_cast<size_t>(b)] && !seen; i++) {
            seen = inputs.visible(b, h, i, j);
          }
        }
        if (!seen) continue;
        filled[static_cast<size_t>(token)] = 1;
        const bool nan = (c.data & kDataNanSeenByFew) != 0 && chance(rng_, 0.08);
        const double bad_value = chance(rng_, 0.5) ? kNan : kInf;
        for (int64_t d = 0; d < c.dqk; d++) {
          double x = normal(rng_);
          if (c.data & kDataNegativeScores) x = -(std::fabs(x) + 0.5);
          k.set(token * c.dqk + d, nan ? kNan : x * k_size);
        }
        for (int64_t d = 0; d < dv && !latent; d++) {
          v.set(token * dv + d, nan ? bad_value : normal(rng_) * v_size);
        }
      }
    }
  }
}

void SdpaCall::add_output(const char *name, attn_tensor *place, int32_t dtype,
                          std::vector<int64_t> shape) {
  Output o;
  o.name = name;
  o.tensor = HostTensor(dtype, std::move(shape),
                        c.strides == Strides::kShared ? Strides::kContiguous : c.strides, rng_);
  o.place = place;
  *place = o.tensor.view;
  outputs.push_back(std::move(o));
}

void SdpaCall::poison_outputs(uint64_t pattern) {
  for (Output &o : outputs) o.tensor.poison(pattern);
}

void SdpaCall::compute_truth() {
  if (have_truth_) return;
  have_truth_ = true;
  const SdpaOutputs<double> exact = sdpa_forward<double>(inputs);
  const auto put = [&](const char *name, const Result<double> &truth, const Array<float> &naive,
                       const Array<float> &of_rounded = {}) {
    for (Output &o : outputs) {
      if (std::string(o.name) != name) continue;
      o.truth = truth.value;
      o.slack = truth.slack;
      o.naive = naive;
      o.naive_of_rounded_weights = of_rounded;
    }
  };
  if (c.pass == ATTN_SDPA_FORWARD) {
    SdpaInputs rounded;
    if (inputs.has(ATTN_SDPA_ALLOW_TF32)) {
      // What the permission is for: factors of 11 significant bits.
      rounded = inputs;
      for (Array<double> *factor : {&rounded.q, &rounded.k, &rounded.v}) {
        for (double &x : factor->data) x = rounded_to_tf32(x);
      }
    }
    const SdpaOutputs<float> naive =
        sdpa_forward<float>(inputs.has(ATTN_SDPA_ALLOW_TF32) ? rounded : inputs);
    put("out", exact.out, naive.out.value, naive.out_of_rounded_weights);
    put("lse", exact.lse, naive.lse.value);
    put("row_max", exact.row_max, naive.row_max.value);
    if (out_scale.present()) {
      HostTensor ones(ATTN_DTYPE_FP32, exact.out.value.shape, Strides::kContiguous, rng_);
      for (int64_t i = 0; i < ones.elements(); i++) ones.set(i, 1);
      outputs[0].scale = dequantised(ones.view, out_scale.view, c.out_quant);
    }
    return;
  }
  given_out.store(exact.out.value);
  if (given_lse.present()) given_lse.store(exact.lse.value);
  dout_values = dout.load();
  dlse_values = dlse.load();
  const SdpaGrads<double> truth =
      sdpa_backward<double>(inputs, exact.out.value, exact.lse.value, dout_values, dlse_values);
  const SdpaGrads<float> naive =
      sdpa_backward<float>(inputs, converted<float>(given_out.load()),
                           converted<float>(given_lse.load()), dout_values, dlse_values);
  put("dq", truth.dq, naive.dq.value, naive.dq_of_rounded);
  put("dk", truth.dk, naive.dk.value, naive.dk_of_rounded);
  put("dv", truth.dv, naive.dv.value, naive.dv_of_rounded);
  put("dbias", truth.dbias, naive.dbias.value);
  put("dsink", truth.dsink, naive.dsink.value);
  put("dgate", truth.dgate, naive.dgate.value);
}

bool SdpaCall::change_lengths() {
  const bool paged = c.page_size > 0, ragged_q = c.q_layout == ATTN_LAYOUT_RAGGED,
             ragged_k = c.kv_layout == ATTN_LAYOUT_RAGGED;
  const bool seqused_q = args.seqused_q != nullptr, seqused_k = args.seqused_k != nullptr;
  if (c.pass != ATTN_SDPA_FORWARD) return false;
  if (batch_ == 0 || !(paged || ragged_q || ragged_k || seqused_q || seqused_k)) return false;
  const size_t batch = static_cast<size_t>(batch_);
  // Sequences trade their places, each with the room of its neighbour; what is used of the room is
  // drawn anew where the call says it apart.
  const auto side = [&](bool ragged, bool seqused, int64_t extent, MirroredVector<int32_t> &cu,
                        MirroredVector<int32_t> &used) {
    std::vector<int32_t> rooms;
    for (size_t b = 0; b < batch; b++) {
      rooms.push_back(ragged ? cu[b + 1] - cu[b] : static_cast<int32_t>(extent));
    }
    std::rotate(rooms.begin(), rooms.begin() + 1, rooms.end());
    for (size_t b = 0; b < batch; b++) {
      if (ragged) cu[b + 1] = cu[b] + rooms[b];
      used[b] = seqused ? static_cast<int32_t>(uniform(rng_, 0, rooms[b])) : rooms[b];
    }
  };
  side(ragged_q, seqused_q, extent_q_, cu_q_, used_q_);
  if (!paged) {
    side(ragged_k, seqused_k, extent_k_, cu_k_, used_k_);
  } else if (c.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
    // Lists go to the next sequence, and from its last page on something is not used any more.
    const int64_t width = block_table.view.shape[1];
    const Array<double> before = block_table.load();
    std::rotate(used_k_.begin(), used_k_.begin() + 1, used_k_.end());
    for (int64_t b = 0; b < batch_; b++) {
      for (int64_t n = 0; n < width; n++) {
        block_table.set(b * width + n, before.at((b + 1) % batch_, n));
      }
      int32_t &n = used_k_[static_cast<size_t>(b)];
      n = static_cast<int32_t>(uniform(rng_, n / 2, n));
    }
  } else {
    const std::vector<int32_t> indptr(indptr_.begin(), indptr_.end());
    const std::vector<int32_t> indices(indices_.begin(), indices_.end());
    std::rotate(used_k_.begin(), used_k_.begin() + 1, used_k_.end());
    for (size_t b = 0; b < batch; b++) {
      const size_t from = (b + 1) % batch;
      int32_t &n = used_k_[b];
      n = static_cast<int32_t>(uniform(rng_, n / 2, n));
      const auto pages = static_cast<int32_t>(ceil_div(n, c.page_size));
      indptr_[b + 1] = indptr_[b] + pages;
      std::copy_n(indices.begin() + indptr[from], pages, indices_.begin() + indptr_[b]);
      last_len_[b] = n == 0 ? kJunk : (n - 1) % c.page_size + 1;
    }
    std::fill(indices_.begin() + indptr_.back(), indices_.end(), kJunk);
  }
  for (HostTensor *tensor : {&q, &k, &v}) {
    if (tensor->present()) tensor->poison(~UINT64_C(0));
  }
  fill_queries();
  inputs = read_inputs(desc, args);
  hide_unseen_keys();
  inputs = read_inputs(desc, args);
  for (HostTensor *tensor : {&q, &k, &v, &block_table}) tensor->remember();
  have_truth_ = false;
  return true;
}

attn_sdpa_args SdpaCall::alone(int64_t b) {
  attn_sdpa_args a = args;
  const auto cut = [](attn_tensor &t, int dim, int64_t first, int64_t count) {
    if (t.rank == 0) return;
    t.data = static_cast<uint8_t *>(t.data) + first * t.stride[dim] * dtype_bits(t.dtype) / 8;
    t.shape[dim] = count;
  };
  const auto one = [&](attn_tensor &t) {
    if (t.rank > 0 && t.shape[0] != 1) cut(t, 0, b, 1);
  };
  const size_t at = static_cast<size_t>(b);
  a.batch = 1;
  if (c.q_layout == ATTN_LAYOUT_RAGGED) {
    const int64_t first = cu_q_[at], count = cu_q_[at + 1] - first;
    for (attn_tensor *t : {&a.q, &a.out, &a.gate, &a.q_segment_ids}) cut(*t, 0, first, count);
    for (attn_tensor *t : {&a.lse, &a.row_max, &a.mask, &a.tail_mask, &a.bias}) {
      cut(*t, 1, first, count);
    }
    if (a.q_scale.rank > 0 && a.q_scale.shape[0] != 1) cut(a.q_scale, 0, first, count);
    if (a.out_scale.rank > 0 && a.out_scale.shape[0] != 1) cut(a.out_scale, 0, first, count);
    alone_cu_q_ = {0, static_cast<int32_t>(count)};
    a.cu_seqlens_q = alone_cu_q_.data();
  } else {
    for (attn_tensor *t : {&a.q, &a.out, &a.gate, &a.q_segment_ids, &a.lse, &a.row_max, &a.mask,
                           &a.tail_mask, &a.bias, &a.q_scale, &a.out_scale}) {
      one(*t);
    }
  }
  if (a.seqused_q != nullptr) a.seqused_q += b;
  if (a.seqused_k != nullptr) a.seqused_k += b;
  if (c.kv_layout == ATTN_LAYOUT_RAGGED) {
    const int64_t first = cu_k_[at], count = cu_k_[at + 1] - first;
    for (attn_tensor *t : {&a.k, &a.v, &a.kv_segment_ids}) cut(*t, 0, first, count);
    for (attn_tensor *t : {&a.k_scale, &a.v_scale}) {
      if (t->rank > 0 && t->shape[0] != 1) cut(*t, 0, first, count);
    }
    alone_cu_k_ = {0, static_cast<int32_t>(count)};
    a.cu_seqlens_k = alone_cu_k_.data();
  } else {
    if (c.kv_layout == ATTN_LAYOUT_DENSE) {
      for (attn_tensor *t : {&a.k, &a.v, &a.k_scale, &a.v_scale}) one(*t);
    }
    one(a.kv_segment_ids);
    one(a.block_table);
  }
  if (c.kv_layout == ATTN_LAYOUT_PAGED_CSR) {
    alone_indptr_ = {0, indptr_[at + 1] - indptr_[at]};
    a.kv_page_indices += indptr_[at];
    a.kv_page_indptr = alone_indptr_.data();
    a.kv_last_page_len += b;
  }
  if (a.alibi_slopes.rank == 2) one(a.alibi_slopes);
  one(a.block_counts);
  one(a.block_indices);
  return a;
}

std::string finite_difference_failure(SdpaCall &call) {
  call.compute_truth();
  SdpaInputs &in = call.inputs;
  const auto loss = [&] {
    const SdpaOutputs<double> y = sdpa_forward<double>(in);
    double sum = 0;
    const auto add = [&](const Array<double> &g, const Array<double> &x) {
      for (size_t i = 0; i < g.data.size(); i++) {
        if (std::isfinite(g.data[i]) && std::isfinite(x.data[i])) sum += g.data[i] * x.data[i];
      }
    };
    add(call.dout_values, y.out.value);
    if (call.dlse_values.present()) add(call.dlse_values, y.lse.value);
    return sum;
  };
  for (const SdpaCall::Output &o : call.outputs) {
    const std::string name = o.name;
    Array<double> &x = name == "dq"      ? in.q
                       : name == "dk"    ? in.k
                       : name == "dv"    ? in.v
                       : name == "dbias" ? in.bias
                       : name == "dsink" ? in.sink
                                         : in.gate;
    double largest_grad = 1;
    for (double g : o.truth.data) largest_grad = std::max(largest_grad, std::fabs(g));
    for (size_t i = 0; i < x.data.size(); i++) {
      const double before = x.data[i];
      if (!std::isfinite(before)) continue;
      const double step = 1e-5 * std::max(1.0, std::fabs(before));
      x.data[i] = before + step;
      const double above = loss();
      x.data[i] = before - step;
      const double below = loss();
      x.data[i] = before;
      const double numeric = (above - below) / (2 * step);
      if (!(std::fabs(numeric - o.truth.data[i]) <= 1e-6 * largest_grad)) {
        char text[200];
        std::snprintf(text, sizeof text,
                      "%s element %zu: the oracle's gradient is %.9g, finite differences give %.9g",
                      name.c_str(), i, o.truth.data[i], numeric);
        return text;
      }
    }
  }
  return {};
}

}  // namespace check
