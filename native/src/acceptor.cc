// The acceptor: the first step of a connection's way. The primary opens the listening socket (listener.cc), each worker
// accepts from it and hands the descriptors to JavaScript, by way of arrivals.cc where what they say first is of
// interest. Reads nothing from a connection.
//
// Who takes a connection. Every worker's loop watches the socket, so each new connection wakes all that are idle. One
// that has more connections open than the least loaded leaves it alone: it stays for that one, which was woken too.
// Keep-alive connections live long, so a worker that got more of them at the start would keep the surplus for hours. If
// the connection is still there after kPatienceMs the others are busy or hang, and it is taken after all.
//
//   connection ─► all idle workers wake ─┬─ fewest open ──────────────► accept4 ─► onConnection(fd)
//                                        └─ more than that ─► 1 ms ─┬─ gone: somebody took it
//                                                                   └─ still there ─► accept4 (1, then 2, 4, 8)
//
// A worker that has not moved in kHungAfter such waits is not waited for until its count changes or kForgiveMs are
// over. Fewer would do for one that hangs; but in a burst one that only lost its core for some milliseconds would find
// the connections gone.
//
// A queue of more than one is work for everybody: who is less than a batch ahead does not decline then. Without that,
// fresh connections under load wait for each other's millisecond while cores are idle.
//
// EPOLLEXCLUSIVE is of no use here: the one it wakes cannot decline, the others would never hear of that connection.
// The socket lies edge-triggered in an epoll set of its own, which the loop watches. Declining then costs no epoll_ctl,
// and the next connection wakes us again; with uv_poll directly on the socket a worker that declines has to stop
// polling, and for that millisecond is missing when a connection comes that it should take.
#include "arrivals.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <vector>

namespace tidegate {
namespace {

constexpr int kAcceptsPerWake = 8;    // so that answering goes on between accepts, and the other workers get theirs
constexpr uint64_t kPatienceMs = 1;   // how long a connection is left for a less loaded worker
constexpr int kHungAfter = 8;         // waits in vain in a row
constexpr uint64_t kForgiveMs = 100;  // so that one that hangs for longer costs eight such waits in each of these
constexpr uint64_t kExhaustedMs = 100;  // pause when descriptors or memory are out; connections wait in the kernel's queue

struct Acceptor {
  napi_env env = nullptr;
  napi_ref counts = nullptr;
  napi_ref onConnection = nullptr;
  napi_ref onError = nullptr;
  napi_async_context context = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  ArrivalOptions arrivalOptions;
  Arrivals* arrivals = nullptr;  // null where nobody looks at first bytes
  Descriptor listener;
  Descriptor edge;  // an epoll set that holds the listener alone
  uv_poll_t poll;
  uv_timer_t timer;
  size_t self = 0;
  int openHandles = 0;
  int references = 1;  // the JavaScript object, plus one while handles are open
  bool closing = false;
  enum { kWatching, kDeferring, kExhausted } state = kWatching;
  int inVain = 0;             // times in a row that a connection was still there after the wait
  uint64_t hungSinceMs = 0;
  std::vector<int32_t> seen;  // everybody's count when that row began
  std::vector<int32_t> hung;  // the count at which a worker is not waited for; kNobody: it is
};

constexpr int32_t kNobody = -1;
constexpr napi_type_tag kAcceptorTag = {0x7a1d9e0c5b3f4e62, 0x8c64d2f1a0937be5};

void drop(Acceptor* a) {
  if (--a->references == 0) delete a;
}

void onClosed(Acceptor* a) {
  if (--a->openHandles > 0) return;
  napi_delete_reference(a->env, a->counts);
  napi_delete_reference(a->env, a->onConnection);
  const ArrivalOptions& options = a->arrivalOptions;
  for (napi_ref reference : {options.isTrusted, options.tallies, options.places, options.onException}) {
    if (reference != nullptr) napi_delete_reference(a->env, reference);
  }
  napi_delete_reference(a->env, a->onError);
  napi_async_destroy(a->env, a->context);
  napi_remove_async_cleanup_hook(a->cleanup);  // from here on the environment may go
  drop(a);
}

void onHandleClosed(uv_handle_t* handle) { onClosed(static_cast<Acceptor*>(handle->data)); }

void onArrivalsClosed(void* data) {
  auto* a = static_cast<Acceptor*>(data);
  a->arrivals = nullptr;
  onClosed(a);
}

// Who waits at the door has `waitMs` left.
void stop(Acceptor* a, uint64_t waitMs) {
  if (a->closing) return;
  a->closing = true;
  // Closing the handle takes the epoll set out of the loop's, so before the descriptors: other processes keep the
  // socket open, and what stays registered in a loop would go on waking it.
  uv_close(reinterpret_cast<uv_handle_t*>(&a->poll), onHandleClosed);
  uv_close(reinterpret_cast<uv_handle_t*>(&a->timer), onHandleClosed);
  a->edge = Descriptor();
  a->listener = Descriptor();
  if (a->arrivals != nullptr) a->arrivals->stop(waitMs);
}

void onEnvironmentEnds(napi_async_cleanup_hook_handle, void* data) {
  auto* a = static_cast<Acceptor*>(data);
  stop(a, 0);
  if (a->arrivals != nullptr) a->arrivals->close();
}

// The counts as they are now. Read anew on each wake: whoever detaches the buffer leaves us with none, not with a
// dangling pointer.
struct Counts {
  int32_t* at = nullptr;
  size_t length = 0;
  explicit Counts(Acceptor* a) {
    napi_value array;
    void* data = nullptr;
    size_t n = 0;
    if (napi_get_reference_value(a->env, a->counts, &array) != napi_ok || array == nullptr) return;
    if (napi_get_typedarray_info(a->env, array, nullptr, &n, &data, nullptr, nullptr) != napi_ok || data == nullptr) return;
    at = static_cast<int32_t*>(data);
    length = n < a->hung.size() ? n : a->hung.size();
  }
  int32_t of(size_t worker) const { return worker < length ? __atomic_load_n(at + worker, __ATOMIC_RELAXED) : kNobody; }
};

// Connections in the kernel's queue: of a listening socket, that is what these fields of TCP_INFO say.
uint32_t queued(int listener) {
  tcp_info info = {};
  socklen_t size = sizeof info;
  return getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_unacked : 0;
}

// How many connections more than the least loaded of the others this worker has, less the slack (a sixteenth): above 0,
// the next one is theirs. The slack lets whoever is awake first have it once the numbers are large: exact evenness
// would be bought with a millisecond for connections that come while the least loaded is at work.
int32_t ahead(Acceptor* a, const Counts& counts, int32_t own) {
  int32_t least = INT32_MAX;
  const bool forgiven = uv_now(a->timer.loop) - a->hungSinceMs > kForgiveMs;
  for (size_t i = 0; i < counts.length; i++) {
    const int32_t open = counts.of(i);
    if (forgiven || a->hung[i] != open) a->hung[i] = kNobody;
    if (i != a->self && open >= 0 && a->hung[i] == kNobody && open < least) least = open;
  }
  return least == INT32_MAX ? 0 : own - least - (least >> 4);
}

void onTimer(uv_timer_t* timer);

void wait(Acceptor* a, decltype(a->state) state, uint64_t ms) {
  a->state = state;
  uv_timer_start(&a->timer, onTimer, ms, 0);
}

void watch(Acceptor* a) {
  a->state = Acceptor::kWatching;
  uv_timer_stop(&a->timer);
}

// Whether the connection at the head of the queue is left for another worker; it has kPatienceMs from when we first saw
// it.
bool declines(Acceptor* a, const Counts& counts, int32_t own) {
  const int32_t surplus = ahead(a, counts, own);
  if (surplus <= 0) return false;
  const uint32_t pending = queued(a->listener.get());
  if (pending > 1 && surplus <= kAcceptsPerWake) return false;
  const bool running = uv_is_active(reinterpret_cast<uv_handle_t*>(&a->timer));
  if (pending > 1 && running) return true;  // the one we left is still among them
  // With one or none in the queue, the one we left before is gone: those we leave connections to are alive. If there is
  // one, it is new and has its own millisecond. A timer still running for the one before would take it away from them.
  if (a->state == Acceptor::kDeferring) a->inVain = 0;
  if (pending == 0) {
    watch(a);
    return true;
  }
  if (a->inVain == 0) {
    for (size_t i = 0; i < counts.length; i++) a->seen[i] = counts.of(i);
  }
  wait(a, Acceptor::kDeferring, kPatienceMs);
  return true;
}

// accept4's errors that belong to the connection it would have returned (accept(2), "Error handling"), not to us.
bool concernsConnection(int error) {
  switch (error) {
    case EINTR: case ECONNABORTED: case EPROTO: case EPERM: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN: case ENONET:
    case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ETIMEDOUT:
      return true;
    default:
      return false;
  }
}

// Out of descriptors or memory, or an error we do not know: report, leave the queue alone for a while, go on.
void exhausted(Acceptor* a, Calls& call, int error) {
  char code[32];
  napi_value text;
  uv_poll_stop(&a->poll);
  wait(a, Acceptor::kExhausted, kExhaustedMs);
  uv_err_name_r(-error, code, sizeof code);
  napi_create_string_utf8(a->env, code, NAPI_AUTO_LENGTH, &text);
  call(a->onError, &text, 1, -1);
}

// Has the epoll set report what is still in the queue: an edge-triggered one tells of each arrival once.
void rearm(Acceptor* a) {
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  epoll_ctl(a->edge.get(), EPOLL_CTL_MOD, a->listener.get(), &event);
}

// Takes up to `most` connections, if `patient` only those that no other worker should have. Returns how many.
int take(Acceptor* a, int most, bool patient) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(a->env, &scope) != napi_ok) return 0;
  int taken = 0;
  {
    const Counts counts(a);
    const int32_t before = counts.of(a->self);
    Calls call(a->env, a->context, a->arrivalOptions.onException);
    for (int n = 0; !a->closing; n++) {
      if (n == most) {
        rearm(a);
        break;
      }
      // What we just handed over counts, also if JavaScript enters it later.
      int32_t own = counts.of(a->self);
      if (own < before + taken) own = before + taken;
      if (patient && declines(a, counts, own)) break;
      sockaddr_storage peer = {};
      socklen_t peerBytes = sizeof peer;
      const int fd =
          accept4(a->listener.get(), reinterpret_cast<sockaddr*>(&peer), &peerBytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EAGAIN) {
          if (a->state == Acceptor::kDeferring) watch(a);
          break;
        }
        if (concernsConnection(errno)) continue;
        exhausted(a, call, errno);
        break;
      }
      taken++;
      if (a->state == Acceptor::kDeferring) watch(a);  // this was the one that waited
      if (a->arrivals != nullptr) a->arrivals->arrive(fd, Address::of(peer), call);
      else handOver(a->env, a->onConnection, {fd, Address::of(peer)}, fd, false, call);
    }
  }
  napi_close_handle_scope(a->env, scope);
  return taken;
}

// Whether connections came since this was last asked. Before the queue is looked at, or one would be missed.
bool takeEdge(Acceptor* a) {
  epoll_event event;
  return epoll_wait(a->edge.get(), &event, 1, 0) > 0;
}

void onReadable(uv_poll_t* poll, int, int) {
  auto* a = static_cast<Acceptor*>(poll->data);
  takeEdge(a);
  take(a, kAcceptsPerWake, true);
}

void onTimer(uv_timer_t* timer) {
  auto* a = static_cast<Acceptor*>(timer->data);
  if (a->state == Acceptor::kExhausted) {
    a->state = Acceptor::kWatching;
    uv_poll_start(&a->poll, UV_READABLE, onReadable);
    rearm(a);
    return;
  }
  // Timers run before polls: what is in the queue may have come this moment. onReadable would have seen it otherwise.
  if (takeEdge(a) && queued(a->listener.get()) <= 1) {
    take(a, kAcceptsPerWake, true);
    return;
  }
  a->state = Acceptor::kWatching;
  const int most = 1 << a->inVain;
  if (take(a, most < kAcceptsPerWake ? most : kAcceptsPerWake, false) == 0) {
    a->inVain = 0;
    return;
  }
  if (++a->inVain < kHungAfter || a->closing) return;
  a->inVain = 0;
  a->hungSinceMs = uv_now(timer->loop);
  napi_handle_scope scope;
  if (napi_open_handle_scope(a->env, &scope) != napi_ok) return;
  const Counts counts(a);
  for (size_t i = 0; i < counts.length; i++) {
    if (i != a->self && counts.of(i) == a->seen[i]) a->hung[i] = a->seen[i];
  }
  napi_close_handle_scope(a->env, scope);
}

bool isTypedArray(napi_env env, napi_value value, napi_typedarray_type wanted) {
  bool is = false;
  napi_typedarray_type type;
  napi_is_typedarray(env, value, &is);
  return is && napi_get_typedarray_info(env, value, &type, nullptr, nullptr, nullptr, nullptr) == napi_ok && type == wanted;
}

// The arguments from `at` on: headTimeoutMs (0: nobody looks at first bytes, the rest is not read), tallies, isTrusted,
// proxyProtocol, maxConnections, maxPerAddress, places, addressSeed, tls, room, highestFd, relays, onException. False:
// an error has been thrown.
bool readDoor(napi_env env, const napi_value* at, ArrivalOptions& options) {
  int64_t headTimeoutMs, maxConnections, maxPerAddress, seed, room, highestFd;
  if (!readInteger(env, at[0], "headTimeoutMs", 0, INT32_MAX, &headTimeoutMs)) return false;
  if (headTimeoutMs == 0) return true;
  if (!isTypedArray(env, at[1], napi_float64_array)) return throwArgument(env, "tallies", "a Float64Array") != nullptr;
  if (!checkFunction(env, at[2], "isTrusted")) return false;
  if (napi_get_value_bool(env, at[3], &options.proxyProtocol) != napi_ok) return throwArgument(env, "proxyProtocol", "a boolean") != nullptr;
  if (!readInteger(env, at[4], "maxConnections", 0, INT32_MAX, &maxConnections)) return false;
  if (!readInteger(env, at[5], "maxPerAddress", 0, INT32_MAX, &maxPerAddress)) return false;
  if (!isTypedArray(env, at[6], napi_int32_array)) return throwArgument(env, "places", "an Int32Array") != nullptr;
  if (!readInteger(env, at[7], "addressSeed", 0, int64_t{1} << 53, &seed)) return false;
  if (napi_get_value_bool(env, at[8], &options.tls) != napi_ok) return throwArgument(env, "tls", "a boolean") != nullptr;
  if (!readInteger(env, at[9], "room", 0, INT32_MAX, &room)) return false;
  if (!readInteger(env, at[10], "highestFd", 0, INT32_MAX, &highestFd)) return false;
  if (napi_get_value_bool(env, at[11], &options.relays) != napi_ok) return throwArgument(env, "relays", "a boolean") != nullptr;
  if (!checkFunction(env, at[12], "onException")) return false;
  options.room = static_cast<int32_t>(room);
  options.highestFd = static_cast<int32_t>(highestFd);
  options.headTimeoutMs = static_cast<uint64_t>(headTimeoutMs);
  options.maxConnections = static_cast<int32_t>(maxConnections);
  options.maxPerAddress = static_cast<int32_t>(maxPerAddress);
  options.addressSeed = static_cast<uint64_t>(seed);
  return true;
}

// startAccepting(fd, counts, self, onConnection, onError, …readDoor) -> handle for stopAccepting. Owns fd from success
// on.
napi_value startAccepting(napi_env env, napi_callback_info info) {
  Arguments<18> args(env, info);
  int64_t fd, self;
  ArrivalOptions options;
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &fd)) return nullptr;
  bool isArray = false;
  napi_typedarray_type type;
  size_t workers = 0;
  napi_is_typedarray(env, args.at[1], &isArray);
  if (!isArray || napi_get_typedarray_info(env, args.at[1], &type, &workers, nullptr, nullptr, nullptr) != napi_ok ||
      type != napi_int32_array || workers == 0) {
    return throwArgument(env, "counts", "an Int32Array with an element per worker");
  }
  if (!readInteger(env, args.at[2], "self", 0, static_cast<int64_t>(workers) - 1, &self)) return nullptr;
  if (!checkFunction(env, args.at[3], "onConnection") || !checkFunction(env, args.at[4], "onError")) return nullptr;

  if (!readDoor(env, args.at + 5, options)) return nullptr;

  const int listener = static_cast<int>(fd);
  int listening = 0;
  socklen_t size = sizeof listening;
  if (getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) return throwSystem(env, errno, "getsockopt", "");
  if (!listening) return throwSystem(env, EINVAL, "accept", "the socket does not listen");
  // Inherited sockets may lack both; without O_NONBLOCK losing a race for a connection would hold the loop.
  if (fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK) != 0 || fcntl(listener, F_SETFD, FD_CLOEXEC) != 0) {
    return throwSystem(env, errno, "fcntl", "");
  }
  const int noDelay = 1;  // inherited by what is accepted (uws/syscalls.cc relies on it)
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &noDelay, sizeof noDelay);
  Descriptor edge(epoll_create1(EPOLL_CLOEXEC));
  if (!edge.valid()) return throwSystem(env, errno, "epoll_create1", "");
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  if (epoll_ctl(edge.get(), EPOLL_CTL_ADD, listener, &event) != 0) return throwSystem(env, errno, "epoll_ctl", "");

  Descriptor crowd(options.headTimeoutMs > 0 ? epoll_create1(EPOLL_CLOEXEC) : -1);
  if (options.headTimeoutMs > 0 && !crowd.valid()) return throwSystem(env, errno, "epoll_create1", "");

  uv_loop_t* loop;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return throwCoded(env, "ENOTSUP", "accept", "no event loop here", "");
  auto* a = new Acceptor;
  if (const int error = uv_poll_init(loop, &a->poll, edge.get())) {
    delete a;
    return throwSystem(env, -error, "uv_poll_init", "");
  }
  uv_timer_init(loop, &a->timer);
  a->poll.data = a->timer.data = a;
  a->openHandles = 2;
  a->references = 2;
  a->env = env;
  a->self = static_cast<size_t>(self);
  a->seen.assign(workers, kNobody);
  a->hung.assign(workers, kNobody);
  a->edge = std::move(edge);
  a->listener = Descriptor(listener);
  napi_value name, out;
  napi_create_string_utf8(env, "tidegate.acceptor", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &a->context);
  napi_create_reference(env, args.at[1], 1, &a->counts);
  napi_create_reference(env, args.at[3], 1, &a->onConnection);
  napi_create_reference(env, args.at[4], 1, &a->onError);
  if (options.headTimeoutMs > 0) {
    napi_create_reference(env, args.at[6], 1, &options.tallies);
    napi_create_reference(env, args.at[7], 1, &options.isTrusted);
    napi_create_reference(env, args.at[17], 1, &options.onException);
    if (options.maxPerAddress > 0) napi_create_reference(env, args.at[11], 1, &options.places);
    options.onConnection = a->onConnection;
    options.counts = a->counts;
    options.self = a->self;
    options.onClosed = onArrivalsClosed;
    options.onClosedData = a;
    a->arrivalOptions = options;
    a->arrivals = Arrivals::create(env, a->context, loop, std::move(crowd), options);
    a->openHandles++;
  }
  napi_add_async_cleanup_hook(env, onEnvironmentEnds, a, &a->cleanup);
  napi_create_external(env, a, [](napi_env, void* data, void*) { drop(static_cast<Acceptor*>(data)); }, nullptr, &out);
  napi_type_tag_object(env, out, &kAcceptorTag);
  uv_poll_start(&a->poll, UV_READABLE, onReadable);
  return out;
}

// The acceptor of a handle; null, and an exception is pending, where it is not one of ours.
Acceptor* acceptorOf(napi_env env, napi_value handle) {
  bool ours = false;
  void* data = nullptr;
  if (napi_check_object_type_tag(env, handle, &kAcceptorTag, &ours) != napi_ok || !ours ||
      napi_get_value_external(env, handle, &data) != napi_ok) {
    throwArgument(env, "handle", "what startAccepting returned");
    return nullptr;
  }
  return static_cast<Acceptor*>(data);
}

// refuseNew(handle): from here on the kernel drops what opens a connection (SYN without ACK), for everybody who has the
// socket. Closing it resets all that is in its queue and all that has shaken hands and not sent anything yet
// (TCP_DEFER_ACCEPT); who was never answered sends its SYN again a second later, and finds a successor or nobody. The
// kernel shows the filter a segment from its TCP header on.
napi_value refuseNew(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr || a->closing) return nullptr;
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),                 // the flags
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),              // SYN and ACK
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog program = {sizeof code / sizeof *code, code};
  // A kernel without it refuses no one; whoever comes last may then be reset.
  setsockopt(a->listener.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
  return nullptr;
}

// takeAll(handle): accepts whatever is in the queue, however many connections other workers have.
napi_value takeAll(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a != nullptr && !a->closing) take(a, INT32_MAX, false);
  return nullptr;
}

// stopAccepting(handle, waitMs): closes this process's copy of the socket. Connections in its queue are for the others.
napi_value stopAccepting(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  int64_t waitMs;
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr || !readInteger(env, args.at[1], "waitMs", 0, INT32_MAX, &waitMs)) return nullptr;
  stop(a, static_cast<uint64_t>(waitMs));
  return nullptr;
}

// waitingAtDoor(handle) -> connections that were accepted and not handed over yet.
napi_value waitingAtDoor(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr) return nullptr;
  return integer(env, a->arrivals == nullptr ? 0 : static_cast<int64_t>(a->arrivals->waiting()));
}

// relaysUnderWay(handle) -> exchanges of HTTP/1.0 that are not through to their client.
napi_value relaysUnderWay(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr) return nullptr;
  return integer(env, a->arrivals == nullptr ? 0 : static_cast<int64_t>(a->arrivals->exchanges()));
}

// makeRoom(handle, connections): how many this worker has descriptors for, from now on.
napi_value makeRoom(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  int64_t connections;
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr || !readInteger(env, args.at[1], "connections", 0, INT32_MAX, &connections)) return nullptr;
  if (a->arrivals != nullptr) a->arrivals->makeRoom(static_cast<int32_t>(connections));
  return nullptr;
}

// forgetApp(handle, address): onConnection is asked anew about that address; about every one if it is ''.
napi_value forgetApp(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  char text[kAddressTextBytes];
  Acceptor* a = acceptorOf(env, args.at[0]);
  if (a == nullptr || !readString(env, args.at[1], "address", text, sizeof text)) return nullptr;
  if (a->arrivals != nullptr) a->arrivals->forgetApp(addressOf(text));
  return nullptr;
}

}  // namespace

void registerAcceptor(napi_env env, napi_value exports) {
  setFunction(env, exports, "startAccepting", startAccepting);
  setFunction(env, exports, "refuseNew", refuseNew);
  setFunction(env, exports, "takeAll", takeAll);
  setFunction(env, exports, "stopAccepting", stopAccepting);
  setFunction(env, exports, "waitingAtDoor", waitingAtDoor);
  setFunction(env, exports, "relaysUnderWay", relaysUnderWay);
  setFunction(env, exports, "makeRoom", makeRoom);
  setFunction(env, exports, "forgetApp", forgetApp);
}

}  // namespace tidegate
