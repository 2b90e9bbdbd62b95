/* Versions of the library and of its ABI. */
#ifndef ATTN_VERSION_H
#define ATTN_VERSION_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* The library's version. The build reads it from here. */
#define ATTN_VERSION_MAJOR 0
#define ATTN_VERSION_MINOR 1
#define ATTN_VERSION_PATCH 0

/* The ABI's version. MAJOR is the SONAME: libattn.so.MAJOR. It changes only if a client's binary
 * could break, which we intend never. MINOR grows with every release that adds to the ABI. */
#define ATTN_ABI_MAJOR 1
#define ATTN_ABI_MINOR 1
#define ATTN_ABI_VERSION ((ATTN_ABI_MAJOR << 16) | ATTN_ABI_MINOR)

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI version of the library that is loaded: (major << 16) | minor.
 *
 * This function never changes, in no version: a client that loads the library at run time asks it
 * first, before it resolves anything else. Thread-safe; never fails. */
ATTN_API uint32_t attn_abi_version(void);

/* Checks that the loaded library serves a client that was compiled against ABI `client_abi`
 * (pass ATTN_ABI_VERSION): same major, and a minor no older than the client's. A client that uses
 * nothing newer than minor m may pass (ATTN_ABI_MAJOR << 16) | m.
 *
 * Returns ATTN_OK, or ATTN_ERROR_VERSION with both versions in the message. Thread-safe. */
ATTN_API int32_t attn_abi_check(uint32_t client_abi, attn_error *error);

/* The library's version as text, for example "0.1.0". Static storage. Thread-safe; never fails. */
ATTN_API const char *attn_version_string(void);

/* What this build holds, one `key: value` a line: version, compiler, backends (and why one is
 * missing), SIMD targets. Static storage, meant for people and bug reports, not for parsing.
 * Thread-safe; never fails. */
ATTN_API const char *attn_build_info(void);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_VERSION_H */
