// One decoded instruction. Code is read as llvm-objdump prints it, so that architectures differ in
// their names and modifiers, but not in how they are decoded.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sim {

class Wave;
struct Instruction;
using Run = void (*)(Wave &, const Instruction &);

// Registers that are no numbered SGPR have a place behind them.
enum Register : uint16_t {
  kVcc = 106,  // and 107
  kTtmp = 108,
  kM0 = 124,
  kExec = 126,  // and 127
  kFlatScratch = 128,
  kXnack = 130,
  kNull = 132,  // and 133: reads 0; writes are undone
  kSharedBase = 134,
  kPrivateBase = 136,
  kSgprs = 138,
  kAgprs = 256,  // the first accumulation register, among the vector registers
  kVgprs = 512,
};

// The part of a register that an operand is.
enum class Part : uint8_t { whole, low, high, byte0, byte1, byte2, byte3 };

struct Operand {
  enum Kind : uint8_t { none, sgpr, vgpr, constant, off, text } kind = none;
  uint16_t index = 0;
  uint8_t count = 1;                                        // of registers
  bool negative = false, absolute = false, extend = false;  // -x, |x|, sext(x)
  Part part = Part::whole;
  bool real = false;   // a constant written as a floating-point number: the bits of a double
  uint64_t value = 0;  // of a constant; in the operand's own type once the instruction is bound

  bool plain() const { return !negative && !absolute && !extend && part == Part::whole; }
};

// Few, and beside the rest of an instruction.
class Operands {
 public:
  static constexpr size_t kMost = 8;

  size_t size() const { return size_; }
  void push_back(const Operand &o) {
    if (size_ < kMost) all_[size_++] = o;
  }
  Operand &operator[](size_t n) { return all_[n]; }
  const Operand &operator[](size_t n) const { return all_[n]; }
  Operand *begin() { return all_; }
  Operand *end() { return all_ + size_; }

 private:
  size_t size_ = 0;
  Operand all_[kMost];
};

struct Dpp {
  enum Kind : uint8_t {
    none,
    quad_perm,
    row_shl,
    row_shr,
    row_ror,
    row_mirror,
    row_half_mirror,
    row_bcast15,
    row_bcast31,
    row_share,
    row_xmask,
    row_newbcast,
    wave_shl1,
    wave_shr1
  } kind = none;
  uint32_t value = 0;
  uint32_t row_mask = 15, bank_mask = 15;
  bool bound_ctrl = false;
};

struct Instruction {
  // What running needs comes first.
  Run run = nullptr;
  uint32_t target = 0;                     // of a branch: an index
  bool dual = false, writes_exec = false;  // v_cmpx
  Operands operands;
  int64_t offset = 0, offset0 = 0, offset1 = 0;  // of memory
  std::array<uint8_t, 4> op_sel = {}, op_sel_hi = {1, 1, 1, 1}, neg_lo = {}, neg_hi = {};
  bool has_op_sel = false;
  bool clamp = false, offen = false, idxen = false, returns = false, gds = false;
  int omod = 0;  // result times 2^omod
  Part dst_part = Part::whole;
  enum class Unused : uint8_t { pad, sext, preserve } dst_unused = Unused::pad;
  Dpp dpp;
  uint32_t bitop3 = 0;
  uint32_t cbsz = 0, abid = 0, blgp = 0;  // of matrix instructions
  bool sdwa = false;
  std::vector<Instruction> second;  // of a dual instruction; none or one
  uint64_t address = 0;             // within the code object
  uint32_t size = 4;                // bytes
  std::string name;                 // without the suffix of its encoding
  std::string text;

  const Operand &operator[](size_t n) const { return operands[n]; }
};

// Reads one line of llvm-objdump; false if it holds no instruction. `generation` is 9, 11 or 12.
bool parse_line(std::string_view line, Instruction &instruction);

// Finds the semantics. Empty, or why the instruction cannot be run.
std::string bind(Instruction &instruction);

// What the tables of semantics are made of.
struct Semantics {
  const char *names;  // separated by '|'
  void (*prepare)(Instruction &);
  Run run;
};
void add(const Semantics &row);
void add_scalar_semantics();
void add_vector_semantics();
void add_memory_semantics();
void add_matrix_semantics();

}  // namespace sim
