// The order in which the Hopper forward kernel's multiprocessors take blocks of queries, where
// later blocks see more keys: see ForwardParams.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/ceil_div.hpp"

namespace attn::cuda {

struct RisingWork {
  int64_t pairs, m_blocks, grid;  // (batch, head) pairs, blocks of queries of each
  int64_t seqlen_k, diagonal;     // query i sees keys up to i + diagonal
  int64_t block_m, block_n;
  bool operator==(const RisingWork &) const = default;

  // What the n-th block costs, in half tiles; a block by itself as much as one and a half, measured
  // at 128 columns.
  int64_t cost(int64_t n) const {
    const int64_t keys = std::clamp<int64_t>((n + 1) * block_m + diagonal, 0, seqlen_k);
    return 2 * ceil_div(keys, block_n) + 3;
  }
  int64_t items_a_pair() const { return ceil_div(m_blocks, int64_t{2}); }
  // The n-th block from the end with the n-th from the beginning, if that is another.
  int64_t item_cost(int64_t n) const {
    const int64_t last = m_blocks - 1 - n;
    return cost(last) + (last == n ? 0 : cost(n));
  }
};

inline constexpr int64_t kMostMultiprocessors = 512, kManyBlocks = 1024;

// When the last multiprocessor ends, if the blocks of so many pairs are dealt one by one.
inline int64_t end_of(const RisingWork &w, int64_t tail_pairs) {
  std::array<int64_t, kMostMultiprocessors> load = {};
  int64_t place = 0, step = 1;  // to and fro
  const auto deal = [&](int64_t cost) {
    load[place] += cost;
    place += step;
    if (place == w.grid || place < 0) {
      step = -step;
      place += step;
    }
  };
  const int64_t items = (w.pairs - tail_pairs) * w.items_a_pair();
  const int64_t rounds = items / w.grid;  // of which each has one
  for (int64_t i = rounds * w.grid; i < items; i++) deal(w.item_cost(i % w.items_a_pair()));
  for (int64_t n = w.m_blocks - 1; n >= 0; n--) {
    const int64_t cost = w.cost(n);
    for (int64_t pair = 0; pair < tail_pairs; pair++) deal(cost);
  }
  return rounds * w.item_cost(0) + *std::max_element(load.begin(), load.begin() + w.grid);
}

// How many pairs' blocks are dealt one by one: as many as make one to four rounds, whichever ends
// first. (One where there are many blocks, of which the last are small.) A round more must save 0.3
// % of the time: their heads are at work side by side, and find less of each other's keys in the
// L2. (Seven rounds where two do took 10 to 20 % longer, of 512 keys.)
inline int64_t best_tail_pairs(const RisingWork &w) {
  const auto pairs_of = [&](int64_t rounds) {
    return std::min(w.pairs, ceil_div(rounds * w.grid, w.m_blocks));
  };
  int64_t best = pairs_of(1);
  if (w.grid > kMostMultiprocessors || w.m_blocks > kManyBlocks) return best;
  int64_t best_end = end_of(w, best);
  for (int64_t rounds = 2; rounds <= 4; rounds++) {
    const int64_t tail_pairs = pairs_of(rounds), end = end_of(w, tail_pairs);
    if (end * 1000 <= best_end * 997) {
      best = tail_pairs;
      best_end = end;
    }
  }
  return best;
}

}  // namespace attn::cuda
