// Lists of visible key blocks to bits: bit n of word w of a row is set if block 32 w + n is listed.
// Entries come in any order, repeated or negative.
//
// A block of threads makes one row, a window of words at a time in shared memory. Lists of query
// blocks that no query uses may hold anything: counts are clamped, entries out of range skipped.
#include "kernels/cuda/sm80/sdpa/block_map_params.hpp"

namespace attn::cuda {
namespace {

constexpr int kWindowWords = 1024;

}  // namespace
}  // namespace attn::cuda

extern "C" __global__ void __launch_bounds__(ATTN_THREADS)
    ATTN_ENTRY(const __grid_constant__ attn::cuda::BlockMapParams p) {
  using namespace attn::cuda;
  __shared__ uint32_t window[kWindowWords];
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t maps = p.batch * p.heads * p.rows;
  for (int64_t map = blockIdx.x; map < maps; map += gridDim.x) {
    const int64_t row = map % p.rows, head = map / p.rows % p.heads, b = map / p.rows / p.heads;
    const int64_t listed = p.lists.count(b, head, row);
    const int64_t count = listed < p.max_blocks ? listed : p.max_blocks;
    const int32_t *list = p.lists.list(b, head, row);
    for (int first = 0; first < p.words; first += kWindowWords) {
      const int words = p.words - first < kWindowWords ? p.words - first : kWindowWords;
      __syncthreads();
      for (int w = thread; w < words; w += threads) window[w] = 0;
      __syncthreads();
      for (int64_t n = thread; n < count; n += threads) {
        const int32_t block = list[n * p.lists.indices_entry];
        if (block < 0 || block >= p.key_blocks) continue;
        const int word = block / 32 - first;
        if (word >= 0 && word < words) atomicOr(&window[word], 1u << (block & 31));
      }
      __syncthreads();
      for (int w = thread; w < words; w += threads) p.bits[map * p.words + first + w] = window[w];
    }
  }
}
