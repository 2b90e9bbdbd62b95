/* Status codes, the caller-owned error record, and the export macro. */
#ifndef ATTN_STATUS_H
#define ATTN_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ATTN_API
#elif defined(__GNUC__) || defined(__clang__)
#define ATTN_API __attribute__((visibility("default")))
#else
#define ATTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Every fallible function returns one of these as int32_t; 0 is success. Values are never reused,
 * and new ones are added at the end: treat an unknown non-zero value as a failure. */
typedef enum attn_status {
  ATTN_OK = 0, /* done */
  /* A field or argument breaks a documented rule (an unknown enum value too). The error names
   * field, value and rule. */
  ATTN_ERROR_INVALID_ARGUMENT = 1,
  /* The request is well formed, but no implementation of the chosen backend serves it. */
  ATTN_ERROR_UNSUPPORTED = 2,
  /* The library is older than what the client asks of it: an ABI version that is not served, an
   * unknown flag bit, or a set field that this library does not know (non-zero `reserved`, or
   * beyond its struct). */
  ATTN_ERROR_VERSION = 3,
  /* Host memory ran out. Only create functions allocate. */
  ATTN_ERROR_OUT_OF_MEMORY = 4,
  /* The workspace is missing, too small or misaligned: see attn_plan_info. */
  ATTN_ERROR_WORKSPACE = 5,
  /* The backend is not in this build, or its driver or device is absent. */
  ATTN_ERROR_BACKEND_UNAVAILABLE = 6,
  /* A driver call failed; attn_error.backend_code holds its code. */
  ATTN_ERROR_DEVICE = 7,
  /* A defect in libattn: please report it with the message. */
  ATTN_ERROR_INTERNAL = 8
} attn_status;

#define ATTN_ERROR_FIELD_SIZE 64    /* bytes of attn_error.field, NUL included */
#define ATTN_ERROR_MESSAGE_SIZE 432 /* bytes of attn_error.message, NUL included */

/* What went wrong, in memory that the caller owns (usually on the stack). Every fallible function
 * takes a pointer to one as its last argument; NULL is allowed. There is no global and no
 * thread-local last error, so this is safe from any thread, goroutine or async task.
 *
 * On success the record is left untouched. On failure the library fills it, up to struct_size;
 * nothing is written if struct_size is too small for a message. */
typedef struct attn_error {
  uint32_t struct_size; /* sizeof(attn_error): set by ATTN_ERROR_INIT */
  int32_t status;       /* the attn_status that the function returned */
  int32_t backend_code; /* the driver's own error code where there is one, else 0 */
  int32_t reserved;     /* 0 */
  /* The field at fault as the caller would write it, such as "desc.num_kv_heads" or
   * "args.k.shape[2]"; empty if no single field is. NUL-terminated UTF-8. */
  char field[ATTN_ERROR_FIELD_SIZE];
  /* One sentence for people: field, value, rule, and what to do. NUL-terminated UTF-8. */
  char message[ATTN_ERROR_MESSAGE_SIZE];
} attn_error;

#define ATTN_ERROR_INIT                 \
  {                                     \
    sizeof(attn_error), 0, 0, 0, {0}, { \
      0                                 \
    }                                   \
  }

/* The name of a status, for example "ATTN_ERROR_VERSION"; "ATTN_ERROR_UNKNOWN" for a value that
 * this library does not know. Static storage. Thread-safe; never fails. */
ATTN_API const char *attn_status_name(int32_t status);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_STATUS_H */
