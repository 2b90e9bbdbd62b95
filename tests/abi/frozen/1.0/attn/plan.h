/* Plans: what all operation families share. Each family's header has its own create, supported,
 * tune and execute functions. */
#ifndef ATTN_PLAN_H
#define ATTN_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "context.h"
#include "status.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How to compute one described problem on one context. Immutable after creation: threads may share
 * it, and may execute it at the same time if each brings its own workspace. */
typedef struct attn_plan attn_plan;

/* Optional wishes at plan creation. NULL in their place means all defaults. */
typedef struct attn_plan_options {
  uint32_t struct_size; /* sizeof(attn_plan_options): set by ATTN_PLAN_OPTIONS_INIT */
  uint32_t reserved;    /* must be 0 */
  /* The name of the implementation to use, as attn_plan_implementation gives it, for example
   * "cpu/sdpa/forward/reference"; NULL = the best that serves the problem. A name that is unknown
   * or cannot serve the problem is an error, never replaced. NUL-terminated; read only during the
   * call. */
  const char *implementation;
  /* Tuning results as attn_plan_export wrote them, any number of lines; NULL = none. A line that
   * was made for this problem, device and library version decides the implementation, unless
   * `implementation` does; other lines are passed over. NUL-terminated; read only during the
   * call. */
  const char *tuning;
} attn_plan_options;

#define ATTN_PLAN_OPTIONS_INIT \
  { sizeof(attn_plan_options), 0, NULL, NULL }

/* What attn_plan_query tells. */
typedef struct attn_plan_info {
  /* Set by ATTN_PLAN_INFO_INIT. Fields that this library does not know are left as they are. */
  uint32_t struct_size;
  int32_t deterministic;         /* 1: same inputs give the same bits, run after run */
  int32_t capturable;            /* 1: execute may be captured into a graph; CPU: 0 */
  int32_t asynchronous;          /* 1: execute returns before the work is done; CPU: 0 */
  uint64_t workspace_bytes;      /* what every execute of this plan needs; may be 0 */
  uint64_t workspace_alignment;  /* bytes, a power of two; the workspace's address must keep it */
  uint64_t tune_workspace_bytes; /* what tuning needs: the largest over all candidates */
  int32_t num_implementations; /* how many could serve the problem: see attn_plan_implementation */
  int32_t reserved;            /* 0 */
  const char *implementation;  /* the chosen one's name; lives as long as the library */
} attn_plan_info;

#define ATTN_PLAN_INFO_INIT \
  { sizeof(attn_plan_info), 0, 0, 0, 0, 0, 0, 0, 0, NULL }

/* Fills *info (up to its struct_size). Thread-safe. */
ATTN_API int32_t attn_plan_query(const attn_plan *plan, attn_plan_info *info, attn_error *error);

/* The name of the index-th implementation that could serve the plan's problem, best first
 * (0 .. num_implementations-1). *name lives as long as the library. Thread-safe. */
ATTN_API int32_t attn_plan_implementation(const attn_plan *plan, int32_t index, const char **name,
                                          attn_error *error);

/* Loads modules and sets attributes ahead of the first execute, so that the first execute may
 * already be captured into a graph. Optional; on the CPU it does nothing. Thread-safe. */
ATTN_API int32_t attn_plan_prepare(const attn_plan *plan, attn_error *error);

/* Writes the plan's choice as one line of text that attn_plan_options.tuning takes: the problem,
 * the device, the library version, the implementation and, if the plan was tuned, its time.
 *
 * *length gets the bytes needed, the terminating NUL not counted. text may be NULL if capacity
 * is 0, to ask for the length; with a capacity that is too small (<= *length) nothing is written
 * and the status is INVALID_ARGUMENT. Thread-safe. */
ATTN_API int32_t attn_plan_export(const attn_plan *plan, char *text, size_t capacity,
                                  size_t *length, attn_error *error);

/* Frees a plan. NULL is allowed. It must not be executing; captured graphs that hold its launches
 * stay valid until the context is destroyed. */
ATTN_API void attn_plan_destroy(attn_plan *plan);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_PLAN_H */
