#include "harness.hpp"
namespace check { void run_refusals(Session &) {} }
