// What uWebSockets.js asks of libuv and the kernel for each connection, with fewer system calls and packets. It calls
// functions of other libraries through its table of imports, where ours take their place; calls for other handles and
// descriptors are passed through unchanged.
//
// Works around: the uSockets of uWebSockets.js (20.51.4 and 20.69.0) spends six epoll_ctl, an ioctl and a setsockopt on
// each connection.
// Without it, each connection costs those calls again, and one packet more at its end.
//
//   uv_poll_…, uv_close  Through libuv a connection costs six epoll_ctl and an ioctl in its life: uv_poll_init tries
//                        the descriptor out (in and out again), uv_poll_start and uv_poll_stop take it out first,
//                        uv_close once more. Here it is one epoll_ctl, for a set of our own that lies in the loop's;
//                        closing the descriptor takes it out. A handle's memory is uSockets' own, and its type says
//                        whose it is.
//   send                 The last write of a connection waits for its FIN (MSG_MORE), which follows at once: one packet
//                        for both, and one ACK.
//   setsockopt           TCP_NODELAY is inherited from the listening socket.
//
//   loop's epoll ─► set ─► onReadable ─► epoll_wait ─► poll_cb of each, as libuv's uv__poll_io would call it
#include "syscalls.h"

#include "../addon.h"
#include "../server.h"
#include "bindings.h"
#include "breaks.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <utility>

namespace tidegate {
namespace {

constexpr int kEventsPerWake = 512;
// libuv gives it to no handle.
constexpr uv_handle_type kOurs = UV_UNKNOWN_HANDLE;

struct Set {
  Descriptor epoll;
  uv_poll_t poll;  // of the set, in the loop
  epoll_event events[kEventsPerWake];
  int at = 0, count = 0;  // of those that are being gone through
  uint8_t* isLastWrite = nullptr;  // JavaScript's: not 0 while it writes the end of a response whose connection ends with it
  int open = 0;                    // handles that are ours
};

// uSockets' calls carry no pointer of ours. An environment has one set, a thread one environment.
thread_local Set* set = nullptr;

bool isOurs(const uv_handle_t* handle) { return handle->type == kOurs; }

uint32_t epollEvents(int events) {
  const uint32_t in = EPOLLIN, out = EPOLLOUT;
  return (events & UV_READABLE ? in : 0) | (events & UV_WRITABLE ? out : 0);
}

void takeOut(uv_poll_t* poll) {
  poll->io_watcher.events = 0;
  // What has come for it in this wake is nobody's: it may be freed.
  for (int i = set->at; i < set->count; i++) {
    if (set->events[i].data.ptr == poll) set->events[i].data.ptr = nullptr;
  }
}

int pollInit(uv_loop_t* loop, uv_poll_t* poll, uv_os_sock_t fd) {
  if (set == nullptr) return uv_poll_init_socket(loop, poll, fd);
  poll->loop = loop;
  poll->type = kOurs;
  poll->flags = 0;  // libuv's; it is asked about this handle again if the exchange is taken back
  poll->io_watcher.fd = fd;
  poll->io_watcher.events = 0;  // what it is watched for; 0: it is not in the set
  set->open++;
  return 0;
}

int pollStart(uv_poll_t* poll, int events, uv_poll_cb callback) {
  if (!isOurs(reinterpret_cast<uv_handle_t*>(poll))) return uv_poll_start(poll, events, callback);
  poll->poll_cb = callback;
  const uint32_t before = poll->io_watcher.events;
  epoll_event event = {};
  event.events = epollEvents(events);
  event.data.ptr = poll;
  // One that is watched for nothing would still be told of its end, turn after turn.
  const int change = event.events == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (event.events == before) return 0;
  if (event.events == 0) takeOut(poll);
  poll->io_watcher.events = event.events;
  return epoll_ctl(set->epoll.get(), change, poll->io_watcher.fd, &event) == 0 ? 0 : UV_EIO;
}

// The descriptor is closed next, and nobody has a copy: it leaves the set by itself.
int pollStop(uv_poll_t* poll) {
  if (!isOurs(reinterpret_cast<uv_handle_t*>(poll))) return uv_poll_stop(poll);
  takeOut(poll);
  return 0;
}

// Without a callback: uSockets' own only frees what us_poll_free finds closing, and by itself us_poll_free does that.
void closeHandle(uv_handle_t* handle, uv_close_cb callback) {
  if (!isOurs(handle)) return uv_close(handle, callback);
  set->open--;
}

int isClosing(const uv_handle_t* handle) { return isOurs(handle) ? 0 : uv_is_closing(handle); }

ssize_t sendOnce(int fd, const void* data, size_t bytes, int flags) {
  return send(fd, data, bytes, set != nullptr && *set->isLastWrite != 0 ? flags | MSG_MORE : flags);
}

int setOption(int fd, int level, int name, const void* value, socklen_t bytes) {
  if (breaks("syscalls")) return 0;
  return set != nullptr && level == IPPROTO_TCP && name == TCP_NODELAY ? 0 : setsockopt(fd, level, name, value, bytes);
}

void onReadable(uv_poll_t*, int, int) {
  set->count = epoll_wait(set->epoll.get(), set->events, kEventsPerWake, 0);
  for (set->at = 0; set->at < set->count;) {
    const epoll_event& event = set->events[set->at++];
    auto* poll = static_cast<uv_poll_t*>(event.data.ptr);
    if (poll == nullptr) continue;
    const uint32_t wanted = poll->io_watcher.events;
    uint32_t events = event.events & (wanted | EPOLLERR | EPOLLHUP);
    if (events == EPOLLERR || events == EPOLLHUP) events |= wanted;  // who reads or writes learns what it is
    if (events == 0) continue;
    if (events & EPOLLERR) poll->poll_cb(poll, UV_EBADF, 0);
    else poll->poll_cb(poll, 0, (events & EPOLLIN ? UV_READABLE : 0) | (events & EPOLLOUT ? UV_WRITABLE : 0));
  }
  set->count = 0;
}

}  // namespace

namespace sparing {

Import imports[kImports] = {
    {"uv_poll_init_socket", reinterpret_cast<void*>(pollInit)}, {"uv_poll_start", reinterpret_cast<void*>(pollStart)},
    {"uv_poll_stop", reinterpret_cast<void*>(pollStop)},        {"uv_close", reinterpret_cast<void*>(closeHandle)},
    {"uv_is_closing", reinterpret_cast<void*>(isClosing)},      {"send", reinterpret_cast<void*>(sendOnce)},
    {"setsockopt", reinterpret_cast<void*>(setOption)},
};

}  // namespace sparing

namespace {

using sparing::imports;

// spareSyscalls(isLastWrite) -> whether this file watches the connections of uWebSockets.js in this thread from now on.
napi_value spareSyscalls(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  napi_value out;
  napi_ref kept;
  napi_typedarray_type type;
  size_t bytes = 0;
  void* isLastWrite = nullptr;
  if (napi_get_typedarray_info(env, args.at[0], &type, &bytes, &isLastWrite, nullptr, nullptr) != napi_ok || type != napi_uint8_array ||
      bytes < 1) {
    return throwArgument(env, "isLastWrite", "a Uint8Array of one");
  }
  uv_loop_t* loop;
  const bool possible = set == nullptr && napi_get_uv_event_loop(env, &loop) == napi_ok && sparing::findImports();
  if (possible) {
    auto* made = new Set;
    made->epoll = Descriptor(epoll_create1(EPOLL_CLOEXEC));
    made->isLastWrite = static_cast<uint8_t*>(isLastWrite);
    if (made->epoll.valid() && napi_create_reference(env, args.at[0], 1, &kept) == napi_ok && uv_poll_init(loop, &made->poll, made->epoll.get()) == 0) {
      uv_poll_start(&made->poll, UV_READABLE, onReadable);
      uv_unref(reinterpret_cast<uv_handle_t*>(&made->poll));  // connections alone keep no process
      set = made;
      for (sparing::Import& one : imports) {
        if (*one.place != one.ours) one.before = std::exchange(*one.place, one.ours);
      }
    } else delete made;
  }
  napi_get_boolean(env, set != nullptr, &out);
  return out;
}

// unspareSyscalls() -> whether uWebSockets.js calls libuv and the kernel by itself again. False, and nothing changes,
// while it has connections that are watched here.
napi_value unspareSyscalls(napi_env env, napi_callback_info) {
  napi_value out;
  const bool possible = set == nullptr || (set->open == 0 && set->count == 0);
  if (possible && set != nullptr) {
    for (const sparing::Import& one : imports) *one.place = one.before;
    Set* former = std::exchange(set, nullptr);
    former->poll.data = former;
    uv_close(reinterpret_cast<uv_handle_t*>(&former->poll), [](uv_handle_t* handle) { delete static_cast<Set*>(handle->data); });
  }
  napi_get_boolean(env, possible, &out);
  return out;
}

// isSpared(fd) -> whether the connection is watched here.
napi_value isSpared(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  int64_t fd;
  napi_value out;
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &fd)) return nullptr;
  napi_get_boolean(env, isWatchedByServer(static_cast<int>(fd)), &out);
  return out;
}

}  // namespace

bool isWatchedByServer(int fd) {
  if (set == nullptr) return false;
  epoll_event event = {};
  if (epoll_ctl(set->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errno == EEXIST;
  epoll_ctl(set->epoll.get(), EPOLL_CTL_DEL, fd, &event);
  return false;
}

void registerSyscalls(napi_env env, napi_value exports) { 
  setFunction(env, exports, "spareSyscalls", spareSyscalls);
  setFunction(env, exports, "unspareSyscalls", unspareSyscalls);
  setFunction(env, exports, "isSpared", isSpared);
}

}  // namespace tidegate
