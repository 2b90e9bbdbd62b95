// Everything is computed twice from one template: with T = double for the truth, and with T = float
// for the error that an honest fp32 computation makes.
//
// Slack, for the tolerance rule (see compare.hpp): an fp32 computation in any order of summation
// errs by a few units in the last place of its largest terms. With u = 2^-24 and, for row i,
//   amp_i = the largest over visible j of sum_d |scale q_id k_jd| + |bias_ij| + |alibi_ij|
// a score errs by about u amp_i, a weight P_ij = exp(s_ij - lse_i) by the relative amount
// u (amp_i + 1), and a sum of terms t by u (amp_i + 1) sum |t|. The slack is 8 times that: 8 units
// stand for the rounding steps (products, partial sums, exp, rescaling) that a term passes.
#include "sdpa_oracle.hpp"

#include <cmath>
#include <limits>

#include "codec.hpp"

namespace check {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kSteps = 8;
constexpr double kLn2 = 0.693147180559945309417232121458;

int64_t floor_div(int64_t a, int64_t b) {
  int64_t quotient = a / b;
  if (a % b < 0) quotient--;
  return quotient;
}

// Philox4x32-10, from its paper: ten rounds of two multiplications, keys bumped by Weyl constants.
void philox(uint32_t key[2], uint32_t counter[4]) {
  for (int round = 0; round < 10; round++) {
    if (round > 0) {
      key[0] += 0x9E3779B9;
      key[1] += 0xBB67AE85;
    }
    const uint64_t p0 = uint64_t{0xD2511F53} * counter[0], p1 = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
        static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    for (int i = 0; i < 4; i++) counter[i] = next[i];
  }
}

bool mask_bit(const attn_tensor &t, bool ragged, int64_t b, int64_t h, int64_t row, int64_t bit) {
  const auto *data = static_cast<const uint8_t *>(t.data);
  int64_t at = 0;
  int dim = 0;
  if (!ragged) {
    at += (t.shape[0] == 1 ? 0 : b) * t.stride[0];
    dim = 1;
  }
  at += (t.shape[dim] == 1 ? 0 : h) * t.stride[dim];
  at += row * t.stride[dim + 1] + bit / 8 * t.stride[dim + 2];
  return (data[at] >> (bit % 8) & 1) != 0;
}

}  // namespace

SdpaInputs read_inputs(const attn_sdpa_desc &desc, const attn_sdpa_args &args) {
  SdpaInputs in;
  in.desc = desc;
  in.args = args;
  if (desc.num_kv_heads == 0) in.desc.num_kv_heads = desc.num_q_heads;
  if (desc.head_dim_v == 0) in.desc.head_dim_v = desc.head_dim_qk;
  in.batch = in.ragged_q() ? args.batch : args.q.shape[0];
  in.q = dequantised(args.q, args.q_scale, desc.q_quant);
  in.k = dequantised(args.k, args.k_scale, desc.k_quant);
  in.v = dequantised(args.v, args.v_scale, desc.v_quant);
  in.bias = load_view(args.bias);
  in.alibi = load_view(args.alibi_slopes);
  in.sink = load_view(args.sink);
  in.gate = load_view(args.gate);
  return in;
}

Array<double> dequantised(const attn_tensor &tensor, const attn_tensor &scale,
                          const attn_quant &quant) {
  Array<double> values = load_view(tensor);
  if (scale.rank == 0) return values;
  const Array<double> scales = load_view(scale);
  const size_t rank = values.shape.size();
  for (size_t n = 0; n < values.data.size(); n++) {
    int64_t rest = static_cast<int64_t>(n), at = 0, step = 1;
    for (size_t dim = rank; dim-- > 0;) {
      int64_t i = rest % values.shape[dim];
      rest /= values.shape[dim];
      if (dim == rank - 1 && quant.granularity == ATTN_QUANT_BLOCK) i /= quant.block_size;
      at += (scales.shape[dim] == 1 ? 0 : i) * step;
      step *= scales.shape[dim];
    }
    values.data[n] *= scales.data[static_cast<size_t>(at)];
  }
  return values;
}

int64_t SdpaInputs::rows_q(int64_t b) const {
  return ragged_q() ? args.cu_seqlens_q[b + 1] - args.cu_seqlens_q[b] : args.q.shape[1];
}
int64_t SdpaInputs::seqlen_q(int64_t b) const {
  return has(ATTN_SDPA_SEQUSED_Q) ? args.seqused_q[b] : rows_q(b);
}
int64_t SdpaInputs::seqlen_k(int64_t b) const {
  if (has(ATTN_SDPA_SEQUSED_K) || desc.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
    return args.seqused_k[b];
  }
  if (desc.kv_layout == ATTN_LAYOUT_DENSE) return args.k.shape[1];
  if (desc.kv_layout == ATTN_LAYOUT_RAGGED) return args.cu_seqlens_k[b + 1] - args.cu_seqlens_k[b];
  const int64_t pages = args.kv_page_indptr[b + 1] - args.kv_page_indptr[b];
  return pages == 0 ? 0 : (pages - 1) * desc.page_size + args.kv_last_page_len[b];
}

void SdpaInputs::key_place(int64_t b, int64_t j, int64_t &outer, int64_t &inner) const {
  switch (desc.kv_layout) {
    case ATTN_LAYOUT_DENSE:
      outer = b;
      inner = j;
      return;
    case ATTN_LAYOUT_RAGGED:
      outer = 0;
      inner = args.cu_seqlens_k[b] + j;
      return;
    case ATTN_LAYOUT_PAGED_TABLE: {
      const attn_tensor &t = args.block_table;
      outer =
          static_cast<const int32_t *>(t.data)[b * t.stride[0] + j / desc.page_size * t.stride[1]];
      break;
    }
    default:
      outer = args.kv_page_indices[args.kv_page_indptr[b] + j / desc.page_size];
  }
  inner = j % desc.page_size;
}

bool SdpaInputs::visible(int64_t b, int64_t h, int64_t i, int64_t j) const {
  const int64_t nq = seqlen_q(b), nk = seqlen_k(b);
  if (i >= nq || j >= nk) return false;
  int64_t outer, inner;
  key_place(b, j, outer, inner);
  if (outer < 0) return false;
  const int64_t p = i + (desc.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? nk - nq : 0);
  if (has(ATTN_SDPA_CAUSAL) && j > p) return false;
  bool near = true;
  if (has(ATTN_SDPA_WINDOW)) {
    if (desc.window_left >= 0 && j < p - desc.window_left) near = false;
    if (desc.window_right >= 0 && j > p + desc.window_right) near = false;
  }
  if (desc.chunk_size > 0 && floor_div(j, desc.chunk_size) != floor_div(p, desc.chunk_size)) {
    near = false;
  }
  if (!near && j >= desc.sink_tokens) return false;
  const int64_t row = ragged_q() ? args.cu_seqlens_q[b] + i : i;
  if (has(ATTN_SDPA_MASK) && !mask_bit(args.mask, ragged_q(), b, h, row, j)) return false;
  if (has(ATTN_SDPA_TAIL_MASK) && j >= nk - nq &&
      !mask_bit(args.tail_mask, ragged_q(), b, h, row, j - (nk - nq))) {
    return false;
  }
  if (has(ATTN_SDPA_SEGMENT_IDS)) {
    const int32_t mine =
        ragged_q()
            ? static_cast<const int32_t *>(
                  args.q_segment_ids.data)[row * args.q_segment_ids.stride[0]]
            : static_cast<const int32_t *>(
                  args.q_segment_ids
                      .data)[b * args.q_segment_ids.stride[0] + i * args.q_segment_ids.stride[1]];
    const attn_tensor &t = args.kv_segment_ids;
    const int64_t at = desc.kv_layout == ATTN_LAYOUT_RAGGED
                           ? (args.cu_seqlens_k[b] + j) * t.stride[0]
                           : b * t.stride[0] + j * t.stride[1];
    const int32_t theirs = static_cast<const int32_t *>(t.data)[at];
    if (mine != theirs || mine < 0) return false;
  }
  if (has(ATTN_SDPA_BLOCK_SPARSE)) {
    const int64_t r = i / desc.block_size_q;
    const attn_tensor &lists = args.block_indices;
    const auto *counts = static_cast<const int32_t *>(args.block_counts.data);
    const attn_tensor &c = args.block_counts;
    const int32_t count = counts[(c.shape[0] == 1 ? 0 : b) * c.stride[0] +
                                 (c.shape[1] == 1 ? 0 : h) * c.stride[1] + r * c.stride[2]];
    bool listed = false;
    for (int32_t n = 0; n < count; n++) {
      const int32_t block =
          static_cast<const int32_t *>(lists.data)[(lists.shape[0] == 1 ? 0 : b) * lists.stride[0] +
                                                   (lists.shape[1] == 1 ? 0 : h) * lists.stride[1] +
                                                   r * lists.stride[2] + n * lists.stride[3]];
      listed = listed || (block >= 0 && block == j / desc.block_size_k);
    }
    if (!listed) return false;
  }
  return true;
}

bool SdpaInputs::kept(int64_t b, int64_t h, int64_t i, int64_t j) const {
  if (!has(ATTN_SDPA_DROPOUT)) return true;
  uint32_t key[2] = {static_cast<uint32_t>(args.rng_state[0]),
                     static_cast<uint32_t>(args.rng_state[0] >> 32) ^
                         static_cast<uint32_t>(args.rng_state[1] >> 32)};
  uint32_t counter[4] = {static_cast<uint32_t>(j / 4), static_cast<uint32_t>(i),
                         static_cast<uint32_t>(b * desc.num_q_heads + h),
                         static_cast<uint32_t>(args.rng_state[1])};
  philox(key, counter);
  return std::ldexp(static_cast<double>(counter[j % 4] >> 8), -24) >=
         static_cast<double>(desc.dropout_p);
}

namespace {

// One row's visible keys and scores; the part that forward and backward share.
template <class T>
class Rows {
 public:
  explicit Rows(const SdpaInputs &inputs)
      : in(inputs),
        d(inputs.desc),
        q(converted<T>(inputs.q)),
        k(converted<T>(inputs.k)),
        v(converted<T>(inputs.v)),
        bias(converted<T>(inputs.bias)),
        alibi(converted<T>(inputs.alibi)),
        sink(converted<T>(inputs.sink)),
        gate(converted<T>(inputs.gate)) {}

  struct Key {
    int64_t j;
    size_t k_at, v_at, bias_at;  // first elements of its vectors, and its bias
    T raw, s;                    // scale * <q, k>; and the finished score
    bool kept;
  };

  // The place of the first element of q's (or out's, with `width` Dv) vector.
  size_t q_at(int64_t b, int64_t i, int64_t h, int64_t width) const {
    const int64_t token = in.ragged_q() ? in.args.cu_seqlens_q[b] + i : b * in.q.shape[1] + i;
    return static_cast<size_t>((token * d.num_q_heads + h) * width);
  }
  size_t row_at(int64_t b, int64_t i, int64_t h) const {  // of lse and row_max
    return static_cast<size_t>(in.ragged_q() ? h * in.q.shape[0] + in.args.cu_seqlens_q[b] + i
                                             : (b * d.num_q_heads + h) * in.q.shape[1] + i);
  }
  size_t bias_at(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const auto &s = bias.shape;
    if (in.ragged_q()) {
      const int64_t row = in.args.cu_seqlens_q[b] + i;
      return static_cast<size_t>(((s[0] == 1 ? 0 : h) * s[1] + row) * s[2] + j);
    }
    return static_cast<size_t>(
        (((s[0] == 1 ? 0 : b) * s[1] + (s[1] == 1 ? 0 : h)) * s[2] + (s[2] == 1 ? 0 : i)) * s[3] +
        j);
  }
  T gate_value(size_t out_at, int64_t dim) const {
    if (!gate.present()) return T(1);
    const bool each = gate.shape.back() != 1 || d.head_dim_v == 1;
    const T x = gate.data[each ? out_at + static_cast<size_t>(dim)
                               : out_at / static_cast<size_t>(d.head_dim_v)];
    return T(1) / (T(1) + std::exp(-x));
  }
  size_t gate_at(size_t out_at, int64_t dim) const {
    return gate.shape.back() != 1 || d.head_dim_v == 1 ? out_at + static_cast<size_t>(dim)
                                                       : out_at / static_cast<size_t>(d.head_dim_v);
  }
  const Array<T> &values() const { return in.has(ATTN_SDPA_LATENT_KV) ? k : v; }

  // Scores of row (b, h, i); amp as in the comment at the top.
  std::vector<Key> keys(int64_t b, int64_t h, int64_t i, double &amp) const {
    std::vector<Key> result;
    const bool latent = in.has(ATTN_SDPA_LATENT_KV);
    const int64_t nq = in.seqlen_q(b), nk = in.seqlen_k(b);
    const int64_t group = d.num_q_heads / d.num_kv_heads, hk = h / group;
    const int64_t inner_extent = in.k.shape.size() == 3 ? 0 : in.k.shape[1];
    const size_t qa = q_at(b, i, h, d.head_dim_qk);
    const T p = static_cast<T>(i + (d.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? nk - nq : 0));
    const T scale = static_cast<T>(d.softmax_scale), cap = static_cast<T>(d.softcap);
    amp = 0;
    for (int64_t j = 0; j < nk; j++) {
      if (!in.visible(b, h, i, j)) continue;
      int64_t outer, inner;
      in.key_place(b, j, outer, inner);
      const int64_t token = outer * inner_extent + inner;
      Key key{};
      key.j = j;
      key.k_at = static_cast<size_t>((token * d.num_kv_heads + hk) * d.head_dim_qk);
      key.v_at =
          latent ? key.k_at : static_cast<size_t>((token * d.num_kv_heads + hk) * d.head_dim_v);
      T dot = 0;
      double size = 0;
      for (int64_t c = 0; c < d.head_dim_qk; c++) {
        const T term =
            q.data[qa + static_cast<size_t>(c)] * k.data[key.k_at + static_cast<size_t>(c)];
        dot += term;
        size += std::fabs(static_cast<double>(term));
      }
      size *= std::fabs(static_cast<double>(scale));
      key.raw = scale * dot;
      key.s = cap > 0 ? cap * std::tanh(key.raw / cap) : key.raw;
      if (bias.present()) {
        key.bias_at = bias_at(b, h, i, j);
        const T add = bias.data[key.bias_at];
        key.s += add;
        if (std::isfinite(add)) size += std::fabs(static_cast<double>(add));
      }
      if (alibi.present()) {
        const T slope = alibi.shape.size() == 2 ? alibi.at(b, h) : alibi.at(h);
        const T add = slope * std::fabs(p - static_cast<T>(j));
        key.s -= add;
        size += std::fabs(static_cast<double>(add));
      }
      key.kept = in.kept(b, h, i, j);
      if (std::isfinite(size) && size > amp) amp = size;
      result.push_back(key);
    }
    return result;
  }

  const SdpaInputs &in;
  const attn_sdpa_desc &d;
  Array<T> q, k, v, bias, alibi, sink, gate;
};

template <class T>
T logaddexp(T a, T b) {
  if (std::isnan(a) || std::isnan(b)) return a + b;
  const T m = a > b ? a : b;
  if (std::isinf(m)) return m;
  return m + std::log(std::exp(a - m) + std::exp(b - m));
}

template <class T>
constexpr T kMinusInf = -std::numeric_limits<T>::infinity();

}  // namespace

template <class T>
SdpaOutputs<T> sdpa_forward(const SdpaInputs &in) {
  const Rows<T> rows(in);
  const attn_sdpa_desc &d = in.desc;
  SdpaOutputs<T> result;
  std::vector<int64_t> out_shape = in.q.shape;
  out_shape.back() = d.head_dim_v;
  const std::vector<int64_t> row_shape =
      in.ragged_q() ? std::vector<int64_t>{d.num_q_heads, in.q.shape[0]}
                    : std::vector<int64_t>{in.q.shape[0], d.num_q_heads, in.q.shape[1]};
  result.out = {Array<T>(out_shape), Array<double>(out_shape)};
  result.lse = {Array<T>(row_shape, kMinusInf<T>), Array<double>(row_shape)};
  result.row_max = {Array<T>(row_shape, kMinusInf<T>), Array<double>(row_shape)};
  const T keep_scale =
      in.has(ATTN_SDPA_DROPOUT) ? T(1) / (T(1) - static_cast<T>(d.dropout_p)) : T(1);
  const T base = d.lse_base == ATTN_LSE_BASE_2 ? static_cast<T>(1 / kLn2) : T(1);
  const Array<T> &values = rows.values();
  const bool rounds = dtype_bits(d.q_dtype) == 16;
  if (rounds) result.out_of_rounded_weights = Array<T>(out_shape);

  for (int64_t b = 0; b < in.batch; b++) {
    for (int64_t i = 0; i < in.seqlen_q(b); i++) {
      for (int64_t h = 0; h < d.num_q_heads; h++) {
        double amp;
        const auto keys = rows.keys(b, h, i, amp);
        const size_t oa = rows.q_at(b, i, h, d.head_dim_v), ra = rows.row_at(b, i, h);
        std::vector<T> weight(keys.size());
        T m = kMinusInf<T>, lse = kMinusInf<T>, total = kMinusInf<T>;
        for (const auto &key : keys) m = std::isnan(key.s) || key.s > m ? key.s : m;
        if (in.softmax()) {
          T sum = 0;
          for (const auto &key : keys) sum += m > kMinusInf<T> ? std::exp(key.s - m) : T(0);
          if (!keys.empty() && !(m == kMinusInf<T>)) lse = m + std::log(sum);
          total = rows.sink.present() ? logaddexp(lse, rows.sink.at(h)) : lse;
          for (size_t n = 0; n < keys.size(); n++) {
            // With a sink of +inf, and without any key, no key has weight.
            weight[n] = std::isinf(total) ? T(0) : std::exp(keys[n].s - total);
          }
        } else {
          for (size_t n = 0; n < keys.size(); n++) {
            const T s = keys[n].s;
            weight[n] = s / (T(1) + std::exp(-s)) / static_cast<T>(d.silu_divisor);
          }
        }
        std::vector<T> rounded_weight;
        if (rounds) {
          rounded_weight = weight;
          const T unit = in.softmax() ? std::exp(m - total) : T(1);
          for (T &w : rounded_weight) {
            if (w != 0 && unit > 0) w = static_cast<T>(rounded(w / unit, d.q_dtype)) * unit;
          }
        }
        for (int64_t c = 0; c < d.head_dim_v; c++) {
          T sum = 0, rounded_sum = 0;
          double size = 0;
          for (size_t n = 0; n < keys.size(); n++) {
            if (!keys[n].kept) continue;
            const T term =
                weight[n] * keep_scale * values.data[keys[n].v_at + static_cast<size_t>(c)];
            sum += term;
            if (rounds) {
              rounded_sum += rounded_weight[n] * keep_scale *
                             values.data[keys[n].v_at + static_cast<size_t>(c)];
            }
            size += std::fabs(static_cast<double>(term));
            if (!in.softmax()) {  // silu(s) near its zero: the error of s counts as it is
              size += std::fabs(static_cast<double>(
                  keep_scale * values.data[keys[n].v_at + static_cast<size_t>(c)] /
                  static_cast<T>(d.silu_divisor)));
            }
          }
          const size_t at = oa + static_cast<size_t>(c);
          const T sigmoid = rows.gate_value(oa, c);
          result.out.value.data[at] = sum * sigmoid;
          if (rounds) result.out_of_rounded_weights.data[at] = rounded_sum * sigmoid;
          result.out.slack.data[at] =
              kSteps * kUnit * (amp + 1) * size * static_cast<double>(sigmoid);
        }
        if (in.softmax()) {
          const T reported = in.has(ATTN_SDPA_LSE_INCLUDES_SINK) ? total : lse;
          result.lse.value.data[ra] = reported * base;
          const double size =
              std::isfinite(reported) ? std::fabs(static_cast<double>(reported)) : 0;
          result.lse.slack.data[ra] = kSteps * kUnit * (amp + 1 + size) * static_cast<double>(base);
          result.row_max.value.data[ra] = m;
          result.row_max.slack.data[ra] = kSteps * kUnit * amp;
        }
      }
    }
  }
  return result;
}

// x in as many bits as the dtype has, whatever its range.
template <class T>
T in_bits_of(T x, int32_t dtype) {
  if (!std::isfinite(x)) return x;
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(x), &exponent);
  return static_cast<T>(std::ldexp(rounded(mantissa, dtype), exponent));
}

template <class T>
SdpaGrads<T> sdpa_backward(const SdpaInputs &in, const Array<T> &out, const Array<T> &lse,
                           const Array<double> &dout_real, const Array<double> &dlse_real) {
  const Rows<T> rows(in);
  const attn_sdpa_desc &d = in.desc;
  const Array<T> dout = converted<T>(dout_real), dlse = converted<T>(dlse_real);
  SdpaGrads<T> g;
  const auto make = [](Result<T> &grad, const Array<double> &of) {
    if (of.present()) grad = {Array<T>(of.shape), Array<double>(of.shape)};
  };
  make(g.dq, in.q);
  make(g.dk, in.k);
  make(g.dv, in.v);
  make(g.dbias, in.bias);
  make(g.dsink, in.sink);
  make(g.dgate, in.gate);
  const bool latent = in.has(ATTN_SDPA_LATENT_KV);
  Result<T> &dv = latent ? g.dk : g.dv;
  const bool rounds = dtype_bits(d.q_dtype) == 16;
  if (rounds) {
    g.dq_of_rounded = Array<T>(g.dq.value.shape);
    g.dk_of_rounded = Array<T>(g.dk.value.shape);
    g.dv_of_rounded = Array<T>(g.dv.value.shape);
  }
  Array<T> &dv_of_rounded = latent ? g.dk_of_rounded : g.dv_of_rounded;
  const Array<T> &values = rows.values();
  const T keep_scale =
      in.has(ATTN_SDPA_DROPOUT) ? T(1) / (T(1) - static_cast<T>(d.dropout_p)) : T(1);
  const T ln2 = d.lse_base == ATTN_LSE_BASE_2 ? static_cast<T>(kLn2) : T(1);
  const T scale = static_cast<T>(d.softmax_scale), cap = static_cast<T>(d.softcap);
  const auto add = [](Result<T> &grad, size_t at, T term, double slack) {
    grad.value.data[at] += term;
    grad.slack.data[at] += slack;
  };

  for (int64_t b = 0; b < in.batch; b++) {
    for (int64_t h = 0; h < d.num_q_heads; h++) {
      for (int64_t i = 0; i < in.seqlen_q(b); i++) {
        double amp;
        const auto keys = rows.keys(b, h, i, amp);
        const size_t qa = rows.q_at(b, i, h, d.head_dim_qk), oa = rows.q_at(b, i, h, d.head_dim_v);
        const size_t ra = rows.row_at(b, i, h);
        const double unit = kSteps * kUnit * (amp + 1);
        // delta = <dout, out>: what the softmax's normalisation takes back.
        T delta = 0;
        double delta_size = 0;
        for (int64_t c = 0; c < d.head_dim_v; c++) {
          const size_t at = oa + static_cast<size_t>(c);
          const T term = dout.data[at] * out.data[at];
          delta += term;
          delta_size += std::fabs(static_cast<double>(term));
          if (rows.gate.present()) {  // d/dg of x sigmoid(g) = x sigmoid(g) (1 - sigmoid(g))
            const T rest = T(1) - rows.gate_value(oa, c);
            add(g.dgate, rows.gate_at(oa, c), term * rest,
                unit * std::fabs(static_cast<double>(term)));
          }
        }
        T total = 0, lse_row = 0;  // natural; with and without the sink as the flags say
        const T dlse_row = dlse.present() ? dlse.data[ra] / ln2 : T(0);
        if (in.softmax()) {
          lse_row = lse.data[ra] * ln2;
          total = lse_row;
          if (rows.sink.present() && !in.has(ATTN_SDPA_LSE_INCLUDES_SINK)) {
            total = logaddexp(lse_row, rows.sink.at(h));
          }
        }
        if (rows.sink.present() && in.softmax()) {
          const T sink = rows.sink.at(h);
          const T weight = sink == total && std::isinf(sink) ? T(sink > 0 ? 1 : 0)
                           : std::isinf(total)               ? T(0)
                                                             : std::exp(sink - total);
          const bool reaches = in.has(ATTN_SDPA_LSE_INCLUDES_SINK);
          const T dsink = weight * ((reaches ? dlse_row : T(0)) - delta);
          add(g.dsink, static_cast<size_t>(h), dsink,
              unit * static_cast<double>(weight) *
                  (delta_size + (reaches ? std::fabs(static_cast<double>(dlse_row)) : 0)));
        }
        for (const auto &key : keys) {
          T dp = 0;
          double dp_size = 0;
          T weight = 0, lse_weight = 0;
          if (in.softmax()) {
            weight = std::isinf(total) ? T(0) : std::exp(key.s - total);
            lse_weight = std::isinf(lse_row) ? T(0) : std::exp(key.s - lse_row);
          } else {
            const T s = key.s, sigmoid = T(1) / (T(1) + std::exp(-s));
            weight = s * sigmoid / static_cast<T>(d.silu_divisor);
          }
          const T kept_weight = key.kept ? weight * keep_scale : T(0);
          const T rounded_weight = rounds ? in_bits_of(kept_weight, d.q_dtype) : T(0);
          for (int64_t c = 0; c < d.head_dim_v; c++) {
            const size_t at = oa + static_cast<size_t>(c), va = key.v_at + static_cast<size_t>(c);
            const T into = dout.data[at] * rows.gate_value(oa, c);
            const T term = into * values.data[va];
            dp += term;
            dp_size += std::fabs(static_cast<double>(term));
            const double floor_weight =
                in.softmax()
                    ? std::fabs(static_cast<double>(kept_weight))
                    : static_cast<double>(keep_scale / std::fabs(static_cast<T>(d.silu_divisor)));
            add(dv, va, kept_weight * into,
                unit * floor_weight * std::fabs(static_cast<double>(into)));
            if (rounds) dv_of_rounded.data[va] += rounded_weight * into;
          }
          if (!key.kept) {
            dp = 0;
            dp_size = 0;
          }
          dp *= keep_scale;
          dp_size *= static_cast<double>(keep_scale);
          T ds;
          double ds_size;
          if (in.softmax()) {
            ds = weight * (dp - delta) + lse_weight * dlse_row;
            ds_size = static_cast<double>(weight) * (dp_size + delta_size) +
                      static_cast<double>(lse_weight) * std::fabs(static_cast<double>(dlse_row));
          } else {
            const T s = key.s, sigmoid = T(1) / (T(1) + std::exp(-s));
            const T slope = sigmoid * (T(1) + s * (T(1) - sigmoid));
            ds = dp * slope / static_cast<T>(d.silu_divisor);
            ds_size = dp_size / std::fabs(static_cast<double>(d.silu_divisor)) * 1.5;
          }
          if (rows.bias.present()) add(g.dbias, key.bias_at, ds, unit * ds_size);
          T dx = ds * scale;
          double dx_size = ds_size * std::fabs(static_cast<double>(scale));
          if (cap > 0) {
            const T t = std::tanh(key.raw / cap);
            dx *= T(1) - t * t;
          }
          const T rounded_dx = rounds ? in_bits_of(dx, d.q_dtype) : T(0);
          for (int64_t c = 0; c < d.head_dim_qk; c++) {
            const size_t at = qa + static_cast<size_t>(c), ka = key.k_at + static_cast<size_t>(c);
            if (rounds) {
              g.dq_of_rounded.data[at] += rounded_dx * rows.k.data[ka];
              g.dk_of_rounded.data[ka] += rounded_dx * rows.q.data[at];
            }
            add(g.dq, at, dx * rows.k.data[ka],
                unit * dx_size * std::fabs(static_cast<double>(rows.k.data[ka])));
            add(g.dk, ka, dx * rows.q.data[at],
                unit * dx_size * std::fabs(static_cast<double>(rows.q.data[at])));
          }
        }
      }
    }
  }
  return g;
}

template SdpaOutputs<double> sdpa_forward<double>(const SdpaInputs &);
template SdpaOutputs<float> sdpa_forward<float>(const SdpaInputs &);
template SdpaGrads<double> sdpa_backward<double>(const SdpaInputs &, const Array<double> &,
                                                 const Array<double> &, const Array<double> &,
                                                 const Array<double> &);
template SdpaGrads<float> sdpa_backward<float>(const SdpaInputs &, const Array<float> &,
                                               const Array<float> &, const Array<double> &,
                                               const Array<double> &);

}  // namespace check
