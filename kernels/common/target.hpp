// ATTN_HD marks functions that every backend's compiler may place on the host and on the device.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define ATTN_HD __host__ __device__
#else
#define ATTN_HD
#endif
