// Rules of positions as kernels are given them: those of the descriptor, in 32 bits. A sequence's
// own length and offset are the kernel's to fill in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/visibility.hpp"

namespace attn::gpu {

// Positions are below 2^30, so rules that reach further may as well stop there.
inline PositionRulesOf<int32_t> position_rules_32(const attn_sdpa_desc &desc) {
  constexpr int64_t kFar = 1 << 30;
  const PositionRules rules = position_rules(desc, 0, 0);
  return {.seqlen_k = 0,
          .offset = 0,
          .window_left = static_cast<int32_t>(std::min(rules.window_left, kFar)),
          .window_right = static_cast<int32_t>(std::min(rules.window_right, kFar)),
          .chunk_size = static_cast<int32_t>(std::min(rules.chunk_size, kFar)),
          .sink_tokens = static_cast<int32_t>(std::min(rules.sink_tokens, kFar)),
          .causal = rules.causal};
}

}  // namespace attn::gpu
