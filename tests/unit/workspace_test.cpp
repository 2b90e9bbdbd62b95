#include "core/workspace.hpp"

#include <doctest/doctest.h>

#include <cstdint>

TEST_CASE("counting and carving are the same walk") {
  alignas(64) unsigned char memory[1024];
  const auto walk = [](attn::Carver &carver, unsigned char *base) {
    char *a = carver.take<char>(3);
    double *b = carver.take<double>(5);
    float *none = carver.take<float>(0);
    int16_t *c = carver.take<int16_t>(7, 2);
    if (base == nullptr) {
      CHECK(a == nullptr);
      CHECK(b == nullptr);
      CHECK(c == nullptr);
      return;
    }
    CHECK(reinterpret_cast<unsigned char *>(a) == base);
    CHECK(reinterpret_cast<unsigned char *>(b) == base + 64);
    CHECK(reinterpret_cast<unsigned char *>(none) == base + 128);
    CHECK(reinterpret_cast<unsigned char *>(c) == base + 128);
  };
  attn::Carver counting;
  walk(counting, nullptr);
  attn::Carver carving(memory);
  walk(carving, memory);
  CHECK(counting.bytes() == carving.bytes());
  CHECK(counting.bytes() == 128 + 14);
}

TEST_CASE("everything taken is aligned to a cache line by default") {
  alignas(64) unsigned char memory[4096];
  attn::Carver carver(memory);
  for (int n = 1; n < 20; n++) {
    CHECK(reinterpret_cast<uintptr_t>(carver.take<char>(n)) % attn::kWorkspaceAlignment == 0);
  }
}
