// Counts heap allocations made anywhere in the process: the program's own malloc family stands in
// front of libc's, for the library too, since that binds to the executable's symbols first.
#pragma once

#include <cstdint>

namespace check {

// False under sanitizers, which need these symbols for themselves.
bool can_count_allocations();
// Calls of malloc, calloc, realloc, aligned_alloc and the like (operator new ends there) so far.
uint64_t allocations();
// From now on, only what the code of this library itself asks for: a driver's launch may allocate,
// which is not libattn's to change.
void count_only_the_library();

}  // namespace check
