// Tuning results as text: one line a problem.
//
//   libattn-tuning 1 <library version> <architecture>/<units> <family> <problem hash>
//   <implementation> <us>
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/context.hpp"

namespace attn {

// What must be the same for a tuning result to apply: library, device, family and descriptor.
class TuningKey {
 public:
  // `desc` is the descriptor with its defaults filled in, so that two ways to say the same problem
  // give one key.
  static TuningKey make(const attn_context &context, const char *family, const void *desc,
                        size_t bytes);

  std::string line(const char *implementation, double us) const;

  // The place in `names` of what the text's last line for this key chose; 0 if it has none.
  size_t find(const char *text, const std::vector<const char *> &names, double &us) const;

 private:
  std::string text_;  // the line's start, up to and with the hash
};

}  // namespace attn
