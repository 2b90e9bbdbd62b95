// Loading an image: ELF segments, kernel descriptors, metadata, and the code as llvm-objdump reads
// it.
#include <elf.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "device.hpp"

namespace sim {
namespace {

constexpr size_t kPage = 4096;

size_t size_of(const Elf64_Ehdr &header) {
  return header.e_shoff + static_cast<size_t>(header.e_shnum) * header.e_shentsize;
}

std::string objdump() {
  const char *asked_for = std::getenv("HIP_SIM_OBJDUMP");
  return asked_for != nullptr ? asked_for : "llvm-objdump-22";
}

// The text of the code, from a copy of the image in a file.
std::string disassemble(const uint8_t *image, size_t size) {
  char path[] = "/tmp/hip-sim-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) throw std::runtime_error("no temporary file");
  const bool written = write(file, image, size) == static_cast<ssize_t>(size);
  close(file);
  const std::string command = objdump() + " -d " + path;
  std::string text;
  FILE *pipe = written ? popen(command.c_str(), "r") : nullptr;
  if (pipe != nullptr) {
    char buffer[65536];
    while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
  }
  const int status = pipe == nullptr ? -1 : pclose(pipe);
  unlink(path);
  if (status != 0) throw std::runtime_error("'" + command + "' failed");
  return text;
}

// The processor in the ELF header's flags (AMDGPU's EF_AMDGPU_MACH).
std::string processor(uint32_t flags) {
  switch (flags & 0xff) {
    case 0x3f:
      return "gfx90a";
    case 0x4c:
      return "gfx942";
    case 0x4f:
      return "gfx950";
    case 0x41:
      return "gfx1100";
    case 0x4e:
      return "gfx1201";
    default:
      return "another processor (" + std::to_string(flags & 0xff) + ")";
  }
}

}  // namespace

uint64_t CodeObject::address_of(uint32_t index) const {
  return base() + (index < code_.size() ? code_[index].address : 0);
}

uint32_t CodeObject::index_of(uint64_t address) const {
  const auto found = index_.find(address - base());
  if (found == index_.end()) throw Fault("jumps to where no instruction begins");
  return found->second;
}

uint64_t Kernel::address_of(uint32_t index) const {
  return object->address_of(index);
}
uint32_t Kernel::index_of(uint64_t address) const {
  return object->index_of(address);
}

const Kernel *CodeObject::find(const std::string &name) const {
  const auto found = kernels_.find(name);
  return found == kernels_.end() ? nullptr : &found->second;
}

CodeObject::CodeObject(const void *image, const std::string &architecture) {
  const auto *bytes = static_cast<const uint8_t *>(image);
  Elf64_Ehdr header;
  std::memcpy(&header, bytes, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != 224) {
    throw std::runtime_error("the image is no AMDGPU code object");
  }
  if (processor(header.e_flags) != architecture) {
    throw std::runtime_error("the image is for " + processor(header.e_flags) + ", the device is " +
                             architecture);
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  std::memcpy(segments.data(), bytes + header.e_phoff, segments.size() * sizeof(Elf64_Phdr));
  uint64_t end = 0;
  nlohmann::json metadata;
  for (const Elf64_Phdr &s : segments) {
    if (s.p_type == PT_LOAD) end = std::max(end, s.p_vaddr + s.p_memsz);
    if (s.p_type != PT_NOTE) continue;
    const uint8_t *at = bytes + s.p_offset, *stop = at + s.p_filesz;
    while (at + sizeof(Elf64_Nhdr) <= stop) {
      Elf64_Nhdr note;
      std::memcpy(&note, at, sizeof note);
      const uint8_t *text = at + sizeof note + (note.n_namesz + 3) / 4 * 4;
      if (note.n_type == 32) metadata = nlohmann::json::from_msgpack(text, text + note.n_descsz);
      at = text + (note.n_descsz + 3) / 4 * 4;
    }
  }
  memory_.resize((end + kPage) / kPage * kPage);
  for (const Elf64_Phdr &s : segments) {
    if (s.p_type == PT_LOAD) std::memcpy(&memory_[s.p_vaddr], bytes + s.p_offset, s.p_filesz);
  }

  const std::string text = disassemble(bytes, size_of(header));
  std::set<std::string> missing;
  for (size_t begin = 0; begin < text.size();) {
    const size_t line_end = std::min(text.find('\n', begin), text.size());
    Instruction i;
    if (parse_line(std::string_view(text).substr(begin, line_end - begin), i)) {
      const std::string lacks = bind(i);
      if (!lacks.empty()) missing.insert(lacks + " (" + i.text + ")");
      index_[i.address] = static_cast<uint32_t>(code_.size());
      code_.push_back(std::move(i));
    }
    begin = line_end + 1;
  }
  if (!missing.empty()) {
    std::string list = std::to_string(missing.size()) + " instructions have no semantics:";
    for (const std::string &one : missing) list += "\n  " + one;
    throw std::runtime_error(list);
  }
  for (Instruction &i : code_) {
    if (!i.name.starts_with("s_branch") && !i.name.starts_with("s_cbranch")) continue;
    const auto distance = static_cast<int16_t>(i[0].value);
    const auto found = index_.find(i.address + 4 + static_cast<uint64_t>(int64_t{distance} * 4));
    if (found == index_.end()) throw std::runtime_error("a branch leads nowhere: " + i.text);
    i.target = found->second;
  }

  // Kernels: the symbols that end in ".kd".
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  std::memcpy(sections.data(), bytes + header.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  for (const Elf64_Shdr &section : sections) {
    if (section.sh_type != SHT_DYNSYM) continue;
    const char *names = reinterpret_cast<const char *>(bytes + sections[section.sh_link].sh_offset);
    for (size_t n = 0; n < section.sh_size / sizeof(Elf64_Sym); n++) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, bytes + section.sh_offset + n * sizeof symbol, sizeof symbol);
      std::string name = names + symbol.st_name;
      if (!name.ends_with(".kd")) continue;
      name.resize(name.size() - 3);
      const uint8_t *d = &memory_[symbol.st_value];
      const auto word = [&](size_t offset) {
        uint32_t x;
        std::memcpy(&x, d + offset, sizeof x);
        return x;
      };
      int64_t entry;
      std::memcpy(&entry, d + 16, sizeof entry);
      Kernel k;
      k.name = name;
      k.object = this;
      k.lds_bytes = word(0);
      k.scratch_bytes = word(4);
      k.kernarg_bytes = word(8);
      k.rsrc2 = word(52);
      k.properties = word(56) & 0xffff;
      k.entry = index_.at(symbol.st_value + static_cast<uint64_t>(entry));
      k.generation = architecture.starts_with("gfx9")    ? 9
                     : architecture.starts_with("gfx11") ? 11
                                                         : 12;
      k.lanes = (k.properties >> 10 & 1) != 0 ? 32 : 64;
      if (word(56) >> 16 != 0) throw std::runtime_error("kernel arguments are preloaded");
      for (const auto &kernel : metadata.at("amdhsa.kernels")) {
        if (kernel.at(".name") != name) continue;
        k.most_threads = kernel.at(".max_flat_workgroup_size");
        for (const auto &argument : kernel.at(".args")) {
          const std::string kind = argument.at(".value_kind");
          const uint32_t offset = argument.at(".offset"), size = argument.at(".size");
          if (kind.starts_with("hidden_")) {
            k.hidden[kind] = offset;
          } else {
            k.arguments.emplace_back(offset, size);
          }
        }
      }
      kernels_[name] = std::move(k);
    }
  }
}

}  // namespace sim
