// A tensor as the copy engine of sm_90 sees it: the driver's CUtensorMap.
#pragma once

#include <stdint.h>

namespace attn::cuda {

struct alignas(128) TensorMap {
  uint64_t words[16];
};

}  // namespace attn::cuda
