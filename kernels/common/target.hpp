// ATTN_HD marks functions that every backend's compiler may place on the host and on the device;
// ATTN_NOINLINE those that a device calls from many places, each of which would get a copy.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define ATTN_HD __host__ __device__
#define ATTN_NOINLINE __noinline__
#else
#define ATTN_HD
#define ATTN_NOINLINE
#endif
