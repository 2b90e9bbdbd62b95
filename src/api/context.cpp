#include "core/context.hpp"

#include "api/boundary.hpp"
#include "core/struct_copy.hpp"

namespace {

int32_t lookup(int32_t backend, const char *field, const attn::Backend *&row,
               const attn::ErrorSink &error) {
  row = attn::find_backend(backend);
  if (row != nullptr) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field, "%s is %d, which is no attn_backend", field,
                    backend);
}

}  // namespace

extern "C" int32_t attn_device_count(int32_t backend, int32_t *count, attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    const attn::Backend *row = nullptr;
    int32_t status = attn::require("count", count, sink);
    if (status == ATTN_OK) status = lookup(backend, "backend", row, sink);
    return status == ATTN_OK ? row->count(*count, sink) : status;
  });
}

extern "C" int32_t attn_device_query(int32_t backend, int32_t device_index, attn_device_info *info,
                                     attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    const attn::Backend *row = nullptr;
    attn_device_info value = ATTN_DEVICE_INFO_INIT;
    int32_t status = lookup(backend, "backend", row, sink);
    if (status == ATTN_OK) status = row->info(device_index, value, sink);
    return status == ATTN_OK ? attn::copy_out(value, info, "info", sink) : status;
  });
}

extern "C" int32_t attn_context_create(const attn_context_desc *desc, attn_context **context,
                                       attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status = attn::require("context", context, sink);
    if (status != ATTN_OK) return status;
    *context = nullptr;
    attn_context_desc known = ATTN_CONTEXT_DESC_INIT;
    if (desc != nullptr) status = attn::copy_in(desc, known, "desc", sink);
    const attn::Backend *row = nullptr;
    if (status == ATTN_OK) status = lookup(known.backend, "desc.backend", row, sink);
    if (status != ATTN_OK) return status;
    if (known.log_level < ATTN_LOG_ERROR || known.log_level > ATTN_LOG_DEBUG) {
      return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.log_level",
                       "desc.log_level is %d; it must be %d .. %d", known.log_level, ATTN_LOG_ERROR,
                       ATTN_LOG_DEBUG);
    }
    status = attn::check_reserved("desc.reserved", known.reserved, sink);
    if (status != ATTN_OK) return status;
    auto result = std::make_unique<attn_context>();
    result->backend = row->id;
    result->log = attn::Log(known);
    status = row->open(known, result->device, sink);
    if (status != ATTN_OK) return status;
    const attn_device_info info = result->device->info();
    result->log.write(ATTN_LOG_INFO, "context: %s device %d, %s (%s), %d units", row->name,
                      info.device_index, info.name, info.architecture, info.num_units);
    *context = result.release();
    return int32_t{ATTN_OK};
  });
}

extern "C" int32_t attn_context_query(const attn_context *context, attn_device_info *info,
                                      attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    const int32_t status = attn::require("context", context, sink);
    return status == ATTN_OK ? attn::copy_out(context->device->info(), info, "info", sink) : status;
  });
}

extern "C" void attn_context_destroy(attn_context *context) {
  delete context;
}
