// The vector ALU.
#include "vector.hpp"

namespace sim {
namespace {

template <class T>
T flushed(T x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(T(0), x) : x;
}
template <class T>
T smaller(T a, T b) {  // a NaN loses, and -0 is below 0
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(static_cast<double>(a)) ? a : b;
  return a < b ? a : b;
}
template <class T>
T larger(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(static_cast<double>(a)) ? b : a;
  return a > b ? a : b;
}
template <class I, class T>
I saturated(T x) {  // towards 0
  if (x != x) return 0;
  constexpr double kLow = static_cast<double>(std::numeric_limits<I>::min());
  constexpr double kHigh = static_cast<double>(std::numeric_limits<I>::max());
  const double d = std::trunc(static_cast<double>(x));
  return d <= kLow    ? std::numeric_limits<I>::min()
         : d >= kHigh ? std::numeric_limits<I>::max()
                      : static_cast<I>(d);
}
// Rounded once, ties to even.
inline f16 to_half(float x) {
  return static_cast<f16>(x);
}
inline u16 to_bfloat(float x) {
  const u32 bits = to_bits(x);
  if (x != x) return static_cast<u16>(bits >> 16 | 0x40);
  return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
template <class T>
int exponent(T x) {  // as stored
  if constexpr (sizeof(T) == 8) return static_cast<int>(to_bits(x) >> 52 & 0x7ff);
  return static_cast<int>(to_bits(x) >> 23 & 0xff);
}
template <class T>
bool subnormal(T x) {
  return std::fpclassify(x) == FP_SUBNORMAL;
}

// --- division, which compilers build from these four ----------------------------------------

template <class T>
T div_scale(T s0, T s1, T s2, bool &vcc) {
  constexpr bool kWide = sizeof(T) == 8;
  constexpr int kFar = kWide ? 768 : 96, kBy = kWide ? 128 : 64, kTiny = kWide ? 53 : 23;
  const auto scaled = [&](int by) { return std::ldexp(s0, by); };
  vcc = false;
  if (s2 == 0 || s1 == 0) return std::numeric_limits<T>::quiet_NaN();
  if (exponent(s2) - exponent(s1) >= kFar) {
    vcc = true;
    return s0 == s1 ? scaled(kBy) : s0;
  }
  const T quotient = s2 / s1;
  const bool small_quotient = subnormal(quotient) || (quotient == 0 && !std::isinf(s1));
  if (subnormal(s1)) return scaled(kBy);
  if (subnormal(T(1) / s1) && small_quotient) {
    vcc = true;
    return s0 == s1 ? scaled(-kBy) : s0;
  }
  if (subnormal(T(1) / s1)) return scaled(-kBy);
  if (small_quotient) {
    vcc = true;
    return s0 == s2 ? scaled(kBy) : s0;
  }
  if (exponent(s2) <= kTiny) return scaled(kBy);
  return s0;
}

template <class T>
T div_fmas(T a, T b, T c, bool vcc) {
  constexpr int kBias = sizeof(T) == 8 ? 1023 : 127, kBy = sizeof(T) == 8 ? 128 : 64;
  const T x = std::fma(a, b, c);
  return vcc ? std::ldexp(x, exponent(c) > kBias ? kBy : -kBy) : x;
}

template <class T>
T div_fixup(T quotient, T d, T n) {
  constexpr int kMost = sizeof(T) == 8 ? 2047 : 255, kFar = sizeof(T) == 8 ? -1075 : -150;
  const bool negative = std::signbit(d) != std::signbit(n);
  const auto with = [&](T x) { return negative ? -x : x; };
  if (n != n) return n;
  if (d != d) return d;
  if ((d == 0 && n == 0) || (std::isinf(d) && std::isinf(n))) {
    return -std::numeric_limits<T>::quiet_NaN();
  }
  if (d == 0 || std::isinf(n)) return with(std::numeric_limits<T>::infinity());
  if (std::isinf(d) || n == 0) return with(T(0));
  if (exponent(n) - exponent(d) < kFar) return with(T(0));
  if (exponent(d) == kMost) return with(std::numeric_limits<T>::infinity());
  // The steps before have met infinities: the quotient is too large.
  if (quotient != quotient) return with(std::numeric_limits<T>::infinity());
  return with(std::abs(quotient));
}

template <class T>
void run_div_scale(Wave &w, const Instruction &i) {
  T a[64], b[64], c[64], r[64];
  const T *s0 = fetch(w, i[2], a), *s1 = fetch(w, i[3], b), *s2 = fetch(w, i[4], c);
  u64 bits = 0;
  const u64 exec = w.exec();
  for (int l = 0; l < w.lanes; l++) {
    bool vcc;
    r[l] = div_scale(s0[l], s1[l], s2[l], vcc);
    if (vcc && active(exec, l)) bits |= u64{1} << l;
  }
  store(w, i, i[0], r, exec);
  w.set_mask(i[1], bits);
}
template <class T>
void run_div_fmas(Wave &w, const Instruction &i) {
  T a[64], b[64], c[64], r[64];
  const T *s0 = fetch(w, i[1], a), *s1 = fetch(w, i[2], b), *s2 = fetch(w, i[3], c);
  const u64 vcc = w.pair(kVcc);
  for (int l = 0; l < w.lanes; l++) r[l] = div_fmas(s0[l], s1[l], s2[l], active(vcc, l));
  store(w, i, i[0], r, w.exec());
}
template <class T, size_t kFirst, size_t kLast>
void prepare_range(Instruction &i) {
  for (size_t n = kFirst; n <= kLast && n < i.operands.size(); n++) {
    prepare_constant<T>(i.operands[n]);
  }
}

// --- sums with carries: destination, carry out, two sources, carry in -----------------------

template <class F>
void run_carry(Wave &w, const Instruction &i) {
  u32 a[64] = {}, b[64] = {}, r[64];
  const u32 *s0 = fetch(w, i[2], a), *s1 = fetch(w, i[3], b);
  const u64 in = i.operands.size() > 4 ? w.mask(i[4]) : 0;
  u64 exec = w.exec();
  if (i.dpp.kind != Dpp::none) {
    exec = apply_dpp(w, i, s0, a, exec);
    s0 = a;
  }
  // Of 64 lanes, whatever the wave has: a compiler unrolls that.
  u64 over[64], out = 0;
#pragma GCC ivdep
  for (unsigned l = 0; l < 64; l++) {
    // 33 bits: the upper one is the carry, or the borrow.
    const u64 x = F{}(s0[l], s1[l], in >> l & 1);
    r[l] = static_cast<u32>(x);
    over[l] = (x >> 32 & 1) << l;
  }
  for (unsigned l = 0; l < 64; l++) out |= over[l];
  store(w, i, i[0], r, exec);
  w.set_mask(i[1], out & exec);
}
template <class F>
void carry(const char *names, F) {
  add({names, prepare_range<u32, 2, 3>, run_carry<F>});
}

void run_cndmask(Wave &w, const Instruction &i) {
  u32 a[64], b[64], r[64];
  const u32 *s0 = fetch(w, i[1], a), *s1 = fetch(w, i[2], b);
  u64 exec = w.exec();
  if (i.dpp.kind != Dpp::none) {
    exec = apply_dpp(w, i, s0, a, exec);
    s0 = a;
  }
  const u64 chosen = i.operands.size() > 3 ? w.mask(i[3])
                     : w.lanes == 64       ? w.pair(kVcc)
                                           : w.sgpr[kVcc];
  for (int l = 0; l < w.lanes; l++) r[l] = active(chosen, l) ? s1[l] : s0[l];
  store(w, i, i[0], r, exec);
}
void run_cndmask16(Wave &w, const Instruction &i) {
  u16 a[64], b[64], r[64];
  const u16 *s0 = fetch(w, i[1], a), *s1 = fetch(w, i[2], b);
  const u64 chosen = i.operands.size() > 3 ? w.mask(i[3]) : w.sgpr[kVcc];
  for (int l = 0; l < w.lanes; l++) r[l] = active(chosen, l) ? s1[l] : s0[l];
  store(w, i, i[0], r, w.exec());
}

template <class Narrow, class Wide>
void run_mad64(Wave &w, const Instruction &i) {
  Narrow a[64], b[64];
  Wide c[64], r[64];
  const Narrow *s0 = fetch(w, i[2], a), *s1 = fetch(w, i[3], b);
  const Wide *s2 = fetch(w, i[4], c);
  u64 out = 0;
  const u64 exec = w.exec();
  for (int l = 0; l < w.lanes; l++) {
    const Wide product = static_cast<Wide>(s0[l]) * static_cast<Wide>(s1[l]);
    r[l] = static_cast<Wide>(static_cast<u64>(product) + static_cast<u64>(s2[l]));
    bool over = static_cast<u64>(r[l]) < static_cast<u64>(product);
    if constexpr (std::is_signed_v<Wide>) {
      over = (s2[l] < 0) == (product < 0) && (r[l] < 0) != (product < 0);
    }
    if (over && active(exec, l)) out |= u64{1} << l;
  }
  store(w, i, i[0], r, exec);
  w.set_mask(i[1], out);
}
template <class Narrow, class Wide>
void prepare_mad64(Instruction &i) {
  prepare_constant<Narrow>(i.operands[2]);
  prepare_constant<Narrow>(i.operands[3]);
  prepare_constant<Wide>(i.operands[4]);
}

// --- two elements at once ---------------------------------------------------------------------

// One half of a packed source, of all lanes.
template <class T>
void packed_source(const Wave &w, const Operand &o, bool high, bool negate, T *to) {
  const int n = w.lanes;
  constexpr BitsOf<T> kSign = static_cast<BitsOf<T>>(BitsOf<T>{1} << (sizeof(T) * 8 - 1));
  const BitsOf<T> sign = negate ? kSign : BitsOf<T>{0};
  if (o.kind == Operand::vgpr) {
    const u32 *from = w.vgpr[o.index + (sizeof(T) == 4 && high ? 1 : 0)];
    const int shift = sizeof(T) == 2 && high ? 16 : 0;
    for (int l = 0; l < n; l++) {
      to[l] = from_bits<T>(static_cast<BitsOf<T>>(static_cast<BitsOf<T>>(from[l] >> shift) ^ sign));
    }
    return;
  }
  u32 word = static_cast<u32>(o.value);
  if (o.kind == Operand::sgpr) {
    word = w.sgpr[o.index + (sizeof(T) == 4 && high && o.count > 1 ? 1 : 0)];
  } else if (sizeof(T) == 4 && high) {
    word = 0;
  }
  if (sizeof(T) == 2 && high) word >>= 16;
  const T x = from_bits<T>(static_cast<BitsOf<T>>(static_cast<BitsOf<T>>(word) ^ sign));
  for (int l = 0; l < n; l++) to[l] = x;
}

template <class F>
struct Packed {
  using S = Signature<decltype(&F::operator())>;
  using T = typename S::Result;

  static void prepare(Instruction &i) {
    for (size_t n = 1; n < i.operands.size(); n++) {
      Operand &o = i.operands[n];
      if (o.kind != Operand::constant) continue;
      if (sizeof(T) == 2 && !o.real && static_cast<i64>(o.value) >= -16 &&
          static_cast<i64>(o.value) <= 64) {
        continue;  // inline integers fill the word
      }
      if (o.real || sizeof(T) == 4) prepare_constant<T>(o);
    }
  }
  static void run(Wave &w, const Instruction &i) {
    const u64 exec = w.exec();
    T r[2][64];
    for (int half = 0; half < 2; half++) {
      T x[3][64];
      for (size_t n = 0; n < S::kCount; n++) {
        // With the destination's own value as the last: v_pk_fmac
        const bool own = n + 1 >= i.operands.size();
        const bool upper = own ? half == 1 : (half == 0 ? i.op_sel[n] : i.op_sel_hi[n]) != 0;
        const bool negate = (half == 0 ? i.neg_lo[n] : i.neg_hi[n]) != 0;
        packed_source<T>(w, i[own ? 0 : n + 1], upper, negate, x[n]);
      }
      T *to = r[half];
      for (int l = 0; l < w.lanes; l++) {
        if constexpr (S::kCount == 1) to[l] = F{}(x[0][l]);
        if constexpr (S::kCount == 2) to[l] = F{}(x[0][l], x[1][l]);
        if constexpr (S::kCount == 3) to[l] = F{}(x[0][l], x[1][l], x[2][l]);
        to[l] = finish(i, to[l]);
      }
    }
    u32 *d = w.vgpr[i[0].index];
    if constexpr (sizeof(T) == 4) {
      u32 *h = w.vgpr[i[0].index + 1];
      for (int l = 0; l < w.lanes; l++) {
        d[l] = active(exec, l) ? to_bits(r[0][l]) : d[l];
        h[l] = active(exec, l) ? to_bits(r[1][l]) : h[l];
      }
    } else {
      for (int l = 0; l < w.lanes; l++) {
        const u32 x = to_bits(r[0][l]) | static_cast<u32>(to_bits(r[1][l])) << 16;
        d[l] = active(exec, l) ? x : d[l];
      }
    }
  }
};
template <class F>
void packed(const char *names, F) {
  add({names, Packed<F>::prepare, Packed<F>::run});
}
// v_pk_mov_b32: the low result from the first source, the high one from the second.
void run_pk_mov(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  u32 low[64], high[64];
  packed_source<u32>(w, i[1], i.op_sel[0] != 0, false, low);
  packed_source<u32>(w, i[2], i.op_sel[1] != 0, false, high);
  u32 *d = w.vgpr[i[0].index], *h = w.vgpr[i[0].index + 1];
  for (int l = 0; l < w.lanes; l++) {
    d[l] = active(exec, l) ? low[l] : d[l];
    h[l] = active(exec, l) ? high[l] : h[l];
  }
}

// --- between lanes ----------------------------------------------------------------------------

u32 lane_of(const Wave &w, const Operand &o) {
  return scalar<u32>(w, o) & static_cast<u32>(w.lanes - 1);
}
void run_readlane(Wave &w, const Instruction &i) {
  w.set(i[0].index, w.vgpr[i[1].index][lane_of(w, i[2])]);
}
void run_writelane(Wave &w, const Instruction &i) {
  w.vgpr[i[0].index][lane_of(w, i[2])] = scalar<u32>(w, i[1]);
}
void run_readfirstlane(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  w.set(i[0].index, i[1].kind == Operand::vgpr
                        ? w.vgpr[i[1].index][exec == 0 ? 0 : std::countr_zero(exec)]
                        : scalar<u32>(w, i[1]));
}
template <int kHigh>
void run_mbcnt(Wave &w, const Instruction &i) {
  u32 a[64], b[64], r[64];
  const u32 *s0 = fetch(w, i[1], a), *s1 = fetch(w, i[2], b);
  for (int l = 0; l < w.lanes; l++) {
    const u64 before = (u64{1} << l) - 1;
    r[l] =
        static_cast<u32>(std::popcount(s0[l] & static_cast<u32>(before >> (32 * kHigh)))) + s1[l];
  }
  store(w, i, i[0], r, w.exec());
}
void run_movrels(Wave &w, const Instruction &i) {
  Operand from = i[1];
  from.index = static_cast<u16>(from.index + w.sgpr[kM0]);
  if (from.index >= kAgprs) throw Fault("v_movrels reads v" + std::to_string(from.index));
  u32 a[64], r[64];
  const u32 *s = fetch(w, from, a);
  std::copy(s, s + w.lanes, r);
  store(w, i, i[0], r, w.exec());
}
void run_movreld(Wave &w, const Instruction &i) {
  Operand to = i[0];
  to.index = static_cast<u16>(to.index + w.sgpr[kM0]);
  if (to.index >= kAgprs) throw Fault("v_movreld writes v" + std::to_string(to.index));
  u32 a[64], r[64];
  const u32 *s = fetch(w, i[1], a);
  std::copy(s, s + w.lanes, r);
  store(w, i, to, r, w.exec());
}
void run_swap(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  for (int l = 0; l < w.lanes; l++) {
    if (active(exec, l)) std::swap(w.vgpr[i[0].index][l], w.vgpr[i[1].index][l]);
  }
}
// Rows of 16 lanes: the odd ones of the first register change places with the even ones of the
// second (16), or its upper half with the lower half of the second (32).
template <int kSize>
void run_permlane_swap(Wave &w, const Instruction &i) {
  u32 *a = w.vgpr[i[0].index], *b = w.vgpr[i[1].index];
  for (int l = 0; l < w.lanes; l++) {
    if ((l & kSize) == 0) std::swap(a[l + kSize], b[l]);
  }
}
// Lane l of each row reads the lane that nibble l of the selectors says, of this row or (x) of the
// other row of its pair.
template <bool kOther>
void run_permlane16(Wave &w, const Instruction &i) {
  const u64 selectors = scalar<u32>(w, i[2]) | static_cast<u64>(scalar<u32>(w, i[3])) << 32;
  u32 r[64];
  for (int l = 0; l < w.lanes; l++) {
    const int from = static_cast<int>(selectors >> (4 * (l & 15)) & 15);
    r[l] = w.vgpr[i[1].index][((l & ~15) ^ (kOther ? 16 : 0)) | from];
  }
  store(w, i, i[0], r, w.exec());
}

template <class T>
T bit_operation(u32 table, T a, T b, T c) {
  T r = 0;
  if (table & 1) r |= ~a & ~b & ~c;
  if (table & 2) r |= ~a & ~b & c;
  if (table & 4) r |= ~a & b & ~c;
  if (table & 8) r |= ~a & b & c;
  if (table & 16) r |= a & ~b & ~c;
  if (table & 32) r |= a & ~b & c;
  if (table & 64) r |= a & b & ~c;
  if (table & 128) r |= a & b & c;
  return r;
}
template <class T>
void run_bitop3(Wave &w, const Instruction &i) {
  T a[64], b[64], c[64], r[64];
  const T *s0 = fetch(w, i[1], a), *s1 = fetch(w, i[2], b), *s2 = fetch(w, i[3], c);
  for (int l = 0; l < w.lanes; l++) r[l] = bit_operation<T>(i.bitop3, s0[l], s1[l], s2[l]);
  store(w, i, i[0], r, w.exec());
}

template <class T>
bool in_class(T x, u32 mask) {
  constexpr int kBits = sizeof(T) * 8, kMantissa = sizeof(T) == 8 ? 52 : sizeof(T) == 4 ? 23 : 10;
  constexpr u64 kTop = (u64{1} << (kBits - 1 - kMantissa)) - 1;  // exponent of what is not finite
  const u64 bits = to_bits(x), mantissa = bits & ((u64{1} << kMantissa) - 1);
  const u64 exponent = bits >> kMantissa & kTop;
  const bool negative = (bits >> (kBits - 1)) != 0;
  int bit = negative ? 3 : 8;
  if (exponent == kTop && mantissa != 0) {
    bit = (mantissa >> (kMantissa - 1)) != 0 ? 1 : 0;  // quiet
  } else if (exponent == kTop) {
    bit = negative ? 2 : 9;
  } else if (exponent == 0 && mantissa != 0) {
    bit = negative ? 4 : 7;
  } else if (exponent == 0) {
    bit = negative ? 5 : 6;
  }
  return (mask >> bit & 1) != 0;
}

// One comparison of every type that compilers use.
template <template <class> class Compare>
void comparisons(const std::string &name, bool real) {
  const auto named = [&](const char *type) {
    auto *names = new std::string("v_cmp_" + name + "_" + type + "|v_cmpx_" + name + "_" + type);
    return names->c_str();
  };
  if (real) {
    vector(named("f16"), [](f16 a, f16 b) -> bool { return Compare<f16>{}(a, b); });
    vector(named("f32"), [](float a, float b) -> bool { return Compare<float>{}(a, b); });
    vector(named("f64"), [](double a, double b) -> bool { return Compare<double>{}(a, b); });
    return;
  }
  vector(named("u16"), [](u16 a, u16 b) -> bool { return Compare<u16>{}(a, b); });
  vector(named("i16"), [](i16 a, i16 b) -> bool { return Compare<i16>{}(a, b); });
  vector(named("u32"), [](u32 a, u32 b) -> bool { return Compare<u32>{}(a, b); });
  vector(named("i32"), [](i32 a, i32 b) -> bool { return Compare<i32>{}(a, b); });
  vector(named("u64"), [](u64 a, u64 b) -> bool { return Compare<u64>{}(a, b); });
  vector(named("i64"), [](i64 a, i64 b) -> bool { return Compare<i64>{}(a, b); });
}
template <class T>
struct NotLess {
  bool operator()(T a, T b) const { return !(a < b); }
};
template <class T>
struct NotLessEqual {
  bool operator()(T a, T b) const { return !(a <= b); }
};
template <class T>
struct NotGreater {
  bool operator()(T a, T b) const { return !(a > b); }
};
template <class T>
struct NotGreaterEqual {
  bool operator()(T a, T b) const { return !(a >= b); }
};
template <class T>
struct LessGreater {
  bool operator()(T a, T b) const { return a < b || a > b; }
};
template <class T>
struct NotLessGreater {
  bool operator()(T a, T b) const { return !(a < b || a > b); }
};
template <class T>
struct Ordered {
  bool operator()(T a, T b) const { return a == a && b == b; }
};
template <class T>
struct Unordered {
  bool operator()(T a, T b) const { return a != a || b != b; }
};

void add_integers() {
  vector(
      "v_mov_b32|v_accvgpr_read_b32|v_accvgpr_write_b32|v_accvgpr_mov_b32|v_accvgpr_read|"
      "v_accvgpr_write",
      [](u32 a) { return a; });
  vector("v_mov_b16", [](u16 a) { return a; });
  vector("v_mov_b64", [](u64 a) { return a; });
  vector("v_add_u32|v_add_nc_u32|v_add_nc_i32|v_add_i32", [](u32 a, u32 b) { return a + b; });
  vector("v_sub_u32|v_sub_nc_u32|v_sub_nc_i32|v_sub_i32", [](u32 a, u32 b) { return a - b; });
  vector("v_subrev_u32|v_subrev_nc_u32", [](u32 a, u32 b) { return b - a; });
  vector("v_add_u32:clamp|v_add_nc_u32:clamp",
         [](u32 a, u32 b) { return a + b < a ? ~0u : a + b; });
  vector("v_sub_u32:clamp|v_sub_nc_u32:clamp", [](u32 a, u32 b) { return a < b ? 0u : a - b; });
  vector("v_add3_u32", [](u32 a, u32 b, u32 c) { return a + b + c; });
  vector("v_lshl_add_u32", [](u32 a, u32 b, u32 c) { return (a << (b & 31)) + c; });
  vector("v_add_lshl_u32", [](u32 a, u32 b, u32 c) { return (a + b) << (c & 31); });
  vector("v_lshl_or_b32", [](u32 a, u32 b, u32 c) { return a << (b & 31) | c; });
  vector("v_and_or_b32", [](u32 a, u32 b, u32 c) { return (a & b) | c; });
  vector("v_or3_b32", [](u32 a, u32 b, u32 c) { return a | b | c; });
  vector("v_xad_u32", [](u32 a, u32 b, u32 c) { return (a ^ b) + c; });
  vector("v_xor3_b32", [](u32 a, u32 b, u32 c) { return a ^ b ^ c; });
  vector("v_lshl_add_u64", [](u64 a, u32 b, u64 c) { return (a << (b & 7)) + c; });
  vector("v_and_b32", [](u32 a, u32 b) { return a & b; });
  vector("v_or_b32", [](u32 a, u32 b) { return a | b; });
  vector("v_xor_b32", [](u32 a, u32 b) { return a ^ b; });
  vector("v_xnor_b32", [](u32 a, u32 b) { return ~(a ^ b); });
  vector("v_not_b32", [](u32 a) { return ~a; });
  vector("v_and_b16", [](u16 a, u16 b) { return static_cast<u16>(a & b); });
  vector("v_or_b16", [](u16 a, u16 b) { return static_cast<u16>(a | b); });
  vector("v_xor_b16", [](u16 a, u16 b) { return static_cast<u16>(a ^ b); });
  vector("v_not_b16", [](u16 a) { return static_cast<u16>(~a); });
  vector("v_lshlrev_b32", [](u32 a, u32 b) { return b << (a & 31); });
  vector("v_lshrrev_b32", [](u32 a, u32 b) { return b >> (a & 31); });
  vector("v_ashrrev_i32", [](u32 a, i32 b) { return b >> (a & 31); });
  vector("v_lshlrev_b64", [](u32 a, u64 b) { return b << (a & 63); });
  vector("v_lshrrev_b64", [](u32 a, u64 b) { return b >> (a & 63); });
  vector("v_ashrrev_i64", [](u32 a, i64 b) { return b >> (a & 63); });
  vector("v_lshlrev_b16", [](u16 a, u16 b) { return static_cast<u16>(b << (a & 15)); });
  vector("v_lshrrev_b16", [](u16 a, u16 b) { return static_cast<u16>(b >> (a & 15)); });
  vector("v_ashrrev_i16", [](u16 a, i16 b) { return static_cast<i16>(b >> (a & 15)); });
  vector("v_add_u16|v_add_nc_u16", [](u16 a, u16 b) { return static_cast<u16>(a + b); });
  vector("v_sub_u16|v_sub_nc_u16", [](u16 a, u16 b) { return static_cast<u16>(a - b); });
  vector("v_subrev_u16", [](u16 a, u16 b) { return static_cast<u16>(b - a); });
  vector("v_mul_lo_u16", [](u16 a, u16 b) { return static_cast<u16>(u32{a} * b); });
  vector("v_min_u16", [](u16 a, u16 b) { return std::min(a, b); });
  vector("v_max_u16", [](u16 a, u16 b) { return std::max(a, b); });
  vector("v_mul_lo_u32", [](u32 a, u32 b) { return a * b; });
  vector("v_mul_hi_u32", [](u32 a, u32 b) { return static_cast<u32>(u64{a} * b >> 32); });
  vector("v_mul_hi_i32", [](i32 a, i32 b) { return static_cast<i32>(i64{a} * b >> 32); });
  vector("v_mul_u32_u24", [](u32 a, u32 b) { return (a & 0xffffff) * (b & 0xffffff); });
  vector("v_mul_i32_i24", [](i32 a, i32 b) { return (a << 8 >> 8) * (b << 8 >> 8); });
  vector("v_mad_u32_u24", [](u32 a, u32 b, u32 c) { return (a & 0xffffff) * (b & 0xffffff) + c; });
  vector("v_mad_i32_i24", [](i32 a, i32 b, i32 c) { return (a << 8 >> 8) * (b << 8 >> 8) + c; });
  vector("v_mad_u32_u16", [](u16 a, u16 b, u32 c) { return u32{a} * b + c; });
  vector("v_mul_u64|v_mul_lo_u64", [](u64 a, u64 b) { return a * b; });
  vector("v_add_nc_u64|v_add_u64", [](u64 a, u64 b) { return a + b; });
  vector("v_min_u32", [](u32 a, u32 b) { return std::min(a, b); });
  vector("v_max_u32", [](u32 a, u32 b) { return std::max(a, b); });
  vector("v_min_i32", [](i32 a, i32 b) { return std::min(a, b); });
  vector("v_max_i32", [](i32 a, i32 b) { return std::max(a, b); });
  vector("v_min3_u32", [](u32 a, u32 b, u32 c) { return std::min({a, b, c}); });
  vector("v_max3_u32", [](u32 a, u32 b, u32 c) { return std::max({a, b, c}); });
  vector("v_min3_i32", [](i32 a, i32 b, i32 c) { return std::min({a, b, c}); });
  vector("v_max3_i32", [](i32 a, i32 b, i32 c) { return std::max({a, b, c}); });
  vector("v_minmax_i32", [](i32 a, i32 b, i32 c) { return std::max(std::min(a, b), c); });
  vector("v_maxmin_i32", [](i32 a, i32 b, i32 c) { return std::min(std::max(a, b), c); });
  vector("v_med3_i32",
         [](i32 a, i32 b, i32 c) { return std::max(std::min(a, b), std::min(std::max(a, b), c)); });
  vector("v_med3_u32",
         [](u32 a, u32 b, u32 c) { return std::max(std::min(a, b), std::min(std::max(a, b), c)); });
  vector("v_bfe_u32", [](u32 a, u32 b, u32 c) {
    return (c & 31) == 0 ? 0u : a >> (b & 31) & ((1u << (c & 31)) - 1);
  });
  vector("v_bfe_i32", [](i32 a, u32 b, u32 c) {
    const u32 width = c & 31;
    if (width == 0) return 0;
    return static_cast<i32>(static_cast<u32>(a >> (b & 31)) << (32 - width)) >> (32 - width);
  });
  vector("v_bfi_b32", [](u32 a, u32 b, u32 c) { return (a & b) | (~a & c); });
  vector("v_bfm_b32", [](u32 a, u32 b) { return ((1u << (a & 31)) - 1) << (b & 31); });
  vector("v_bfrev_b32", [](u32 a) {
    u32 r = 0;
    for (int n = 0; n < 32; n++) r |= (a >> n & 1) << (31 - n);
    return r;
  });
  vector("v_alignbit_b32", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>((static_cast<u64>(a) << 32 | b) >> (c & 31));
  });
  vector("v_alignbyte_b32", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>((static_cast<u64>(a) << 32 | b) >> (8 * (c & 3)));
  });
  vector("v_bcnt_u32_b32", [](u32 a, u32 b) { return static_cast<u32>(std::popcount(a)) + b; });
  vector("v_ffbh_u32|v_clz_i32_u32",
         [](u32 a) { return a == 0 ? ~0u : static_cast<u32>(std::countl_zero(a)); });
  vector("v_ffbl_b32|v_ctz_i32_b32",
         [](u32 a) { return a == 0 ? ~0u : static_cast<u32>(std::countr_zero(a)); });
  vector("v_perm_b32", [](u32 a, u32 b, u32 selectors) {
    const u64 bytes = static_cast<u64>(a) << 32 | b;
    u32 r = 0;
    for (int n = 0; n < 4; n++) {
      const u32 s = selectors >> (8 * n) & 0xff;
      u32 byte = s < 8 ? static_cast<u32>(bytes >> (8 * s) & 0xff) : s >= 13 ? 0xffu : 0u;
      if (s >= 8 && s < 12) byte = (bytes >> (16 * (s - 8) + 15) & 1) != 0 ? 0xff : 0;
      r |= byte << (8 * n);
    }
    return r;
  });
  carry("v_add_co_u32|v_addc_co_u32|v_add_co_ci_u32",
        [](u32 a, u32 b, u64 c) { return u64{a} + b + c; });
  carry("v_sub_co_u32|v_subb_co_u32|v_sub_co_ci_u32",
        [](u32 a, u32 b, u64 c) { return u64{a} - b - c; });
  carry("v_subrev_co_u32|v_subbrev_co_u32|v_subrev_co_ci_u32",
        [](u32 a, u32 b, u64 c) { return u64{b} - a - c; });
  add({"v_cndmask_b32", prepare_range<u32, 1, 2>, run_cndmask});
  add({"v_cndmask_b16", prepare_range<u16, 1, 2>, run_cndmask16});
  add({"v_mad_u64_u32|v_mad_co_u64_u32", prepare_mad64<u32, u64>, run_mad64<u32, u64>});
  add({"v_mad_i64_i32|v_mad_co_i64_i32", prepare_mad64<i32, i64>, run_mad64<i32, i64>});
  add({"v_bitop3_b32", prepare_range<u32, 1, 3>, run_bitop3<u32>});
  add({"v_bitop3_b16", prepare_range<u16, 1, 3>, run_bitop3<u16>});
  comparisons<std::less>("lt", false);
  comparisons<std::less_equal>("le", false);
  comparisons<std::equal_to>("eq", false);
  comparisons<std::not_equal_to>("ne", false);
  comparisons<std::greater>("gt", false);
  comparisons<std::greater_equal>("ge", false);
}

template <class T>
void reals(const std::string &type) {
  const auto named = [&](std::string list) {
    auto *names = new std::string(std::move(list));
    for (size_t at; (at = names->find('#')) != std::string::npos;) names->replace(at, 1, type);
    return names->c_str();
  };
  const auto fma = [](T a, T b, T c) {
    if constexpr (sizeof(T) == 2) {
      // Exact in fp64 but for the sum, which is rounded to odd, so that the last rounding is right.
      const double p = static_cast<double>(a) * static_cast<double>(b), z = static_cast<double>(c);
      const double s = p + z, t = s - p, rest = (p - (s - t)) + (z - t);
      u64 bits = to_bits(s);
      if (rest != 0 && std::isfinite(s) && (bits & 1) == 0) {
        bits += (rest > 0) == (s > 0) ? 1 : -1;
      }
      return static_cast<T>(from_bits<double>(bits));
    } else {
      return std::fma(a, b, c);
    }
  };
  vector(named("v_add_#"), [](T a, T b) { return static_cast<T>(a + b); });
  vector(named("v_sub_#"), [](T a, T b) { return static_cast<T>(a - b); });
  vector(named("v_subrev_#"), [](T a, T b) { return static_cast<T>(b - a); });
  vector(named("v_mul_#"), [](T a, T b) { return static_cast<T>(a * b); });
  vector(named("v_fma_#|v_fmac_#|v_fmaak_#|v_fmamk_#"), fma);
  vector(named("v_mac_#|v_mad_#|v_madmk_#|v_madak_#"), [](T a, T b, T c) {
    if constexpr (sizeof(T) == 4) {
      return flushed(flushed(flushed(a) * flushed(b)) + flushed(c));
    } else {
      return static_cast<T>(static_cast<T>(a * b) + c);
    }
  });
  vector(named("v_min_#|v_min_num_#"), [](T a, T b) { return smaller(a, b); });
  vector(named("v_max_#|v_max_num_#"), [](T a, T b) { return larger(a, b); });
  vector(named("v_min3_#|v_min3_num_#"), [](T a, T b, T c) { return smaller(smaller(a, b), c); });
  vector(named("v_max3_#|v_max3_num_#"), [](T a, T b, T c) { return larger(larger(a, b), c); });
  vector(named("v_maxmin_#|v_maxmin_num_#"),
         [](T a, T b, T c) { return smaller(larger(a, b), c); });
  vector(named("v_minmax_#|v_minmax_num_#"),
         [](T a, T b, T c) { return larger(smaller(a, b), c); });
  vector(named("v_med3_#|v_med3_num_#"),
         [](T a, T b, T c) { return larger(smaller(a, b), smaller(larger(a, b), c)); });
  vector(named("v_floor_#"),
         [](T a) { return static_cast<T>(std::floor(static_cast<double>(a))); });
  vector(named("v_ceil_#"), [](T a) { return static_cast<T>(std::ceil(static_cast<double>(a))); });
  vector(named("v_trunc_#"),
         [](T a) { return static_cast<T>(std::trunc(static_cast<double>(a))); });
  vector(named("v_rndne_#"),
         [](T a) { return static_cast<T>(std::nearbyint(static_cast<double>(a))); });
  vector(named("v_fract_#"), [](T a) {
    const double x = static_cast<double>(a);
    return static_cast<T>(x - std::floor(x));
  });
  vector(named("v_ldexp_#"), [](T a, i32 b) {
    return static_cast<T>(std::ldexp(static_cast<double>(a), std::clamp(b, -5000, 5000)));
  });
  vector(named("v_cmp_class_#|v_cmpx_class_#"),
         [](T a, u32 mask) -> bool { return in_class(a, mask); });
}

void add_reals() {
  reals<float>("f32");
  reals<double>("f64");
  reals<f16>("f16");
  vector("v_mul_legacy_f32|v_mul_dx9_zero_f32",
         [](float a, float b) { return a == 0 || b == 0 ? 0.0f : a * b; });
  // What these round is theirs to choose within an ulp; subnormals they do not know.
  vector("v_rcp_f32|v_rcp_iflag_f32", [](float a) { return flushed(1.0f / flushed(a)); });
  vector("v_rcp_f64", [](double a) { return 1.0 / a; });
  vector("v_rsq_f32", [](float a) {
    return flushed(static_cast<float>(1.0 / std::sqrt(static_cast<double>(flushed(a)))));
  });
  vector("v_sqrt_f32", [](float a) { return std::sqrt(flushed(a)); });
  vector("v_exp_f32", [](float a) { return flushed(std::exp2(flushed(a))); });
  vector("v_log_f32", [](float a) { return std::log2(flushed(a)); });
  vector("v_rcp_f16", [](f16 a) { return static_cast<f16>(1.0f / static_cast<float>(a)); });
  vector("v_exp_f16", [](f16 a) { return static_cast<f16>(std::exp2(static_cast<float>(a))); });
  vector("v_frexp_exp_i32_f32", [](float a) {
    int e = 0;
    if (std::isfinite(a)) std::frexp(a, &e);
    return static_cast<i32>(e);
  });
  vector("v_frexp_mant_f32", [](float a) {
    int e = 0;
    return std::isfinite(a) ? std::frexp(a, &e) : a;
  });
  vector("v_cvt_f32_i32", [](i32 a) { return static_cast<float>(a); });
  vector("v_cvt_f32_u32", [](u32 a) { return static_cast<float>(a); });
  vector("v_cvt_i32_f32", [](float a) { return saturated<i32>(a); });
  vector("v_cvt_u32_f32", [](float a) { return saturated<u32>(a); });
  vector("v_cvt_f64_i32", [](i32 a) { return static_cast<double>(a); });
  vector("v_cvt_f64_u32", [](u32 a) { return static_cast<double>(a); });
  vector("v_cvt_i32_f64", [](double a) { return saturated<i32>(a); });
  vector("v_cvt_u32_f64", [](double a) { return saturated<u32>(a); });
  vector("v_cvt_f32_f64", [](double a) { return static_cast<float>(a); });
  vector("v_cvt_f64_f32", [](float a) { return static_cast<double>(a); });
  vector("v_cvt_f16_f32", [](float a) { return to_half(a); });
  const auto mix = [](float a, float b, float c) { return to_half(std::fma(a, b, c)); };
  using Mix = Vector<decltype(mix)>;
  add({"v_fma_mixlo_f16",
       [](Instruction &i) {
         Mix::prepare(i);
         i.operands[0].part = Part::low;  // the other half stays, on every device
       },
       Mix::run});
  vector("v_cvt_f32_f16", [](f16 a) { return static_cast<float>(a); });
  vector("v_cvt_f16_u16", [](u16 a) { return static_cast<f16>(a); });
  vector("v_cvt_f16_i16", [](i16 a) { return static_cast<f16>(a); });
  vector("v_cvt_f32_ubyte0", [](u32 a) { return static_cast<float>(a & 0xff); });
  vector("v_cvt_f32_ubyte1", [](u32 a) { return static_cast<float>(a >> 8 & 0xff); });
  vector("v_cvt_f32_ubyte2", [](u32 a) { return static_cast<float>(a >> 16 & 0xff); });
  vector("v_cvt_f32_ubyte3", [](u32 a) { return static_cast<float>(a >> 24); });
  vector("v_pack_b32_f16", [](u16 a, u16 b) { return a | static_cast<u32>(b) << 16; });
  vector("v_cvt_pk_f16_f32", [](float a, float b) {
    return std::bit_cast<u16>(to_half(a)) | static_cast<u32>(std::bit_cast<u16>(to_half(b))) << 16;
  });
  vector("v_cvt_pk_bf16_f32",
         [](float a, float b) { return to_bfloat(a) | static_cast<u32>(to_bfloat(b)) << 16; });
  vector("v_div_fixup_f32", [](float a, float b, float c) { return div_fixup(a, b, c); });
  vector("v_div_fixup_f64", [](double a, double b, double c) { return div_fixup(a, b, c); });
  add({"v_div_scale_f32", prepare_range<float, 2, 4>, run_div_scale<float>});
  add({"v_div_scale_f64", prepare_range<double, 2, 4>, run_div_scale<double>});
  add({"v_div_fmas_f32", prepare_range<float, 1, 3>, run_div_fmas<float>});
  add({"v_div_fmas_f64", prepare_range<double, 1, 3>, run_div_fmas<double>});
  packed("v_pk_add_f32", [](float a, float b) { return a + b; });
  packed("v_pk_mul_f32", [](float a, float b) { return a * b; });
  packed("v_pk_fma_f32", [](float a, float b, float c) { return std::fma(a, b, c); });
  packed("v_pk_add_f16", [](f16 a, f16 b) { return static_cast<f16>(a + b); });
  packed("v_pk_mul_f16", [](f16 a, f16 b) { return static_cast<f16>(a * b); });
  packed("v_pk_max_f16|v_pk_max_num_f16", [](f16 a, f16 b) { return larger(a, b); });
  packed("v_pk_min_f16|v_pk_min_num_f16", [](f16 a, f16 b) { return smaller(a, b); });
  packed("v_pk_add_u16", [](u16 a, u16 b) { return static_cast<u16>(a + b); });
  packed("v_pk_lshlrev_b16", [](u16 a, u16 b) { return static_cast<u16>(b << (a & 15)); });
  packed("v_pk_lshrrev_b16", [](u16 a, u16 b) { return static_cast<u16>(b >> (a & 15)); });
  add({"v_pk_mov_b32", prepare_range<u32, 1, 2>, run_pk_mov});
  comparisons<std::less>("lt", true);
  comparisons<std::less_equal>("le", true);
  comparisons<std::equal_to>("eq", true);
  comparisons<std::not_equal_to>("neq", true);
  comparisons<std::greater>("gt", true);
  comparisons<std::greater_equal>("ge", true);
  comparisons<LessGreater>("lg", true);
  comparisons<NotLess>("nlt", true);
  comparisons<NotLessEqual>("nle", true);
  comparisons<NotGreater>("ngt", true);
  comparisons<NotGreaterEqual>("nge", true);
  comparisons<NotLessGreater>("nlg", true);
  comparisons<Ordered>("o", true);
  comparisons<Unordered>("u", true);
}

}  // namespace

void add_vector_semantics() {
  add_integers();
  add_reals();
  add({"v_readlane_b32", prepare_range<u32, 2, 2>, run_readlane});
  add({"v_writelane_b32", prepare_range<u32, 1, 2>, run_writelane});
  add({"v_readfirstlane_b32", nullptr, run_readfirstlane});
  add({"v_mbcnt_lo_u32_b32", prepare_range<u32, 1, 2>, run_mbcnt<0>});
  add({"v_mbcnt_hi_u32_b32", prepare_range<u32, 1, 2>, run_mbcnt<1>});
  add({"v_movrels_b32", nullptr, run_movrels});
  add({"v_movreld_b32", prepare_range<u32, 1, 1>, run_movreld});
  add({"v_swap_b32", nullptr, run_swap});
  add({"v_permlane32_swap_b32", nullptr, run_permlane_swap<32>});
  add({"v_permlane16_swap_b32", nullptr, run_permlane_swap<16>});
  add({"v_permlane16_b32", prepare_range<u32, 2, 3>, run_permlane16<false>});
  add({"v_permlanex16_b32", prepare_range<u32, 2, 3>, run_permlane16<true>});
}

}  // namespace sim
