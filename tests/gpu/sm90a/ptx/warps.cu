// The wrappers of kernels/cuda/common/tma.cuh, for tests/gpu/test_ptx.py.
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tma.cuh"

namespace attn::cuda {

inline constexpr int kThreads = ATTN_THREADS;
inline constexpr int kWarps = kThreads / 32, kStages = 2;

// A ring: the first thread passes numbers on to the other warps, through barriers alone.
extern "C" __global__ void ring(uint32_t *sums, int rounds) {
  __shared__ uint64_t barriers[2 * kStages];
  __shared__ volatile uint32_t values[kStages];
  const auto full = [&](int stage) { return shared_address(barriers + stage); };
  const auto empty = [&](int stage) { return shared_address(barriers + kStages + stage); };
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; stage++) {
      barrier_init(full(stage), 1);
      barrier_init(empty(stage), kWarps - 1);
    }
    barrier_init_fence();
  }
  __syncthreads();
  uint32_t sum = 0;
  if (threadIdx.x == 0) {
    for (int i = 0; i < rounds; i++) {
      // The first wait for a new barrier's phase 1 returns at once.
      barrier_wait(empty(i % kStages), (i / kStages % 2) ^ 1);
      values[i % kStages] = i * i + 1;
      barrier_arrive(full(i % kStages));
    }
  } else if (threadIdx.x >= 32) {
    for (int i = 0; i < rounds; i++) {
      barrier_wait(full(i % kStages), i / kStages % 2);
      sum = sum * 3 + values[i % kStages];
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(empty(i % kStages));
    }
  }
  sums[threadIdx.x] = sum;
}

// Boxes one after the other, on one barrier, as they lie in shared memory. `rank`: the tensor's.
__device__ inline void load_boxes(const TensorMap &map, const int32_t *places, int count,
                                  uint4 *out, int bytes, int rank) {
  extern __shared__ __align__(1024) uint4 tile[];
  __shared__ uint64_t barrier;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    prefetch_tensor_map(map);
    barrier_init(shared_address(&barrier), 1);
    barrier_init_fence();
  }
  for (int round = 0; round < count; round++) {
    for (int i = t; i < bytes / 16; i += kThreads) {
      store_shared_128(shared_address(tile + i), make_uint4(~0u, ~0u, ~0u, ~0u));
    }
    async_fence();
    __syncthreads();
    if (t < 32 && elect_one()) {
      const int32_t *at = places + round * rank;
      barrier_expect(shared_address(&barrier), bytes);
      if (rank == 5) {
        load_box(shared_address(tile), map, shared_address(&barrier), at[0], at[1], at[2], at[3],
                 at[4]);
      } else {
        load_box(shared_address(tile), map, shared_address(&barrier), at[0], at[1], at[2], at[3]);
      }
    }
    barrier_wait(shared_address(&barrier), round % 2);
    for (int i = t; i < bytes / 16; i += kThreads) out[round * (bytes / 16) + i] = tile[i];
    __syncthreads();
  }
}
extern "C" __global__ void boxes(const __grid_constant__ TensorMap map, const int32_t *places,
                                 int count, uint4 *out, int bytes, int rank) {
  load_boxes(map, places, count, out, bytes, rank);
}

// Warpgroups take turns through named barriers, and write down whose turn it is.
extern "C" __global__ void turns(uint32_t *order, int rounds) {
  __shared__ volatile uint32_t next;
  const int group = static_cast<int>(threadIdx.x) / 128, groups = kThreads / 128;
  if (threadIdx.x == 0) next = 0;
  __syncthreads();
  if (group == groups - 1) named_arrive(1, 256);
  for (int round = 0; round < rounds; round++) {
    named_wait(1 + group, 256);
    if (threadIdx.x % 128 == 0) {
      const uint32_t place = next;
      order[place] = static_cast<uint32_t>(group);
      next = place + 1;
    }
    // Nobody is left waiting at the end.
    if (group < groups - 1 || round < rounds - 1) {
      named_arrive(1 + (group + 1) % groups, 256);
    }
  }
}

// One warpgroup gives registers, the others take them and need them: more values at a time than a
// thread was launched with.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    registers(const uint32_t *in, uint32_t *out, int rounds) {
  constexpr int kValues = 200;
  const int t = static_cast<int>(threadIdx.x);
  if (t < 128) {
    give_registers<24>();
    out[t] = in[t] + 1;
  } else {
    take_registers<240>();
    uint32_t values[kValues];
#pragma unroll
    for (int i = 0; i < kValues; i++) values[i] = in[i * kThreads + t];
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
      const uint32_t first = values[0];
#pragma unroll
      for (int i = 0; i < kValues; i++) {
        values[i] = values[i] * 3 + (i + 1 < kValues ? values[i + 1] : first);
      }
    }
#pragma unroll
    for (int i = 0; i < kValues; i++) out[i * kThreads + t] = values[i];
  }
}

}  // namespace attn::cuda
