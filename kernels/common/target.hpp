// ATTN_HD marks functions that every backend's compiler may place on the host and on the device;
// ATTN_NOINLINE those that a device calls from many places, each of which would get a copy.
#pragma once

#if defined(__HIP__)  // compiled without ROCm's headers, which would define these
#define __host__ __attribute__((host))
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#endif

#if defined(__CUDACC__) || defined(__HIP__)
#define ATTN_HD __host__ __device__
#if defined(ATTN_INLINE)  // a kernel without calls keeps its state in registers
#define ATTN_NOINLINE
#else
#define ATTN_NOINLINE __noinline__
#endif
#else
#define ATTN_HD
#define ATTN_NOINLINE
#endif
