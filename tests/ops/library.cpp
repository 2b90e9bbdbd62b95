#include "harness.hpp"
namespace check { void run_library(Session &) {} }
