// A small, mostly valid sdpa case out of a fuzzer's bytes.
#pragma once

#include "reader.hpp"
#include "sdpa_case.hpp"

namespace fuzz {

check::SdpaCase any_case(Reader &in);

}  // namespace fuzz
