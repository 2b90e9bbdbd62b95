#include "allocations.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define CHECK_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CHECK_SANITIZED 1
#endif

#ifdef CHECK_SANITIZED

namespace check {
bool can_count_allocations() {
  return false;
}
uint64_t allocations() {
  return 0;
}
}  // namespace check

#else

namespace {
std::atomic<uint64_t> count;
}

namespace check {
bool can_count_allocations() {
  return true;
}
uint64_t allocations() {
  return count.load();
}
}  // namespace check

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t bytes) {
  count++;
  return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
  count++;
  return __libc_calloc(n, bytes);
}
void *realloc(void *memory, size_t bytes) {
  count++;
  return __libc_realloc(memory, bytes);
}
void *memalign(size_t alignment, size_t bytes) {
  count++;
  return __libc_memalign(alignment, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  count++;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  count++;
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void *memory) {
  __libc_free(memory);
}
}

#endif
