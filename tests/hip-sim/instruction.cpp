#include "instruction.hpp"

#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace sim {
namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}

// Splits at `separator` outside brackets.
std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= s.size(); i++) {
    if (i == s.size() || (s[i] == separator && depth == 0)) {
      const std::string_view part = trim(s.substr(begin, i - begin));
      if (!part.empty()) parts.push_back(part);
      begin = i + 1;
    } else if (s[i] == '[' || s[i] == '(') {
      depth++;
    } else if (s[i] == ']' || s[i] == ')') {
      depth--;
    }
  }
  return parts;
}

bool take(std::string_view &s, std::string_view prefix) {
  if (!s.starts_with(prefix)) return false;
  s.remove_prefix(prefix.size());
  return true;
}

int64_t number(std::string_view s) {
  const std::string text(s);
  return static_cast<int64_t>(text.starts_with('-') ? std::strtoll(text.c_str(), nullptr, 0)
                                                    : std::strtoull(text.c_str(), nullptr, 0));
}

struct Named {
  const char *name;
  uint16_t index;
  uint8_t count;
};
constexpr Named kNamed[] = {
    {"vcc", kVcc, 2},
    {"vcc_lo", kVcc, 1},
    {"vcc_hi", kVcc + 1, 1},
    {"exec", kExec, 2},
    {"exec_lo", kExec, 1},
    {"exec_hi", kExec + 1, 1},
    {"m0", kM0, 1},
    {"null", kNull, 2},
    {"flat_scratch", kFlatScratch, 2},
    {"flat_scratch_lo", kFlatScratch, 1},
    {"flat_scratch_hi", kFlatScratch + 1, 1},
    {"xnack_mask", kXnack, 2},
    {"xnack_mask_lo", kXnack, 1},
    {"xnack_mask_hi", kXnack + 1, 1},
    {"src_shared_base", kSharedBase, 2},
    {"src_private_base", kPrivateBase, 2},
};

// v5, v[4:7], s3, a[0:3], ttmp9
bool numbered(std::string_view s, Operand &o) {
  uint16_t base = 0;
  if (take(s, "ttmp")) {
    o.kind = Operand::sgpr;
    base = kTtmp;
  } else if (s.size() > 1 && (s[0] == 'v' || s[0] == 's' || s[0] == 'a') &&
             (s[1] == '[' || std::isdigit(static_cast<unsigned char>(s[1])))) {
    o.kind = s[0] == 's' ? Operand::sgpr : Operand::vgpr;
    base = s[0] == 'a' ? uint16_t{kAgprs} : uint16_t{0};
    s.remove_prefix(1);
  } else {
    return false;
  }
  if (s.starts_with('[')) {
    const auto ends = split(s.substr(1, s.size() - 2), ':');
    const int64_t first = number(ends[0]), last = number(ends.back());
    o.index = static_cast<uint16_t>(base + first);
    o.count = static_cast<uint8_t>(last - first + 1);
  } else {
    o.index = static_cast<uint16_t>(base + number(s));
  }
  return true;
}

Operand operand(std::string_view s) {
  Operand o;
  if (s.size() > 1 && s[0] == '-' && !std::isdigit(static_cast<unsigned char>(s[1]))) {
    o = operand(s.substr(1));
    o.negative = true;
    return o;
  }
  if (s.starts_with("neg(")) {
    o = operand(s.substr(4, s.size() - 5));
    o.negative = true;
    return o;
  }
  if (s.starts_with('|')) {
    o = operand(s.substr(1, s.size() - 2));
    o.absolute = true;
    return o;
  }
  if (s.starts_with("sext(")) {
    o = operand(s.substr(5, s.size() - 6));
    o.extend = true;
    return o;
  }
  if (s.starts_with("lit(")) return operand(s.substr(4, s.size() - 5));
  for (const Named &row : kNamed) {
    if (s != row.name) continue;
    o.kind = Operand::sgpr;
    o.index = row.index;
    o.count = row.count;
    return o;
  }
  if (s == "off") {
    o.kind = Operand::off;
    return o;
  }
  if (s.ends_with(".l") || s.ends_with(".h")) {
    const Part part = s.ends_with(".l") ? Part::low : Part::high;
    o = operand(s.substr(0, s.size() - 2));
    o.part = part;
    return o;
  }
  if (numbered(s, o)) return o;
  const bool digits = std::isdigit(static_cast<unsigned char>(s[0])) || s[0] == '-';
  if (digits) {
    o.kind = Operand::constant;
    if (s.find('.') != std::string_view::npos) {
      o.real = true;
      const double real = std::strtod(std::string(s).c_str(), nullptr);
      std::memcpy(&o.value, &real, sizeof real);
    } else {
      o.value = static_cast<uint64_t>(number(s));
    }
    return o;
  }
  o.kind = Operand::text;
  return o;
}

Part part_of(std::string_view s) {
  constexpr std::pair<const char *, Part> kParts[] = {
      {"DWORD", Part::whole},  {"WORD_0", Part::low},   {"WORD_1", Part::high},
      {"BYTE_0", Part::byte0}, {"BYTE_1", Part::byte1}, {"BYTE_2", Part::byte2},
      {"BYTE_3", Part::byte3}};
  for (const auto &[name, part] : kParts) {
    if (s == name) return part;
  }
  return Part::whole;
}

void list(std::string_view s, std::array<uint8_t, 4> &to) {
  const auto parts = split(s.substr(1, s.size() - 2), ',');
  for (size_t n = 0; n < parts.size() && n < to.size(); n++) {
    to[n] = static_cast<uint8_t>(number(parts[n]));
  }
}

// False: nobody has said what it means.
bool modifier(std::string_view s, Instruction &i) {
  const auto selected = [&](size_t n, std::string_view part) {
    // The destinations of a comparison and of a sum with carry come before the sources.
    size_t first = 1;
    if (i.name.find("_co_") != std::string::npos) first = 2;
    if (n + first < i.operands.size()) i.operands[n + first].part = part_of(part);
  };
  if (take(s, "offset:")) {
    i.offset = number(s);
  } else if (take(s, "offset0:")) {
    i.offset0 = number(s);
  } else if (take(s, "offset1:")) {
    i.offset1 = number(s);
  } else if (take(s, "op_sel:")) {
    list(s, i.op_sel);
    i.has_op_sel = true;
  } else if (take(s, "op_sel_hi:")) {
    list(s, i.op_sel_hi);
  } else if (take(s, "neg_lo:")) {
    list(s, i.neg_lo);
  } else if (take(s, "neg_hi:")) {
    list(s, i.neg_hi);
  } else if (take(s, "src0_sel:")) {
    i.sdwa = true;
    selected(0, s);
  } else if (take(s, "src1_sel:")) {
    selected(1, s);
  } else if (take(s, "dst_sel:")) {
    i.dst_part = part_of(s);
  } else if (take(s, "dst_unused:")) {
    i.dst_unused = s == "UNUSED_PRESERVE" ? Instruction::Unused::preserve
                   : s == "UNUSED_SEXT"   ? Instruction::Unused::sext
                                          : Instruction::Unused::pad;
  } else if (take(s, "quad_perm:")) {
    std::array<uint8_t, 4> lanes;
    list(s, lanes);
    i.dpp.kind = Dpp::quad_perm;
    i.dpp.value = lanes[0] | lanes[1] << 2u | lanes[2] << 4u | lanes[3] << 6u;
  } else if (take(s, "row_mask:")) {
    i.dpp.row_mask = static_cast<uint32_t>(number(s));
  } else if (take(s, "bank_mask:")) {
    i.dpp.bank_mask = static_cast<uint32_t>(number(s));
  } else if (take(s, "bound_ctrl:")) {
    i.dpp.bound_ctrl = true;
  } else if (take(s, "bitop3:")) {
    i.bitop3 = static_cast<uint32_t>(number(s));
  } else if (take(s, "cbsz:")) {
    i.cbsz = static_cast<uint32_t>(number(s));
  } else if (take(s, "abid:")) {
    i.abid = static_cast<uint32_t>(number(s));
  } else if (take(s, "blgp:")) {
    i.blgp = static_cast<uint32_t>(number(s));
  } else if (take(s, "mul:")) {
    i.omod = s == "2" ? 1 : 2;
  } else if (take(s, "div:")) {
    i.omod = -1;
  } else if (s == "clamp") {
    i.clamp = true;
  } else if (s == "offen") {
    i.offen = true;
  } else if (s == "idxen") {
    i.idxen = true;
  } else if (s == "glc" || s == "sc0" || s == "th:TH_ATOMIC_RETURN") {
    i.returns = true;
  } else if (s == "row_mirror") {
    i.dpp.kind = Dpp::row_mirror;
  } else if (s == "row_half_mirror") {
    i.dpp.kind = Dpp::row_half_mirror;
  } else {
    constexpr std::pair<const char *, Dpp::Kind> kRows[] = {
        {"row_shl:", Dpp::row_shl},     {"row_shr:", Dpp::row_shr},
        {"row_ror:", Dpp::row_ror},     {"row_share:", Dpp::row_share},
        {"row_xmask:", Dpp::row_xmask}, {"row_newbcast:", Dpp::row_newbcast},
        {"wave_shl:", Dpp::wave_shl1},  {"wave_shr:", Dpp::wave_shr1}};
    for (const auto &[name, kind] : kRows) {
      if (!take(s, name)) continue;
      i.dpp.kind = kind;
      i.dpp.value = static_cast<uint32_t>(number(s));
      return true;
    }
    if (take(s, "row_bcast:")) {
      i.dpp.kind = s == "15" ? Dpp::row_bcast15 : Dpp::row_bcast31;
      return true;
    }
    // Hints about caches, which change no result here.
    return s == "slc" || s == "dlc" || s == "nt" || s == "sc1" || s == "lds" ||
           s.starts_with("scope:") || s.starts_with("th:");
  }
  return true;
}

// Waits and hints: all is done in order here.
bool is_idle(std::string_view name) {
  return name.starts_with("s_wait") || name == "s_nop" || name == "s_delay_alu" ||
         name == "s_clause" || name == "s_set_inst_prefetch_distance" || name == "s_code_end" ||
         name == "s_setprio" || name == "s_sleep" || name == "s_inst_prefetch" ||
         name == "s_icache_inv" || name.starts_with("buffer_gl") ||
         name.starts_with("global_inv") || name.starts_with("global_wb") || name == "buffer_wbl2" ||
         name == "buffer_inv" || name == "buffer_wbinvl1" || name == "buffer_wbinvl1_vol" ||
         name == "s_dcache_inv" || name == "s_sched_barrier" || name == "s_dcache_wb" ||
         name.starts_with("s_prefetch");
}

void idle(Wave &, const Instruction &) {}

void parse(std::string_view text, Instruction &i) {
  const size_t space = text.find(' ');
  std::string_view name = text.substr(0, space);
  i.text = text;
  for (const char *suffix : {"_e64_dpp", "_sdwa", "_e32", "_e64", "_dpp"}) {
    if (name.ends_with(suffix)) {
      name.remove_suffix(std::strlen(suffix));
      break;
    }
  }
  if (take(name, "v_dual_")) {
    i.name = "v_";
    i.name += name;
  } else {
    i.name = name;
  }
  if (is_idle(i.name)) {
    i.run = idle;
    return;
  }
  if (space == std::string_view::npos) return;
  std::vector<std::string_view> modifiers;
  for (const std::string_view part : split(text.substr(space), ',')) {
    auto tokens = split(part, ' ');
    const bool first_is_operand =
        tokens[0].find(':') == std::string_view::npos || tokens[0].find('[') < tokens[0].find(':');
    size_t n = 0;
    const std::string_view t = tokens[0];
    if (first_is_operand && !t.starts_with("op_sel") && !t.starts_with("neg_lo")) {
      i.operands.push_back(operand(t));
      n = 1;
    }
    for (; n < tokens.size(); n++) modifiers.push_back(tokens[n]);
  }
  for (const std::string_view m : modifiers) {
    if (!modifier(m, i)) i.name.append("?").append(m);  // which no table has
  }
}

std::unordered_map<std::string, Semantics> &table() {
  static std::unordered_map<std::string, Semantics> rows;
  return rows;
}

std::string bind_one(Instruction &i) {
  if (i.run != nullptr) return {};
  std::string name = i.name;
  if (i.clamp && table().contains(name + ":clamp")) name += ":clamp";
  // Which sources are halves stands in op_sel and op_sel_hi; without them none is.
  if (name.starts_with("v_fma_mix") && i.text.find("op_sel") != std::string::npos) {
    return i.name + " of halves";
  }
  const auto found = table().find(name);
  if (found == table().end()) return i.name;
  if (found->second.prepare != nullptr) found->second.prepare(i);
  i.run = found->second.run;
  i.writes_exec = i.name.starts_with("v_cmpx");
  return {};
}

}  // namespace

bool parse_line(std::string_view line, Instruction &i) {
  if (!line.starts_with('\t')) return false;
  const size_t comment = line.find("//");
  if (comment == std::string_view::npos) return false;
  std::string_view tail = trim(line.substr(comment + 2));
  const size_t colon = tail.find(':');
  if (colon == std::string_view::npos) return false;
  i.address = std::strtoull(std::string(tail.substr(0, colon)).c_str(), nullptr, 16);
  tail = trim(tail.substr(colon + 1));
  i.size = 0;
  for (const std::string_view word : split(tail, ' ')) {
    if (word.size() != 8 || word.find_first_not_of("0123456789ABCDEF") != std::string_view::npos) {
      break;
    }
    i.size += 4;
  }
  const std::string_view text = trim(line.substr(0, comment));
  const size_t dual = text.find(" :: ");
  parse(text.substr(0, dual), i);
  if (dual != std::string_view::npos) {
    i.second.emplace_back();
    parse(text.substr(dual + 4), i.second[0]);
    i.dual = true;
  }
  return true;
}

void add(const Semantics &row) {
  std::string_view names = row.names;
  while (!names.empty()) {
    const size_t end = std::min(names.find('|'), names.size());
    table()[std::string(names.substr(0, end))] = row;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
}

std::string bind(Instruction &i) {
  static const bool filled = [] {
    add_scalar_semantics();
    add_vector_semantics();
    add_memory_semantics();
    add_matrix_semantics();
    return true;
  }();
  (void)filled;
  std::string missing = bind_one(i);
  if (missing.empty() && !i.second.empty()) missing = bind_one(i.second[0]);
  return missing;
}

}  // namespace sim
