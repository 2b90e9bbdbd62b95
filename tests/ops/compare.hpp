// The tolerance rule, for every tensor that anything computes:
//
//   |got - truth| <= 2 E + slack
//
// truth: the oracle in fp64. E: the largest error over the tensor that the same naive computation
// can make if it is carried out in fp32 and rounded once to the storage dtype (and, for a quantised
// output, to its scale): its error in fp32, and half a step of the format at that element. (What
// rounding does to the naive result itself may be less: then, in a tensor with few large elements,
// E would be a matter of luck.) Where a matrix unit multiplies the weights by v, which it takes in
// the storage dtype, the naive computation rounds its weights to that once too, as those of
// FlashAttention's tests do. slack: per element, what another order of summation in fp32 may
// add: a few units in the last place of the largest terms, as sdpa_oracle.cpp derives. Where the
// problem allows TF32, the naive computation's q, k and v are rounded to that first. Nothing here
// is a tuned constant.
#pragma once

#include <string>

#include "tensor.hpp"

namespace check {

struct Comparison {
  bool ok = true;
  double worst = 0;    // the largest ratio of error to what is allowed
  std::string detail;  // of the worst element, if not ok
};

// `scale`: empty, or one per element of a quantised output. A NaN in `truth` means unspecified.
Comparison compare(const std::string &name, const HostTensor &got, const Array<double> &truth,
                   const Array<double> &slack, const Array<float> &naive,
                   const Array<double> &scale = {});

}  // namespace check
