// How a function of one lane becomes an instruction of all lanes: argument types say how operands
// are read, the result's type how it is written. A function with as many arguments as the
// instruction has operands, destination included, has the destination's old value as its last.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>

#include "wave.hpp"

namespace sim {

template <class T>
struct Signature;
template <class F, class R, class... A>
struct Signature<R (F::*)(A...) const> {
  using Result = R;
  using Arguments = std::tuple<A...>;
  static constexpr size_t kCount = sizeof...(A);
};

// The lane that a DPP operand of `lane` comes from; -1 if there is none.
inline int dpp_source(const Dpp &d, int lane, int lanes) {
  const int row = lane & ~15, in_row = lane & 15, v = static_cast<int>(d.value);
  switch (d.kind) {
    case Dpp::quad_perm:
      return (lane & ~3) | (v >> (2 * (lane & 3)) & 3);
    case Dpp::row_shl:
      return in_row + v < 16 ? lane + v : -1;
    case Dpp::row_shr:
      return in_row - v >= 0 ? lane - v : -1;
    case Dpp::row_ror:
      return row | ((in_row - v) & 15);
    case Dpp::row_mirror:
      return row | (15 - in_row);
    case Dpp::row_half_mirror:
      return (lane & ~7) | (7 - (lane & 7));
    case Dpp::row_bcast15:
      return lane >= 16 ? row - 1 : -1;
    case Dpp::row_bcast31:
      return lane >= 32 ? 31 : -1;
    case Dpp::row_share:
    case Dpp::row_newbcast:
      return row | v;
    case Dpp::row_xmask:
      return row | (in_row ^ v);
    case Dpp::wave_shl1:
      return lane + 1 < lanes ? lane + 1 : -1;
    case Dpp::wave_shr1:
      return lane - 1;
    case Dpp::none:
      break;
  }
  return lane;
}

// Moves source 0 between lanes; the lanes that may be written remain.
template <class T>
u64 apply_dpp(const Wave &w, const Instruction &i, const T *from, T *to, u64 exec) {
  T moved[64];
  u64 writes = 0;
  for (int l = 0; l < w.lanes; l++) {
    moved[l] = T(0);
    const int source = dpp_source(i.dpp, l, w.lanes);
    const bool enabled =
        (i.dpp.row_mask >> (l / 16) & 1u) != 0 && (i.dpp.bank_mask >> (l % 16 / 4) & 1u) != 0;
    // RDNA reads lanes that are off, too; CDNA gives 0 for them, or leaves the destination.
    const bool valid = source >= 0 && (w.generation > 9 || active(exec, source));
    if (valid) moved[l] = from[source];
    if (enabled && (valid || i.dpp.bound_ctrl)) writes |= u64{1} << l;
  }
  std::copy(moved, moved + w.lanes, to);
  return exec & writes;
}

template <class R>
R finish(const Instruction &i, R x) {
  if constexpr (kReal<R>) {
    if (i.omod != 0) x = static_cast<R>(std::ldexp(static_cast<double>(x), i.omod));
    if (i.clamp) x = x > R(1) ? R(1) : x > R(0) ? x : R(0);
  }
  return x;
}

template <class R>
void store(Wave &w, const Instruction &i, const Operand &to, R *r, u64 exec) {
  const int n = w.lanes;
  if constexpr (kReal<R>) {
    if (i.omod != 0 || i.clamp) {
      for (int l = 0; l < n; l++) r[l] = finish(i, r[l]);
    }
  }
  u32 *d = w.vgpr[to.index];
  if constexpr (sizeof(R) == 8) {
    u32 *h = w.vgpr[to.index + 1];
    for (int l = 0; l < n; l++) {
      const u64 x = to_bits(r[l]);
      const bool on = active(exec, l);
      d[l] = on ? static_cast<u32>(x) : d[l];
      h[l] = on ? static_cast<u32>(x >> 32) : h[l];
    }
    return;
  }
  Part part = i.dst_part;
  if (to.part != Part::whole) part = to.part;
  if (sizeof(R) == 4 && part == Part::whole) {
    if (exec == w.all()) {
      std::memcpy(d, r, static_cast<size_t>(n) * 4);
      return;
    }
    for (int l = 0; l < n; l++) d[l] = active(exec, l) ? static_cast<u32>(to_bits(r[l])) : d[l];
    return;
  }
  u32 width = 16, shift = 0;
  bool keep = i.dst_unused == Instruction::Unused::preserve;
  if (part == Part::whole) {  // 16 bits: older devices clear the rest
    keep = w.generation > 9;
    if (i.sdwa) keep = false;
  } else if (part == Part::low || part == Part::high) {
    shift = part == Part::high ? 16 : 0;
    if (!i.sdwa) keep = true;
  } else {
    width = 8;
    shift = 8 * (static_cast<u32>(part) - static_cast<u32>(Part::byte0));
  }
  const u32 mask = ((1u << width) - 1) << shift;
  for (int l = 0; l < n; l++) {
    if (!active(exec, l)) continue;
    const u32 x = static_cast<u32>(to_bits(r[l])) << shift & mask;
    u32 rest = keep ? d[l] & ~mask : 0;
    if (!keep && i.sdwa && i.dst_unused == Instruction::Unused::sext &&
        (x >> (shift + width - 1))) {
      rest = ~((u64{1} << (shift + width)) - 1);
    }
    d[l] = x | rest;
  }
}

template <class R, class... A>
bool is_half() {
  return sizeof(R) == 2 || (... || (sizeof(A) == 2));
}

template <class F>
struct Vector {
  using S = Signature<decltype(&F::operator())>;
  using R = typename S::Result;
  template <size_t N>
  using A = std::tuple_element_t<N, typename S::Arguments>;

  static void prepare(Instruction &i) { prepare_each(i, std::make_index_sequence<S::kCount>()); }
  template <size_t... N>
  static void prepare_each(Instruction &i, std::index_sequence<N...>) {
    const size_t first = first_source(i);
    ((first + N < i.operands.size() ? prepare_constant<A<N>>(i.operands[first + N]) : void()), ...);
    // Halves by op_sel, where the operands' names do not say it.
    if (!i.has_op_sel || !is_half<R, A<N>...>()) return;
    for (size_t n = 0; n + first < i.operands.size(); n++) {
      Operand &o = i.operands[n + first];
      if (i.op_sel[n] != 0 && o.part == Part::whole) o.part = Part::high;
    }
    if (first == 1 && i.op_sel[i.operands.size() - 1] != 0 && i[0].part == Part::whole &&
        i.operands.size() <= 4 && sizeof(R) == 2) {
      i.operands[0].part = Part::high;
    }
  }
  static size_t first_source(const Instruction &i) {
    return std::is_same_v<R, bool> && i.operands.size() == S::kCount ? 0 : 1;
  }

  static void run(Wave &w, const Instruction &i) {
    run_each(w, i, std::make_index_sequence<S::kCount>());
  }
  template <size_t... N>
  static void run_each(Wave &w, const Instruction &i, std::index_sequence<N...>) {
    const size_t first = first_source(i);
    std::tuple<A<N>[64]...> buffers;
    std::tuple<const A<N> *...> sources;
    const auto read = [&](auto index) {
      constexpr size_t kN = decltype(index)::value;
      const size_t place = first + kN < i.operands.size() ? first + kN : 0;
      std::get<kN>(sources) = fetch<A<kN>>(w, i[place], std::get<kN>(buffers));
    };
    (read(std::integral_constant<size_t, N>()), ...);
    u64 exec = w.exec();
    if (i.dpp.kind != Dpp::none) {
      exec = apply_dpp(w, i, std::get<0>(sources), std::get<0>(buffers), exec);
      std::get<0>(sources) = std::get<0>(buffers);
    }
    const int n = w.lanes;
    if constexpr (std::is_same_v<R, bool>) {
      u8 r[64];
      for (int l = 0; l < n; l++) r[l] = F{}(std::get<N>(sources)[l]...);
      u64 bits = 0;
      for (int l = 0; l < n; l++) bits |= static_cast<u64>(r[l]) << l;
      bits &= exec;
      if (first == 1) w.set_mask(i[0], bits);
      if (i.writes_exec) w.set_pair(kExec, bits);
    } else {
      R r[64];
      for (int l = 0; l < n; l++) r[l] = F{}(std::get<N>(sources)[l]...);
      store(w, i, i[0], r, exec);
    }
  }
};

template <class F>
void vector(const char *names, F) {
  add({names, Vector<F>::prepare, Vector<F>::run});
}

}  // namespace sim
