// Only in a build of the tests (-DTIDEGATE_BREAKABLE): breaks the one trick that the environment names, so that its
// proof fails (test/e2e/uws-patches.test.ts). In every other build this is a constant, and nothing is left of it.
#pragma once

#ifdef TIDEGATE_BREAKABLE
#include <cstdlib>
#include <cstring>
#endif

namespace tidegate {

#ifdef TIDEGATE_BREAKABLE
inline bool breaks(const char* trick) {
  const char* broken = getenv("TIDEGATE_TEST_BREAK");
  return broken != nullptr && strcmp(broken, trick) == 0;
}
#else
constexpr bool breaks(const char*) { return false; }
#endif

}  // namespace tidegate
