// Mapped files, for as long as they are mapped.
#pragma once

#include <cstddef>

namespace tidegate {

struct Mapping;

// Takes over the memory, and the descriptor it was mapped from; -1 for memory that cannot be cut short.
Mapping* addMapping(void* memory, size_t bytes, int fd);
// Unmaps it.
void removeMapping(Mapping* mapping);

// From here on a mapped file that somebody cuts short costs what was in it, and not the process. Once per process is
// enough.
void surviveTruncation();

}  // namespace tidegate
