// Unix sockets. Descriptors from one process to another of the same user: how a gateway hands its listening socket and
// its segment to its successor. And datagrams: how a service manager is told. Knows nothing of what is handed over or
// said.
#include "addon.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace tidegate {
namespace {

constexpr size_t kMaxDescriptors = 8;
constexpr size_t kTextBytes = 8192;
constexpr time_t kPatienceSeconds = 5;

// The other end runs as we do: whoever else could reach the path must neither get a socket from us nor give us one.
// Returns an errno or 0.
int stranger(int fd) {
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return errno;
  return peer.uid == geteuid() ? 0 : EPERM;
}

union Control {
  cmsghdr aligned;
  char bytes[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
};

// sendDescriptors(fd, descriptors, text): in one message. They stay open here.
napi_value sendDescriptors(napi_env env, napi_callback_info info) {
  Arguments<3> args(env, info);
  int64_t fd;
  uint32_t count = 0;
  char text[kTextBytes];
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &fd)) return nullptr;
  if (napi_get_array_length(env, args.at[1], &count) != napi_ok || count == 0 || count > kMaxDescriptors) {
    return throwArgument(env, "descriptors", "an array of one to eight descriptors");
  }
  int descriptors[kMaxDescriptors];
  for (uint32_t i = 0; i < count; i++) {
    napi_value element;
    int64_t each;
    napi_get_element(env, args.at[1], i, &element);
    if (!readInteger(env, element, "descriptors", 0, INT32_MAX, &each)) return nullptr;
    descriptors[i] = static_cast<int>(each);
  }
  if (!readString(env, args.at[2], "text", text, sizeof text)) return nullptr;
  if (const int error = stranger(static_cast<int>(fd))) return throwSystem(env, error, "getsockopt", "");

  Control control = {};
  iovec data = {text, strlen(text)};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
  ssize_t sent;
  do sent = sendmsg(static_cast<int>(fd), &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return throwSystem(env, errno, "sendmsg", "");
  // A socket's buffer that has nothing in it takes this much at once.
  if (static_cast<size_t>(sent) != data.iov_len) return throwSystem(env, EMSGSIZE, "sendmsg", "");
  return nullptr;
}

// receiveDescriptors(path) -> { fd, descriptors, text }: connects, and waits for one message. fd is the connection,
// non-blocking.
napi_value receiveDescriptors(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (!readString(env, args.at[0], "path", address.sun_path, sizeof address.sun_path)) return nullptr;
  const char* path = address.sun_path;
  Descriptor connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!connection.valid()) return throwSystem(env, errno, "socket", path);
  const timeval patience = {kPatienceSeconds, 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(connection.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return throwSystem(env, errno, "connect", path);
  }
  if (const int error = stranger(connection.get())) return throwSystem(env, error, "getsockopt", path);

  char text[kTextBytes];
  Control control = {};
  iovec data = {text, sizeof text};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t received;
  do received = recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) return throwSystem(env, errno, "recvmsg", path);
  Descriptor descriptors[kMaxDescriptors];
  size_t count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < here && count < kMaxDescriptors; i++) {
      int each;
      memcpy(&each, CMSG_DATA(header) + i * sizeof(int), sizeof each);
      descriptors[count++] = Descriptor(each);
    }
  }
  if (received == 0 || count == 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return throwCoded(env, "EPROTO", "recvmsg", "the other end sent no descriptors", path);
  }
  if (fcntl(connection.get(), F_SETFL, O_NONBLOCK) != 0) return throwSystem(env, errno, "fcntl", path);

  napi_value out, list, said;
  napi_create_object(env, &out);
  napi_create_array_with_length(env, count, &list);
  for (size_t i = 0; i < count; i++) napi_set_element(env, list, static_cast<uint32_t>(i), integer(env, descriptors[i].release()));
  napi_create_string_utf8(env, text, static_cast<size_t>(received), &said);
  setProperty(env, out, "descriptors", list);
  setProperty(env, out, "text", said);
  setProperty(env, out, "fd", integer(env, connection.release()));
  return out;
}

// sendDatagram(path, text): to a Unix socket, '@' at the beginning standing for the abstract kind (sd_notify(3)).
napi_value sendDatagram(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  char text[kTextBytes];
  if (!readString(env, args.at[0], "path", address.sun_path, sizeof address.sun_path)) return nullptr;
  if (!readString(env, args.at[1], "text", text, sizeof text)) return nullptr;
  const size_t length = strlen(address.sun_path);
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;
  const Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return throwSystem(env, errno, "socket", "");
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  if (sendto(socket.get(), text, strlen(text), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), size) < 0) {
    return throwSystem(env, errno, "sendto", "");
  }
  return nullptr;
}

}  // namespace

void registerHandover(napi_env env, napi_value exports) {
  setFunction(env, exports, "sendDescriptors", sendDescriptors);
  setFunction(env, exports, "receiveDescriptors", receiveDescriptors);
  setFunction(env, exports, "sendDatagram", sendDatagram);
}

}  // namespace tidegate
