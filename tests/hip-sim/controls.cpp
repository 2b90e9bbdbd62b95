// The interpreter behind its HIP runtime: kernels that must give the right results in every order
// of waves, and kernels whose mistakes must be caught. Reads code objects from the files named
// `controls` and `unknown` with the architecture behind.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

namespace {

int passed = 0, failed = 0;

void expect(bool good, const std::string &what) {
  (good ? passed : failed)++;
  if (!good) std::printf("FAILED %s\n", what.c_str());
}

std::vector<char> contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Params {
  void *out, *in;
  uint32_t n;
};

// One process a kernel, because a fault ends its device: the child's half of it.
int run(const std::string &folder, const std::string &architecture, const std::string &name) {
  void *hip = dlopen("libamdhip64.so.6", RTLD_NOW);
  if (hip == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 9;
  }
#define FUNCTION(name, ...) \
  const auto name = reinterpret_cast<int (*)(__VA_ARGS__)>(dlsym(hip, #name))
  FUNCTION(hipMalloc, void **, size_t);
  FUNCTION(hipMemcpyAsync, void *, const void *, size_t, int, void *);
  FUNCTION(hipModuleLoadData, void **, const void *);
  FUNCTION(hipModuleGetFunction, void **, void *, const char *);
  FUNCTION(hipModuleLaunchKernel, void *, unsigned, unsigned, unsigned, unsigned, unsigned,
           unsigned, unsigned, void *, void **, void **);
#undef FUNCTION
  const auto image =
      contents(folder + "/" + (name == "unknown" ? "unknown." : "controls.") + architecture);
  void *module = nullptr, *function = nullptr;
  if (image.empty() || hipModuleLoadData(&module, image.data()) != 0) return 2;
  if (hipModuleGetFunction(&function, module, name.c_str()) != 0) return 9;

  constexpr uint32_t kBlocks = 3, kCount = 256 * kBlocks;
  std::vector<uint32_t> in(kCount), out(kCount, 0), want(kCount, 0);
  for (uint32_t n = 0; n < kCount; n++) in[n] = (n * 2654435761u) >> 7;
  Params p = {nullptr, nullptr, kCount};
  if (hipMalloc(&p.in, kCount * 4) != 0 || hipMalloc(&p.out, kCount * 4) != 0) return 9;
  hipMemcpyAsync(p.in, in.data(), kCount * 4, 1, nullptr);
  hipMemcpyAsync(p.out, out.data(), kCount * 4, 1, nullptr);
  void *params[] = {&p};
  if (hipModuleLaunchKernel(function, kBlocks, 1, 1, 256, 1, 1, 0, nullptr, params, nullptr) != 0) {
    return 3;
  }
  hipMemcpyAsync(out.data(), p.out, kCount * 4, 2, nullptr);
  for (uint32_t b = 0; b < kBlocks; b++) {
    const auto first = in.begin() + b * 256;
    if (name == "good_sum") want[b] = std::accumulate(first, first + 256, 0u);
    if (name == "good_atomic" && b == 0) {
      want[0] = kCount;
      for (uint32_t t = 1; t < 256; t += 2) want[1] += kBlocks * t;
    }
    for (uint32_t t = 0; t < 256; t++) {
      const uint32_t n = b * 256 + t;
      if (name == "good_reverse") want[n] = in[kCount - 1 - n];
      if (name == "good_private") {
        uint32_t table[64];
        for (uint32_t k = 0; k < 64; k++) table[(k * 5 + kCount) & 63] = in[k] * (t + 1);
        want[n] = table[in[t & 63] & 63];
      }
      if (name == "good_exchange") want[n] = in[b * 256 + 255 - t];
      if (name == "unwritten") want[n] = 0xa5a5a5a5;
    }
  }
  return out == want ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 5) return run(argv[2], argv[3], argv[4]);
  const std::string self = argv[0], folder = argv[1];
  struct Case {
    const char *kernel;
    int status;        // of the child: 0 right, 1 wrong, 2 not loaded, 3 a fault
    const char *says;  // on stderr
  };
  constexpr Case kCases[] = {
      {"good_sum", 0, ""},         {"good_reverse", 0, ""},
      {"good_private", 0, ""},     {"good_atomic", 0, ""},
      {"unwritten", 0, ""},        {"wrong_index", 3, "which nobody allocated"},
      {"unknown", 2, "s_sethalt"}, {"good_exchange", 0, ""},
  };
  for (const char *architecture : {"gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"}) {
    setenv("HIP_SIM_ARCH", architecture, 1);
    const auto go = [&](const std::string &kernel, const char *order, std::string &said) {
      setenv("HIP_SIM_ORDER", order, 1);
      const std::string command =
          self + " run " + folder + " " + architecture + " " + kernel + " 2>&1";
      FILE *pipe = popen(command.c_str(), "r");
      char buffer[4096];
      while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) said.append(buffer, n);
      return WEXITSTATUS(pclose(pipe));
    };
    for (const char *order : {"forward", "reverse", "random"}) {
      for (const Case &c : kCases) {
        std::string said;
        const int status = go(c.kernel, order, said);
        expect(status == c.status && said.find(c.says) != std::string::npos,
               std::string(architecture) + " " + c.kernel + ", " + order + ": status " +
                   std::to_string(status) + ", " + said);
      }
      // Without its barriers: a race where races are watched for, and a wrong sum where a wave runs
      // ahead of those that it waits for.
      std::string said;
      const int status = go("lacks_barrier", order, said);
      const bool raced = status == 3 && said.find("a race in shared memory") != std::string::npos;
      expect(std::strcmp(order, "random") == 0    ? raced
             : std::strcmp(order, "forward") == 0 ? status == 1
                                                  : status <= 1,
             std::string(architecture) + " lacks_barrier, " + order + ": status " +
                 std::to_string(status) + ", " + said);
    }
    // Races in global memory, whatever the results come to.
    constexpr Case kRaces[] = {
        {"lacks_barriers_in_memory", 3, "another wave of its block"},
        {"same_element", 3, "another block wrote"},
        {"reads_another_block", 3, "another block"},
    };
    for (const Case &c : kRaces) {
      std::string said;
      const int status = go(c.kernel, "random", said);
      expect(status == c.status && said.find("a race in global memory") != std::string::npos &&
                 said.find(c.says) != std::string::npos,
             std::string(architecture) + " " + c.kernel + ": status " + std::to_string(status) +
                 ", " + said);
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
