// The CUDA backend's implementations of merge.
#include "backend/cuda/lists.hpp"

namespace attn::cuda {

merge::List merge_list() {
  return {};
}

}  // namespace attn::cuda
