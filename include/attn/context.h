/* Devices and contexts. */
#ifndef ATTN_CONTEXT_H
#define ATTN_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where an operation runs. */
typedef enum attn_backend {
  ATTN_BACKEND_AUTO = 0, /* the first of CUDA, HIP, CPU that is built in and has a device */
  ATTN_BACKEND_CPU = 1,  /* the host; always there */
  ATTN_BACKEND_CUDA = 2, /* NVIDIA */
  ATTN_BACKEND_HIP = 3   /* AMD */
} attn_backend;

/* How much is logged: a level includes those above it. */
typedef enum attn_log_level {
  ATTN_LOG_ERROR = 0,   /* what failed */
  ATTN_LOG_WARNING = 1, /* what works, but not as it was probably meant */
  ATTN_LOG_INFO = 2,    /* which implementation a plan chose and why others could not serve */
  ATTN_LOG_DEBUG = 3    /* what developers of libattn want to see */
} attn_log_level;

/* Receives log lines (NUL-terminated UTF-8, no newline; valid only during the call). It may be
 * called from any thread that calls the library with this context, several at once, and must not
 * call back into the library. It is called by create functions, never by execute. */
typedef void (*attn_log_callback)(void *user_data, int32_t level, const char *message);

/* One device of one backend, with what belongs to it. Immutable after creation: any number of
 * threads may use it at once. It must outlive the plans made from it. */
typedef struct attn_context attn_context;

/* What attn_context_create makes. */
typedef struct attn_context_desc {
  uint32_t struct_size; /* sizeof(attn_context_desc): set by ATTN_CONTEXT_DESC_INIT */
  int32_t backend;      /* attn_backend; default AUTO */
  int32_t device_index; /* 0 .. attn_device_count()-1; default 0 */
  /* CPU only: threads that one execute may use, the caller's included; 0 = as many as the process
   * may run on (its affinity mask). At most 1024. Other backends: must be 0. */
  int32_t num_threads;
  /* Log sink; NULL = none, unless the environment has ATTN_LOG=1, which logs to stderr. */
  attn_log_callback log_callback;
  void *log_user_data; /* handed to log_callback as it is */
  int32_t log_level;   /* attn_log_level: the most detailed level delivered; default ERROR */
  int32_t reserved;    /* must be 0 */
} attn_context_desc;

#define ATTN_CONTEXT_DESC_INIT \
  { sizeof(attn_context_desc), 0, 0, 0, NULL, NULL, 0, 0 }

/* What attn_device_query and attn_context_query tell. */
typedef struct attn_device_info {
  uint32_t struct_size;  /* set by ATTN_DEVICE_INFO_INIT; what a longer struct has beyond this
                            library's is left as it is */
  int32_t backend;       /* attn_backend, never AUTO */
  int32_t device_index;  /* 0 .. attn_device_count()-1 */
  int32_t num_units;     /* CPU: threads in use or usable; GPU: multiprocessors */
  uint64_t memory_bytes; /* memory of the device in all; 0 if unknown */
  char name[128];        /* the maker's name, for example "AMD EPYC 9654" */
  char architecture[32]; /* CPU: the SIMD target in use, for example "AVX3"; GPU: "sm_90" */
} attn_device_info;

#define ATTN_DEVICE_INFO_INIT                    \
  {                                              \
    sizeof(attn_device_info), 0, 0, 0, 0, {0}, { \
      0                                          \
    }                                            \
  }

/* How many devices `backend` has (AUTO: the backend that AUTO would pick), as its driver numbers
 * them: one of several may be too old for libattn, which attn_context_create then says.
 *
 * Writes *count. A backend that is not built in, or whose driver is absent or has no device that
 * can serve, gives BACKEND_UNAVAILABLE with the reason, and *count = 0. The CPU has exactly one
 * device. Thread-safe. */
ATTN_API int32_t attn_device_count(int32_t backend, int32_t *count, attn_error *error);

/* Describes device `device_index` of `backend` without creating a context. Thread-safe. */
ATTN_API int32_t attn_device_query(int32_t backend, int32_t device_index, attn_device_info *info,
                                   attn_error *error);

/* Creates a context. desc may be NULL: all defaults.
 *
 * Errors: INVALID_ARGUMENT, VERSION, BACKEND_UNAVAILABLE, OUT_OF_MEMORY, DEVICE; *context is then
 * NULL.
 * Free it with attn_context_destroy. Thread-safe. */
ATTN_API int32_t attn_context_create(const attn_context_desc *desc, attn_context **context,
                                     attn_error *error);

/* Describes the device of a context, with the thread count that it resolved to. Thread-safe. */
ATTN_API int32_t attn_context_query(const attn_context *context, attn_device_info *info,
                                    attn_error *error);

/* Frees a context. NULL is allowed. No plan of it may be used afterwards, and none may be
 * executing. */
ATTN_API void attn_context_destroy(attn_context *context);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_CONTEXT_H */
