// Runs single instructions, for test_instructions.py: each line of the input is a JSON object with
// the instruction and the registers before it, each line of the output the registers asked for
// after it, or the fault.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "device.hpp"

using nlohmann::json;

namespace {

json step(const json &in) {
  sim::Device device(in.at("arch"), sim::Order::forward, 1);
  sim::Kernel kernel;
  kernel.generation = device.generation();
  kernel.lanes = device.lanes();
  kernel.scratch_bytes = 64;
  const std::vector<uint8_t> none;
  const auto bytes = static_cast<uint32_t>(std::max<size_t>(256, in.at("memory").size()));
  sim::Block block(device, kernel, {1, 1, 1}, {0, 0, 0},
                   {static_cast<uint32_t>(kernel.lanes), 1, 1}, bytes, none);
  sim::Wave &w = block.wave(0);
  sim::Instruction i;
  if (!sim::parse_line("\t" + in.at("text").get<std::string>() + " // 000000000000: 00000000", i)) {
    return {{"error", "not read"}};
  }
  if (const std::string missing = sim::bind(i); !missing.empty()) {
    return {{"error", "no semantics: " + missing}};
  }
  // Memory that both sides know: the first bytes of the device's and of LDS.
  std::vector<uint8_t> memory(bytes, 0);
  device.allow(memory.data(), memory.size());
  for (size_t n = 0; n < in.at("memory").size(); n++) memory[n] = in["memory"][n];
  std::memcpy(block.lds(w, 0, bytes, sim::Access::write), memory.data(), bytes);
  for (int l = 0; l < w.lanes; l++) {
    std::memcpy(&w.scratch[static_cast<size_t>(l) * 64], memory.data(), 64);
  }
  const auto base = reinterpret_cast<uint64_t>(memory.data());
  for (const auto &[name, values] : in.at("v").items()) {
    uint32_t *to = w.vgpr[std::stoi(name)];
    for (int l = 0; l < w.lanes; l++) {
      to[l] = values.is_array() ? values[static_cast<size_t>(l)].get<uint32_t>()
                                : values.get<uint32_t>();
    }
  }
  for (const auto &[name, value] : in.at("s").items()) w.sgpr[std::stoi(name)] = value;
  w.scc = in.at("scc").get<int>() != 0;
  // Where addresses go: "base_v" and "base_s" name the first of two registers; offsets are added.
  if (in.contains("base_v")) {
    const int reg = in["base_v"];
    for (int l = 0; l < w.lanes; l++) {
      const uint64_t a = base + in["offsets"][static_cast<size_t>(l)].get<uint64_t>();
      w.vgpr[reg][l] = static_cast<uint32_t>(a);
      w.vgpr[reg + 1][l] = static_cast<uint32_t>(a >> 32);
    }
  }
  if (in.contains("base_s")) w.set_pair(in["base_s"], base);
  try {
    i.run(w, i);
    if (i.dual) i.second[0].run(w, i.second[0]);
  } catch (const sim::Fault &fault) {
    return {{"error", fault.what()}};
  }
  json out = {{"s", json::array()}, {"v", json::object()}, {"scc", w.scc ? 1 : 0}};
  for (int n = 0; n < sim::kFlatScratch; n++) out["s"].push_back(w.sgpr[n]);
  for (const auto &reg : in.at("show")) {
    json values = json::array();
    for (int l = 0; l < w.lanes; l++) values.push_back(w.vgpr[reg.get<int>()][l]);
    out["v"][std::to_string(reg.get<int>())] = values;
  }
  out["memory"] = memory;
  json lds = json::array();
  const uint8_t *shared = block.lds(w, 0, bytes, sim::Access::read);
  for (uint32_t n = 0; n < bytes; n++) lds.push_back(shared[n]);
  out["lds"] = lds;
  out["scratch"] = std::vector<uint8_t>(w.scratch.begin(), w.scratch.begin() + 64);
  return out;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << step(json::parse(line)).dump() << "\n";
  }
}
