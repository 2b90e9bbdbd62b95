// The CUDA backend's host code against a fake libcuda.so.1: no GPU is needed.
#include <cstdio>
#include <cstring>

#include "scenario.hpp"
#include "scenarios.hpp"

int main(int argc, char **argv) {
  if (argc == 2 && std::strcmp(argv[1], "--without-driver") == 0) return scenario::without_driver();
  if (argc == 2 && std::strcmp(argv[1], "--without-device") == 0) return scenario::without_device();
  if (argc > 1) {
    std::printf(
        "usage: LD_LIBRARY_PATH=<folder of the fake libcuda.so.1> attn-cuda-host\n"
        "Runs libattn's CUDA host code against the fake driver; needs no GPU.\n");
    return std::strcmp(argv[1], "--help") == 0 ? 0 : 2;
  }
  scenario::driver();
  scenario::absence("/proc/self/exe");
  scenario::failures();
  scenario::limits();
  scenario::use();
  return scenario::finish();
}
