#include "core/struct_copy.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <initializer_list>

namespace {

// A struct as it was at first, as it is, and as it will be.
struct First {
  uint32_t struct_size;
  int32_t a;
};
struct Now {
  uint32_t struct_size;
  int32_t a, b, c;
};
struct Later {
  uint32_t struct_size;
  int32_t a, b, c, d, e;
};

}  // namespace

template <>
inline constexpr uint32_t attn::kFirstSize<Now> = sizeof(First);

TEST_CASE("copy_in: an older struct gets defaults") {
  attn_error error = ATTN_ERROR_INIT;
  const attn::ErrorSink sink(&error);
  First in = {sizeof(First), 7};
  Now out = {1, 2, 3, 4};
  CHECK(attn::copy_in(reinterpret_cast<const Now *>(&in), out, "thing", sink) == ATTN_OK);
  CHECK(out.a == 7);
  CHECK(out.b == 0);
  CHECK(out.c == 0);
  CHECK(out.struct_size == sizeof(Now));
  CHECK(error.status == 0);
}

TEST_CASE("copy_in: a newer struct must be zero where we know nothing") {
  attn_error error = ATTN_ERROR_INIT;
  const attn::ErrorSink sink(&error);
  Later in = {sizeof(Later), 1, 2, 3, 0, 0};
  Now out = {};
  CHECK(attn::copy_in(reinterpret_cast<const Now *>(&in), out, "thing", sink) == ATTN_OK);
  CHECK(out.c == 3);
  in.e = 5;
  out.a = 77;
  CHECK(attn::copy_in(reinterpret_cast<const Now *>(&in), out, "thing", sink) ==
        ATTN_ERROR_VERSION);
  CHECK(out.a == 77);
  CHECK(error.status == ATTN_ERROR_VERSION);
  CHECK(std::strcmp(error.field, "thing") == 0);
  CHECK(std::strstr(error.message, "20") != nullptr);  // the byte
}

TEST_CASE("copy_in: sizes that never were") {
  attn_error error = ATTN_ERROR_INIT;
  const attn::ErrorSink sink(&error);
  Now out = {};
  for (uint32_t size : {0u, 1u, 4u, 7u, attn::kLargestStruct + 1, UINT32_MAX}) {
    Now in = {size, 1, 2, 3};
    CHECK(attn::copy_in(&in, out, "thing", sink) == ATTN_ERROR_INVALID_ARGUMENT);
  }
  CHECK(attn::copy_in<Now>(nullptr, out, "thing", sink) == ATTN_ERROR_INVALID_ARGUMENT);
}

TEST_CASE("copy_out fills what the caller has, and no more") {
  attn_error error = ATTN_ERROR_INIT;
  const attn::ErrorSink sink(&error);
  const Now value = {sizeof(Now), 1, 2, 3};
  struct {
    First known;
    int32_t beyond[4];
  } older = {{sizeof(First), 0}, {9, 9, 9, 9}};
  CHECK(attn::copy_out(value, reinterpret_cast<Now *>(&older), "thing", sink) == ATTN_OK);
  CHECK(older.known.a == 1);
  CHECK(older.known.struct_size == sizeof(First));
  CHECK(older.beyond[0] == 9);
  Later newer = {sizeof(Later), 0, 0, 0, 8, 9};
  CHECK(attn::copy_out(value, reinterpret_cast<Now *>(&newer), "thing", sink) == ATTN_OK);
  CHECK(newer.c == 3);
  CHECK(newer.d == 8);
  CHECK(newer.e == 9);
  CHECK(newer.struct_size == sizeof(Later));
}
