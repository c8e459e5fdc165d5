// Sockets for the proofs of src/downstream/uws/proofs.ts: connected within this process, over no network and with no
// name in any folder.
#include "../addon.h"
#include "bindings.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <utility>

namespace tidegate {
namespace {

constexpr int kFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

napi_value pairOf(napi_env env, Descriptor first, Descriptor second) {
  napi_value out;
  napi_create_array_with_length(env, 2, &out);
  napi_set_element(env, out, 0, integer(env, first.release()));
  napi_set_element(env, out, 1, integer(env, second.release()));
  return out;
}

// socketPair() -> the two ends of a connection.
napi_value socketPair(napi_env env, napi_callback_info) {
  int pair[2];
  if (socketpair(AF_UNIX, kFlags, 0, pair) != 0) return throwSystem(env, errno, "socketpair", "");
  return pairOf(env, Descriptor(pair[0]), Descriptor(pair[1]));
}

// queuedConnection() -> a listening socket, and the client's end of a connection in its queue.
napi_value queuedConnection(napi_env env, napi_callback_info) {
  Descriptor listener(socket(AF_UNIX, kFlags, 0)), client(socket(AF_UNIX, kFlags, 0));
  if (!listener.valid() || !client.valid()) return throwSystem(env, errno, "socket", "");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // An address of the family alone: the kernel chooses an abstract name (unix(7), "Autobind feature").
  auto* any = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address.sun_family;
  if (bind(listener.get(), any, size) != 0) return throwSystem(env, errno, "bind", "");
  size = sizeof address;
  if (listen(listener.get(), 1) != 0 || getsockname(listener.get(), any, &size) != 0) return throwSystem(env, errno, "listen", "");
  if (connect(client.get(), any, size) != 0) return throwSystem(env, errno, "connect", "");
  return pairOf(env, std::move(listener), std::move(client));
}

}  // namespace

void registerProofSockets(napi_env env, napi_value exports) {
  setFunction(env, exports, "socketPair", socketPair);
  setFunction(env, exports, "queuedConnection", queuedConnection);
}

}  // namespace tidegate
