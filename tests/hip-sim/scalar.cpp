// The scalar ALU, and control flow.
#include <cmath>

#include "device.hpp"
#include "wave.hpp"

namespace sim {
namespace {

// Writes a result of 32 or 64 bits.
void write(Wave &w, const Operand &to, u64 value, int bytes) {
  if (bytes == 8) {
    w.set_pair(to.index, value);
  } else {
    w.set(to.index, static_cast<u32>(value));
  }
}

template <class T>
void prepare(Instruction &i) {
  for (Operand &o : i.operands) prepare_constant<T>(o);
}
template <class T>
u64 wide(T x) {
  return static_cast<u64>(to_bits(x));
}

// Two operands; `F` gets SCC to read and write.
template <class T, class F>
void run2(Wave &w, const Instruction &i) {
  bool scc = w.scc;
  const auto r = F{}(scalar<T>(w, i[1]), scalar<T>(w, i[2]), scc);
  write(w, i[0], wide(r), sizeof r);
  w.scc = scc;
}
template <class T, class F>
void run1(Wave &w, const Instruction &i) {
  bool scc = w.scc;
  const auto r = F{}(scalar<T>(w, i[1]), scc);
  write(w, i[0], wide(r), sizeof r);
  w.scc = scc;
}
template <class T, class F>
void two(const char *names, F) {
  add({names, prepare<T>, run2<T, F>});
}
template <class T, class F>
void one(const char *names, F) {
  add({names, prepare<T>, run1<T, F>});
}
template <class T, class F>
void run_compare(Wave &w, const Instruction &i) {
  w.scc = F{}(scalar<T>(w, i[0]), scalar<T>(w, i[1]));
}
template <class T, class F>
void compare(const char *names, F) {
  add({names, prepare<T>, run_compare<T, F>});
}

// Sets SCC where a result is not zero.
#define LOGICAL(T, names, expression)       \
  two<T>(names, [](T a, T b, bool &scc) {   \
    const T r = static_cast<T>(expression); \
    scc = r != 0;                           \
    return r;                               \
  })
// Leaves SCC alone.
#define PLAIN2(T, names, expression) \
  two<T>(names, [](T a, T b, bool &) { return static_cast<T>(expression); })
#define PLAIN1(T, names, expression) \
  one<T>(names, [](T a, bool &) { return static_cast<T>(expression); })

// exec gets a function of itself and the source; the destination what exec was.
template <class T, class F>
void run_saveexec(Wave &w, const Instruction &i) {
  const T source = scalar<T>(w, i[1]);
  const T before = static_cast<T>(w.pair(kExec));
  const T after = F{}(source, before);
  write(w, i[0], before, sizeof(T));
  if (sizeof(T) == 8) {
    w.set_pair(kExec, after);
  } else {
    w.set(kExec, static_cast<u32>(after));
  }
  w.scc = after != 0;
}
template <class F>
void saveexec(const std::string &what, F) {
  const auto kept = [](std::string s) { return (new std::string(std::move(s)))->c_str(); };
  add({kept("s_" + what + "_saveexec_b64"), prepare<u64>, run_saveexec<u64, F>});
  add({kept("s_" + what + "_saveexec_b32"), prepare<u32>, run_saveexec<u32, F>});
}

void run_branch(Wave &w, const Instruction &i) {
  w.pc = i.target;
}
template <class F>
void run_branch_if(Wave &w, const Instruction &i) {
  if (F{}(w)) w.pc = i.target;
}
template <class F>
void branch_if(const char *names, F) {
  add({names, nullptr, run_branch_if<F>});
}
u64 vcc_of(const Wave &w) {
  return w.pair(kVcc) & w.all();
}

void run_getpc(Wave &w, const Instruction &i) {
  w.set_pair(i[0].index, w.block->kernel().address_of(w.pc));
}
void run_setpc(Wave &w, const Instruction &i) {
  w.pc = w.block->kernel().index_of(w.pair(i[0].index));
}
void run_swappc(Wave &w, const Instruction &i) {
  const u64 to = w.pair(i[1].index);
  w.set_pair(i[0].index, w.block->kernel().address_of(w.pc));
  w.pc = w.block->kernel().index_of(to);
}
void run_end(Wave &w, const Instruction &) {
  w.state = Wave::State::ended;
}
void run_barrier(Wave &w, const Instruction &) {
  w.state = Wave::State::at_barrier;
}
void nothing(Wave &, const Instruction &) {}

void run_movk(Wave &w, const Instruction &i) {
  w.set(i[0].index, static_cast<u32>(static_cast<i16>(i[1].value)));
}
void run_addk(Wave &w, const Instruction &i) {
  const i64 r = i64{static_cast<i32>(w.sgpr[i[0].index])} + static_cast<i16>(i[1].value);
  w.scc = r != static_cast<i32>(r);
  w.set(i[0].index, static_cast<u32>(r));
}
void run_mulk(Wave &w, const Instruction &i) {
  w.set(i[0].index, w.sgpr[i[0].index] * static_cast<u32>(static_cast<i16>(i[1].value)));
}
template <class F>
void run_cmpk(Wave &w, const Instruction &i) {
  w.scc = F{}(w.sgpr[i[0].index], static_cast<u16>(i[1].value));
}
template <class T>
void run_cselect(Wave &w, const Instruction &i) {
  const T a = scalar<T>(w, i[1]), b = scalar<T>(w, i[2]);
  write(w, i[0], w.scc ? a : b, sizeof(T));
}
template <class T>
void run_cmov(Wave &w, const Instruction &i) {
  if (w.scc) write(w, i[0], scalar<T>(w, i[1]), sizeof(T));
}
void run_bitset(Wave &w, const Instruction &i) {
  const u32 bit = 1u << (scalar<u32>(w, i[1]) & 31);
  const u32 before = w.sgpr[i[0].index];
  w.set(i[0].index, i.name.starts_with("s_bitset1") ? before | bit : before & ~bit);
}
void run_fmac(Wave &w, const Instruction &i) {
  const float sum = from_bits<float>(w.sgpr[i[0].index]);
  w.set(i[0].index, to_bits(std::fma(scalar<float>(w, i[1]), scalar<float>(w, i[2]), sum)));
}

// Loads of whole registers; a load may not reach beyond what was allocated.
template <int kWords>
void run_load(Wave &w, const Instruction &i) {
  u64 address = w.pair(i[1].index) + static_cast<u64>(i.offset);
  if (i[2].kind == Operand::sgpr) {
    address += w.sgpr[i[2].index];
  } else {
    address += i[2].value;
  }
  u32 words[kWords];
  w.block->device().read(w, address & ~u64{3}, words, sizeof words);
  for (int n = 0; n < kWords; n++) w.set(i[0].index + n, words[n]);
}
void run_memtime(Wave &w, const Instruction &i) {
  w.set_pair(i[0].index, w.instructions);
}

template <class T>
void add_both(const char *b) {
  const auto named = [&](std::string list) {
    auto *names = new std::string(std::move(list));
    for (size_t at; (at = names->find('#')) != std::string::npos;) names->replace(at, 1, b);
    return names->c_str();
  };
  PLAIN1(T, named("s_mov_b#"), a);
  LOGICAL(T, named("s_and_b#"), a & b);
  LOGICAL(T, named("s_or_b#"), a | b);
  LOGICAL(T, named("s_xor_b#"), a ^ b);
  LOGICAL(T, named("s_andn2_b#|s_and_not1_b#"), a & ~b);
  LOGICAL(T, named("s_orn2_b#|s_or_not1_b#"), a | ~b);
  LOGICAL(T, named("s_nand_b#"), ~(a & b));
  LOGICAL(T, named("s_nor_b#"), ~(a | b));
  LOGICAL(T, named("s_xnor_b#"), ~(a ^ b));
  one<T>(named("s_not_b#"), [](T a, bool &scc) {
    const T r = static_cast<T>(~a);
    scc = r != 0;
    return r;
  });
  one<T>(named("s_brev_b#"), [](T a, bool &) {
    T r = 0;
    for (size_t n = 0; n < sizeof(T) * 8; n++) r |= (a >> n & 1) << (sizeof(T) * 8 - 1 - n);
    return r;
  });
  one<T>(named("s_bcnt1_i32_b#"), [](T a, bool &scc) {
    const u32 r = static_cast<u32>(std::popcount(a));
    scc = r != 0;
    return r;
  });
  one<T>(named("s_ff1_i32_b#|s_ctz_i32_b#"),
         [](T a, bool &) { return a == 0 ? ~0u : static_cast<u32>(std::countr_zero(a)); });
  one<T>(named("s_flbit_i32_b#|s_clz_i32_u#"),
         [](T a, bool &) { return a == 0 ? ~0u : static_cast<u32>(std::countl_zero(a)); });
  constexpr u32 kMost = sizeof(T) * 8 - 1;
  add({named("s_lshl_b#"),
       [](Instruction &i) {
         prepare_constant<T>(i.operands[1]);
         prepare_constant<u32>(i.operands[2]);
       },
       [](Wave &w, const Instruction &i) {
         const T r = scalar<T>(w, i[1]) << (scalar<u32>(w, i[2]) & kMost);
         write(w, i[0], r, sizeof(T));
         w.scc = r != 0;
       }});
  add({named("s_lshr_b#"),
       [](Instruction &i) {
         prepare_constant<T>(i.operands[1]);
         prepare_constant<u32>(i.operands[2]);
       },
       [](Wave &w, const Instruction &i) {
         const T r = scalar<T>(w, i[1]) >> (scalar<u32>(w, i[2]) & kMost);
         write(w, i[0], r, sizeof(T));
         w.scc = r != 0;
       }});
  add({named("s_ashr_i#"),
       [](Instruction &i) {
         prepare_constant<T>(i.operands[1]);
         prepare_constant<u32>(i.operands[2]);
       },
       [](Wave &w, const Instruction &i) {
         using Signed = std::make_signed_t<T>;
         const T r = static_cast<T>(static_cast<Signed>(scalar<T>(w, i[1])) >>
                                    (scalar<u32>(w, i[2]) & kMost));
         write(w, i[0], r, sizeof(T));
         w.scc = r != 0;
       }});
  // Field: the offset in the low bits, the width from bit 16.
  const auto field = [](Wave &w, const Instruction &i, bool is_signed) {
    const u32 where = scalar<u32>(w, i[2]);
    const u32 offset = where & kMost, width = where >> 16 & 0x7f;
    T r = width == 0 ? T(0) : static_cast<T>(scalar<T>(w, i[1]) >> offset);
    if (width != 0 && width < sizeof(T) * 8) {
      using Signed = std::make_signed_t<T>;
      const u32 by = sizeof(T) * 8 - width;
      r = is_signed ? static_cast<T>(static_cast<Signed>(r << by) >> by) : (r << by) >> by;
    }
    write(w, i[0], r, sizeof(T));
    w.scc = r != 0;
  };
  static const auto kField = field;
  add({named("s_bfe_u#"), prepare<u64>,
       [](Wave &w, const Instruction &i) { kField(w, i, false); }});
  add({named("s_bfe_i#"), prepare<u64>, [](Wave &w, const Instruction &i) { kField(w, i, true); }});
  add({named("s_bfm_b#"), prepare<u32>, [](Wave &w, const Instruction &i) {
         const T ones = static_cast<T>((T{1} << (scalar<u32>(w, i[1]) & kMost)) - 1);
         write(w, i[0], static_cast<T>(ones << (scalar<u32>(w, i[2]) & kMost)), sizeof(T));
       }});
  add({named("s_cselect_b#"), prepare<T>, run_cselect<T>});
  add({named("s_cmov_b#"), prepare<T>, run_cmov<T>});
}

}  // namespace

void add_scalar_semantics() {
  add_both<u32>("32");
  add_both<u64>("64");
  two<u32>("s_add_u32|s_add_co_u32", [](u32 a, u32 b, bool &scc) {
    scc = a + b < a;
    return a + b;
  });
  two<u32>("s_addc_u32|s_add_co_ci_u32", [](u32 a, u32 b, bool &scc) {
    const u64 r = u64{a} + b + scc;
    scc = r >> 32 != 0;
    return static_cast<u32>(r);
  });
  two<u32>("s_sub_u32|s_sub_co_u32", [](u32 a, u32 b, bool &scc) {
    scc = b > a;
    return a - b;
  });
  two<u32>("s_subb_u32|s_sub_co_ci_u32", [](u32 a, u32 b, bool &scc) {
    const u64 r = u64{a} - b - scc;
    scc = r >> 32 != 0;
    return static_cast<u32>(r);
  });
  two<i32>("s_add_i32|s_add_co_i32", [](i32 a, i32 b, bool &scc) {
    scc = __builtin_add_overflow(a, b, &a);
    return a;
  });
  two<i32>("s_sub_i32|s_sub_co_i32", [](i32 a, i32 b, bool &scc) {
    scc = __builtin_sub_overflow(a, b, &a);
    return a;
  });
  PLAIN2(u64, "s_add_nc_u64|s_add_u64", a + b);
  PLAIN2(u64, "s_sub_nc_u64|s_sub_u64", a - b);
  PLAIN2(u64, "s_mul_u64", a * b);
  PLAIN2(u32, "s_mul_i32", a * b);
  PLAIN2(u32, "s_mul_hi_u32", u64{a} * b >> 32);
  PLAIN2(i32, "s_mul_hi_i32", i64{a} * b >> 32);
  for (int n = 1; n <= 4; n++) {
    static constexpr const char *kNames[] = {"s_lshl1_add_u32", "s_lshl2_add_u32",
                                             "s_lshl3_add_u32", "s_lshl4_add_u32"};
    add({kNames[n - 1], prepare<u32>, [](Wave &w, const Instruction &i) {
           const u64 r = (u64{scalar<u32>(w, i[1])} << (i.name[6] - '0')) + scalar<u32>(w, i[2]);
           w.scc = r >> 32 != 0;
           w.set(i[0].index, static_cast<u32>(r));
         }});
  }
#define EXTREME(T, names, condition)      \
  two<T>(names, [](T a, T b, bool &scc) { \
    scc = condition;                      \
    return scc ? a : b;                   \
  })
  EXTREME(u32, "s_min_u32", a < b);
  EXTREME(u32, "s_max_u32", a > b);
  EXTREME(i32, "s_min_i32", a < b);
  EXTREME(i32, "s_max_i32", a > b);
#undef EXTREME
  one<i32>("s_abs_i32", [](i32 a, bool &scc) {
    const u32 r = a < 0 ? 0u - static_cast<u32>(a) : static_cast<u32>(a);
    scc = r != 0;
    return r;
  });
  PLAIN1(i32, "s_sext_i32_i16", static_cast<i16>(a));
  PLAIN1(i32, "s_sext_i32_i8", static_cast<int8_t>(a));
  PLAIN2(u32, "s_pack_ll_b32_b16", (a & 0xffff) | b << 16);
  PLAIN2(u32, "s_pack_lh_b32_b16", (a & 0xffff) | (b & 0xffff0000u));
  PLAIN2(u32, "s_pack_hh_b32_b16", a >> 16 | (b & 0xffff0000u));

  one<u32>("s_cvt_f32_u32", [](u32 a, bool &) { return static_cast<float>(a); });
  one<i32>("s_cvt_f32_i32", [](i32 a, bool &) { return static_cast<float>(a); });
  one<float>("s_cvt_u32_f32", [](float a, bool &) {
    return !(a > 0) ? 0u : a >= 4294967296.0f ? ~0u : static_cast<u32>(a);
  });
  one<float>("s_cvt_i32_f32", [](float a, bool &) {
    return a != a                ? 0
           : a >= 2147483648.0f  ? INT32_MAX
           : a <= -2147483648.0f ? INT32_MIN
                                 : static_cast<i32>(a);
  });
  PLAIN2(float, "s_mul_f32", a *b);
  PLAIN2(float, "s_add_f32", a + b);
  PLAIN2(float, "s_sub_f32", a - b);
  PLAIN1(float, "s_trunc_f32", std::trunc(a));
  PLAIN1(float, "s_floor_f32", std::floor(a));
  PLAIN1(float, "s_ceil_f32", std::ceil(a));
  PLAIN1(float, "s_rndne_f32", std::nearbyint(a));
  PLAIN1(float, "v_s_rcp_f32", 1.0f / a);
  PLAIN1(float, "v_s_exp_f32", std::exp2(a));
  PLAIN1(float, "v_s_log_f32", std::log2(a));
  PLAIN2(float, "s_max_num_f32", std::fmax(a, b));
  PLAIN2(float, "s_min_num_f32", std::fmin(a, b));
  add({"s_fmac_f32", prepare<float>, run_fmac});
  add({"s_fmaak_f32|s_fmamk_f32", prepare<float>, [](Wave &w, const Instruction &i) {
         const float r =
             std::fma(scalar<float>(w, i[1]), scalar<float>(w, i[2]), scalar<float>(w, i[3]));
         w.set(i[0].index, to_bits(r));
       }});

#define COMPARE(T, type)                                         \
  compare<T>("s_cmp_eq_" type, [](T a, T b) { return a == b; }); \
  compare<T>("s_cmp_lg_" type, [](T a, T b) { return a != b; }); \
  compare<T>("s_cmp_gt_" type, [](T a, T b) { return a > b; });  \
  compare<T>("s_cmp_ge_" type, [](T a, T b) { return a >= b; }); \
  compare<T>("s_cmp_lt_" type, [](T a, T b) { return a < b; });  \
  compare<T>("s_cmp_le_" type, [](T a, T b) { return a <= b; })
  COMPARE(u32, "u32");
  COMPARE(i32, "i32");
  COMPARE(u64, "u64");
  COMPARE(float, "f32");
  compare<float>("s_cmp_lg_f32", [](float a, float b) { return a < b || a > b; });
#undef COMPARE
  compare<float>("s_cmp_neq_f32", [](float a, float b) { return a != b; });
  compare<float>("s_cmp_nlt_f32", [](float a, float b) { return !(a < b); });
  compare<float>("s_cmp_nle_f32", [](float a, float b) { return !(a <= b); });
  compare<float>("s_cmp_ngt_f32", [](float a, float b) { return !(a > b); });
  compare<float>("s_cmp_nge_f32", [](float a, float b) { return !(a >= b); });
  compare<float>("s_cmp_o_f32", [](float a, float b) { return a == a && b == b; });
  compare<float>("s_cmp_u_f32", [](float a, float b) { return a != a || b != b; });
  compare<u32>("s_bitcmp1_b32", [](u32 a, u32 b) { return (a >> (b & 31) & 1) != 0; });
  compare<u32>("s_bitcmp0_b32", [](u32 a, u32 b) { return (a >> (b & 31) & 1) == 0; });

  saveexec("and", [](auto s, auto e) { return static_cast<decltype(s)>(s & e); });
  saveexec("or", [](auto s, auto e) { return static_cast<decltype(s)>(s | e); });
  saveexec("xor", [](auto s, auto e) { return static_cast<decltype(s)>(s ^ e); });
  saveexec("andn2", [](auto s, auto e) { return static_cast<decltype(s)>(s & ~e); });
  saveexec("and_not1", [](auto s, auto e) { return static_cast<decltype(s)>(s & ~e); });
  saveexec("and_not0", [](auto s, auto e) { return static_cast<decltype(s)>(~s & e); });
  saveexec("or_not1", [](auto s, auto e) { return static_cast<decltype(s)>(s | ~e); });

  add({"s_branch", nullptr, run_branch});
  branch_if("s_cbranch_scc0", [](const Wave &w) { return !w.scc; });
  branch_if("s_cbranch_scc1", [](const Wave &w) { return w.scc; });
  branch_if("s_cbranch_execz", [](const Wave &w) { return w.exec() == 0; });
  branch_if("s_cbranch_execnz", [](const Wave &w) { return w.exec() != 0; });
  branch_if("s_cbranch_vccz", [](const Wave &w) { return vcc_of(w) == 0; });
  branch_if("s_cbranch_vccnz", [](const Wave &w) { return vcc_of(w) != 0; });
  add({"s_getpc_b64", nullptr, run_getpc});
  add({"s_setpc_b64", nullptr, run_setpc});
  add({"s_swappc_b64", nullptr, run_swappc});
  add({"s_endpgm", nullptr, run_end});
  add({"s_barrier|s_barrier_wait", nullptr, run_barrier});
  add({"s_barrier_signal", nullptr, nothing});
  add({"s_sendmsg", nullptr, nothing});  // that the wave needs its registers no more
  add({"s_movk_i32", nullptr, run_movk});
  add({"s_addk_i32|s_addk_co_i32", nullptr, run_addk});
  add({"s_mulk_i32", nullptr, run_mulk});
#define CMPK(name, op)                                                                           \
  {                                                                                              \
    const auto u = [](u32 a, u16 b) { return a op u32{b}; };                                     \
    const auto s = [](u32 a, u16 b) { return static_cast<i32>(a) op i32{static_cast<i16>(b)}; }; \
    add({"s_cmpk_" name "_u32", nullptr, run_cmpk<decltype(u)>});                                \
    add({"s_cmpk_" name "_i32", nullptr, run_cmpk<decltype(s)>});                                \
  }
  CMPK("eq", ==);
  CMPK("lg", !=);
  CMPK("gt", >);
  CMPK("ge", >=);
  CMPK("lt", <);
  CMPK("le", <=);
#undef CMPK
  add({"s_bitset0_b32|s_bitset1_b32", prepare<u32>, run_bitset});
  add({"s_load_dword|s_load_b32", nullptr, run_load<1>});
  add({"s_load_dwordx2|s_load_b64", nullptr, run_load<2>});
  add({"s_load_b96", nullptr, run_load<3>});
  add({"s_load_dwordx4|s_load_b128", nullptr, run_load<4>});
  add({"s_load_dwordx8|s_load_b256", nullptr, run_load<8>});
  add({"s_load_dwordx16|s_load_b512", nullptr, run_load<16>});
  add({"s_memtime|s_memrealtime", nullptr, run_memtime});
}

}  // namespace sim
