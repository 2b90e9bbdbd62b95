#include "backend/gpu/merge.hpp"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace attn::gpu {

namespace {

using merge::Call;
using merge::Problem;

constexpr int32_t fp32 = ATTN_DTYPE_FP32;

constexpr int32_t kThreads = 256;
// Parts that one team takes; more are shared out, so that few pairs with many parts fill the chip.
constexpr int64_t kPartsOfTeam = 8;
static_assert(sizeof(MergeParams) <= 4096);

int64_t bytes_of(int32_t dtype) {
  return dtype == fp32 ? 4 : 2;
}

// Whether `width` elements of every row can be read or written at once, 16 bytes at most.
bool vectors(const void *data, int32_t dtype, int64_t width, std::initializer_list<int64_t> strides,
             int64_t dim_stride) {
  const int64_t bytes = std::min<int64_t>(16, width * bytes_of(dtype));
  if (dim_stride != 1 || reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) != 0) {
    return false;
  }
  return std::all_of(strides.begin(), strides.end(),
                     [&](int64_t stride) { return stride * bytes_of(dtype) % bytes == 0; });
}

// How a pair's elements and parts are shared out among the threads of a block.
struct Shape {
  Shape(int32_t element, int32_t head_dim, int64_t parts, bool vector)
      : width(vector ? static_cast<int32_t>(16 / bytes_of(element)) : 1), lanes(1), teams(1) {
    while (lanes < 32 && lanes * width < head_dim) lanes *= 2;
    while (teams * lanes < kThreads && teams * kPartsOfTeam < parts) teams *= 2;
  }
  int32_t items() const { return kThreads / (lanes * teams); }
  uint32_t smem() const {
    return teams == 1 ? 0 : static_cast<uint32_t>(kThreads * width) * sizeof(float);
  }

  int32_t width, lanes, teams;
};

int32_t launch_merge(const GpuDevice &device, MergeKernelOf kernel_of, int32_t element,
                     MergeParams &p, attn_stream stream, const ErrorSink &error) {
  const int64_t width = 16 / bytes_of(element);
  p.vector =
      p.head_dim % width == 0 &&
      vectors(p.partial, element, width, {p.partial_row, p.partial_part, p.partial_head},
              p.partial_dim) &&
      (p.other == nullptr ||
       vectors(p.other, element, width, {p.other_row, p.other_head}, p.other_dim)) &&
      vectors(p.out.data, p.out.dtype, width, {p.out.outer, p.out.inner, p.out.head}, p.out.dim);
  const Shape shape(element, p.head_dim, p.parts, p.vector != 0);
  p.lanes = shape.lanes;
  p.teams = shape.teams;
  p.items = shape.items();
  const int64_t blocks = (p.rows * p.heads + p.items - 1) / p.items;
  const LaunchShape launch = {
      .grid = {static_cast<uint32_t>(std::min<int64_t>(blocks, INT32_MAX)), 1, 1},
      .threads = kThreads,
      .dynamic_smem = shape.smem()};
  const bool plain = p.vector != 0 && p.preload != 0 && p.teams == 1 &&
                     p.head_dim <= shape.lanes * shape.width && p.gate.data == nullptr &&
                     p.partial_max == nullptr && p.inner == p.rows;
  return device.launch(kernel_of(element, plain ? MergePath::stream : MergePath::any), launch, &p,
                       stream, error);
}

}  // namespace

int32_t launch_merge(const Problem &problem, const Call &call, const GpuDevice &device,
                     MergeKernelOf kernel_of, attn_stream stream, const ErrorSink &error) {
  const attn_merge_args &a = call.args;
  MergeParams p = {};
  p.partial = a.partial.data;
  p.partial_row = a.partial.stride[0];
  p.partial_part = a.partial.stride[1];
  p.partial_head = a.partial.stride[2];
  p.partial_dim = problem.d.head_dim == 1 ? 1 : a.partial.stride[3];
  p.partial_lse = static_cast<const float *>(a.partial_lse.data);
  p.lse_row = a.partial_lse.stride[0];
  p.lse_part = a.partial_lse.stride[1];
  p.lse_head = a.partial_lse.stride[2];
  if (problem.has(ATTN_MERGE_OTHER)) {
    p.other = a.other.data;
    p.other_row = a.other.stride[0];
    p.other_head = a.other.stride[1];
    p.other_dim = a.other.stride[2];
    p.other_lse = static_cast<const float *>(a.other_lse.data);
    p.other_lse_row = a.other_lse.stride[0];
    p.other_lse_head = a.other_lse.stride[1];
  }
  if (problem.has(ATTN_MERGE_ROW_MASK)) {
    p.row_mask = static_cast<const uint8_t *>(a.row_mask.data);
    p.row_mask_row = a.row_mask.stride[0];
  }
  if (problem.has(ATTN_MERGE_SINK)) {
    p.sink = static_cast<const float *>(a.sink.data);
    p.sink_head = a.sink.stride[0];
  }
  p.out = token_view(a.out);
  // query_view takes [heads, rows].
  if (problem.has(ATTN_MERGE_RETURN_LSE)) {
    p.out_lse = {a.out_lse.data, a.out_lse.dtype, 0, a.out_lse.stride[1], a.out_lse.stride[0], 0};
  }
  p.rows = p.inner = call.rows;
  p.parts = call.parts;
  p.heads = problem.d.num_heads;
  p.head_dim = problem.d.head_dim;
  p.base2 = p.out_base2 = problem.d.lse_base == ATTN_LSE_BASE_2;
  p.lse_includes_sink = problem.has(ATTN_MERGE_LSE_INCLUDES_SINK);
  p.preload = 1;
  return launch_merge(device, kernel_of, problem.d.dtype, p, stream, error);
}

int32_t prepare_merge(const Problem &problem, const GpuDevice &device, MergeKernelOf kernel_of,
                      const ErrorSink &error) {
  int32_t status = device.load(kernel_of(problem.d.dtype, MergePath::stream), 0, error);
  if (status == ATTN_OK) {
    status = device.load(kernel_of(problem.d.dtype, MergePath::any), 0, error);
  }
  return status;
}

int32_t load_combine(const GpuDevice &device, MergeKernelOf kernel_of, const ErrorSink &error) {
  return device.load(kernel_of(fp32, MergePath::any), 0, error);
}

int32_t combine(const GpuDevice &device, MergeKernelOf kernel_of, const PartialResults &partial,
                const MergedResults &merged, attn_stream stream, const ErrorSink &error) {
  MergeParams p = {};
  p.partial = partial.out;
  p.partial_head = partial.head_dim;
  p.partial_row = p.partial_head * partial.heads;
  p.partial_part = p.partial_row * partial.places;
  p.partial_dim = 1;
  p.partial_lse = partial.lse;
  p.lse_head = 1;
  p.lse_row = partial.heads;
  p.lse_part = p.lse_row * partial.places;
  p.sink = merged.sink;
  p.sink_head = merged.sink_head;
  p.gate = merged.gate;
  p.out = merged.out;
  p.out_lse = merged.lse;
  p.partial_max = merged.row_max.data != nullptr ? partial.max : nullptr;
  p.row_max = merged.row_max;
  p.rows = partial.places;
  p.inner = merged.inner;
  p.parts = partial.parts;
  p.heads = partial.heads;
  p.head_dim = partial.head_dim;
  p.base2 = partial.base2;
  p.out_base2 = merged.base2;
  p.lse_includes_sink = merged.lse_includes_sink;
  p.padding = 1;
  return launch_merge(device, kernel_of, fp32, p, stream, error);
}

}  // namespace attn::gpu
