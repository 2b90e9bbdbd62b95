// The state of one wave, and how operands are read and results written.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "instruction.hpp"

namespace sim {

// What a kernel did that no device would put up with.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Block;

// The high halves of addresses that lie in shared and in private memory.
inline constexpr uint32_t kSharedHigh = 0x00100000, kPrivateHigh = 0x00200000;

class Wave {
 public:
  enum class State { running, at_barrier, ended };

  int lanes = 64;
  int generation = 9;  // 9, 11 or 12
  uint32_t pc = 0;     // index of the next instruction
  State state = State::running;
  bool scc = false;
  Block *block = nullptr;
  int number = 0;  // in its block
  uint32_t sgpr[kSgprs + 16];
  alignas(64) uint32_t vgpr[kVgprs][64];
  std::vector<uint8_t> scratch;  // of each lane in turn
  uint32_t scratch_bytes = 0;    // of one lane
  uint64_t instructions = 0;

  uint64_t exec() const { return pair(kExec) & all(); }
  uint64_t all() const { return lanes == 64 ? ~uint64_t{0} : 0xffffffffu; }
  uint64_t pair(int index) const {
    return sgpr[index] | static_cast<uint64_t>(sgpr[index + 1]) << 32;
  }
  void set_pair(int index, uint64_t value) {
    sgpr[index] = static_cast<uint32_t>(value);
    sgpr[index + 1] = static_cast<uint32_t>(value >> 32);
    sgpr[kNull] = sgpr[kNull + 1] = 0;
  }
  void set(int index, uint32_t value) {
    sgpr[index] = value;
    sgpr[kNull] = 0;
  }
  // A bit for each lane, as conditions are kept: one register in waves of 32.
  uint64_t mask(const Operand &o) const {
    if (o.kind == Operand::constant) return o.value & all();
    return lanes == 64 ? pair(o.index) : sgpr[o.index];
  }
  void set_mask(const Operand &o, uint64_t value) {
    if (lanes == 64) {
      set_pair(o.index, value);
    } else {
      set(o.index, static_cast<uint32_t>(value));
    }
  }
};

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;
using f16 = _Float16;

template <class T>
inline constexpr bool kReal =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, f16>;

template <int kBytes>
using Bits = std::conditional_t<kBytes == 8, u64, std::conditional_t<kBytes == 4, u32, u16>>;
template <class T>
using BitsOf = Bits<sizeof(T)>;

template <class T>
BitsOf<T> to_bits(T x) {
  return std::bit_cast<BitsOf<T>>(x);
}
template <class T>
T from_bits(BitsOf<T> x) {
  return std::bit_cast<T>(x);
}

template <class B>
B with_sign(B bits, bool negative, bool absolute) {
  constexpr B kSign = static_cast<B>(B{1} << (sizeof(B) * 8 - 1));
  if (absolute) bits = static_cast<B>(bits & ~kSign);
  if (negative) bits = static_cast<B>(bits ^ kSign);
  return bits;
}

// The bits of a constant as an operand of type T.
template <class T>
void prepare_constant(Operand &o) {
  if (o.kind != Operand::constant) return;
  if (o.real) {
    const double real = std::bit_cast<double>(o.value);
    if constexpr (sizeof(T) == 2) {
      o.value = std::bit_cast<u16>(static_cast<f16>(real));
    } else if constexpr (sizeof(T) == 4) {
      o.value = std::bit_cast<u32>(static_cast<float>(real));
    }
    o.real = false;
  } else if constexpr (std::is_same_v<T, double>) {
    // A literal is the upper half; inline integers are what they are.
    const auto value = static_cast<i64>(o.value);
    if (value < -16 || value > 64) o.value <<= 32;
  }
  o.value = with_sign(static_cast<BitsOf<T>>(o.value), o.negative, o.absolute);
  o.negative = o.absolute = false;
}

inline u32 part_of(u32 x, Part part, bool extend) {
  switch (part) {
    case Part::low:
      return extend ? static_cast<u32>(static_cast<i16>(x)) : x & 0xffff;
    case Part::high:
      return extend ? static_cast<u32>(static_cast<i32>(x) >> 16) : x >> 16;
    case Part::whole:
      return x;
    default: {
      const u32 byte = x >> (8 * (static_cast<int>(part) - static_cast<int>(Part::byte0))) & 0xff;
      return extend ? static_cast<u32>(static_cast<int8_t>(byte)) : byte;
    }
  }
}

template <class T>
T scalar(const Wave &w, const Operand &o) {
  if (o.kind == Operand::constant) return from_bits<T>(static_cast<BitsOf<T>>(o.value));
  if constexpr (sizeof(T) == 8) {
    return from_bits<T>(with_sign(w.pair(o.index), o.negative, o.absolute));
  } else if constexpr (sizeof(T) == 4) {
    return from_bits<T>(with_sign(w.sgpr[o.index], o.negative, o.absolute));
  } else {
    const u32 x = part_of(w.sgpr[o.index], o.part, false);
    return from_bits<T>(with_sign(static_cast<BitsOf<T>>(x), o.negative, o.absolute));
  }
}

// Values of all lanes, in `buffer` or where the register is. The first source goes through DPP.
template <class T>
const T *fetch(const Wave &w, const Operand &o, T *buffer) {
  const int n = w.lanes;
  if (o.kind != Operand::vgpr) {
    T x = scalar<T>(w, o);
    if (o.part != Part::whole && sizeof(T) == 4) {
      x = from_bits<T>(static_cast<BitsOf<T>>(
          part_of(static_cast<u32>(to_bits(scalar<T>(w, o))), o.part, o.extend)));
    }
    for (int l = 0; l < n; l++) buffer[l] = x;
    return buffer;
  }
  const u32 *low = w.vgpr[o.index];
  if constexpr (sizeof(T) == 8) {
    const u32 *high = w.vgpr[o.index + 1];
    if (o.plain()) {
      for (int l = 0; l < n; l++)
        buffer[l] = from_bits<T>(low[l] | static_cast<u64>(high[l]) << 32);
      return buffer;
    }
    for (int l = 0; l < n; l++) {
      buffer[l] =
          from_bits<T>(with_sign(low[l] | static_cast<u64>(high[l]) << 32, o.negative, o.absolute));
    }
  } else if constexpr (sizeof(T) == 4) {
    if (o.plain()) return reinterpret_cast<const T *>(low);
    for (int l = 0; l < n; l++) {
      buffer[l] =
          from_bits<T>(with_sign(part_of(low[l], o.part, o.extend), o.negative, o.absolute));
    }
  } else {
    for (int l = 0; l < n; l++) {
      buffer[l] = from_bits<T>(with_sign(static_cast<BitsOf<T>>(part_of(low[l], o.part, o.extend)),
                                         o.negative, o.absolute));
    }
  }
  return buffer;
}

inline bool active(u64 exec, int lane) {
  return (exec >> lane & 1u) != 0;
}

}  // namespace sim
