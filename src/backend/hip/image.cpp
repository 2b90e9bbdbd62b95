#include "backend/hip/image.hpp"

#include <cstring>

#include "core/inflate.hpp"

namespace attn::hip {
namespace {

// What an image begins with: the number of entries, then the entries.
struct Entry {
  char architecture[16];
  uint32_t offset;  // from the image's begin
  uint32_t stored;  // bytes, deflated
  uint32_t size;    // bytes of the code object
};

template <class Fn>
void for_each_entry(const gpu::Image &image, const Fn &fn) {
  uint32_t count;
  std::memcpy(&count, image.begin, sizeof count);
  for (uint32_t n = 0; n < count; n++) {
    Entry entry;
    std::memcpy(&entry, image.begin + sizeof count + n * sizeof entry, sizeof entry);
    fn(entry, std::string_view(entry.architecture,
                               strnlen(entry.architecture, sizeof entry.architecture)));
  }
}

}  // namespace

std::string architectures_of(const gpu::Image &image) {
  std::string names;
  for_each_entry(image, [&](const Entry &, std::string_view name) {
    if (!names.empty()) names += ", ";
    names += name;
  });
  return names;
}

bool has_architecture(const gpu::Image &image, std::string_view architecture) {
  bool found = false;
  for_each_entry(image,
                 [&](const Entry &, std::string_view name) { found |= name == architecture; });
  return found;
}

std::vector<unsigned char> unpack(const gpu::Image &image, std::string_view architecture) {
  std::vector<unsigned char> object;
  for_each_entry(image, [&](const Entry &entry, std::string_view name) {
    if (name != architecture) return;
    object.resize(entry.size);
    if (!inflate(image.begin + entry.offset, entry.stored, object.data(), object.size())) {
      object.clear();
    }
  });
  return object;
}

}  // namespace attn::hip
