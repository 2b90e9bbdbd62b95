/* The part of <string.h> that kernels use, for device code. */
#pragma once

#define memcpy __builtin_memcpy
#define memset __builtin_memset
