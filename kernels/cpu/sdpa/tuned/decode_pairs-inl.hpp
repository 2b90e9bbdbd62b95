// A block of keys for several key heads at once, in the order in which memory likes to be read.
// Included by decode_simd.cpp, inside its namespace, for AVX-512.
//
// A core reads memory at its full speed only while as many lines are on their way as it has room
// for, and in long runs: the heads of a token, side by side. So this goes through two runs, the
// halves of the block (with pages of half a block those are two pages), two tokens of each at a
// time, and asks for each line a little before its use, in the order of memory, one or two between
// a few multiplications: more of them at once hold up the loads behind them, or are dropped.
//
// Scores of the block are [token][head and row]: the softmax runs along the tokens with a lane for
// each row, without a sum or a maximum across lanes. Outputs lie in the first level of cache: 4
// rows of 64 columns are loaded, get four tokens, and are stored.

// Rows of kBlock tokens.
struct Run {
  const char *const *token;
  int64_t head, bytes;  // between heads, of a row
};

// What a block needs, as plain data.
struct PairBlock {
  Run k, v;
  Run next_k;       // of the block that follows; null tokens: none does
  int heads, rows;  // rows: of a head, a multiple of 4
  int64_t depth, columns;
  const float *q;  // [head][row][q_stride]
  int64_t q_stride;
  float scale;           // of scores
  float *s;              // [kBlock][s_stride]
  int64_t s_stride;      // at least heads * rows, a multiple of kLanes
  float *m, *l, *alpha;  // [head][row]
  float *o;              // [head][row][o_stride]
  int64_t o_stride;
};

// A quad: tokens t, t + 1 and those half a block later, for an even t below kHalf.
inline constexpr int kHalf = kBlock / 2;
inline constexpr int kQuad[4] = {0, kHalf, 1, kHalf + 1};

// What to fetch while quad t is computed: the quad that comes `ahead` quads later, in the same run
// or in the one that follows.
class QuadFetch {
 public:
  QuadFetch(const PairBlock &b, const Run &now, const Run &then, int t, int ahead) {
    const bool here = t + 2 * ahead < kHalf;
    // Where nothing follows: what is there already.
    const Run &run = here || then.token == nullptr ? now : then;
    token_ = run.token + (t + 2 * ahead) % kHalf;
    lines_ = static_cast<int>(b.heads * run.head / 64);
  }
  // Line i of the first token, then of the second.
  HWY_INLINE const char *at(int i, int half) const {
    const int second = i >= lines_;
    return token_[half * kHalf + second] + (i - (second ? lines_ : 0)) * 64;
  }
  // Line i of both runs, and again line i of a quad that was fetched before: requests are dropped
  // where a core has too many.
  HWY_INLINE void line(int i, const QuadFetch &again) const {
    const int second = i >= lines_;
    const int64_t at = (i - (second ? lines_ : 0)) * int64_t{64};
    __builtin_prefetch(token_[second] + at);
    __builtin_prefetch(again.token_[second] + at);
    __builtin_prefetch(token_[second + kHalf] + at);
    __builtin_prefetch(again.token_[second + kHalf] + at);
  }

 private:
  const char *const *token_;
  int lines_;
};

template <Format F>
inline constexpr int64_t kBytes = F == Format::kFp32 ? 4 : 2;  // of an element

// Scores of 4 rows of a head of a quad: k, the four tokens' rows.
template <Format F, bool kFetch>
HWY_INLINE void score_quad(const char *const *k, const float *HWY_RESTRICT q, int64_t q_stride,
                           int64_t depth, float *HWY_RESTRICT s, int64_t s_stride,
                           const QuadFetch &far, const QuadFetch &near, int line) {
  const DF d;
  VF acc[4][4];
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { acc[t][r] = hn::Zero(d); });
  });
  for (int64_t at = 0; at < depth; at += kPair) {
    if constexpr (kFetch) {
      for (int i = 0; i < 2 * kPair * kBytes<F> / 64; i++) far.line(line++, near);
    }
#if ATTN_DECODE_BF16_DOT
    if constexpr (F == Format::kBf16Dot) {
      // 32 elements of 16 bits are as long as 16 floats.
      VF ks[4];
      unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
        ks[t] = hn::LoadU(d, reinterpret_cast<const float *>(k[t] + 2 * at));
      });
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        const VF qs = hn::LoadU(d, q + r * q_stride + at / 2);
        unroll<4>([&](auto t) ATTN_INLINE_LAMBDA { add_bf16_dot(acc[t][r], qs, ks[t]); });
      });
      continue;
    }
#endif
    unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
      VF ka, kb;
      load_pair<F>(k[t], at, ka, kb);
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        const float *HWY_RESTRICT row = q + r * q_stride + at;
        acc[t][r] = hn::MulAdd(hn::LoadU(d, row), ka, acc[t][r]);
        acc[t][r] = hn::MulAdd(hn::LoadU(d, row + kLanes), kb, acc[t][r]);
      });
    });
  }
  VF folded[4];
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    folded[t] = fold_four(Sum(), acc[t][0], acc[t][1], acc[t][2], acc[t][3]);
  });
  const __m512 sums = sum_blocks(folded).raw;  // a block of four lanes for each token
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    _mm_storeu_ps(s + kQuad[t] * s_stride, _mm512_extractf32x4_ps(sums, t));
  });
}

template <Format F>
HWY_NOINLINE void score_pairs(const PairBlock &block) {
  const PairBlock b = block;  // no store can change a copy
  for (int t = 0; t < kHalf; t += 2) {
    const QuadFetch far(b, b.k, b.v, t, 2), near(b, b.k, b.v, t, 1);
    const float *q = b.q;
    float *s = b.s + t * b.s_stride;
    for (int head = 0; head < b.heads; head++) {
      const char *k[4];
      unroll<4>([&](auto i)
                    ATTN_INLINE_LAMBDA { k[i] = b.k.token[t + kQuad[i]] + head * b.k.head; });
      score_quad<F, true>(k, q, b.q_stride, b.depth, s, b.s_stride, far, near,
                          head * static_cast<int>(b.k.head / 32));
      for (int row = 4; row < b.rows; row += 4) {
        score_quad<F, false>(k, q + row * b.q_stride, b.q_stride, b.depth, s + row, b.s_stride, far,
                             near, 0);
      }
      q += b.rows * b.q_stride;
      s += b.rows;
    }
  }
}

// Scores to weights, against the running maxima. The steps are those of weigh().
HWY_NOINLINE void weigh_lanes(const PairBlock &b) {
  const DF d;
  const VF scale = hn::Set(d, b.scale);
  const int rows = b.heads * b.rows;
  for (int row = 0; row < rows; row += kLanes) {
    const auto own = hn::FirstN(d, std::min(rows - row, kLanes));
    const VF old = hn::IfThenElseZero(own, hn::MaskedLoad(own, d, b.m + row));
    float *HWY_RESTRICT s = b.s + row;
    VF top = old;
    for (int t = 0; t < kBlock; t++) {
      top = hn::Max(top, hn::Mul(scale, hn::LoadU(d, s + t * b.s_stride)));
    }
    VF sub = hn::IfThenZeroElse(hn::Eq(top, hn::Set(d, -kInf)), top);
    VF alpha = exp_negative(d, hn::Sub(old, sub));
    const VF infinity = hn::Set(d, kInf);
    const auto infinite = hn::Eq(top, infinity);
    if (HWY_UNLIKELY(!hn::AllFalse(d, infinite))) {
      // Keys with scores of +inf share the weight.
      const VF none = hn::Mul(hn::Set(d, -kInf), scale);  // times the scale: -inf
      for (int t = 0; t < kBlock; t++) {
        const VF own_score = hn::LoadU(d, s + t * b.s_stride), score = hn::Mul(scale, own_score);
        const VF share = hn::IfThenZeroElse(hn::Eq(score, infinity), none);
        const auto shares = hn::AndNot(hn::IsNaN(score), infinite);
        hn::StoreU(hn::IfThenElse(shares, share, own_score), d, s + t * b.s_stride);
      }
      sub = hn::IfThenZeroElse(infinite, sub);
      const VF kept = hn::IfThenElseZero(hn::Eq(old, infinity), hn::Set(d, 1.0f));
      alpha = hn::IfThenElse(infinite, kept, alpha);
    }
    VF sum[2] = {hn::Zero(d), hn::Zero(d)};
    for (int t = 0; t < kBlock; t += 2) {
      unroll<2>([&](auto i) ATTN_INLINE_LAMBDA {
        float *at = s + (t + i) * b.s_stride;
        const VF w = exp_negative(d, hn::MulSub(scale, hn::LoadU(d, at), sub));
        hn::StoreU(w, d, at);
        sum[i] = hn::Add(sum[i], w);
      });
    }
    const VF l = hn::IfThenElseZero(own, hn::MaskedLoad(own, d, b.l + row));
    hn::BlendedStore(top, own, d, b.m + row);
    hn::BlendedStore(alpha, own, d, b.alpha + row);
    hn::BlendedStore(hn::MulAdd(l, alpha, hn::Add(sum[0], sum[1])), own, d, b.l + row);
  }
}

// Adds the values of a quad and their weights p to 2 P vectors of 4 rows' outputs. kFirst: the
// outputs are scaled before.
template <int P, Format F, bool kFirst, bool kFetch>
HWY_INLINE void output_quad(float *HWY_RESTRICT o, int64_t o_stride,
                            const float *HWY_RESTRICT alpha, const char *const *v, int64_t at,
                            const float *HWY_RESTRICT p, int64_t p_stride, const char *next_a,
                            const char *next_b) {
  const DF d;
  VF acc[4][2 * P];
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      acc[r][c] = hn::LoadU(d, o + r * o_stride + c * kLanes);
      if constexpr (kFirst) acc[r][c] = hn::Mul(hn::Set(d, alpha[r]), acc[r][c]);
    });
  });
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    if constexpr (kFetch) {
      // A quarter of the columns' part of both tokens.
      constexpr int64_t kQuarter = P * kPair * kBytes<F> / 2;
      for (int64_t i = t * kQuarter; i < (t + 1) * kQuarter; i += 64) {
        if (i % 64 == 0) {
          __builtin_prefetch(next_a + 2 * at * kBytes<F> + i);
          __builtin_prefetch(next_b + 2 * at * kBytes<F> + i);
        }
      }
      asm volatile("" ::: "memory");  // compilers would gather the requests
    }
    VF w[4];
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { w[r] = hn::Set(d, p[kQuad[t] * p_stride + r]); });
    unroll<P>([&](auto c) ATTN_INLINE_LAMBDA {
      VF va, vb;
      load_pair<F>(v[t], at + c * kPair, va, vb);
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        acc[r][2 * c] = hn::MulAdd(w[r], va, acc[r][2 * c]);
        acc[r][2 * c + 1] = hn::MulAdd(w[r], vb, acc[r][2 * c + 1]);
      });
    });
  });
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      hn::StoreU(acc[r][c], d, o + r * o_stride + c * kLanes);
    });
  });
}

// All columns of 4 rows of a head.
template <Format F, bool kFirst, bool kFetch>
HWY_INLINE void output_quads(const PairBlock &b, float *o, const float *alpha, const char *const *v,
                             const float *p, const char *next_a, const char *next_b) {
  int64_t at = 0;
  for (; at + 2 * kPair <= b.columns; at += 2 * kPair) {
    output_quad<2, F, kFirst, kFetch>(o + at, b.o_stride, alpha, v, at, p, b.s_stride, next_a,
                                      next_b);
  }
  if (at < b.columns) {
    output_quad<1, F, kFirst, kFetch>(o + at, b.o_stride, alpha, v, at, p, b.s_stride, next_a,
                                      next_b);
  }
}

template <Format F, bool kFirst>
HWY_INLINE void output_tokens(const PairBlock &b, int t) {
  const QuadFetch fetch(b, b.v, b.next_k, t, 2);
  const float *p = b.s + t * b.s_stride, *alpha = b.alpha;
  float *o = b.o;
  for (int head = 0; head < b.heads; head++) {
    const char *v[4];
    unroll<4>([&](auto i) ATTN_INLINE_LAMBDA { v[i] = b.v.token[t + kQuad[i]] + head * b.v.head; });
    const int line = head * static_cast<int>(b.v.head / 32);
    const char *next_a = fetch.at(line, 0), *next_b = fetch.at(line, 1);
    output_quads<F, kFirst, true>(b, o, alpha, v, p, next_a, next_b);
    for (int row = 4; row < b.rows; row += 4) {
      output_quads<F, kFirst, false>(b, o + row * b.o_stride, alpha + row, v, p + row, next_a,
                                     next_b);
    }
    o += b.rows * b.o_stride;
    p += b.rows;
    alpha += b.rows;
  }
}

template <Format F>
HWY_NOINLINE void output_pairs(const PairBlock &block) {
  const PairBlock b = block;
  output_tokens<F, true>(b, 0);
  for (int t = 2; t < kHalf; t += 2) output_tokens<F, false>(b, t);
}
