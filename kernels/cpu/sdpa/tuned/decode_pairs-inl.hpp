// A block of keys for several key heads at once, in the order in which memory likes to be read.
// Included by decode_simd.cpp, inside its namespace, for AVX-512.
//
// Where the heads of a token lie side by side, a core reads fastest when it goes through a few
// tokens from end to end: hardware prefetchers follow runs, not the short pieces that single heads
// are, and they give no more than one run's worth of lines in flight for each. So this goes through
// two tokens, half a block apart, side by side: with pages of half a block those are two pages.
// Software prefetches only help over the beginning of a run; many of them at once are dropped.
//
// Scores of the block are [token][head and row]: the softmax runs along the tokens with a lane for
// each row, without a sum or a maximum across lanes. Outputs lie in the first level of cache: 4
// rows of 64 columns are loaded, get four tokens, and are stored. Values have to come in twos
// there, two neighbours of each run; they are fetched in the order of memory nevertheless.

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

inline constexpr int kHalf = kBlock / 2;
// How far ahead of the reads, in bytes of a run.
inline constexpr int64_t kAhead = 6144;

// What to fetch while tokens t and t + kHalf of a run are read: the tokens that come `ahead` tokens
// later, in this run or the one that follows.
class PairFetch {
 public:
  HWY_INLINE PairFetch(const Run &now, const Run &then, int t, int ahead) {
    const bool here = t + ahead < kHalf;
    const Run &run = here ? now : then;
    if (run.token == nullptr) return;
    const int at = here ? t + ahead : t + ahead - kHalf;
    first_ = run.token[at];
    second_ = run.token[at + kHalf];
    head_ = run.head;
    bytes_ = run.bytes;
  }
  HWY_INLINE void head(int head) const {
    const char *a = first_ + head * head_, *b = second_ + head * head_;
    for (int64_t i = 0; i < bytes_; i += 64) {
      __builtin_prefetch(a + i);
      __builtin_prefetch(b + i);
    }
  }

 private:
  const char *first_ = nullptr, *second_ = nullptr;
  int64_t head_ = 0, bytes_ = 0;
};

inline int tokens_ahead(const Run &run, int heads) {
  return static_cast<int>(std::clamp<int64_t>(kAhead / (heads * run.bytes), 2, kHalf - 2));
}

// Scores of 4 rows of H heads (1 or 2) of two tokens: k0 and k1, their rows of the first head, and
// s0 and s1, where scores go.
template <int H, Format F>
HWY_INLINE void score_pair(const char *HWY_RESTRICT k0, const char *HWY_RESTRICT k1, int64_t k_head,
                           const float *HWY_RESTRICT q, int64_t q_stride, int64_t q_head,
                           int64_t depth, float *HWY_RESTRICT s0, float *HWY_RESTRICT s1,
                           int64_t s_head) {
  const DF d;
  VF acc[2][H][4];
  unroll<H>([&](auto h) ATTN_INLINE_LAMBDA {
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { acc[0][h][r] = acc[1][h][r] = hn::Zero(d); });
  });
  for (int64_t at = 0; at < depth; at += kPair) {
    unroll<H>([&](auto h) ATTN_INLINE_LAMBDA {
      const char *HWY_RESTRICT k0h = k0 + h * k_head, *HWY_RESTRICT k1h = k1 + h * k_head;
#if ATTN_DECODE_BF16_DOT
      if constexpr (F == Format::kBf16Dot) {
        // 32 elements of 16 bits are as long as 16 floats.
        const float *HWY_RESTRICT qh = q + h * q_head + at / 2;
        const VF k0s = hn::LoadU(d, reinterpret_cast<const float *>(k0h + 2 * at));
        const VF k1s = hn::LoadU(d, reinterpret_cast<const float *>(k1h + 2 * at));
        unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
          const VF qs = hn::LoadU(d, qh + r * q_stride);
          add_bf16_dot(acc[0][h][r], qs, k0s);
          add_bf16_dot(acc[1][h][r], qs, k1s);
        });
        return;
      }
#endif
      const float *HWY_RESTRICT qh = q + h * q_head + at;
      VF k0a, k0b, k1a, k1b;
      load_pair<F>(k0h, at, k0a, k0b);
      load_pair<F>(k1h, at, k1a, k1b);
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        const VF qa = hn::LoadU(d, qh + r * q_stride);
        const VF qb = hn::LoadU(d, qh + r * q_stride + kLanes);
        acc[0][h][r] = hn::MulAdd(qb, k0b, hn::MulAdd(qa, k0a, acc[0][h][r]));
        acc[1][h][r] = hn::MulAdd(qb, k1b, hn::MulAdd(qa, k1a, acc[1][h][r]));
      });
    });
  }
  // Blocks of the sum: the heads of the one token, then of the other.
  VF folded[4];
  unroll<2>([&](auto token) ATTN_INLINE_LAMBDA {
    unroll<2>([&](auto h) ATTN_INLINE_LAMBDA {
      constexpr int from = h < H ? h : 0;
      folded[2 * token + h] = fold_four(Sum(), acc[token][from][0], acc[token][from][1],
                                        acc[token][from][2], acc[token][from][3]);
    });
  });
  const __m512 sums = sum_blocks(folded).raw;
  _mm_storeu_ps(s0, _mm512_castps512_ps128(sums));
  _mm_storeu_ps(s1, _mm512_extractf32x4_ps(sums, 2));
  if constexpr (H == 2) {
    _mm_storeu_ps(s0 + s_head, _mm512_extractf32x4_ps(sums, 1));
    _mm_storeu_ps(s1 + s_head, _mm512_extractf32x4_ps(sums, 3));
  }
}

template <Format F>
HWY_NOINLINE void score_pairs(const PairBlock &block) {
  const PairBlock b = block;  // no store can change a copy
  const int ahead = tokens_ahead(b.k, b.heads);
  const int64_t q_head = b.rows * b.q_stride;
  for (int t = 0; t < kHalf; t++) {
    const PairFetch fetch(b.k, b.v, t, ahead);
    const char *k0 = b.k.token[t], *k1 = b.k.token[t + kHalf];
    float *s0 = b.s + t * b.s_stride, *s1 = s0 + kHalf * b.s_stride;
    const float *q = b.q;
    int head = 0;
    for (; head + 2 <= b.heads; head += 2) {
      fetch.head(head);
      fetch.head(head + 1);
      for (int row = 0; row < b.rows; row += 4) {
        score_pair<2, F>(k0, k1, b.k.head, q + row * b.q_stride, b.q_stride, q_head, b.depth,
                         s0 + row, s1 + row, b.rows);
      }
      k0 += 2 * b.k.head;
      k1 += 2 * b.k.head;
      q += 2 * q_head;
      s0 += 2 * b.rows;
      s1 += 2 * b.rows;
    }
    if (head < b.heads) {
      fetch.head(head);
      for (int row = 0; row < b.rows; row += 4) {
        score_pair<1, F>(k0, k1, b.k.head, q + row * b.q_stride, b.q_stride, q_head, b.depth,
                         s0 + row, s1 + row, b.rows);
      }
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
    const VF sub = hn::IfThenZeroElse(hn::Eq(top, hn::Set(d, -kInf)), top);
    const VF alpha = exp_negative(d, hn::Sub(old, sub));
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

// Adds tokens 0, 1, kHalf and kHalf + 1 of v and their weights p to 2 P vectors of 4 rows' outputs:
// two tokens alone would not be worth the loads and stores of o. kFirst: the outputs are scaled
// before.
template <int P, Format F, bool kFirst>
HWY_INLINE void output_quad(float *HWY_RESTRICT o, int64_t o_stride,
                            const float *HWY_RESTRICT alpha, const char *const *v, int64_t v_offset,
                            int64_t at, const float *HWY_RESTRICT p, int64_t p_stride) {
  const DF d;
  VF acc[4][2 * P];
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      acc[r][c] = hn::LoadU(d, o + r * o_stride + c * kLanes);
      if constexpr (kFirst) acc[r][c] = hn::Mul(hn::Set(d, alpha[r]), acc[r][c]);
    });
  });
  const auto add = [&](int token) ATTN_INLINE_LAMBDA {
    const char *HWY_RESTRICT row = v[token] + v_offset;
    VF w[4];
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { w[r] = hn::Set(d, p[token * p_stride + r]); });
    unroll<P>([&](auto c) ATTN_INLINE_LAMBDA {
      VF va, vb;
      load_pair<F>(row, at + c * kPair, va, vb);
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        acc[r][2 * c] = hn::MulAdd(w[r], va, acc[r][2 * c]);
        acc[r][2 * c + 1] = hn::MulAdd(w[r], vb, acc[r][2 * c + 1]);
      });
    });
  };
  add(0);
  add(kHalf);
  add(1);
  add(kHalf + 1);
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      hn::StoreU(acc[r][c], d, o + r * o_stride + c * kLanes);
    });
  });
}

// Tokens t, t + 1 and those half a block later, for all heads. They are fetched in the order of
// memory all the same: while the first half of the heads is computed, a token; then the next.
template <Format F, bool kFirst>
HWY_INLINE void output_tokens(const PairBlock &b, int t, int ahead) {
  const PairFetch fetch[2] = {PairFetch(b.v, b.next_k, t, ahead),
                              PairFetch(b.v, b.next_k, t + 1, ahead)};
  const float *p = b.s + t * b.s_stride, *alpha = b.alpha;
  float *o = b.o;
  for (int head = 0; head < b.heads; head++) {
    for (int i = 2 * head; i < 2 * head + 2; i++) {
      fetch[i >= b.heads].head(i >= b.heads ? i - b.heads : i);
    }
    for (int row = 0; row < b.rows; row += 4) {
      int64_t at = 0;
      for (; at + 2 * kPair <= b.columns; at += 2 * kPair) {
        output_quad<2, F, kFirst>(o + at, b.o_stride, alpha, b.v.token + t, head * b.v.head, at, p,
                                  b.s_stride);
      }
      if (at < b.columns) {
        output_quad<1, F, kFirst>(o + at, b.o_stride, alpha, b.v.token + t, head * b.v.head, at, p,
                                  b.s_stride);
      }
      o += 4 * b.o_stride;
      p += 4;
      alpha += 4;
    }
  }
}

template <Format F>
HWY_NOINLINE void output_pairs(const PairBlock &block) {
  const PairBlock b = block;
  const int ahead = tokens_ahead(b.v, b.heads);
  output_tokens<F, true>(b, 0, ahead);
  for (int t = 2; t < kHalf; t += 2) output_tokens<F, false>(b, t, ahead);
}
