// A block of keys for several key heads at once, in the order in which memory likes to be read.
// Included by decode_simd.cpp, inside its namespace, for AVX-512.
//
// A core reads memory at its full speed only while as many lines are on their way as it has room
// for, and in long runs, which its own prefetchers follow: the heads of a token, side by side. So
// this goes through four runs, the quarters of the block (pages of half a block hold two of them),
// one token of each at a time, and asks for each line 8 KiB before its use, in the order of memory,
// a few between a few multiplications: more of them at once hold up the loads behind them or are
// dropped, and lines that come much earlier push each other out of the first level of cache.
//
// Four rows of a head times four tokens are one vector of scores, in which a row has one lane of
// each block of four. Outputs lie in the first level of cache: 4 rows of 64 columns are loaded, get
// four tokens, and are stored.

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
  float *s;              // [kRun][head][row / 4][token of the quad][row % 4]
  float *m, *l, *alpha;  // [head][row]
  float *o;              // [head][row][o_stride]
  int64_t o_stride;
};

// A quad: tokens t, t + kRun, t + 2 * kRun and t + 3 * kRun. A piece: one head of it.
inline constexpr int kRun = kBlock / 4;

// How far ahead of its use memory is asked for, in bytes of pieces. Scores take so little time that
// requests are dropped: they ask again. Outputs are further ahead; what lies between is asked for
// while weights are computed.
inline constexpr int64_t kScoresAhead = 8 << 10, kScoresAgain = 7 << 10, kOutputsAhead = 12 << 10;

inline int pieces_ahead(const Run &run, int64_t bytes) {
  return static_cast<int>(std::max<int64_t>(bytes / (4 * run.bytes), 1));
}

// Goes through pieces in the order of their use, from the one that comes `ahead` pieces after the
// first of a run on, into the run that follows.
class PieceCursor {
 public:
  PieceCursor(int heads, const Run &now, const Run &then, int ahead)
      : token_(now.token + ahead / heads % kRun),
        left_(kRun - ahead / heads),
        head_(ahead % heads),
        heads_(heads),
        now_(now),
        // Where nothing follows: what is there already.
        then_(then.token == nullptr ? now : then) {
    if (left_ <= 0) follow();
  }
  HWY_INLINE void next(const char **piece) {
    const int64_t at = head_ * now_.head;
    unroll<4>([&](auto i) ATTN_INLINE_LAMBDA { piece[i] = token_[i * kRun] + at; });
    if (++head_ == heads_) {
      head_ = 0;
      token_++;
      if (--left_ == 0) follow();
    }
  }

 private:
  HWY_INLINE void follow() {
    now_ = then_;
    token_ = now_.token;
    left_ = kRun;
  }

  const char *const *token_;
  int left_, head_, heads_;  // tokens of the run
  Run now_, then_;
};

template <Format F>
inline constexpr int64_t kBytes = F == Format::kFp32 ? 4 : 2;  // of an element

// Asks for what kPair elements at `at` take.
template <Format F>
HWY_INLINE void fetch_pair(const char *piece, int64_t at) {
  unroll<kPair * kBytes<F> / 64>(
      [&](auto i) ATTN_INLINE_LAMBDA { __builtin_prefetch(piece + at * kBytes<F> + 64 * i); });
}

// Scores of 4 rows of a piece: k, the four tokens' rows; ahead and again, those of pieces to fetch.
template <Format F, bool kFetch>
HWY_INLINE void score_quad(const char *const *k, const float *HWY_RESTRICT q, int64_t q_stride,
                           int64_t depth, float *HWY_RESTRICT s, const char *const *ahead,
                           const char *const *again) {
  const DF d;
  VF acc[4][4];
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { acc[t][r] = hn::Zero(d); });
  });
  for (int64_t at = 0; at < depth; at += kPair) {
    if constexpr (kFetch) {
      unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
        fetch_pair<F>(ahead[t], at);
        fetch_pair<F>(again[t], at);
      });
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
  hn::StoreU(sum_blocks(folded), d, s);
}

template <Format F>
HWY_NOINLINE void score_pairs(const PairBlock &block) {
  const PairBlock b = block;  // no store can change a copy
  PieceCursor fetch(b.heads, b.k, b.v, pieces_ahead(b.k, kScoresAhead));
  PieceCursor fetch_again(b.heads, b.k, b.v, pieces_ahead(b.k, kScoresAgain));
  float *s = b.s;
  for (int t = 0; t < kRun; t++) {
    const float *q = b.q;
    for (int head = 0; head < b.heads; head++) {
      const char *k[4], *ahead[4], *again[4];
      unroll<4>([&](auto i)
                    ATTN_INLINE_LAMBDA { k[i] = b.k.token[t + i * kRun] + head * b.k.head; });
      fetch.next(ahead);
      fetch_again.next(again);
      score_quad<F, true>(k, q, b.q_stride, b.depth, s, ahead, again);
      for (int row = 4; row < b.rows; row += 4) {
        score_quad<F, false>(k, q + row * b.q_stride, b.q_stride, b.depth, s + row * 4, ahead,
                             again);
      }
      q += b.rows * b.q_stride;
      s += b.rows * 4;
    }
  }
}

// The pieces of V between those that scores and those that outputs fetch, spread over some steps.
class GapFetch {
 public:
  GapFetch(const PairBlock &b, int steps)
      : pieces_(b.heads, b.v, b.v, pieces_ahead(b.k, kScoresAhead)),
        bytes_(b.v.bytes),
        at_(bytes_),
        steps_(steps) {
    const int pieces = pieces_ahead(b.v, kOutputsAhead) - pieces_ahead(b.k, kScoresAhead);
    lines_ = static_cast<int>(std::max(pieces, 0) * ceil_div(bytes_, 64));
  }
  HWY_INLINE void step() {
    for (due_ += lines_; due_ >= steps_; due_ -= steps_) {
      if (at_ >= bytes_) {
        at_ = 0;
        pieces_.next(piece_);
      }
      unroll<4>([&](auto i) ATTN_INLINE_LAMBDA { __builtin_prefetch(piece_[i] + at_); });
      at_ += 64;
    }
  }

 private:
  PieceCursor pieces_;
  const char *piece_[4] = {};
  int64_t bytes_, at_;
  int lines_, steps_, due_ = 0;
};

// The sums or maxima of each row, in all of its lanes.
template <class Op>
HWY_INLINE VF fold_rows(Op op, VF v) {
  v = op(v, VF{_mm512_shuffle_f32x4(v.raw, v.raw, 0x4e)});
  return op(v, VF{_mm512_shuffle_f32x4(v.raw, v.raw, 0xb1)});
}
HWY_INLINE VF load_rows(const float *from) {
  return VF{_mm512_broadcast_f32x4(_mm_loadu_ps(from))};
}
HWY_INLINE void store_rows(VF v, float *to) {
  _mm_storeu_ps(to, _mm512_castps512_ps128(v.raw));
}

// Scores to weights, against the running maxima. The steps are those of weigh().
HWY_NOINLINE void weigh_pairs(const PairBlock &b) {
  const DF d;
  const VF scale = hn::Set(d, b.scale);
  const int rows = b.heads * b.rows;
  GapFetch gap(b, rows / 4 * kRun);
  for (int row = 0; row < rows; row += 4) {
    const VF old = load_rows(b.m + row);
    float *HWY_RESTRICT s = b.s + row * 4;
    const int64_t stride = rows * 4;  // to the next quad
    VF score[kRun], top = old;
    // Of a NaN and a number, x86 takes the second: the maximum is that of the numbers.
    unroll<kRun>([&](auto t) ATTN_INLINE_LAMBDA {
      score[t] = hn::Mul(scale, hn::LoadU(d, s + t * stride));
      top = hn::Max(score[t], top);
    });
    top = fold_rows(Max(), top);
    VF sub = hn::IfThenZeroElse(hn::Eq(top, hn::Set(d, -kInf)), top);
    VF alpha = exp_negative(d, hn::Sub(old, sub));
    const VF infinity = hn::Set(d, kInf);
    const auto infinite = hn::Eq(top, infinity);
    if (HWY_UNLIKELY(!hn::AllFalse(d, infinite))) {
      // Keys with scores of +inf share the weight.
      unroll<kRun>([&](auto t) ATTN_INLINE_LAMBDA {
        const VF share = hn::IfThenZeroElse(hn::Eq(score[t], infinity), hn::Set(d, -kInf));
        const auto shares = hn::AndNot(hn::IsNaN(score[t]), infinite);
        score[t] = hn::IfThenElse(shares, share, score[t]);
      });
      sub = hn::IfThenZeroElse(infinite, sub);
      const VF kept = hn::IfThenElseZero(hn::Eq(old, infinity), hn::Set(d, 1.0f));
      alpha = hn::IfThenElse(infinite, kept, alpha);
    }
    VF sum = hn::Zero(d);
    unroll<kRun>([&](auto t) ATTN_INLINE_LAMBDA {
      gap.step();
      const VF w = exp_negative(d, hn::Sub(score[t], sub));
      hn::StoreU(w, d, s + t * stride);
      sum = hn::Add(sum, w);
    });
    store_rows(top, b.m + row);
    store_rows(alpha, b.alpha + row);
    store_rows(hn::MulAdd(load_rows(b.l + row), alpha, fold_rows(Sum(), sum)), b.l + row);
  }
}

// A pointer that offsets are relative to: compilers would keep one for each, and have not enough
// registers.
template <class T>
HWY_INLINE T *one_register(T *pointer) {
  asm("" : "+r"(pointer));
  return pointer;
}

// Adds the values of a piece and their weights p to 2 P vectors of 4 rows' outputs. kFirst: the
// outputs are scaled before.
template <int P, Format F, bool kFirst, bool kFetch>
HWY_INLINE void output_quad(float *HWY_RESTRICT o, int64_t o_stride,
                            const float *HWY_RESTRICT alpha, const char *const *v, int64_t at,
                            const float *HWY_RESTRICT p, const char *const *ahead) {
  const DF d;
  VF acc[4][2 * P];
  float *row[4];
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    row[r] = one_register(o + r * o_stride);
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      acc[r][c] = hn::LoadU(d, row[r] + c * kLanes);
      if constexpr (kFirst) acc[r][c] = hn::Mul(hn::Set(d, alpha[r]), acc[r][c]);
    });
  });
  unroll<4>([&](auto t) ATTN_INLINE_LAMBDA {
    VF w[4];
    unroll<4>([&](auto r) ATTN_INLINE_LAMBDA { w[r] = hn::Set(d, p[t * 4 + r]); });
    const char *values = one_register(v[t] + at * kBytes<F>);
    const char *fetched = kFetch ? one_register(ahead[t] + at * kBytes<F>) : nullptr;
    unroll<P>([&](auto c) ATTN_INLINE_LAMBDA {
      if constexpr (kFetch) {
        fetch_pair<F>(fetched, c * kPair);
        asm volatile("" ::: "memory");  // compilers would gather the requests
      }
      VF va, vb;
      load_pair<F>(values, c * kPair, va, vb);
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        acc[r][2 * c] = hn::MulAdd(w[r], va, acc[r][2 * c]);
        acc[r][2 * c + 1] = hn::MulAdd(w[r], vb, acc[r][2 * c + 1]);
      });
    });
  });
  unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c)
                      ATTN_INLINE_LAMBDA { hn::StoreU(acc[r][c], d, row[r] + c * kLanes); });
  });
}

// All columns of 4 rows of a head.
template <Format F, bool kFirst, bool kFetch>
HWY_INLINE void output_quads(const PairBlock &b, float *o, const float *alpha, const char *const *v,
                             const float *p, const char *const *ahead) {
  int64_t at = 0;
  for (; at + 2 * kPair <= b.columns; at += 2 * kPair) {
    output_quad<2, F, kFirst, kFetch>(o + at, b.o_stride, alpha, v, at, p, ahead);
  }
  if (at < b.columns) {
    output_quad<1, F, kFirst, kFetch>(o + at, b.o_stride, alpha, v, at, p, ahead);
  }
}

template <Format F, bool kFirst>
HWY_INLINE void output_tokens(const PairBlock &b, int t, PieceCursor &fetch) {
  const float *p = b.s + t * b.heads * b.rows * 4, *alpha = b.alpha;
  float *o = b.o;
  for (int head = 0; head < b.heads; head++) {
    const char *v[4], *ahead[4];
    unroll<4>([&](auto i) ATTN_INLINE_LAMBDA { v[i] = b.v.token[t + i * kRun] + head * b.v.head; });
    fetch.next(ahead);
    output_quads<F, kFirst, true>(b, o, alpha, v, p, ahead);
    for (int row = 4; row < b.rows; row += 4) {
      output_quads<F, kFirst, false>(b, o + row * b.o_stride, alpha + row, v, p + row * 4, ahead);
    }
    o += b.rows * b.o_stride;
    p += b.rows * 4;
    alpha += b.rows;
  }
}

template <Format F>
HWY_NOINLINE void output_pairs(const PairBlock &block) {
  const PairBlock b = block;
  PieceCursor fetch(b.heads, b.v, b.next_k, pieces_ahead(b.v, kOutputsAhead));
  output_tokens<F, true>(b, 0, fetch);
  for (int t = 1; t < kRun; t++) output_tokens<F, false>(b, t, fetch);
}
