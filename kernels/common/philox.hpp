// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011)
// and the dropout decision that sdpa.h documents.
#pragma once

#include <stdint.h>

#include "kernels/common/target.hpp"

namespace attn {

struct PhiloxWords {
  uint32_t word[4];
};

ATTN_HD inline PhiloxWords philox4x32_10(uint32_t key0, uint32_t key1, PhiloxWords counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = UINT64_C(0xD2511F53) * counter.word[0];
    const uint64_t b = UINT64_C(0xCD9E8D57) * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Which weights of one call survive, and their factor.
struct Dropout {
  uint32_t key0, key1, offset;
  uint32_t threshold;  // kept iff (word >> 8) >= threshold, exactly u >= p
  double keep_scale;   // 1 / (1 - p)

  // The words of the four keys 4 * quad .. 4 * quad + 3 of query i; bh = b * num_q_heads + h.
  ATTN_HD PhiloxWords words(int64_t bh, int64_t i, int64_t quad) const {
    const PhiloxWords counter = {
        {static_cast<uint32_t>(quad), static_cast<uint32_t>(i), static_cast<uint32_t>(bh), offset}};
    return philox4x32_10(key0, key1, counter);
  }
  ATTN_HD bool keeps(uint32_t word) const { return (word >> 8) >= threshold; }
  ATTN_HD bool keeps(int64_t bh, int64_t i, int64_t j) const {
    return keeps(words(bh, i, j / 4).word[j % 4]);
  }
};

// rng_state is {seed, offset}; 0 <= p < 1.
ATTN_HD inline Dropout make_dropout(const uint64_t *rng_state, float p) {
  Dropout dropout;
  dropout.key0 = static_cast<uint32_t>(rng_state[0]);
  dropout.key1 =
      static_cast<uint32_t>(rng_state[0] >> 32) ^ static_cast<uint32_t>(rng_state[1] >> 32);
  dropout.offset = static_cast<uint32_t>(rng_state[1]);
  // The smallest integer >= p * 2^24; the product is exact in double.
  const double scaled = static_cast<double>(p) * 16777216.0;
  const uint32_t whole = static_cast<uint32_t>(scaled);
  dropout.threshold = whole + (static_cast<double>(whole) < scaled ? 1 : 0);
  dropout.keep_scale = 1.0 / (1.0 - static_cast<double>(p));
  return dropout;
}

}  // namespace attn
