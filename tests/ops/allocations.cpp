#include "allocations.hpp"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

#include "attn/attn.h"

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
void count_only_the_library() {}
}  // namespace check

#else

namespace {
std::atomic<uint64_t> calls;
// Code addresses of those whose calls count.
std::atomic<uintptr_t> first{0}, end{UINTPTR_MAX};

inline void count(const void *caller) {
  const auto at = reinterpret_cast<uintptr_t>(caller);
  if (at >= first.load(std::memory_order_relaxed) && at < end.load(std::memory_order_relaxed)) {
    calls++;
  }
}
}  // namespace

namespace check {
bool can_count_allocations() {
  return true;
}
uint64_t allocations() {
  return calls.load();
}
void count_only_the_library() {
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *) {
        const auto inside = reinterpret_cast<uintptr_t>(dlsym(RTLD_DEFAULT, "attn_version_string"));
        for (int i = 0; i < info->dlpi_phnum; i++) {
          const ElfW(Phdr) &segment = info->dlpi_phdr[i];
          const uintptr_t from = info->dlpi_addr + segment.p_vaddr, to = from + segment.p_memsz;
          if (segment.p_type != PT_LOAD || inside < from || inside >= to) continue;
          first = from;
          end = to;
          return 1;
        }
        return 0;
      },
      nullptr);
}
}  // namespace check

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_calloc(n, bytes);
}
void *realloc(void *memory, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_realloc(memory, bytes);
}
void *memalign(size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  count(__builtin_return_address(0));
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void *memory) {
  __libc_free(memory);
}
}

#endif
