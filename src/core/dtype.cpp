#include "core/dtype.hpp"

#include <iterator>

namespace attn {
namespace {

// By value of attn_dtype.
constexpr DtypeInfo kDtypes[] = {
    {nullptr, 0},    {"fp32", 32},        {"fp16", 16},    {"bf16", 16},  {"fp8_e4m3fn", 8},
    {"fp8_e5m2", 8}, {"fp8_e4m3fnuz", 8}, {"fp8_e8m0", 8}, {"int8", 8},   {"int4", 4},
    {"fp4_e2m1", 4}, {"uint8", 8},        {"int32", 32},   {"int64", 64},
};
static_assert(std::size(kDtypes) == ATTN_DTYPE_INT64 + 1);

}  // namespace

const DtypeInfo *dtype_info(int32_t dtype) {
  if (dtype <= 0 || dtype >= static_cast<int32_t>(std::size(kDtypes))) return nullptr;
  return &kDtypes[dtype];
}

}  // namespace attn
