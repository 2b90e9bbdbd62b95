// The groups of scenarios.
#pragma once

namespace scenario {

void absence(const char *program);  // no driver, or one that does not serve
void failures();                    // each call failing in turn
void limits();                      // descriptors and calls at the limits of what may be asked
void use();                         // contexts, launches, modules, streams

// In a process that was started without the fake, or with one that has no device: what `absence`
// expects there.
int without_driver();
int without_device();

}  // namespace scenario
