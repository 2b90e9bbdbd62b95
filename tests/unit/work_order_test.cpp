#include "backend/cuda/work_order.hpp"

#include <doctest/doctest.h>

namespace attn::cuda {
namespace {

RisingWork causal(int64_t pairs, int64_t m_blocks, int64_t grid = 132) {
  return {pairs, m_blocks, grid, m_blocks * 128, 0, 128, 128};
}

// As long as it must be, if all ended together.
double ideal(const RisingWork &w) {
  int64_t total = 0;
  for (int64_t n = 0; n < w.m_blocks; n++) total += w.cost(n) * w.pairs;
  return static_cast<double>(total) / static_cast<double>(w.grid);
}

TEST_CASE("work order: multiprocessors end at about the same time") {
  for (const RisingWork &w : {causal(128, 16), causal(64, 32), causal(32, 64), causal(16, 128),
                              causal(64, 64), causal(320, 16), causal(8, 128)}) {
    const int64_t tail = best_tail_pairs(w);
    CHECK(tail > 0);
    CHECK(tail <= w.pairs);
    CHECK(static_cast<double>(end_of(w, tail)) < 1.02 * ideal(w));
    CHECK(static_cast<double>(end_of(w, tail)) >= ideal(w));
  }
}

TEST_CASE("work order: rounds that save nothing are left out") {
  // Four blocks a pair make 1024 items, eight on some multiprocessors, whatever the tail.
  const RisingWork w = causal(512, 4);
  CHECK(best_tail_pairs(w) == 33);
}

TEST_CASE("work order: small and odd problems") {
  for (int64_t pairs : {1, 2, 7}) {
    for (int64_t m_blocks : {1, 2, 3, 5}) {
      for (int64_t grid : {1, 3, 132, 1000}) {
        for (int64_t diagonal : {-100, 0, 300}) {
          const RisingWork w = {pairs, m_blocks, grid, 300, diagonal, 128, 80};
          const int64_t tail = best_tail_pairs(w);
          CHECK(tail > 0);
          CHECK(tail <= pairs);
        }
      }
    }
  }
}

}  // namespace
}  // namespace attn::cuda
