#include "core/error.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <initializer_list>
#include <string>

TEST_CASE("an error names field, status and message") {
  attn_error record = ATTN_ERROR_INIT;
  const attn::ErrorSink sink(&record);
  CHECK(sink.fail(ATTN_ERROR_UNSUPPORTED, "desc.x", "x is %d", 5) == ATTN_ERROR_UNSUPPORTED);
  CHECK(record.status == ATTN_ERROR_UNSUPPORTED);
  CHECK(std::strcmp(record.field, "desc.x") == 0);
  CHECK(std::strcmp(record.message, "x is 5") == 0);
  CHECK(record.struct_size == sizeof record);
}

TEST_CASE("long texts are cut, and end") {
  attn_error record = ATTN_ERROR_INIT;
  std::memset(record.field, 'z', sizeof record.field);
  std::memset(record.message, 'z', sizeof record.message);
  const std::string field(200, 'f'), text(2000, 'm');
  attn::ErrorSink(&record).fail(ATTN_ERROR_INTERNAL, field.c_str(), "%s", text.c_str());
  CHECK(std::strlen(record.field) == sizeof record.field - 1);
  CHECK(std::strlen(record.message) == sizeof record.message - 1);
}

TEST_CASE("no record, and records too small for a message") {
  CHECK(attn::ErrorSink(nullptr).fail(ATTN_ERROR_DEVICE, "f", "m") == ATTN_ERROR_DEVICE);
  attn_error record = ATTN_ERROR_INIT;
  for (uint32_t size : {0u, 4u, 16u, 79u}) {
    record = ATTN_ERROR_INIT;
    record.struct_size = size;
    attn::ErrorSink(&record).fail(ATTN_ERROR_DEVICE, "f", "m");
    CHECK(record.status == 0);
    CHECK(record.message[0] == 0);
    CHECK(record.struct_size == size);
  }
}

TEST_CASE("a driver's failure keeps the driver's code") {
  attn_error record = ATTN_ERROR_INIT;
  CHECK(attn::ErrorSink(&record).device_failure(700, "launch") == ATTN_ERROR_DEVICE);
  CHECK(record.backend_code == 700);
}
