// The listening socket. The primary opens it once and every worker inherits it, so that its accept queue outlives any
// of them.
#include "addon.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace tidegate {
namespace {

// The HTTP server (server.h) reads 512 KiB at a time and, when a read fills that, reads again at once: a fast upload
// would fill memory before the server looks at a pause. The kernel doubles this number (and caps it at
// net.core.rmem_max), so that no read finds 512 KiB. The number also bounds the window, to some MB/s of upload per
// connection at 100 ms of round trip.
constexpr int kReceiveBytes = 256 * 1024;
constexpr int kDeferAcceptSeconds = 2;  // a connection is accepted with its first bytes, or after about this long without

// What connections inherit, and how they are accepted. False: errno says why.
bool configure(int fd) {
  const int on = 1;
  return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
         setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &kReceiveBytes, sizeof kReceiveBytes) == 0 &&
         setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &kDeferAcceptSeconds, sizeof kDeferAcceptSeconds) == 0;
}

// adoptListener(fd) -> { fd, port }. A socket that a service manager has opened and passed on; on error it stays as it
// is. Takes back what refuseNew() has done to it.
napi_value adoptListener(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  int64_t given;
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &given)) return nullptr;
  const int fd = static_cast<int>(given);
  int listening = 0;
  socklen_t size = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) return throwSystem(env, errno, "getsockopt", "");
  sockaddr_storage address = {};
  size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return throwSystem(env, errno, "getsockname", "");
  if (!listening || (address.ss_family != AF_INET && address.ss_family != AF_INET6)) {
    return throwCoded(env, "EINVAL", "listen", "not a listening TCP socket", "");
  }
  // What refuseNew() of somebody's acceptor has put on it. ENOENT: nobody's has.
  const int none = 0;
  if (setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none) != 0 && errno != ENOENT) {
    return throwSystem(env, errno, "setsockopt", "");
  }
  if (!configure(fd)) return throwSystem(env, errno, "setsockopt", "");
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return throwSystem(env, errno, "fcntl", "");
  }
  napi_value out;
  napi_create_object(env, &out);
  setProperty(env, out, "port", integer(env, ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port)));
  setProperty(env, out, "fd", integer(env, fd));
  return out;
}

// listen(host, port, backlog) -> { fd, port }. host is an address, or '' for every one of both families.
napi_value listenOn(napi_env env, napi_callback_info info) {
  Arguments<3> args(env, info);
  char host[128];
  int64_t port, backlog;
  if (!readString(env, args.at[0], "host", host, sizeof host)) return nullptr;
  if (!readInteger(env, args.at[1], "port", 0, 65535, &port)) return nullptr;
  if (!readInteger(env, args.at[2], "backlog", 1, INT32_MAX, &backlog)) return nullptr;

  sockaddr_storage address = {};
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  const char* literal = *host == 0 ? "::" : host;
  if (uv_ip4_addr(literal, static_cast<int>(port), v4) != 0 && uv_ip6_addr(literal, static_cast<int>(port), v6) != 0) {
    return throwArgument(env, "host", "an IPv4 or IPv6 address");
  }
  char subject[160];
  snprintf(subject, sizeof subject, strchr(literal, ':') ? "[%s]:%d" : "%s:%d", literal, static_cast<int>(port));

  const int flags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  Descriptor socket(::socket(address.ss_family, flags, 0));
  if (!socket.valid() && errno == EAFNOSUPPORT && *host == 0) {  // a kernel without IPv6
    uv_ip4_addr("0.0.0.0", static_cast<int>(port), v4);
    socket = Descriptor(::socket(AF_INET, flags, 0));
  }
  if (!socket.valid()) return throwSystem(env, errno, "socket", subject);
  const int on = 1, off = 0, fd = socket.get();
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 || !configure(fd) ||
      (address.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0)) {
    return throwSystem(env, errno, "setsockopt", subject);
  }
  socklen_t size = address.ss_family == AF_INET6 ? sizeof *v6 : sizeof *v4;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) return throwSystem(env, errno, "bind", subject);
  if (listen(fd, static_cast<int>(backlog)) != 0) return throwSystem(env, errno, "listen", subject);
  size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return throwSystem(env, errno, "getsockname", subject);

  napi_value out;
  napi_create_object(env, &out);
  // sin_port and sin6_port lie at the same offset.
  setProperty(env, out, "port", integer(env, ntohs(v4->sin_port)));
  setProperty(env, out, "fd", integer(env, socket.release()));
  return out;
}

}  // namespace

void registerListener(napi_env env, napi_value exports) {
  setFunction(env, exports, "listen", listenOn);
  setFunction(env, exports, "adoptListener", adoptListener);
}

}  // namespace tidegate
