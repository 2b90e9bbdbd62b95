// The groups of scenarios.
#pragma once

namespace scenario {

void absence(const char *program);  // no driver, or one that does not serve
void failures();                    // each call failing in turn
void use();                         // contexts, launches, modules, streams

// In a process that was started without the fake: what `absence` expects there.
int without_driver();

}  // namespace scenario
