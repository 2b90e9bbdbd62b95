#include "core/tuning.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "core/version.hpp"

namespace attn {
namespace {

// FNV-1a.
uint64_t hash(const void *data, size_t bytes) {
  uint64_t value = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes; i++) {
    value = (value ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3u;
  }
  return value;
}

}  // namespace

TuningKey TuningKey::make(const attn_context &context, const char *family, const void *desc,
                          size_t bytes) {
  const attn_device_info info = context.device->info();
  char text[256];
  std::snprintf(text, sizeof text, "libattn-tuning 1 %s %s/%d %s %016" PRIx64, kVersionString,
                info.architecture, info.num_units, family, hash(desc, bytes));
  TuningKey key;
  key.text_ = text;
  return key;
}

std::string TuningKey::line(const char *implementation, double us) const {
  char time[32];
  std::snprintf(time, sizeof time, " %.1f\n", us);
  return text_ + " " + implementation + time;
}

size_t TuningKey::find(const char *text, const std::vector<const char *> &names, double &us) const {
  size_t found = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.size() <= text_.size() || line.substr(0, text_.size()) != text_) continue;
    line.remove_prefix(text_.size() + 1);
    for (size_t i = 0; i < names.size(); i++) {
      const size_t length = std::strlen(names[i]);
      if (line.size() > length && line.substr(0, length) == names[i] && line[length] == ' ') {
        found = i;
        us = std::strtod(std::string(line.substr(length)).c_str(), nullptr);
      }
    }
  }
  return found;
}

}  // namespace attn
