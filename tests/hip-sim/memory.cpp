// Memory: flat, global, scratch and buffer accesses, LDS, atomics, and exchange through LDS's
// crossbar.
#include <algorithm>

#include "device.hpp"
#include "wave.hpp"

namespace sim {
namespace {

// A lane's private memory.
uint8_t *scratch(Wave &w, int lane, u64 offset, u32 bytes) {
  if (offset > w.scratch_bytes || bytes > w.scratch_bytes - offset) {
    throw Fault("private memory at " + std::to_string(offset) + " of " +
                std::to_string(w.scratch_bytes) + " bytes");
  }
  return w.scratch.data() + static_cast<size_t>(lane) * w.scratch_bytes + offset;
}

uint8_t *global(Wave &w, u64 address, u32 bytes, Access access) {
  return w.block->device().access(w, address, bytes, access);
}

// Where each kind of instruction finds a lane's bytes.
struct Flat {
  static constexpr bool kMayBeScalar = false;
  static uint8_t *at(Wave &w, const Instruction &, int lane, u64 address, u32 bytes,
                     Access access) {
    const u32 high = static_cast<u32>(address >> 32), low = static_cast<u32>(address);
    if (high == kSharedHigh) return w.block->lds(w, low, bytes, access);
    if (high == kPrivateHigh) return scratch(w, lane, low, bytes);
    return global(w, address, bytes, access);
  }
};
struct Global {
  static constexpr bool kMayBeScalar = true;
  static uint8_t *at(Wave &w, const Instruction &, int, u64 address, u32 bytes, Access access) {
    return global(w, address, bytes, access);
  }
};

// Address of a flat or global access: a pair of registers, or a scalar pair and one register.
u64 address_of(const Wave &w, const Instruction &i, const Operand &vector, const Operand *base,
               int lane) {
  u64 address = static_cast<u64>(i.offset);
  if (base != nullptr && base->kind == Operand::sgpr && base->index != kNull) {
    return address + w.pair(base->index) + w.vgpr[vector.index][lane];
  }
  return address +
         (w.vgpr[vector.index][lane] | static_cast<u64>(w.vgpr[vector.index + 1][lane]) << 32);
}
void addresses(const Wave &w, const Instruction &i, const Operand &vector, const Operand *base,
               u64 *to) {
  const u32 *low = w.vgpr[vector.index];
  if (base != nullptr && base->kind == Operand::sgpr && base->index != kNull) {
    const u64 first = static_cast<u64>(i.offset) + w.pair(base->index);
    for (int l = 0; l < w.lanes; l++) to[l] = first + low[l];
    return;
  }
  const u32 *high = w.vgpr[vector.index + 1];
  for (int l = 0; l < w.lanes; l++) {
    to[l] = static_cast<u64>(i.offset) + (low[l] | static_cast<u64>(high[l]) << 32);
  }
}
// Of a scratch access: nothing, a register, a scalar one, or both.
u64 scratch_offset(const Wave &w, const Instruction &i, const Operand &vector, const Operand &base,
                   int lane) {
  i64 offset = i.offset;
  if (vector.kind == Operand::vgpr) offset += static_cast<i32>(w.vgpr[vector.index][lane]);
  if (base.kind == Operand::sgpr && base.index != kNull) {
    offset += static_cast<i32>(w.sgpr[base.index]);
  }
  return static_cast<u64>(offset);
}

// What is moved between memory and registers: how many bytes, and which part of a register.
enum class Form { words, u8, i8, u16, i16, d16_u8, d16_i8, d16, d16_hi_u8, d16_hi_i8, d16_hi };

inline void put(Wave &w, int to, int lane, const uint8_t *from, Form form, int words) {
  u32 *d = &w.vgpr[to][lane];
  u16 half = 0;
  std::memcpy(
      &half, from,
      form == Form::u16 || form == Form::i16 || form == Form::d16 || form == Form::d16_hi ? 2 : 1);
  const u32 keep_high = *d & 0xffff0000u, keep_low = *d & 0xffff;
  switch (form) {
    case Form::words:
      for (int n = 0; n < words; n++) std::memcpy(&w.vgpr[to + n][lane], from + 4 * n, 4);
      return;
    case Form::u8:
    case Form::u16:
      *d = half;
      return;
    case Form::i8:
      *d = static_cast<u32>(static_cast<int8_t>(half));
      return;
    case Form::i16:
      *d = static_cast<u32>(static_cast<i16>(half));
      return;
    case Form::d16_u8:
    case Form::d16:
      *d = keep_high | half;
      return;
    case Form::d16_i8:
      *d = keep_high | static_cast<u16>(static_cast<int8_t>(half));
      return;
    case Form::d16_hi_u8:
    case Form::d16_hi:
      *d = keep_low | u32{half} << 16;
      return;
    case Form::d16_hi_i8:
      *d = keep_low | u32{static_cast<u16>(static_cast<int8_t>(half))} << 16;
      return;
  }
}
u32 bytes_of(Form form, int words) {
  switch (form) {
    case Form::words:
      return static_cast<u32>(4 * words);
    case Form::u16:
    case Form::i16:
    case Form::d16:
    case Form::d16_hi:
      return 2;
    default:
      return 1;
  }
}
void get(const Wave &w, int from, int lane, uint8_t *to, Form form, int words) {
  if (form == Form::words) {
    for (int n = 0; n < words; n++) std::memcpy(to + 4 * n, &w.vgpr[from + n][lane], 4);
    return;
  }
  const bool high = form == Form::d16_hi || form == Form::d16_hi_u8;
  const u32 x = w.vgpr[from][lane] >> (high ? 16 : 0);
  std::memcpy(to, &x, bytes_of(form, 0));
}
// The half that a 16-bit register operand names.
Form in_half(Form form, const Operand &o) {
  if (o.part != Part::high) return form;
  return form == Form::d16      ? Form::d16_hi
         : form == Form::d16_u8 ? Form::d16_hi_u8
         : form == Form::d16_i8 ? Form::d16_hi_i8
         : form == Form::u8     ? Form::d16_hi_u8
         : form == Form::u16    ? Form::d16_hi
                                : form;
}

template <class Space, Form kForm, int kWords>
void run_load(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Operand *base = Space::kMayBeScalar ? &i[2] : nullptr;
  // All lanes' addresses before the first result, which may lie where an address does.
  u64 address[64];
  addresses(w, i, i[1], base, address);
  if constexpr (kForm == Form::words) {
    for (u64 left = exec; left != 0; left &= left - 1) {
      const int l = std::countr_zero(left);
      u32 words[kWords];
      std::memcpy(words, Space::at(w, i, l, address[l], 4 * kWords, Access::read), 4 * kWords);
      for (int n = 0; n < kWords; n++) w.vgpr[i[0].index + n][l] = words[n];
    }
    return;
  }
  const auto load = [&](Form form) __attribute__((always_inline)) {
    for (u64 left = exec; left != 0; left &= left - 1) {
      const int l = std::countr_zero(left);
      put(w, i[0].index, l, Space::at(w, i, l, address[l], bytes_of(form, kWords), Access::read),
          form, kWords);
    }
  };
  if (i[0].part == Part::high) {
    load(in_half(kForm, i[0]));
  } else {
    load(kForm);
  }
}
template <class Space, Form kForm, int kWords>
void run_store(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Operand *base = Space::kMayBeScalar ? &i[2] : nullptr;
  const Form form = in_half(kForm, i[1]);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    uint8_t *to =
        Space::at(w, i, l, address_of(w, i, i[0], base, l), bytes_of(form, kWords), Access::write);
    get(w, i[1].index, l, to, form, kWords);
  }
}
template <Form kForm, int kWords>
void run_scratch_load(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Form form = in_half(kForm, i[0]);
  u64 offset[64];
  for (int l = 0; l < w.lanes; l++) offset[l] = scratch_offset(w, i, i[1], i[2], l);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    put(w, i[0].index, l, scratch(w, l, offset[l], bytes_of(form, kWords)), form, kWords);
  }
}
template <Form kForm, int kWords>
void run_scratch_store(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Form form = in_half(kForm, i[1]);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    get(w, i[1].index, l,
        scratch(w, l, scratch_offset(w, i, i[0], i[2], l), bytes_of(form, kWords)), form, kWords);
  }
}

// Buffers: data, offset register, four scalars, scalar offset.
//
// That of private memory (gfx90a) is swizzled: a lane's bytes are what its offsets say, and the
// scalar offset is the wave's, of all lanes. Others are bounded by their third word: loads beyond
// give 0, stores nothing.
uint8_t *buffer_at(Wave &w, const Instruction &i, int lane, u32 bytes, Access access) {
  const int resource = i[2].index;
  u64 offset = static_cast<u64>(i.offset);
  if (i.offen) offset += w.vgpr[i[1].index][lane];
  const u32 scalar_offset = scalar<u32>(w, i[3]);
  if ((w.sgpr[resource + 1] & 0x80000000u) != 0) {
    return scratch(w, lane, offset + scalar_offset / static_cast<u32>(w.lanes), bytes);
  }
  if (i.idxen) throw Fault("a structured buffer");
  const u64 base = (w.sgpr[resource] | static_cast<u64>(w.sgpr[resource + 1] & 0xffff) << 32);
  if (offset + bytes > w.sgpr[resource + 2]) return nullptr;
  return global(w, base + offset + scalar_offset, bytes, access);
}
template <Form kForm, int kWords>
void run_buffer_load(Wave &w, const Instruction &i) {
  static constexpr uint8_t kZeros[16] = {};
  const u64 exec = w.exec();
  const uint8_t *from[64];
  const Form form = in_half(kForm, i[0]);
  for (int l = 0; l < w.lanes; l++) {
    if (active(exec, l)) from[l] = buffer_at(w, i, l, bytes_of(form, kWords), Access::read);
  }
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    put(w, i[0].index, l, from[l] == nullptr ? kZeros : from[l], form, kWords);
  }
}
template <Form kForm, int kWords>
void run_buffer_store(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Form form = in_half(kForm, i[0]);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    uint8_t *to = buffer_at(w, i, l, bytes_of(form, kWords), Access::write);
    if (to != nullptr) get(w, i[0].index, l, to, form, kWords);
  }
}

// --- atomics ----------------------------------------------------------------------------------

template <class T, class F>
void update(uint8_t *at, T operand, T *before) {
  T x;
  std::memcpy(&x, at, sizeof x);
  *before = x;
  x = F{}(x, operand);
  std::memcpy(at, &x, sizeof x);
}
template <class T>
T from_registers(const Wave &w, int reg, int lane) {
  T x;
  uint8_t bytes[8];
  get(w, reg, lane, bytes, Form::words, sizeof(T) / 4);
  std::memcpy(&x, bytes, sizeof x);
  return x;
}
// With a result: destination, address, data[, base]; without: address, data[, base].
template <class Space, class T, class F>
void run_atomic(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const size_t first = i.returns ? 1 : 0;
  const Operand *base = Space::kMayBeScalar ? &i[first + 2] : nullptr;
  u64 address[64];
  for (int l = 0; l < w.lanes; l++) {
    if (active(exec, l)) address[l] = address_of(w, i, i[first], base, l);
  }
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    T before;
    update<T, F>(Space::at(w, i, l, address[l], sizeof(T), Access::atomic),
                 from_registers<T>(w, i[first + 1].index, l), &before);
    if (i.returns) {
      put(w, i[0].index, l, reinterpret_cast<const uint8_t *>(&before), Form::words, sizeof(T) / 4);
    }
  }
}
template <class Space, class T>
void run_compare_swap(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const size_t first = i.returns ? 1 : 0;
  const Operand *base = Space::kMayBeScalar ? &i[first + 2] : nullptr;
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    uint8_t *at =
        Space::at(w, i, l, address_of(w, i, i[first], base, l), sizeof(T), Access::atomic);
    const T fresh = from_registers<T>(w, i[first + 1].index, l);
    const T expected =
        from_registers<T>(w, i[first + 1].index + static_cast<int>(sizeof(T) / 4), l);
    T before;
    std::memcpy(&before, at, sizeof before);
    if (before == expected) std::memcpy(at, &fresh, sizeof fresh);
    if (i.returns) {
      put(w, i[0].index, l, reinterpret_cast<const uint8_t *>(&before), Form::words, sizeof(T) / 4);
    }
  }
}
template <class T, class F, bool kReturns>
void run_lds_atomic(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const size_t first = kReturns ? 1 : 0;
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    const u32 address = w.vgpr[i[first].index][l] + static_cast<u32>(i.offset);
    T before;
    update<T, F>(w.block->lds(w, address, sizeof(T), Access::atomic),
                 from_registers<T>(w, i[first + 1].index, l), &before);
    if (kReturns) {
      put(w, i[0].index, l, reinterpret_cast<const uint8_t *>(&before), Form::words, sizeof(T) / 4);
    }
  }
}

template <class T, class F>
void atomic(const std::string &flat_names, const std::string &lds_name, F) {
  const auto kept = [](std::string s) { return (new std::string(std::move(s)))->c_str(); };
  std::string flat, global_names;
  size_t begin = 0;
  while (begin < flat_names.size()) {
    const size_t end = std::min(flat_names.find('|', begin), flat_names.size());
    const std::string name = flat_names.substr(begin, end - begin);
    flat += (flat.empty() ? "" : "|") + ("flat_atomic_" + name);
    global_names += (global_names.empty() ? "" : "|") + ("global_atomic_" + name);
    begin = end + 1;
  }
  add({kept(flat), nullptr, run_atomic<Flat, T, F>});
  add({kept(global_names), nullptr, run_atomic<Global, T, F>});
  if (lds_name.empty()) return;
  const size_t bar = lds_name.find('#');
  add({kept("ds_" + lds_name.substr(0, bar) + lds_name.substr(bar + 1)), nullptr,
       run_lds_atomic<T, F, false>});
  add({kept("ds_" + lds_name.substr(0, bar) + "_rtn" + lds_name.substr(bar + 1)), nullptr,
       run_lds_atomic<T, F, true>});
}

// --- LDS ---------------------------------------------------------------------------------------

template <Form kForm, int kWords>
void run_lds_read(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Form form = in_half(kForm, i[0]);
  u32 address[64];
  for (int l = 0; l < w.lanes; l++) address[l] = w.vgpr[i[1].index][l] + static_cast<u32>(i.offset);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    put(w, i[0].index, l, w.block->lds(w, address[l], bytes_of(form, kWords), Access::read), form,
        kWords);
  }
}
template <Form kForm, int kWords>
void run_lds_write(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  const Form form = in_half(kForm, i[1]);
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    const u32 address = w.vgpr[i[0].index][l] + static_cast<u32>(i.offset);
    get(w, i[1].index, l, w.block->lds(w, address, bytes_of(form, kWords), Access::write), form,
        kWords);
  }
}
// Two accesses, at offsets in units of the element, or of 64 of them.
template <int kWords, int kUnit>
void run_lds_read2(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  u32 address[64];
  for (int l = 0; l < w.lanes; l++) address[l] = w.vgpr[i[1].index][l];
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    const int64_t offsets[2] = {i.offset0, i.offset1};
    for (int n = 0; n < 2; n++) {
      const u32 at = address[l] + static_cast<u32>(offsets[n] * 4 * kWords * kUnit);
      put(w, i[0].index + n * kWords, l, w.block->lds(w, at, 4 * kWords, Access::read), Form::words,
          kWords);
    }
  }
}
template <int kWords, int kUnit>
void run_lds_write2(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    const int64_t offsets[2] = {i.offset0, i.offset1};
    for (int n = 0; n < 2; n++) {
      const u32 at = w.vgpr[i[0].index][l] + static_cast<u32>(offsets[n] * 4 * kWords * kUnit);
      get(w, i[1 + static_cast<size_t>(n)].index, l, w.block->lds(w, at, 4 * kWords, Access::write),
          Form::words, kWords);
    }
  }
}

void run_bpermute(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  u32 r[64];
  for (int l = 0; l < w.lanes; l++) {
    const u32 from =
        (w.vgpr[i[1].index][l] + static_cast<u32>(i.offset)) / 4 & static_cast<u32>(w.lanes - 1);
    r[l] = active(exec, static_cast<int>(from)) ? w.vgpr[i[2].index][from] : 0;
  }
  for (int l = 0; l < w.lanes; l++) {
    if (active(exec, l)) w.vgpr[i[0].index][l] = r[l];
  }
}
void run_permute(Wave &w, const Instruction &i) {
  const u64 exec = w.exec();
  u32 r[64] = {};
  for (int l = 0; l < w.lanes; l++) {
    if (!active(exec, l)) continue;
    r[(w.vgpr[i[1].index][l] + static_cast<u32>(i.offset)) / 4 & static_cast<u32>(w.lanes - 1)] =
        w.vgpr[i[2].index][l];
  }
  for (int l = 0; l < w.lanes; l++) {
    if (active(exec, l)) w.vgpr[i[0].index][l] = r[l];
  }
}

const char *kept(std::string s) {
  return (new std::string(std::move(s)))->c_str();
}

template <Form kForm, int kWords>
void add_loads(const std::string &old_name, const std::string &new_name) {
  const auto both = [&](const std::string &space) {
    return kept(space + "_load_" + old_name + "|" + space + "_load_" + new_name);
  };
  add({both("flat"), nullptr, run_load<Flat, kForm, kWords>});
  add({both("global"), nullptr, run_load<Global, kForm, kWords>});
  add({both("scratch"), nullptr, run_scratch_load<kForm, kWords>});
  add({both("buffer"), nullptr, run_buffer_load<kForm, kWords>});
}
template <Form kForm, int kWords>
void add_stores(const std::string &old_name, const std::string &new_name) {
  const auto both = [&](const std::string &space) {
    return kept(space + "_store_" + old_name + "|" + space + "_store_" + new_name);
  };
  add({both("flat"), nullptr, run_store<Flat, kForm, kWords>});
  add({both("global"), nullptr, run_store<Global, kForm, kWords>});
  add({both("scratch"), nullptr, run_scratch_store<kForm, kWords>});
  add({both("buffer"), nullptr, run_buffer_store<kForm, kWords>});
}

}  // namespace

void add_memory_semantics() {
  add_loads<Form::words, 1>("dword", "b32");
  add_loads<Form::words, 2>("dwordx2", "b64");
  add_loads<Form::words, 3>("dwordx3", "b96");
  add_loads<Form::words, 4>("dwordx4", "b128");
  add_loads<Form::u8, 0>("ubyte", "u8");
  add_loads<Form::i8, 0>("sbyte", "i8");
  add_loads<Form::u16, 0>("ushort", "u16");
  add_loads<Form::i16, 0>("sshort", "i16");
  add_loads<Form::d16, 0>("short_d16", "d16_b16");
  add_loads<Form::d16_hi, 0>("short_d16_hi", "d16_hi_b16");
  add_loads<Form::d16_u8, 0>("ubyte_d16", "d16_u8");
  add_loads<Form::d16_i8, 0>("sbyte_d16", "d16_i8");
  add_loads<Form::d16_hi_u8, 0>("ubyte_d16_hi", "d16_hi_u8");
  add_loads<Form::d16_hi_i8, 0>("sbyte_d16_hi", "d16_hi_i8");
  add_stores<Form::words, 1>("dword", "b32");
  add_stores<Form::words, 2>("dwordx2", "b64");
  add_stores<Form::words, 3>("dwordx3", "b96");
  add_stores<Form::words, 4>("dwordx4", "b128");
  add_stores<Form::u8, 0>("byte", "b8");
  add_stores<Form::u16, 0>("short", "b16");
  add_stores<Form::d16_hi_u8, 0>("byte_d16_hi", "d16_hi_b8");
  add_stores<Form::d16_hi, 0>("short_d16_hi", "d16_hi_b16");

  add({"ds_read_b32|ds_load_b32", nullptr, run_lds_read<Form::words, 1>});
  add({"ds_read_b64|ds_load_b64", nullptr, run_lds_read<Form::words, 2>});
  add({"ds_read_b96|ds_load_b96", nullptr, run_lds_read<Form::words, 3>});
  add({"ds_read_b128|ds_load_b128", nullptr, run_lds_read<Form::words, 4>});
  add({"ds_read_u8|ds_load_u8", nullptr, run_lds_read<Form::u8, 0>});
  add({"ds_read_i8|ds_load_i8", nullptr, run_lds_read<Form::i8, 0>});
  add({"ds_read_u16|ds_load_u16", nullptr, run_lds_read<Form::u16, 0>});
  add({"ds_read_i16|ds_load_i16", nullptr, run_lds_read<Form::i16, 0>});
  add({"ds_read_u16_d16|ds_load_u16_d16", nullptr, run_lds_read<Form::d16, 0>});
  add({"ds_read_u16_d16_hi|ds_load_u16_d16_hi", nullptr, run_lds_read<Form::d16_hi, 0>});
  add({"ds_write_b32|ds_store_b32", nullptr, run_lds_write<Form::words, 1>});
  add({"ds_write_b64|ds_store_b64", nullptr, run_lds_write<Form::words, 2>});
  add({"ds_write_b96|ds_store_b96", nullptr, run_lds_write<Form::words, 3>});
  add({"ds_write_b128|ds_store_b128", nullptr, run_lds_write<Form::words, 4>});
  add({"ds_write_b8|ds_store_b8", nullptr, run_lds_write<Form::u8, 0>});
  add({"ds_write_b16|ds_store_b16", nullptr, run_lds_write<Form::u16, 0>});
  add({"ds_write_b16_d16_hi|ds_store_b16_d16_hi", nullptr, run_lds_write<Form::d16_hi, 0>});
  add({"ds_write_b8_d16_hi|ds_store_b8_d16_hi", nullptr, run_lds_write<Form::d16_hi_u8, 0>});
  add({"ds_read2_b32|ds_load_2addr_b32", nullptr, run_lds_read2<1, 1>});
  add({"ds_read2_b64|ds_load_2addr_b64", nullptr, run_lds_read2<2, 1>});
  add({"ds_read2st64_b32|ds_load_2addr_stride64_b32", nullptr, run_lds_read2<1, 64>});
  add({"ds_read2st64_b64|ds_load_2addr_stride64_b64", nullptr, run_lds_read2<2, 64>});
  add({"ds_write2_b32|ds_store_2addr_b32", nullptr, run_lds_write2<1, 1>});
  add({"ds_write2_b64|ds_store_2addr_b64", nullptr, run_lds_write2<2, 1>});
  add({"ds_write2st64_b32|ds_store_2addr_stride64_b32", nullptr, run_lds_write2<1, 64>});
  add({"ds_write2st64_b64|ds_store_2addr_stride64_b64", nullptr, run_lds_write2<2, 64>});
  add({"ds_bpermute_b32", nullptr, run_bpermute});
  add({"ds_permute_b32", nullptr, run_permute});

  atomic<u32>("add|add_u32", "add#_u32", [](u32 a, u32 b) { return a + b; });
  atomic<u32>("sub|sub_u32", "sub#_u32", [](u32 a, u32 b) { return a - b; });
  atomic<u32>("or|or_b32", "or#_b32", [](u32 a, u32 b) { return a | b; });
  atomic<u32>("and|and_b32", "and#_b32", [](u32 a, u32 b) { return a & b; });
  atomic<u32>("xor|xor_b32", "xor#_b32", [](u32 a, u32 b) { return a ^ b; });
  atomic<u32>("umax|max_u32", "max#_u32", [](u32 a, u32 b) { return std::max(a, b); });
  atomic<u32>("umin|min_u32", "min#_u32", [](u32 a, u32 b) { return std::min(a, b); });
  atomic<i32>("smax|max_i32", "max#_i32", [](i32 a, i32 b) { return std::max(a, b); });
  atomic<i32>("smin|min_i32", "min#_i32", [](i32 a, i32 b) { return std::min(a, b); });
  atomic<u32>("swap|swap_b32", "", [](u32, u32 b) { return b; });
  atomic<float>("add_f32", "add#_f32", [](float a, float b) { return a + b; });
  atomic<u64>("add_x2|add_u64", "add#_u64", [](u64 a, u64 b) { return a + b; });
  add({"flat_atomic_cmpswap|flat_atomic_cmpswap_b32", nullptr, run_compare_swap<Flat, u32>});
  add({"global_atomic_cmpswap|global_atomic_cmpswap_b32", nullptr, run_compare_swap<Global, u32>});
}

}  // namespace sim
