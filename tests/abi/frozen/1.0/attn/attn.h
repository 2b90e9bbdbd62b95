/* libattn: attention as a C library. The umbrella header: includes the whole stable ABI.
 *
 * How a call goes: describe the problem by its limits (attn_sdpa_desc), make a plan once
 * (attn_sdpa_plan_create), ask it how much workspace it needs (attn_plan_query), then execute it as
 * often as needed with that step's tensors (attn_sdpa_forward). See README.md for twenty lines that
 * do it. The ABI is defined for 64-bit little-endian platforms. */
#ifndef ATTN_ATTN_H
#define ATTN_ATTN_H

#include "context.h"
#include "merge.h"
#include "plan.h"
#include "sdpa.h"
#include "status.h"
#include "types.h"
#include "version.h"

#endif /* ATTN_ATTN_H */
