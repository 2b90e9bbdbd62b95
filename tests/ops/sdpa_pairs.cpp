// Generated rows: random combinations of option levels, chosen so that every pair of levels of two
// different options occurs in some row (as far as the descriptor's rules let the two meet).
#include <algorithm>
#include <array>
#include <functional>
#include <set>

#include "sdpa_case.hpp"

namespace check {
namespace {

constexpr int32_t kFp32 = ATTN_DTYPE_FP32, kFp16 = ATTN_DTYPE_FP16, kBf16 = ATTN_DTYPE_BF16;

// One option: its levels, each a change to a row.
struct Factor {
  const char *name;
  std::vector<std::function<void(SdpaCase &, Rng &)>> levels;
};

using Apply = std::function<void(SdpaCase &, Rng &)>;

Apply nothing() {
  return [](SdpaCase &, Rng &) {};
}
Apply flag(uint64_t bits) {
  return [bits](SdpaCase &c, Rng &) { c.flags |= bits; };
}

std::vector<Factor> make_factors() {
  std::vector<Factor> f;
  f.push_back({"pass", {nothing(), [](SdpaCase &c, Rng &) { c.pass = ATTN_SDPA_BACKWARD; }}});
  const auto dtypes = [](int32_t q, int32_t k, int32_t v, int32_t out) {
    return [=](SdpaCase &c, Rng &) {
      c.q_dtype = q;
      c.k_dtype = k;
      c.v_dtype = v;
      c.out_dtype = out;
      if (q != kFp32) c.bias_dtype = c.gate_dtype = q;
    };
  };
  f.push_back({"dtypes",
               {dtypes(kFp32, 0, 0, 0), dtypes(kFp16, 0, 0, 0), dtypes(kBf16, 0, 0, 0),
                dtypes(kBf16, kFp16, kFp32, kFp32)}});
  const auto quant = [](int32_t dtype, int32_t granularity, int32_t block, int32_t scale) {
    return [=](SdpaCase &c, Rng &) {
      if (c.pass == ATTN_SDPA_BACKWARD) return;
      c.k_dtype = dtype;
      c.v_dtype = 0;
      c.k_quant = c.v_quant = {granularity, block, scale, 0};
    };
  };
  f.push_back(
      {"quant",
       {nothing(), nothing(), nothing(), quant(ATTN_DTYPE_INT8, ATTN_QUANT_TOKEN_HEAD, 0, 0),
        quant(ATTN_DTYPE_FP8_E4M3FN, ATTN_QUANT_HEAD, 0, 0),
        quant(ATTN_DTYPE_FP4_E2M1, ATTN_QUANT_BLOCK, 8, ATTN_DTYPE_FP8_E4M3FN)}});
  f.push_back(
      {"q_layout", {nothing(), [](SdpaCase &c, Rng &) { c.q_layout = ATTN_LAYOUT_RAGGED; }}});
  const auto paged = [](int32_t layout) {
    return [layout](SdpaCase &c, Rng &rng) {
      constexpr int32_t kSizes[] = {1, 3, 8, 16, 16, 64};
      c.kv_layout = layout;
      c.page_size = kSizes[uniform(rng, 0, 5)];
    };
  };
  f.push_back({"kv_layout",
               {nothing(), [](SdpaCase &c, Rng &) { c.kv_layout = ATTN_LAYOUT_RAGGED; },
                paged(ATTN_LAYOUT_PAGED_TABLE), paged(ATTN_LAYOUT_PAGED_CSR)}});
  const auto heads = [](int32_t q, int32_t kv) {
    return [=](SdpaCase &c, Rng &) {
      c.hq = q;
      c.hkv = kv;
    };
  };
  f.push_back({"heads", {heads(2, 0), heads(4, 2), heads(5, 1), heads(6, 2), heads(16, 1)}});
  const auto dims = [](int32_t qk, int32_t v) {
    return [=](SdpaCase &c, Rng &) {
      c.dqk = qk;
      c.dv = v;
    };
  };
  f.push_back(
      {"dims", {dims(8, 0), dims(16, 8), dims(32, 0), dims(64, 0), dims(34, 18), dims(128, 64)}});
  // Lengths: of each sequence, queries and keys.
  const auto lengths = [](int sequences, int32_t q_low, int32_t q_high, int32_t k_low,
                          int32_t k_high) {
    return [=](SdpaCase &c, Rng &rng) {
      c.sq.clear();
      c.sk.clear();
      for (int b = 0; b < sequences; b++) {
        c.sq.push_back(static_cast<int32_t>(uniform(rng, q_low, q_high)));
        c.sk.push_back(static_cast<int32_t>(uniform(rng, k_low, k_high)));
      }
    };
  };
  f.push_back(
      {"lengths",
       {lengths(2, 1, 9, 1, 20), lengths(3, 0, 20, 0, 40), lengths(2, 1, 1, 30, 200),
        lengths(1, 30, 70, 60, 90), lengths(2, 20, 40, 5, 15), lengths(1, 3, 5, 129, 260)}});
  f.push_back({"causal", {nothing(), flag(ATTN_SDPA_CAUSAL), [](SdpaCase &c, Rng &) {
                            c.flags |= ATTN_SDPA_CAUSAL;
                            c.alignment = ATTN_ALIGN_TOP_LEFT;
                          }}});
  f.push_back({"window",
               {nothing(), nothing(),
                [](SdpaCase &c, Rng &rng) {
                  c.flags |= ATTN_SDPA_WINDOW;
                  c.window_left = static_cast<int32_t>(uniform(rng, 0, 40));
                  c.window_right = static_cast<int32_t>(uniform(rng, -1, 20));
                },
                [](SdpaCase &c, Rng &rng) {
                  c.flags |= ATTN_SDPA_WINDOW;
                  c.window_left = static_cast<int32_t>(uniform(rng, 5, 40));
                  c.window_right = 0;
                  c.sink_tokens = static_cast<int32_t>(uniform(rng, 1, 5));
                },
                [](SdpaCase &c, Rng &rng) {
                  c.chunk = static_cast<int32_t>(uniform(rng, 8, 64));
                  c.sink_tokens = static_cast<int32_t>(uniform(rng, 0, 2));
                }}});
  f.push_back({"mask", {nothing(), nothing(), flag(ATTN_SDPA_MASK), [](SdpaCase &c, Rng &) {
                          c.flags |= ATTN_SDPA_MASK;
                          c.data |= kDataWholeRowsMasked;
                        }}});
  f.push_back({"tail", {nothing(), nothing(), flag(ATTN_SDPA_TAIL_MASK)}});
  f.push_back({"segments", {nothing(), nothing(), flag(ATTN_SDPA_SEGMENT_IDS)}});
  f.push_back({"bias",
               {nothing(), nothing(), flag(ATTN_SDPA_BIAS),
                [](SdpaCase &c, Rng &) {
                  c.flags |= ATTN_SDPA_BIAS;
                  c.data |= kDataBiasMinusInf;
                },
                [](SdpaCase &c, Rng &) {
                  c.flags |= ATTN_SDPA_BIAS;
                  c.share_rows = true;
                }}});
  f.push_back({"alibi", {nothing(), nothing(), flag(ATTN_SDPA_ALIBI), [](SdpaCase &c, Rng &) {
                           c.flags |= ATTN_SDPA_ALIBI;
                           c.alibi_per_batch = true;
                         }}});
  f.push_back({"softcap", {nothing(), nothing(), [](SdpaCase &c, Rng &) {
                             c.softcap = 4;
                             c.scale = 0.5f;
                           }}});
  f.push_back({"sink",
               {nothing(), flag(ATTN_SDPA_SINK), flag(ATTN_SDPA_SINK | ATTN_SDPA_LSE_INCLUDES_SINK),
                [](SdpaCase &c, Rng &) {
                  c.flags |= ATTN_SDPA_SINK;
                  c.data |= kDataSinkMinusInf;
                }}});
  f.push_back({"dropout", {nothing(), nothing(), [](SdpaCase &c, Rng &) {
                             c.flags |= ATTN_SDPA_DROPOUT;
                             c.dropout_p = 0.3f;
                           }}});
  f.push_back({"blocks", {nothing(), nothing(), [](SdpaCase &c, Rng &rng) {
                            c.flags |= ATTN_SDPA_BLOCK_SPARSE;
                            c.block_q = static_cast<int32_t>(uniform(rng, 1, 16));
                            c.block_k = static_cast<int32_t>(uniform(rng, 1, 32));
                            c.data |= kDataRepeatedBlocks;
                          }}});
  f.push_back({"gate", {nothing(), nothing(), flag(ATTN_SDPA_GATE), [](SdpaCase &c, Rng &) {
                          c.flags |= ATTN_SDPA_GATE;
                          c.gate_per_head = true;
                        }}});
  f.push_back({"used_q", {nothing(), [](SdpaCase &c, Rng &rng) {
                            c.flags |= ATTN_SDPA_SEQUSED_Q;
                            c.spare_q = static_cast<int32_t>(uniform(rng, 0, 5));
                          }}});
  f.push_back({"used_k", {nothing(), [](SdpaCase &c, Rng &rng) {
                            if (c.kv_layout == ATTN_LAYOUT_PAGED_CSR) return;
                            c.flags |= ATTN_SDPA_SEQUSED_K;
                            c.spare_k = static_cast<int32_t>(uniform(rng, 0, 9));
                          }}});
  f.push_back({"latent", {nothing(), nothing(), nothing(), [](SdpaCase &c, Rng &) {
                            c.flags |= ATTN_SDPA_LATENT_KV;
                            c.v_dtype = 0;
                            c.v_quant = {};
                          }}});
  f.push_back({"statistics",
               {nothing(), flag(ATTN_SDPA_RETURN_LSE), flag(ATTN_SDPA_RETURN_ROW_MAX),
                flag(ATTN_SDPA_RETURN_LSE | ATTN_SDPA_RETURN_ROW_MAX)}});
  f.push_back({"activation", {nothing(), nothing(), nothing(), [](SdpaCase &c, Rng &) {
                                c.activation = ATTN_ACTIVATION_SILU;
                              }}});
  f.push_back({"lse_base", {nothing(), [](SdpaCase &c, Rng &) { c.lse_base = ATTN_LSE_BASE_2; }}});
  f.push_back({"split",
               {nothing(), [](SdpaCase &c, Rng &) { c.split_policy = ATTN_SPLIT_NONE; },
                [](SdpaCase &c, Rng &rng) {
                  c.split_policy = ATTN_SPLIT_FIXED;
                  c.split_size = static_cast<int32_t>(uniform(rng, 1, 70));
                }}});
  f.push_back({"determinism",
               {nothing(), [](SdpaCase &c, Rng &) { c.determinism = ATTN_DETERMINISM_RUN_TO_RUN; },
                [](SdpaCase &c, Rng &) { c.determinism = ATTN_DETERMINISM_BATCH_INVARIANT; }}});
  const auto strides = [](Strides s) { return [s](SdpaCase &c, Rng &) { c.strides = s; }; };
  f.push_back({"strides",
               {nothing(), nothing(), strides(Strides::kPadded), strides(Strides::kPermuted),
                strides(Strides::kNegative), strides(Strides::kShared)}});
  f.push_back({"sharing",
               {nothing(), [](SdpaCase &c, Rng &) { c.share_batch = true; },
                [](SdpaCase &c, Rng &) { c.share_batch = c.share_heads = true; }}});
  f.push_back({"limits", {nothing(), [](SdpaCase &c, Rng &) { c.loose_limits = true; }}});
  f.push_back({"pages",
               {nothing(), [](SdpaCase &c, Rng &) { c.data |= kDataNegativePages; },
                [](SdpaCase &c, Rng &) { c.data |= kDataRepeatedPages; }}});
  f.push_back({"grads",
               {nothing(), [](SdpaCase &c, Rng &) { c.grads_fp32 = true; },
                [](SdpaCase &c, Rng &) { c.grads |= ATTN_SDPA_GRAD_LSE_IN; }}});
  return f;
}

// Makes a combination obey the descriptor's rules.
void settle(SdpaCase &c) {
  if (c.activation == ATTN_ACTIVATION_SILU) {
    c.flags &= ~(ATTN_SDPA_SINK | ATTN_SDPA_LSE_INCLUDES_SINK | ATTN_SDPA_RETURN_LSE |
                 ATTN_SDPA_RETURN_ROW_MAX);
    c.grads &= ~ATTN_SDPA_GRAD_LSE_IN;
  }
  if (c.pass == ATTN_SDPA_FORWARD) {
    c.grads = 0;
  } else {
    c.grads |= ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K;
    if (!(c.flags & ATTN_SDPA_LATENT_KV)) c.grads |= ATTN_SDPA_GRAD_V;
    if (c.flags & ATTN_SDPA_BIAS) c.grads |= ATTN_SDPA_GRAD_BIAS;
    if (c.flags & ATTN_SDPA_SINK) c.grads |= ATTN_SDPA_GRAD_SINK;
    if (c.flags & ATTN_SDPA_GATE) c.grads |= ATTN_SDPA_GRAD_GATE;
    c.flags &= ~(ATTN_SDPA_RETURN_LSE | ATTN_SDPA_RETURN_ROW_MAX);
  }
  if (c.q_layout == ATTN_LAYOUT_RAGGED) c.share_rows = false;
  if (c.page_size == 0) c.data &= ~uint32_t{kDataNegativePages | kDataRepeatedPages};
  // Many masks at once would leave nothing to see.
  c.mask_density = (c.flags & ATTN_SDPA_MASK) && (c.flags & ATTN_SDPA_TAIL_MASK) ? 0.85 : 0.7;
}

// Pairs of levels as (factor, level, factor, level).
using Pair = std::array<uint8_t, 4>;

class Generator {
 public:
  explicit Generator(uint64_t seed) : rng_(seed), factors_(make_factors()) {}

  std::vector<size_t> pick() {
    std::vector<size_t> levels;
    for (const Factor &f : factors_) {
      levels.push_back(
          static_cast<size_t>(uniform(rng_, 0, static_cast<int64_t>(f.levels.size()) - 1)));
    }
    return levels;
  }
  SdpaCase make(const std::vector<size_t> &levels) {
    SdpaCase c;
    for (size_t i = 0; i < levels.size(); i++) factors_[i].levels[levels[i]](c, rng_);
    settle(c);
    return c;
  }
  std::vector<Pair> pairs(const std::vector<size_t> &levels) const {
    std::vector<Pair> result;
    for (size_t i = 0; i < levels.size(); i++) {
      for (size_t j = i + 1; j < levels.size(); j++) {
        result.push_back({static_cast<uint8_t>(i), static_cast<uint8_t>(levels[i]),
                          static_cast<uint8_t>(j), static_cast<uint8_t>(levels[j])});
      }
    }
    return result;
  }

 private:
  Rng rng_;
  std::vector<Factor> factors_;
};

}  // namespace

std::vector<SdpaCase> sdpa_pair_cases() {
  constexpr size_t kRows = 420;
  Generator generator(20240607);  // fixed: the table stays the same, the data do not
  std::set<Pair> covered;
  std::vector<SdpaCase> rows;
  while (rows.size() < kRows) {
    std::vector<size_t> best;
    size_t best_gain = 0;
    for (int attempt = 0; attempt < 12; attempt++) {
      const auto levels = generator.pick();
      size_t gain = 1;
      for (const Pair &pair : generator.pairs(levels)) gain += covered.count(pair) == 0;
      if (gain > best_gain) {
        best_gain = gain;
        best = levels;
      }
    }
    for (const Pair &pair : generator.pairs(best)) covered.insert(pair);
    SdpaCase c = generator.make(best);
    char name[40];
    std::snprintf(name, sizeof name, "sdpa/pairs/%03zu", rows.size());
    c.name = name;
    c.quick = rows.size() % 12 == 0;
    rows.push_back(std::move(c));
  }
  return rows;
}

std::vector<SdpaCase> sdpa_fresh_cases(uint64_t seed, int count) {
  Generator generator(seed);
  std::vector<SdpaCase> rows;
  for (int i = 0; i < count; i++) {
    SdpaCase c = generator.make(generator.pick());
    c.name = "sdpa/fresh/" + std::to_string(i);
    rows.push_back(std::move(c));
  }
  return rows;
}

}  // namespace check
