#include "core/inflate.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace {

using Bytes = std::vector<unsigned char>;

// What zlib made of the texts below.
const Bytes kStored = {0x01, 0x05, 0x00, 0xfa, 0xff, 'h', 'e', 'l', 'l', 'o'};
const Bytes kFixed = {0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0xc8, 0x40, 0x27, 0x01};
const char kRepeated[] = "hello hello hello hello";

std::string unpacked(const Bytes &data, size_t size) {
  std::string text(size, '?');
  return attn::inflate(data.data(), data.size(), reinterpret_cast<unsigned char *>(text.data()),
                       size)
             ? text
             : "damaged";
}

}  // namespace

TEST_CASE("inflate: stored and compressed blocks") {
  CHECK(unpacked(kStored, 5) == "hello");
  CHECK(unpacked(kFixed, std::strlen(kRepeated)) == kRepeated);
}

TEST_CASE("inflate: another size than promised") {
  CHECK(unpacked(kStored, 4) == "damaged");
  CHECK(unpacked(kStored, 6) == "damaged");
  CHECK(unpacked(kFixed, 22) == "damaged");
  CHECK(unpacked(kFixed, 24) == "damaged");
}

TEST_CASE("inflate: damaged data gives false, and stays within its bounds") {
  for (const Bytes &good : {kStored, kFixed}) {
    for (size_t n = 0; n < good.size(); n++) {
      CHECK(unpacked(Bytes(good.begin(), good.begin() + static_cast<long>(n)), 23) == "damaged");
      for (int bit = 0; bit < 8; bit++) {
        Bytes bad = good;
        bad[n] = static_cast<unsigned char>(bad[n] ^ 1u << bit);
        unpacked(bad, 23);  // sanitizers watch
      }
    }
  }
  CHECK(unpacked({0x07}, 0) == "damaged");              // a kind of block that there is not
  CHECK(unpacked({0x03, 0x02, 0x00}, 3) == "damaged");  // a distance beyond the begin
  CHECK(unpacked({0x05, 0xff, 0xff, 0xff, 0xff}, 9) == "damaged");  // lengths that make no code
}
