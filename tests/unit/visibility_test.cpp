// The band of keys that position rules leave, against the rules of sdpa.h applied key by key.
#include "kernels/common/visibility.hpp"

#include <doctest/doctest.h>

#include <climits>
#include <initializer_list>

namespace {

bool allowed(const attn::PositionRules &r, int64_t i, int64_t j) {
  const int64_t p = i + r.offset;
  if (r.causal && j > p) return false;
  if (j < r.sink_tokens) return true;
  if (r.window_left >= 0 && j < p - r.window_left) return false;
  if (r.window_right >= 0 && j > p + r.window_right) return false;
  if (r.chunk_size > 0) {
    const auto chunk = [&](int64_t x) {
      return x >= 0 ? x / r.chunk_size : (x - r.chunk_size + 1) / r.chunk_size;
    };
    if (chunk(j) != chunk(p)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("band_of is what the rules say, key by key") {
  int wrong = 0, checked = 0;
  for (bool causal : {false, true}) {
    for (int alignment : {ATTN_ALIGN_BOTTOM_RIGHT, ATTN_ALIGN_TOP_LEFT}) {
      for (int left : {-1, 0, 1, 3, 100, INT_MAX}) {
        for (int right : {-1, 0, 2, 100, INT_MAX}) {
          for (int chunk : {0, 1, 3, 8, INT_MAX}) {
            for (int sinks : {0, 1, 4, INT_MAX}) {
              for (int64_t nq : {1, 5, 12}) {
                for (int64_t nk : {0, 1, 5, 13}) {
                  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
                  desc.flags = ATTN_SDPA_WINDOW | (causal ? ATTN_SDPA_CAUSAL : 0);
                  desc.alignment = alignment;
                  desc.window_left = left;
                  desc.window_right = right;
                  desc.chunk_size = chunk;
                  desc.sink_tokens = sinks;
                  const attn::PositionRules rules = attn::position_rules(desc, nq, nk);
                  for (int64_t i = 0; i < nq; i++) {
                    const attn::Band band = attn::band_of(rules, i);
                    wrong += band.begin < 0 || band.begin > band.end || band.end > nk ||
                             band.sink_end < 0 || band.sink_end > nk;
                    for (int64_t j = 0; j < nk; j++) {
                      wrong += band.contains(j) != allowed(rules, i, j);
                      checked++;
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(checked > 100000);
}

TEST_CASE("segments match if equal and not negative") {
  CHECK(attn::same_segment(3, 3));
  CHECK(attn::same_segment(0, 0));
  CHECK_FALSE(attn::same_segment(3, 4));
  CHECK_FALSE(attn::same_segment(-1, -1));
}

TEST_CASE("a tail mask covers the last keys alone") {
  const uint8_t none[1] = {0}, second[1] = {2};
  CHECK(attn::tail_bit(none, 1, 3, 10, 6));
  CHECK_FALSE(attn::tail_bit(none, 1, 3, 10, 7));
  CHECK(attn::tail_bit(second, 1, 3, 10, 8));
  // More queries than keys: key 0 is not bit 0.
  CHECK(attn::tail_bit(second, 1, 3, 2, 0));
  CHECK_FALSE(attn::tail_bit(second, 1, 3, 2, 1));
}
