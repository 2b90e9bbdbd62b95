// Kernels that do what the interpreter must do right, and kernels that do what it must catch.
using u32 = unsigned;

#define KERNEL \
  extern "C" __attribute__((global)) void __attribute__((amdgpu_flat_work_group_size(1, 256)))
#define SHARED __attribute__((shared))

__attribute__((device)) inline u32 thread() {
  return __builtin_amdgcn_workitem_id_x();
}
__attribute__((device)) inline u32 block() {
  return __builtin_amdgcn_workgroup_id_x();
}
__attribute__((device)) inline void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

struct Params {
  u32 *out;
  const u32 *in;
  u32 n;
};

// Sums of each block's 256 elements, by a tree through LDS.
template <bool kBarrier>
__attribute__((device)) inline void block_sum(Params p) {
  SHARED static u32 sums[256];
  const u32 t = thread();
  sums[t] = p.in[block() * 256 + t];
  for (u32 step = 128; step > 0; step /= 2) {
    if (kBarrier) {
      barrier();
    } else {
      __builtin_amdgcn_wave_barrier();
    }
    if (t < step) sums[t] += sums[t + step];
  }
  if (t == 0) p.out[block()] = sums[0];
}
KERNEL good_sum(Params p) {
  block_sum<true>(p);
}
KERNEL lacks_barrier(Params p) {
  block_sum<false>(p);
}

// Element n of the reversed input: the index is right, or off by one.
KERNEL good_reverse(Params p) {
  const u32 n = block() * 256 + thread();
  if (n < p.n) p.out[n] = p.in[p.n - 1 - n];
}
KERNEL wrong_index(Params p) {
  const u32 n = block() * 256 + thread();
  if (n < p.n) p.out[n] = p.in[p.n - n];
}

// Private memory that does not fit registers, indexed by what is not known beforehand.
KERNEL good_private(Params p) {
  u32 table[64];
  const u32 t = thread();
  for (u32 n = 0; n < 64; n++) table[(n * 5 + p.n) & 63] = p.in[n] * (t + 1);
  p.out[block() * 256 + t] = table[p.in[t & 63] & 63];
}

// Every lane adds to one counter, and half of them to another.
KERNEL good_atomic(Params p) {
  __hip_atomic_fetch_add(&p.out[0], 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
  if (thread() & 1) {
    __hip_atomic_fetch_add(&p.out[1], thread(), __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
  }
}

// Reverses each block's elements through global memory: a wave reads what another has written.
template <bool kBarrier>
__attribute__((device)) inline void exchange(Params p) {
  const u32 first = block() * 256, t = thread();
  p.out[first + t] = p.in[first + t];
  if (kBarrier) barrier();
  const u32 x = p.out[first + 255 - t];
  if (kBarrier) barrier();
  p.out[first + t] = x;
}
KERNEL good_exchange(Params p) {
  exchange<true>(p);
}
KERNEL lacks_barriers_in_memory(Params p) {
  exchange<false>(p);
}

// All blocks write the same element, or read what another writes.
KERNEL same_element(Params p) {
  if (thread() == 0) p.out[0] = p.in[block()];
}
KERNEL reads_another_block(Params p) {
  const u32 n = block() * 256 + thread();
  p.out[n] = p.out[(n + 256) % p.n] + p.in[n];
}

// Reads LDS that nobody has written: the result is not what was there by chance before.
KERNEL unwritten(Params p) {
  SHARED static volatile u32 words[256];
  p.out[block() * 256 + thread()] = words[thread()];
}
