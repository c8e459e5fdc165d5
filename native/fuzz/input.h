// What every fuzz target here needs: an input's parts in heap blocks of exactly their size, so that AddressSanitizer
// sees a read beyond them, and a condition that must hold of any input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

struct Exact {
  explicit Exact(const std::string& from) : bytes(new char[from.size()]), size(from.size()) { memcpy(bytes.get(), from.data(), size); }
  std::unique_ptr<char[]> bytes;
  size_t size;
};

inline void hold(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}
