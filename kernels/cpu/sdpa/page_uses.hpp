// Which sequences use which pages: for gradients of paged keys, where a page that is used more than
// once gets the sum.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/ceil_div.hpp"
#include "kernels/common/sequence.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

// A use of a page by a sequence: its keys `ordinal * page_size` and following.
struct PageUse {
  int32_t page, sequence, ordinal;

  bool operator<(const PageUse &other) const {
    if (page != other.page) return page < other.page;
    if (sequence != other.sequence) return sequence < other.sequence;
    return ordinal < other.ordinal;
  }
};

// The most that a call within the limits can have; 0 if keys are not paged.
inline int64_t most_page_uses(const sdpa::Problem &p) {
  return p.paged() ? p.d.max_batch * ceil_div(p.d.max_seqlen_k, p.d.page_size) : 0;
}

// Writes all uses, sorted by page, and the number of the first use of each page that is used, and
// their end. Returns how many pages are used.
inline int64_t group_pages(const SequenceTable &sequences, int64_t batch, PageUse *uses,
                           int64_t *groups) {
  int64_t count = 0;
  for (int64_t b = 0; b < batch; b++) {
    const Sequence s = sequences.sequence(b);
    const int64_t pages = ceil_div(s.seqlen_k, s.page_size);
    for (int64_t n = 0; n < pages; n++) {
      const int32_t page = s.pages[n * s.page_stride];
      if (page < 0) continue;
      uses[count++] = {page, static_cast<int32_t>(b), static_cast<int32_t>(n)};
    }
  }
  std::sort(uses, uses + count);
  int64_t used = 0;
  for (int64_t n = 0; n < count; n++) {
    if (n == 0 || uses[n].page != uses[n - 1].page) groups[used++] = n;
  }
  groups[used] = count;
  return used;
}

}  // namespace attn::cpu
