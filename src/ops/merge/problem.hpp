// A merge problem as plain data. See ops/sdpa/problem.hpp for the pattern.
#pragma once

#include <cstdint>

#include "attn/merge.h"
#include "core/implementation.hpp"

namespace attn::merge {

struct Problem {
  attn_merge_desc d;

  bool has(uint64_t flag) const { return (d.flags & flag) != 0; }
};

struct Call {
  attn_merge_args args;
  int64_t rows;
  int64_t parts;
};

using Row = Implementation<Problem, Call>;
using List = ImplementationList<Problem, Call>;

List implementations(int32_t backend);

int32_t make_problem(const attn_merge_desc *desc, Problem &problem, const ErrorSink &error);
int32_t make_call(const Problem &problem, const attn_merge_args *args, Call &call,
                  const ErrorSink &error);

}  // namespace attn::merge
