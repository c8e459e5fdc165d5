// The functions of libuv and the kernel that uWebSockets.js calls through its table of imports, and ours in their
// place:
//
//   syscalls.cc         what ours do
//   imports.cc          finds the table
//   syscalls_proof.cc   proves that the table holds ours, and that calls for other handles and descriptors pass through
//                       unchanged
//
// Works around: see syscalls.cc. Relies on uWebSockets.js (20.51.4 and 20.69.0) calling all of these through a table
// that stays writable.
#pragma once

namespace tidegate::sparing {

struct Import {
  const char* name;
  void* ours;
  void** place = nullptr;  // its entry in the table
  void* before = nullptr;  // what the entry held
};

enum { kPollInit, kPollStart, kPollStop, kClose, kIsClosing, kSend, kSetOption, kImports };
extern Import imports[kImports];

// Fills in their places. False: no library here is uSockets' and imports all of them.
bool findImports();

}  // namespace tidegate::sparing
