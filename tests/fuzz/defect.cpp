#include <cstdio>
#include <cstdlib>

#include "reader.hpp"

void fuzz::defect(const char *what, const char *detail) {
  std::fprintf(stderr, "defect: %s %s\n", what, detail);
  std::abort();
}
