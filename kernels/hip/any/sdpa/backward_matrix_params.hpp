// What the backward kernels on matrix instructions are given.
#pragma once

#include "kernels/common/gpu/sdpa_backward_params.hpp"

namespace attn::hip {

struct SdpaBackwardMatrixParams {
  gpu::SdpaBackwardParams call;
  PositionRulesOf<int32_t> rules;  // but for the lengths
  int32_t tiles;                   // of 16 rows of the gradient: those of the longest sequence
};

}  // namespace attn::hip
