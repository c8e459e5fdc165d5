// uSockets' functions, as the binary of the loaded uWebSockets.js exports them, and how the gate puts its own handlers
// into a socket context.
//
// Works around: uWebSockets.js (20.51.4 and 20.69.0) lets nobody see the bytes of a connection before its parser does.
// It calls uSockets' functions mostly inlined, so they cannot be replaced; the handlers that a context calls can. Where
// a context keeps a handler is found by setting ours and looking which word changed. The first argument of most
// functions says whether the context speaks TLS. Without it there is no gate (gate.cc).
#pragma once

#include "breaks.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tidegate {

struct us_socket_t;
struct us_socket_context_t;
using OnOpen = us_socket_t* (*)(us_socket_t*, int, char*, int);
using OnData = us_socket_t* (*)(us_socket_t*, char*, int);
using OnClose = us_socket_t* (*)(us_socket_t*, int, void*);
using OnWritable = us_socket_t* (*)(us_socket_t*);
using OnTimeout = us_socket_t* (*)(us_socket_t*);

struct USockets {
  void (*onOpen)(int, us_socket_context_t*, OnOpen) = nullptr;
  void (*onData)(int, us_socket_context_t*, OnData) = nullptr;
  void (*onWritable)(int, us_socket_context_t*, OnWritable) = nullptr;
  void (*onClose)(int, us_socket_context_t*, OnClose) = nullptr;
  void (*onTimeout)(int, us_socket_context_t*, OnTimeout) = nullptr;
  int (*isClosed)(int, us_socket_t*) = nullptr;
  int (*isShutDown)(int, us_socket_t*) = nullptr;
  int (*write)(int, us_socket_t*, const char*, int, int) = nullptr;
  void (*shutdown)(int, us_socket_t*) = nullptr;
  us_socket_t* (*close)(int, us_socket_t*, int, void*) = nullptr;
  void (*timeout)(int, us_socket_t*, unsigned) = nullptr;  // in seconds
  us_socket_context_t* (*context)(int, us_socket_t*) = nullptr;
  void* (*loop)(int, us_socket_context_t*) = nullptr;
  int (*fd)(us_socket_t*) = nullptr;  // a socket begins with its poll
  int (*events)(us_socket_t*) = nullptr;
  void (*watch)(us_socket_t*, void*, int) = nullptr;
  bool complete() const {
    return onOpen && onData && onWritable && onClose && onTimeout && isClosed && isShutDown && write && shutdown && close && timeout && context &&
        loop && fd && events && watch;
  }
};

// False: no library here exports all of them.
bool findUSockets(USockets* us);

// uSockets counts in ticks of 4 s, and up to 240 of them.
inline unsigned seconds(int64_t ms) { return static_cast<unsigned>(ms > 900'000 ? 900 : (ms + 999) / 1000); }

// Whether both are code of the same library.
bool isSameLibrary(const void* one, const void* other);

// Exchanges a handler of the context. Returns the one that was there; null where none of uSockets' library was found.
template <typename Handler>
Handler exchange(int tls, us_socket_context_t* context, void (*set)(int, us_socket_context_t*, Handler), Handler ours) {
  constexpr size_t kWords = 48;  // the context, with TLS's part; behind it lies uWebSockets' own data, of kilobytes
  void* before[kWords];
  memcpy(before, context, sizeof before);
  set(tls, context, ours);
  void* after[kWords];
  memcpy(after, context, sizeof after);
  // Broken, it looks only where no handler is.
  for (size_t i = 0; i < (breaks("handlers") ? 1 : kWords); i++) {
    if (after[i] != reinterpret_cast<void*>(ours) || before[i] == after[i]) continue;
    return isSameLibrary(before[i], reinterpret_cast<void*>(set)) ? reinterpret_cast<Handler>(before[i]) : nullptr;
  }
  return nullptr;
}

}  // namespace tidegate
