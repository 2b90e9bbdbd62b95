// Runs the checks in a child process: a fault on a device ends its context for good, and a kernel
// that never ends cannot be stopped from inside. What a child was at is then a failure, and the
// next child goes on behind it.
#pragma once

#include <functional>

#include "harness.hpp"

namespace check {

// `run` does everything with the session it is given. Gives the program's exit code.
int supervise(const Options &options, const std::function<void(Session &)> &run);

}  // namespace check
