#include "backend/gpu/block_map.hpp"

#include <algorithm>

#include "core/ceil_div.hpp"
#include "core/saturating.hpp"

namespace attn::gpu {
namespace {

// Extents of a call's map.
struct Extents {
  Extents(const sdpa::Problem &problem, const sdpa::Call &call)
      : shared_batch(call.args.block_counts.shape[0] == 1 && call.args.block_indices.shape[0] == 1),
        shared_heads(call.args.block_counts.shape[1] == 1 && call.args.block_indices.shape[1] == 1),
        batch(shared_batch ? std::min<int64_t>(call.batch, 1) : call.batch),
        heads(shared_heads ? 1 : problem.d.num_q_heads),
        rows(ceil_div(call.seqlen_q, problem.d.block_size_q)),
        key_blocks(ceil_div(call.seqlen_k, problem.d.block_size_k)),
        words(ceil_div(key_blocks, 32)) {}

  bool shared_batch, shared_heads;
  int64_t batch, heads, rows, key_blocks, words;
};

}  // namespace

size_t block_map_bytes(const sdpa::Problem &problem) {
  if (!problem.has(ATTN_SDPA_BLOCK_SPARSE)) return 0;
  const attn_sdpa_desc &d = problem.d;
  const int64_t words = ceil_div(ceil_div(d.max_seqlen_k, d.block_size_k), 32);
  return static_cast<size_t>(
      saturating_product({d.max_batch, d.num_q_heads, ceil_div(d.max_seqlen_q, d.block_size_q),
                          words, int64_t{sizeof(uint32_t)}}));
}

BlockMap block_map(const sdpa::Problem &problem, const sdpa::Call &call, void *memory) {
  const Extents e(problem, call);
  return {static_cast<uint32_t *>(memory), e.shared_batch ? 0 : e.heads * e.rows * e.words,
          e.shared_heads ? 0 : e.rows * e.words, e.words};
}

int32_t write_block_map(const GpuDevice &device, const Kernel &kernel, const sdpa::Problem &problem,
                        const sdpa::Call &call, const BlockMap &map, attn_stream stream,
                        const ErrorSink &error) {
  const Extents e(problem, call);
  BlockMapParams p = {};
  p.lists = block_lists(call.args.block_counts, call.args.block_indices);
  p.bits = map.bits;
  p.batch = e.batch;
  p.max_blocks = call.args.block_indices.shape[3];
  p.heads = static_cast<int32_t>(e.heads);
  p.rows = static_cast<int32_t>(e.rows);
  p.key_blocks = static_cast<int32_t>(e.key_blocks);
  p.words = static_cast<int32_t>(e.words);
  const int64_t maps = e.words == 0 ? 0 : e.batch * e.heads * e.rows;
  const LaunchShape shape = {
      .grid = {static_cast<uint32_t>(std::min<int64_t>(maps, INT32_MAX)), 1, 1},
      .threads = kBlockMapThreads,
      .dynamic_smem = 0};
  return device.launch(kernel, shape, &p, stream, error);
}

}  // namespace attn::gpu
