// Proves, once and before there are connections, that the exchange of syscalls.cc is in effect and does no harm: calls
// that uWebSockets.js would make for handles and descriptors that are not ours do what the originals do. Whether
// connections are served, src/downstream/uws/proofs.ts finds out with one.
#include "../addon.h"
#include "bindings.h"
#include "syscalls.h"

#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tidegate {
namespace {

using namespace sparing;

// An entry of the table, as uWebSockets.js calls it.
template <typename Function>
Function* imported(size_t which, Function*) {
  return reinterpret_cast<Function*>(*imports[which].place);
}

const char* faultOfTable() {
  for (const Import& one : imports) {
    if (one.place == nullptr || *one.place != one.ours) return one.name;
  }
  return nullptr;
}

const char* faultOfSockets(int fd, int other) {
  char got[8] = {};
  if (imported(kSend, send)(fd, "proof", 5, MSG_NOSIGNAL) != 5 || recv(other, got, sizeof got, MSG_DONTWAIT) != 5 || memcmp(got, "proof", 5) != 0) {
    return imports[kSend].name;
  }
  const int on = 1;
  int now = 0;
  socklen_t size = sizeof now;
  if (imported(kSetOption, setsockopt)(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &now, &size) != 0 || now != 1) {
    return imports[kSetOption].name;
  }
  return nullptr;
}

// A handle of libuv's own: it is the loop's to watch and to close.
const char* faultOfHandles(uv_loop_t* loop, Descriptor watched) {
  struct Watch {
    uv_poll_t poll;
    Descriptor fd;
  };
  auto* one = new Watch{{}, std::move(watched)};
  auto* handle = reinterpret_cast<uv_handle_t*>(&one->poll);
  handle->data = one;
  if (uv_poll_init(loop, &one->poll, one->fd.get()) != 0) {
    delete one;
    return imports[kPollInit].name;
  }
  const char* fault = nullptr;
  const auto hold = [&](bool condition, size_t which) {
    if (!condition && fault == nullptr) fault = imports[which].name;
  };
  hold(imported(kPollStart, uv_poll_start)(&one->poll, UV_READABLE, [](uv_poll_t*, int, int) {}) == 0 && uv_is_active(handle), kPollStart);
  hold(imported(kPollStop, uv_poll_stop)(&one->poll) == 0 && !uv_is_active(handle), kPollStop);
  hold(!imported(kIsClosing, uv_is_closing)(handle), kIsClosing);
  const uv_close_cb freed = [](uv_handle_t* closed) { delete static_cast<Watch*>(closed->data); };
  imported(kClose, uv_close)(handle, freed);
  hold(uv_is_closing(handle), kClose);
  hold(imported(kIsClosing, uv_is_closing)(handle), kIsClosing);
  if (!uv_is_closing(handle)) uv_close(handle, freed);
  return fault;
}

// proveSyscalls() -> the name of a function that is not exchanged, or does not pass on what is not ours; '' if all do.
napi_value proveSyscalls(napi_env env, napi_callback_info) {
  napi_value out;
  uv_loop_t* loop;
  const char* fault = faultOfTable();
  int pair[2];
  if (fault == nullptr && napi_get_uv_event_loop(env, &loop) == napi_ok) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return throwSystem(env, errno, "socketpair", "");
    Descriptor first(pair[0]), second(pair[1]);
    fault = faultOfSockets(first.get(), second.get());
    if (fault == nullptr) fault = faultOfHandles(loop, std::move(first));
  }
  napi_create_string_utf8(env, fault == nullptr ? "" : fault, NAPI_AUTO_LENGTH, &out);
  return out;
}

}  // namespace

void registerSyscallsProof(napi_env env, napi_value exports) { setFunction(env, exports, "proveSyscalls", proveSyscalls); }

}  // namespace tidegate
