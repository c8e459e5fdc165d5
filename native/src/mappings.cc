// A file that is mapped can be cut short by whoever may write to it, and then the next touch of what is gone is a
// SIGBUS, in every process that has it. The handler here gives the file its length back. The mapping stays as it is,
// with zeros where something was lost, and is shared as before: to the tables an empty place, which the primary notices
// and tells of (state/segment.ts).
//
// Where the file cannot be had (a full disk, one that fails) the page becomes memory of this process alone: limits are
// less exact then, and requests are still answered.
#include "mappings.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

namespace tidegate {

// In a list that only grows, as a handler may read it at any moment; entries are used again.
struct Mapping {
  std::atomic<bool> taken{true};
  std::atomic<char*> memory{nullptr};  // null: unmapped
  size_t bytes = 0;
  int fd = -1;
  Mapping* next = nullptr;
};

namespace {

constexpr uintptr_t kPageBytes = 4096;
// Faults on one page with the file at its full length: others may have lengthened it meanwhile, but not as often as
// that.
constexpr int kMostFaults = 100;

std::atomic<Mapping*> mappings{nullptr};
std::atomic<uintptr_t> faultingPage{0};
std::atomic<int> faults{0};
struct sigaction former;

Mapping* find(char* address) {
  for (Mapping* each = mappings.load(std::memory_order_acquire); each != nullptr; each = each->next) {
    char* const memory = each->memory.load(std::memory_order_acquire);
    if (memory != nullptr && address >= memory && address < memory + each->bytes) return each;
  }
  return nullptr;
}

// Calls that a signal handler may make, alone. False: what was mapped cannot be had any more.
bool lengthen(const Mapping& mapping, uintptr_t page) {
  struct stat file;
  if (mapping.fd < 0 || fstat(mapping.fd, &file) != 0) return false;
  const off_t bytes = static_cast<off_t>(mapping.bytes);
  if (file.st_size < bytes) {
    if (fallocate(mapping.fd, 0, 0, bytes) == 0) return true;
    return (errno == EOPNOTSUPP || errno == ENOSYS) && ftruncate(mapping.fd, bytes) == 0;
  }
  if (faultingPage.exchange(page) != page) faults = 0;
  return ++faults < kMostFaults;
}

void onBusError(int, siginfo_t* info, void*) {
  const int error = errno;
  char* const address = static_cast<char*>(info->si_addr);
  const uintptr_t page = reinterpret_cast<uintptr_t>(address) & ~(kPageBytes - 1);
  const Mapping* const mapping = find(address);
  // The instruction is run again when this returns.
  bool mended = mapping != nullptr && lengthen(*mapping, page);
  if (mapping != nullptr && !mended) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    mended = mmap(reinterpret_cast<void*>(page), kPageBytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED;
  }
  // Somebody else's: as it would have been without us.
  if (!mended) {
    sigaction(SIGBUS, &former, nullptr);
    if (info->si_code <= 0) raise(SIGBUS);
  }
  errno = error;
}

}  // namespace

Mapping* addMapping(void* memory, size_t bytes, int fd) {
  Mapping* mapping = mappings.load(std::memory_order_acquire);
  while (mapping != nullptr && mapping->taken.exchange(true)) mapping = mapping->next;
  const bool fresh = mapping == nullptr;
  if (fresh) mapping = new Mapping;
  mapping->bytes = bytes;
  mapping->fd = fd;
  mapping->memory.store(static_cast<char*>(memory), std::memory_order_release);
  if (fresh) {
    mapping->next = mappings.load();
    while (!mappings.compare_exchange_weak(mapping->next, mapping)) {
    }
  }
  return mapping;
}

void removeMapping(Mapping* mapping) {
  char* const memory = mapping->memory.exchange(nullptr);
  munmap(memory, mapping->bytes);
  if (mapping->fd >= 0) close(mapping->fd);
  mapping->fd = -1;
  mapping->taken = false;
}

void surviveTruncation() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = onBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &former);
  });
}

}  // namespace tidegate
