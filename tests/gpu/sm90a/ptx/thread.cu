// The wrappers of kernels/cuda/common/ptx.cuh and the scalar ones of tma.cuh, for
// tests/gpu/test_ptx.py.
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tma.cuh"

namespace attn::cuda {

inline constexpr int kThreads = ATTN_THREADS;

__device__ inline int index() {
  return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
}

// --- a number each -------------------------------------------------------------------------------

#define ATTN_MAP(name, function)                                     \
  extern "C" __global__ void name(const float *x, float *y, int n) { \
    if (index() < n) y[index()] = function(x[index()]);              \
  }
ATTN_MAP(map_exp2, exp2_fast)
ATTN_MAP(map_log2, log2_fast)
ATTN_MAP(map_reciprocal, reciprocal_fast)

#define ATTN_PACK(name, Element)                                                             \
  extern "C" __global__ void name(const float *low, const float *high, uint32_t *y, int n) { \
    if (index() < n) y[index()] = Element::pack(low[index()], high[index()]);                \
  }
ATTN_PACK(pack_fp16, Fp16)
ATTN_PACK(pack_bf16, Bf16)

#define ATTN_UNPACK(name, Element)                                      \
  extern "C" __global__ void name(const uint32_t *x, float *y, int n) { \
    if (index() < n) y[index()] = Element::unpack(x[index()]);          \
  }
ATTN_UNPACK(unpack_fp16, Fp16)
ATTN_UNPACK(unpack_bf16, Bf16)

// --- shared memory -------------------------------------------------------------------------------

// A thread's 16 bytes, written as 16 or four times 4, and read by another.
extern "C" __global__ void shared_memory(const uint4 *in, uint4 *out) {
  __shared__ __align__(16) uint32_t words[kThreads * 4];
  const int t = static_cast<int>(threadIdx.x);
  const uint4 value = in[t];
  if (t % 2 == 0) {
    store_shared_128(shared_address(words + t * 4), value);
  } else {
    store_shared_32(shared_address(words + t * 4), value.x);
    store_shared_32(shared_address(words + t * 4 + 1), value.y);
    store_shared_32(shared_address(words + t * 4 + 2), value.z);
    store_shared_32(shared_address(words + t * 4 + 3), value.w);
  }
  __syncthreads();
  const uint32_t from = shared_address(words + (kThreads - 1 - t) * 4);
  out[t] = make_uint4(load_shared_32(from), load_shared_32(from + 4), load_shared_32(from + 8),
                      load_shared_32(from + 12));
}

// Two groups of asynchronous copies: out[0] once at most one is in flight, out[1] at the end.
// `bytes`: of a thread's 16 and 4.
extern "C" __global__ void copies(const uint4 *in, uint4 *out, int bytes_16, int bytes_4) {
  __shared__ uint4 tiles[2][kThreads];
  const int t = static_cast<int>(threadIdx.x);
  tiles[0][t] = tiles[1][t] = make_uint4(~0u, ~0u, ~0u, ~0u);
  __syncthreads();
  copy_async_16(shared_address(&tiles[0][t]), in + t, bytes_16);
  copy_async_commit();
  for (int i = 0; i < 4; i++) {
    copy_async_4(shared_address(&tiles[1][t]) + i * 4,
                 reinterpret_cast<const uint32_t *>(in + t) + i, bytes_4);
  }
  copy_async_commit();
  copy_async_wait<1>();
  out[t] = tiles[0][t];
  copy_async_wait<0>();
  out[kThreads + t] = tiles[1][t];
}

// --- matrices of a warp --------------------------------------------------------------------------

// Four 8 x 8 matrices; out[transposed][lane][matrix], and behind it their rows, stored anew.
extern "C" __global__ void matrices(const uint4 *rows, uint32_t *out) {
  __shared__ uint4 tile[32], stored[32];
  const int lane = static_cast<int>(threadIdx.x);
  tile[lane] = rows[lane];
  __syncwarp();
  uint32_t plain[4], transposed[4];
  load_matrix_x4(plain, shared_address(tile + lane));
  load_matrix_x4_transposed(transposed, shared_address(tile + lane));
  for (int i = 0; i < 4; i++) {
    out[lane * 4 + i] = plain[i];
    out[128 + lane * 4 + i] = transposed[i];
  }
  store_matrix_x4(shared_address(stored + lane), plain);
  __syncwarp();
  const uint4 row = load_shared_128(shared_address(stored + lane));
  const uint32_t words[4] = {row.x, row.y, row.z, row.w};
  for (int i = 0; i < 4; i++) out[256 + lane * 4 + i] = words[i];
}

// D[16 x 8] += A[16 x k] B[k x 8], of matrices row by row.
__device__ inline void load_sums(float (&sums)[4], const float *d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  for (int i = 0; i < 4; i++) sums[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
}
__device__ inline void store_sums(const float (&sums)[4], float *d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}
template <class Element>
__device__ inline void multiply(const uint16_t *a, const uint16_t *b, float *d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  uint32_t left[4], right[2];
  for (int i = 0; i < 4; i++) {
    left[i] = *reinterpret_cast<const uint32_t *>(a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8);
  }
  for (int i = 0; i < 2; i++) {
    const uint16_t *at = b + (2 * t + i * 8) * 8 + g;
    right[i] = at[0] | static_cast<uint32_t>(at[8]) << 16;
  }
  float sums[4];
  load_sums(sums, d);
  mma_16816<Element>(sums, left, right[0], right[1]);
  store_sums(sums, d);
}
extern "C" __global__ void mma_fp16(const uint16_t *a, const uint16_t *b, float *d) {
  multiply<Fp16>(a, b, d);
}
extern "C" __global__ void mma_bf16(const uint16_t *a, const uint16_t *b, float *d) {
  multiply<Bf16>(a, b, d);
}
extern "C" __global__ void mma_tf32(const uint32_t *a, const uint32_t *b, float *d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  uint32_t left[4];
  for (int i = 0; i < 4; i++) left[i] = a[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
  float sums[4];
  load_sums(sums, d);
  mma_1688_tf32(sums, left, b[t * 8 + g], b[(t + 4) * 8 + g]);
  store_sums(sums, d);
}

}  // namespace attn::cuda
