// How many connections each client address has, over all workers: a table in shared memory, a block a worker, so that
// each word has one writer. Pure; what a worker that died has left is cleared by the primary
// (src/state/address-counts.ts).
//
//   block     kAddressSlots slots of 4 × Int32:   0–1 key (hash of the address)   2 count   3 free
//   window    8 slots, 128 bytes: where a key may lie, by its hash. A slot whose count is 0 is free
//
// An address whose window is full of others is not counted: whoever commands that many addresses is not stopped by a
// limit on one.
#pragma once

#include "address.h"

#include <cstddef>

namespace tidegate {

constexpr size_t kAddressSlots = 8192;
constexpr size_t kAddressSlotInts = 4;
constexpr size_t kAddressBlockInts = kAddressSlots * kAddressSlotInts;
constexpr size_t kAddressWindow = 8;

constexpr int32_t kNotCounted = -1;
constexpr int32_t kTooMany = -2;

// Never 0. IPv6 by its first half, as rate limits have it: the other half is its owner's to choose.
inline uint64_t addressKey(const Address& address, uint64_t seed) {
  uint64_t halves[2];
  memcpy(halves, address.bytes, sizeof halves);
  if (!address.isV4()) halves[1] = 0;
  uint64_t hash = seed;
  for (const uint64_t half : halves) {  // MurmurHash3's finalizer, twice
    hash ^= half;
    hash ^= hash >> 33;
    hash *= 0xff51afd7ed558ccdULL;
    hash ^= hash >> 33;
    hash *= 0xc4ceb9fe1a85ec53ULL;
    hash ^= hash >> 33;
  }
  return hash | 1;
}

class AddressCounts {
 public:
  AddressCounts(int32_t* table, size_t workers, size_t self) : table_(table), workers_(workers), self_(self) {}

  // Counts one more, if that makes no more than `limit`. Two workers that count at the same moment both see both: the
  // limit is never passed, but of two that want the last place neither may get it. Returns where it is counted, to be
  // left by leave(), or one of the two above.
  int32_t enter(uint64_t key, int32_t limit) {
    int32_t* slot = find(self_, key);
    if (slot == nullptr) {
      slot = freeSlot(key);
      if (slot == nullptr) return total(key) >= limit ? kTooMany : kNotCounted;
      // The count comes last: no reader takes a slot of count 0 for anybody's.
      __atomic_store_n(slot, static_cast<int32_t>(key), __ATOMIC_RELAXED);
      __atomic_store_n(slot + 1, static_cast<int32_t>(key >> 32), __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(slot + 2, 1, __ATOMIC_SEQ_CST);
    if (total(key) <= limit) return static_cast<int32_t>(slot + 2 - table_);
    __atomic_fetch_sub(slot + 2, 1, __ATOMIC_SEQ_CST);
    return kTooMany;
  }

  void leave(int32_t place) {
    if (place >= 0) __atomic_fetch_sub(table_ + place, 1, __ATOMIC_SEQ_CST);
  }

  int32_t total(uint64_t key) const {
    int32_t sum = 0;
    for (size_t worker = 0; worker < workers_; worker++) {
      const int32_t* slot = find(worker, key);
      if (slot != nullptr) sum += __atomic_load_n(slot + 2, __ATOMIC_SEQ_CST);
    }
    return sum;
  }

 private:
  int32_t* window(size_t worker, uint64_t key) const {
    const size_t first = (key >> 8) % (kAddressSlots / kAddressWindow) * kAddressWindow;
    return table_ + worker * kAddressBlockInts + first * kAddressSlotInts;
  }

  int32_t* find(size_t worker, uint64_t key) const {
    int32_t* slot = window(worker, key);
    for (size_t i = 0; i < kAddressWindow; i++, slot += kAddressSlotInts) {
      if (__atomic_load_n(slot + 2, __ATOMIC_SEQ_CST) <= 0) continue;
      const uint64_t low = static_cast<uint32_t>(__atomic_load_n(slot, __ATOMIC_RELAXED));
      const uint64_t high = static_cast<uint32_t>(__atomic_load_n(slot + 1, __ATOMIC_RELAXED));
      if ((high << 32 | low) == key) return slot;
    }
    return nullptr;
  }

  int32_t* freeSlot(uint64_t key) const {
    int32_t* slot = window(self_, key);
    for (size_t i = 0; i < kAddressWindow; i++, slot += kAddressSlotInts) {
      if (__atomic_load_n(slot + 2, __ATOMIC_RELAXED) <= 0) return slot;
    }
    return nullptr;
  }

  int32_t* table_;
  size_t workers_;
  size_t self_;
};

}  // namespace tidegate
