#include "backend/cpu/contents.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <initializer_list>

#include "core/ceil_div.hpp"
#include "kernels/common/sequence.hpp"

namespace attn::cpu {
namespace {

using sdpa::Call;
using sdpa::Problem;

class Contents {
 public:
  Contents(const Problem &problem, const Call &call, const ErrorSink &error)
      : p_(problem),
        d_(problem.d),
        call_(call),
        args_(call.args),
        error_(error),
        table_(make_sequence_table(d_, args_, call.seqlen_q, call.seqlen_k)) {}

  int32_t check() const {
    int32_t status = offsets("cu_seqlens_q", table_.cu_seqlens_q, call_.total_q, "total_q",
                             d_.max_seqlen_q, "max_seqlen_q");
    if (status == ATTN_OK) {
      const int64_t total_k = p_.ragged_k() ? args_.k.shape[0] : 0;
      status = offsets("cu_seqlens_k", table_.cu_seqlens_k, total_k, "total_k", d_.max_seqlen_k,
                       "max_seqlen_k");
    }
    if (status == ATTN_OK) status = csr();
    if (status == ATTN_OK) status = used();
    if (status == ATTN_OK) status = pages();
    if (status == ATTN_OK && p_.has(ATTN_SDPA_BLOCK_SPARSE)) status = blocks();
    return status;
  }

 private:
  // Entry [i][j].. of an array breaks `rule`, which `bound` belongs to.
  int32_t bad(const char *array, std::initializer_list<int64_t> index, int64_t value,
              const char *rule, int64_t bound) const {
    char field[128];  // the sink shortens a longer one
    int length = std::snprintf(field, sizeof field, "args.%s", array);
    for (const int64_t i : index) {
      length += std::snprintf(field + length, sizeof field - static_cast<size_t>(length),
                              "[%" PRId64 "]", i);
    }
    return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                       "%s is %" PRId64 "; it must be %s %" PRId64, field, value, rule, bound);
  }

  // cu_seqlens: from 0, never falling, within the tensor, no sequence longer than the limit.
  int32_t offsets(const char *name, const int32_t *cu, int64_t total, const char *total_name,
                  int64_t longest, const char *limit_name) const {
    if (cu == nullptr || call_.batch == 0) return ATTN_OK;
    if (cu[0] != 0) return bad(name, {0}, cu[0], "exactly", 0);
    for (int64_t b = 0; b < call_.batch; b++) {
      const int64_t begin = cu[b], end = cu[b + 1];
      if (end < begin) {
        return bad(name, {b + 1}, end, "at least the entry before it,", begin);
      }
      char rule[96];
      if (end > total) {
        std::snprintf(rule, sizeof rule, "at most the tensor's tokens, %s =", total_name);
        return bad(name, {b + 1}, end, rule, total);
      }
      if (end - begin > longest) {
        std::snprintf(rule, sizeof rule, "at most the entry before it + desc.%s =", limit_name);
        return bad(name, {b + 1}, end, rule, begin + longest);
      }
    }
    return ATTN_OK;
  }

  int32_t csr() const {
    if (table_.page_indptr == nullptr || call_.batch == 0) return ATTN_OK;
    const int32_t *indptr = table_.page_indptr;
    if (indptr[0] < 0) return bad("kv_page_indptr", {0}, indptr[0], "at least", 0);
    for (int64_t b = 0; b < call_.batch; b++) {
      if (indptr[b + 1] < indptr[b]) {
        return bad("kv_page_indptr", {b + 1}, indptr[b + 1], "at least the entry before it,",
                   indptr[b]);
      }
      const int64_t count = static_cast<int64_t>(indptr[b + 1]) - indptr[b];
      if (count == 0) continue;
      const int64_t most = ceil_div(d_.max_seqlen_k, d_.page_size);
      if (count > most) {
        return bad("kv_page_indptr", {b + 1}, indptr[b + 1],
                   "at most the entry before it + the pages of desc.max_seqlen_k keys =",
                   indptr[b] + most);
      }
      const int64_t last = table_.last_page_len[b];
      if (last < 1) return bad("kv_last_page_len", {b}, last, "at least", 1);
      if (last > d_.page_size) {
        return bad("kv_last_page_len", {b}, last, "at most desc.page_size,", d_.page_size);
      }
      const int64_t room = d_.max_seqlen_k - (count - 1) * d_.page_size;
      if (last > room) {
        return bad("kv_last_page_len", {b}, last,
                   "at most what desc.max_seqlen_k leaves to the last page,", room);
      }
    }
    return ATTN_OK;
  }

  int32_t used() const {
    for (int64_t b = 0; b < call_.batch; b++) {
      if (table_.seqused_q != nullptr) {
        const int64_t value = table_.seqused_q[b];
        const int64_t most = table_.sequence(b).rows_q;
        if (value < 0) return bad("seqused_q", {b}, value, "at least", 0);
        if (value > most) {
          return bad("seqused_q", {b}, value, "at most the sequence's queries,", most);
        }
      }
      if (table_.seqused_k != nullptr) {
        const int64_t value = table_.seqused_k[b];
        if (value < 0) return bad("seqused_k", {b}, value, "at least", 0);
        if (p_.paged()) {
          const int64_t room = args_.block_table.shape[1] * d_.page_size;
          if (value > d_.max_seqlen_k) {
            return bad("seqused_k", {b}, value, "at most desc.max_seqlen_k,", d_.max_seqlen_k);
          }
          if (value > room) {
            return bad("seqused_k", {b}, value, "at most what a row of block_table has room for,",
                       room);
          }
        } else {
          const int64_t most = p_.ragged_k() ? static_cast<int64_t>(table_.cu_seqlens_k[b + 1]) -
                                                   table_.cu_seqlens_k[b]
                                             : call_.seqlen_k;
          if (value > most) {
            return bad("seqused_k", {b}, value, "at most the sequence's keys,", most);
          }
        }
      }
    }
    return ATTN_OK;
  }

  // The pages that hold a key in use must exist; a negative index skips a page.
  int32_t pages() const {
    if (!p_.paged()) return ATTN_OK;
    const int64_t num_pages = args_.k.shape[0];
    for (int64_t b = 0; b < call_.batch; b++) {
      const Sequence s = table_.sequence(b);
      const int64_t count = ceil_div(s.seqlen_k, d_.page_size);
      for (int64_t n = 0; n < count; n++) {
        const int64_t page = s.pages[n * s.page_stride];
        if (page < num_pages) continue;
        constexpr const char *kRule = "below the number of pages (negative skips a page),";
        return d_.kv_layout == ATTN_LAYOUT_PAGED_CSR
                   ? bad("kv_page_indices", {table_.page_indptr[b] + n}, page, kRule, num_pages)
                   : bad("block_table", {b, n}, page, kRule, num_pages);
      }
    }
    return ATTN_OK;
  }

  // The lists of query blocks that hold a query in use.
  int32_t blocks() const {
    const attn_tensor &counts = args_.block_counts, &indices = args_.block_indices;
    const int64_t most = indices.shape[3];
    const int64_t key_blocks = ceil_div(call_.seqlen_k, d_.block_size_k);
    for (int64_t b = 0; b < call_.batch; b++) {
      const Sequence s = table_.sequence(b);
      const int64_t rows = ceil_div(s.seqlen_q, d_.block_size_q);
      for (int64_t h = 0; h < counts.shape[1] || h < indices.shape[1]; h++) {
        for (int64_t r = 0; r < rows; r++) {
          const int64_t cb = counts.shape[0] == 1 ? 0 : b, ch = counts.shape[1] == 1 ? 0 : h;
          const int64_t count = static_cast<const int32_t *>(
              counts.data)[cb * counts.stride[0] + ch * counts.stride[1] + r * counts.stride[2]];
          if (count < 0 || count > most) {
            return bad("block_counts", {cb, ch, r}, count, "from 0 to block_indices.shape[3],",
                       most);
          }
          const int64_t ib = indices.shape[0] == 1 ? 0 : b, ih = indices.shape[1] == 1 ? 0 : h;
          const int32_t *list = static_cast<const int32_t *>(indices.data) +
                                ib * indices.stride[0] + ih * indices.stride[1] +
                                r * indices.stride[2];
          for (int64_t n = 0; n < count; n++) {
            const int64_t block = list[n * indices.stride[3]];
            if (block < key_blocks) continue;
            return bad("block_indices", {ib, ih, r, n}, block,
                       "below the number of key blocks (negative skips an entry),", key_blocks);
          }
        }
      }
    }
    return ATTN_OK;
  }

  const Problem &p_;
  const attn_sdpa_desc &d_;
  const Call &call_;
  const attn_sdpa_args &args_;
  const ErrorSink &error_;
  SequenceTable table_;
};

}  // namespace

int32_t check_contents(const Problem &problem, const Call &call, const ErrorSink &error) {
  return Contents(problem, call, error).check();
}

}  // namespace attn::cpu
