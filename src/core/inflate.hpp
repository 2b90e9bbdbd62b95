// Unpacking what the build compressed: DEFLATE, RFC 1951.
#pragma once

#include <cstddef>

namespace attn {

// Writes exactly `size` bytes; false if the data is damaged or holds another number of them.
// Neither reads nor writes beyond what it was given.
bool inflate(const unsigned char *data, size_t bytes, unsigned char *to, size_t size);

}  // namespace attn
