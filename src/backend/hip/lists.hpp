// HIP's tables of implementations, for the registry.
#pragma once

#include "ops/merge/problem.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::hip {

// `pass` is an attn_sdpa_pass.
sdpa::List sdpa_list(int32_t pass);
merge::List merge_list();

}  // namespace attn::hip
