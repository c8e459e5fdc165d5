// The gate: every byte of a connection passes it before uWebSockets.js' parser sees it, decrypted where there is TLS. It reads no
// request: framing.h finds where heads and bodies end and refuses what that parser takes or waits on for ever; the rest is handed on.
//
// What the parser of 20.51 does with framing in doubt (test/e2e/framing.test.ts asks for all of it):
//   chunk sizes      takes `g`, `:` and `;` for digits, blanks and controls for an end, LF for CRLF, any two bytes for a chunk's CRLF
//   extensions       `5;a` is a chunk of 0x5ba bytes
//   trailers         the bytes after `0 CRLF` but two are the next request: a way to smuggle one past a proxy in front
//   empty names      end the list of fields: a Content-Length after one is not seen, its body is the next request
//   bare CR, no version, an empty line before the request:  waits for more until the connection idles out
//   targets that are no path are answered 505, as if it were for their version
//   bytes over 127 at either end of a value are taken for blanks and cut off, so that `chunked\xa0` is chunked
//
//   on_data ──► framing.h ──► uWebSockets' on_data ──► handler ──► expectBody(length | chunked), in time for what is behind the head
//
// A request that comes while another's answer is not complete would end the connection there (both answers are lost), so what lies behind a
// request is held here until JavaScript says that its answer is through, and the kernel has all of it: who asks on and on and reads nothing
// would have answer after answer gathered in memory.
//
// Stands between uSockets and uWebSockets: a socket context's on_open, on_data, on_writable, on_close and on_timeout are exchanged for ours
// (usockets.h).
#include "gate.h"

#include "addon.h"
#include "framing.h"
#include "head_marks.h"
#include "usockets.h"

#include <poll.h>
#include <uv.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tidegate {
namespace {

// uWebSockets marks the end of what it was given with two bytes behind it and looks up to 32 further.
static_assert(kPadding >= 32);
// uWebSockets takes no more than 100 fields.
constexpr size_t kMarks = kHeadMarks + 100 * kFieldMarks;

constexpr int kReadable = 1, kWritable = 2;  // UV_READABLE, UV_WRITABLE

// What a connection's word in `states` says. JavaScript takes kBusy and kHeld back when the answer is complete. kEnds: nothing is answered behind it.
enum State : int32_t { kIdle, kBusy, kHeld, kEnds };
constexpr int32_t kNowhere = -1;
constexpr size_t kStates = 1 << 17;  // connections of one worker that have one; the others cannot pipeline

// Of requests behind the one that is being answered: where reading stops, and what ends the connection, as anything does in uWebSockets.
constexpr size_t kHeldEnough = 16 * 1024;
constexpr size_t kHeldMost = 128 * 1024;
constexpr size_t kMostRead = 512 * 1024;  // of uSockets at a time, where it reads on before onPoll stops it
constexpr size_t kHeldOfAll = 64 * 1024 * 1024;

// Those that fell silent together come to their time in one tick of 4 s. Ending one takes tens of microseconds: others are served in between.
constexpr int kExpiriesPerTurn = 16;

// Positions in `tallies` (src/state/counters.ts).
enum Tally { kRequestLine, kLineEnd, kFieldName, kFieldValue, kParser, kIdleOver, kSlowHead, kTallies };

struct Connection {
  Flow flow;
  napi_ref exchange = nullptr;  // of the chunked body that flows
  std::string held;             // what came after the request that is being answered
  int32_t state = kNowhere;     // position of its word
  bool tls = false;
  bool relayed = false;
  bool within = false;          // its bytes are being handed on: it is erased afterwards
  bool closed = false;
  bool paused = false;
  bool listed = false;          // in Gate::paused
  bool headTimed = false;       // the clock runs for the head that has begun
  bool idleExtended = false;    // uWebSockets' own time is over, the rest of ours runs
  bool expired = false;         // so is ours, or that of the head that has begun
  bool ending = false;          // to be closed once the last answer is out
};

struct Gate {
  napi_env env = nullptr;
  napi_ref onBadBody = nullptr;
  napi_async_context context = nullptr;
  USockets us;
  OnOpen onOpen = nullptr;  // uWebSockets' own, in cleartext
  OnData onData[2] = {};    // … by TLS or not
  OnWritable onWritable[2] = {};
  OnClose onClose[2] = {};
  OnTimeout onTimeout[2] = {};
  unsigned headSeconds = 0;
  unsigned idleSeconds = 0;
  napi_ref tallies = nullptr;      // Float64Array
  napi_ref states = nullptr;       // the next one's memory
  int32_t* state = nullptr;        // by connection; [0]: whose request is being handed on, 0 once JavaScript has taken it
  size_t heldBytes = 0;                        // of all connections
  std::vector<us_socket_t*> sockets{nullptr};  // by state
  std::vector<int32_t> vacant;                 // states
  std::vector<int32_t> answered;               // states of those that hold something, with the next turn
  std::vector<int32_t> expired;                // … and of those whose time is over, a few a turn
  std::vector<int32_t> paused;                 // … and of those that are not read from
  uv_idle_t turn;
  uv_prepare_t poll;                           // while there are such
  int openHandles = 2;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  std::unordered_map<us_socket_t*, Connection> connections;  // that have sent something
  us_socket_t* adopted = nullptr;
  FieldNames names;
  int32_t* marks = nullptr;                                  // kMarks of them, in JavaScript's hands as well
  napi_ref marksKept = nullptr;
  Connection* current = nullptr;                             // whose head is being handed on
  bool headIsRead = false;                                   // uWebSockets has read it where it lies: names are in lower case
  const char* headEnding = nullptr;                          // of that head, behind its flow.head
  size_t headEndingBytes = 0;
  Flow* next = nullptr;                                      // what follows that head
};

// uSockets' handlers get no pointer of ours. An environment has one gate, a thread one environment.
thread_local Gate* gate = nullptr;

// uWebSockets' own, of 10 s, which it sets when an answer is complete.
constexpr unsigned kUwsIdleSeconds = 10;

constexpr char kTooSlow[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
constexpr char kRefusal[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

// What is behind the part handed on lies in the same buffer, where uWebSockets sets its marks.
bool feed(Gate& g, int tls, us_socket_t* s, char* data, size_t length) {
  char behind[2];
  memcpy(behind, data + length, sizeof behind);
  g.onData[tls](s, data, static_cast<int>(length));
  memcpy(data + length, behind, sizeof behind);
  return !g.us.isClosed(tls, s) && !g.us.isShutDown(tls, s);
}

// Looked up each time, as the buffer may be gone.
void tally(Gate& g, Tally which) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(g.env, &scope) != napi_ok) return;
  napi_value value;
  void* data = nullptr;
  size_t n = 0;
  if (napi_get_reference_value(g.env, g.tallies, &value) == napi_ok &&
      napi_get_typedarray_info(g.env, value, nullptr, &n, &data, nullptr, nullptr) == napi_ok && data != nullptr && n >= kTallies) {
    static_cast<double*>(data)[which] += 1;
  }
  napi_close_handle_scope(g.env, scope);
}

void enter(Gate& g, us_socket_t* s, Connection& connection) {
  if (!g.vacant.empty()) {
    connection.state = g.vacant.back();
    g.vacant.pop_back();
  } else if (g.sockets.size() < kStates) {
    connection.state = static_cast<int32_t>(g.sockets.size());
    g.sockets.push_back(nullptr);
  } else {
    return;
  }
  g.sockets[static_cast<size_t>(connection.state)] = s;
  g.state[connection.state] = kIdle;
}

void leave(Gate& g, us_socket_t* s, Connection& connection) {
  if (connection.exchange != nullptr) napi_delete_reference(g.env, connection.exchange);
  if (connection.state != kNowhere) {
    g.sockets[static_cast<size_t>(connection.state)] = nullptr;
    g.vacant.push_back(connection.state);
  }
  g.heldBytes -= connection.held.size();
  g.connections.erase(s);
}

void letGo(Gate& g, Connection& connection) {
  if (connection.exchange != nullptr) napi_delete_reference(g.env, connection.exchange);
  connection.exchange = nullptr;
}

void closeNow(Gate& g, int tls, us_socket_t* s) {
  if (g.us.isClosed(tls, s)) return;
  g.us.shutdown(tls, s);
  g.us.close(tls, s, 0, nullptr);
}

// JavaScript answers, if it still can, and the connection is gone afterwards.
void tellBadBody(Gate& g, int tls, us_socket_t* s, Connection& connection) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(g.env, &scope) == napi_ok) {
    napi_value callback, receiver, exchange, ignored;
    napi_get_reference_value(g.env, g.onBadBody, &callback);
    napi_get_reference_value(g.env, connection.exchange, &exchange);
    napi_create_object(g.env, &receiver);
    if (napi_make_callback(g.env, g.context, receiver, callback, 1, &exchange, &ignored) != napi_ok) {
      bool pending = false;
      napi_value error;
      napi_is_exception_pending(g.env, &pending);
      if (pending && napi_get_and_clear_last_exception(g.env, &error) == napi_ok) napi_fatal_exception(g.env, error);
    }
    napi_close_handle_scope(g.env, scope);
  }
  closeNow(g, tls, s);
}

// uWebSockets asks a bloom filter whether a Host is the second one, and finds that very field where the names before it happen to set the same
// bits: 20 of them do so once in a hundred times. Node's own client sends it last.
// What has come of a head in earlier pieces is handed on already, and stays as it is.
void putHostFirst(char* fields, char* const end) {
  for (char *line = fields, *next; line < end; line = next) {
    char* const lf = static_cast<char*>(memchr(line, '\n', static_cast<size_t>(end - line)));
    if (lf == nullptr) return;
    next = lf + 1;
    if (next - line > 5 && strncasecmp(line, "host:", 5) == 0) {
      std::rotate(fields, line, next);
      return;
    }
  }
}

// Whether the answer to the last request is not through yet, or not with the kernel. Who has no word cannot be held back.
bool isBusy(Gate& g, us_socket_t* s, const Connection& connection) {
  return connection.state != kNowhere && (g.state[connection.state] != kIdle || (g.us.events(s) & kWritable));
}

// What framing.h hands on goes to uWebSockets' parser.
struct Parser {
  Gate& g;
  int tls;
  us_socket_t* s;
  Connection& connection;

  bool feed(char* data, size_t length) { return tidegate::feed(g, tls, s, data, length); }
  bool feedText(const char* text, size_t length) {
    char padded[kInsertionBytes + 2 * kPadding];
    memcpy(padded + kPadding, text, length);
    return feed(padded + kPadding, length);
  }
  bool feedHeadPart(char* data, size_t length) {
    if (feed(data, length)) return true;
    tally(g, kParser);
    return false;
  }
  bool feedHead(char* data, size_t length, Flow& next) {
    // Where a line begins, behind the request's.
    const std::string& before = connection.flow.head;
    char* const lf = !before.empty() && before.back() == '\n' ? data - 1 : static_cast<char*>(memchr(data, '\n', length));
    putHostFirst(lf + 1, data + length);
    g.current = &connection;
    g.headIsRead = !connection.relayed && connection.flow.head.empty();
    g.headEnding = data;
    g.headEndingBytes = length;
    g.next = &next;
    g.state[0] = connection.state;
    if (connection.state != kNowhere) g.state[connection.state] = kBusy;
    connection.headTimed = connection.idleExtended = connection.expired = false;
    const bool open = feed(data, length);
    if (!open && g.state[0] != 0) tally(g, kParser);  // no handler has seen it
    g.state[0] = 0;
    g.current = nullptr;
    return open;
  }
  void endBody() { letGo(g, connection); }
  bool isBusy() const { return tidegate::isBusy(g, s, connection); }
};

void refuse(Gate& g, int tls, us_socket_t* s, Tally why) {
  tally(g, why);
  g.us.write(tls, s, kRefusal, sizeof kRefusal - 1, 0);
  closeNow(g, tls, s);
}

// Who is gone is found out by reading alone: uSockets takes a write's error for a full socket.
bool isGone(int fd) {
  pollfd one = {fd, 0, 0};
  return ::poll(&one, 1, 0) > 0;  // POLLERR and POLLHUP, which nobody has to ask for
}

// uSockets reads on from whom it cannot write to (us_socket_write watches for both), and a paused one would send more than is held. A write
// within the poll phase may still be followed by one read (kMostRead).
void onPoll(uv_prepare_t* poll);

void setReading(Gate& g, us_socket_t* s, Connection& connection, bool reading) {
  connection.paused = !reading;
  const int events = g.us.events(s) & kWritable;
  g.us.watch(s, g.us.loop(connection.tls, g.us.context(connection.tls, s)), reading ? events | kReadable : events);
  if (reading || connection.listed) return;
  connection.listed = true;
  g.paused.push_back(connection.state);
  uv_prepare_start(&g.poll, onPoll);
}

void onPoll(uv_prepare_t* poll) {
  Gate& g = *static_cast<Gate*>(poll->data);
  for (size_t i = 0; i < g.paused.size();) {
    us_socket_t* s = g.sockets[static_cast<size_t>(g.paused[i])];
    if (s != nullptr && !(g.us.events(s) & kReadable)) {
      i++;
      continue;
    }
    if (s != nullptr) {
      Connection& connection = g.connections.at(s);
      if (connection.paused && !isGone(g.us.fd(s))) {
        setReading(g, s, connection, false);
        i++;
        continue;
      }
      connection.listed = false;
    }
    g.paused[i] = g.paused.back();
    g.paused.pop_back();
  }
  if (g.paused.empty()) uv_prepare_stop(poll);
}

// What came behind a request whose answer is not complete. Who asks behind an answer that ends the connection is told so by its end, once the
// answer is out.
void hold(Gate& g, us_socket_t* s, Connection& connection, const char* data, size_t length) {
  if (g.state[connection.state] == kEnds) {
    if (!(g.us.events(s) & kWritable)) closeNow(g, connection.tls, s);
    return;
  }
  const size_t most = connection.paused ? kHeldMost + kMostRead : kHeldMost;
  if (connection.held.size() + length > most || g.heldBytes + length > kHeldOfAll) return closeNow(g, connection.tls, s);
  connection.held.append(data, length);
  g.heldBytes += length;
  if (g.state[connection.state] == kBusy) g.state[connection.state] = kHeld;
  if (connection.held.size() > kHeldEnough && !connection.paused) setReading(g, s, connection, false);
}

// Behind what is handed on there is room for uWebSockets' marks.
void pass(Gate& g, us_socket_t* s, Connection& connection, char* data, size_t length) {
  const int tls = connection.tls;
  char* const end = data + length;
  Parser parser{g, tls, s, connection};
  connection.within = true;
  switch (passBytes(parser, connection.flow, tls, connection.relayed, data, end)) {
    case Passed::kOpen:
      if (connection.flow.at > At::kBefore && connection.flow.at < At::kBody && !connection.headTimed && !connection.relayed) {
        connection.headTimed = true;
        g.us.timeout(tls, s, g.headSeconds);
      }
      break;
    case Passed::kClosed: break;
    case Passed::kHeld: hold(g, s, connection, data, static_cast<size_t>(end - data)); break;
    case Passed::kBadLine: refuse(g, tls, s, kRequestLine); break;
    case Passed::kBadLineEnd: refuse(g, tls, s, kLineEnd); break;
    case Passed::kBadFieldName: refuse(g, tls, s, kFieldName); break;
    case Passed::kBadFieldValue: refuse(g, tls, s, kFieldValue); break;
    case Passed::kBadBody: tellBadBody(g, tls, s, connection); break;
  }
  connection.within = false;
  if (connection.closed) leave(g, s, connection);
}

// The answer that what is held has waited for is complete, or the last one, of which uWebSockets does not know that it is.
void resume(Gate& g, us_socket_t* s, Connection& connection) {
  const bool tls = connection.tls;
  if (g.state[connection.state] == kEnds) {
    connection.ending = g.us.events(s) & kWritable;
    if (!connection.ending) closeNow(g, tls, s);
    return;
  }
  if (connection.held.empty() || isBusy(g, s, connection) || g.us.isShutDown(tls, s)) return;
  std::string held(kPadding, '\0');
  held += connection.held;
  held.append(kPadding, '\0');
  g.heldBytes -= connection.held.size();
  std::string().swap(connection.held);  // its room as well: what all of them hold is bounded
  pass(g, s, connection, &held[kPadding], held.size() - 2 * kPadding);
  if (g.us.isClosed(tls, s) || g.us.isShutDown(tls, s)) return;  // it may be erased
  if (connection.paused && connection.held.size() <= kHeldEnough) setReading(g, s, connection, true);
}

// Nothing has come in time, or not the rest of a head.
void expire(Gate& g, us_socket_t* s, Connection& connection) {
  if (!connection.expired) return;
  const bool isHead = connection.flow.at > At::kBefore;
  tally(g, isHead ? kSlowHead : kIdleOver);
  if (!isHead) {
    g.onTimeout[connection.tls](s);
    return;
  }
  g.us.write(connection.tls, s, kTooSlow, sizeof kTooSlow - 1, 0);
  closeNow(g, connection.tls, s);
}

// Of the loop, and before it polls: uSockets frees what is closed after that, and leaks what was closed later in a turn (us_poll_free takes a
// handle that is closed for one that is closing).
void onTurn(uv_idle_t* turn) {
  Gate& g = *static_cast<Gate*>(turn->data);
  std::vector<int32_t> answered;
  answered.swap(g.answered);
  for (const int32_t state : answered) {
    us_socket_t* s = g.sockets[static_cast<size_t>(state)];
    if (s != nullptr) resume(g, s, g.connections.at(s));
  }
  for (int n = 0; n < kExpiriesPerTurn && !g.expired.empty(); n++) {
    us_socket_t* s = g.sockets[static_cast<size_t>(g.expired.back())];
    g.expired.pop_back();
    if (s != nullptr) expire(g, s, g.connections.at(s));
  }
  if (g.answered.empty() && g.expired.empty()) uv_idle_stop(turn);
}

void withNextTurn(Gate& g, std::vector<int32_t>& states, int32_t state) {
  states.push_back(state);
  uv_idle_start(&g.turn, onTurn);
}

template <int kTls, bool kRelayed = false>
us_socket_t* onData(us_socket_t* s, char* data, int length) {
  Gate& g = *gate;
  if (g.us.isShutDown(kTls, s)) return s;
  const auto [found, isNew] = g.connections.try_emplace(s);
  Connection& connection = found->second;
  if (isNew) {
    connection.tls = kTls;
    connection.relayed = kRelayed;
    enter(g, s, connection);
  }
  if (connection.held.empty()) {
    pass(g, s, connection, data, static_cast<size_t>(length));
  } else {
    hold(g, s, connection, data, static_cast<size_t>(length));
    if (!g.us.isClosed(kTls, s)) resume(g, s, connection);
  }
  return s;
}

us_socket_t* onOpen(us_socket_t* s, int isClient, char* address, int addressLength) {
  gate->adopted = s;
  return gate->onOpen(s, isClient, address, addressLength);
}

// The kernel has room again. Whether for all there was, uSockets finds out behind this.
template <int kTls>
us_socket_t* onWritable(us_socket_t* s) {
  Gate& g = *gate;
  s = g.onWritable[kTls](s);
  const auto found = g.connections.find(s);
  if (found == g.connections.end()) return s;
  const Connection& connection = found->second;
  if (connection.ending || !connection.held.empty()) withNextTurn(g, g.answered, connection.state);
  return s;
}

template <int kTls>
us_socket_t* onClose(us_socket_t* s, int code, void* reason) {
  Gate& g = *gate;
  const auto found = g.connections.find(s);
  if (found != g.connections.end()) {
    if (found->second.within) found->second.closed = true;
    else leave(g, s, found->second);
  }
  return g.onClose[kTls](s, code, reason);
}

// uWebSockets sets its clock when an answer is complete, and while it has bytes that the client does not take. In ticks of 4 s.
template <int kTls>
us_socket_t* onTimeout(us_socket_t* s) {
  Gate& g = *gate;
  const auto found = g.connections.find(s);
  if (found == g.connections.end()) return g.onTimeout[kTls](s);
  Connection& connection = found->second;
  const At at = connection.flow.at;
  if (at >= At::kBody || isBusy(g, s, connection) || (g.us.events(s) & kWritable)) return g.onTimeout[kTls](s);
  if (at == At::kBefore && !connection.idleExtended && g.idleSeconds > kUwsIdleSeconds) {
    connection.idleExtended = true;
    g.us.timeout(kTls, s, g.idleSeconds - kUwsIdleSeconds);
    return s;
  }
  connection.expired = true;
  if (connection.state == kNowhere) expire(g, s, connection);
  else withNextTurn(g, g.expired, connection.state);
  return s;
}

// The gate itself stays: connections may still be closed.
void onEnvironmentEnds(napi_async_cleanup_hook_handle, void* data) {
  auto* g = static_cast<Gate*>(data);
  const auto closed = [](uv_handle_t* handle) {
    auto* g = static_cast<Gate*>(handle->data);
    if (--g->openHandles == 0) napi_remove_async_cleanup_hook(g->cleanup);
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&g->turn), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&g->poll), closed);
}

bool readNames(napi_env env, napi_value list, uint32_t count, FieldNames* out) {
  for (uint32_t i = 0; i < count; i++) {
    napi_value one;
    char text[64];
    if (napi_get_element(env, list, i, &one) != napi_ok || !readString(env, one, "names", text, sizeof text)) return false;
    out->add(text);
  }
  return true;
}

// openGate(onBadBody, names, tallies, headTimeoutMs, idleTimeoutMs) -> { states, marks }: once in each thread. `names` are the fields' that get
// numbers, from 1.
napi_value openGate(napi_env env, napi_callback_info info) {
  Arguments<5> args(env, info);
  uint32_t names = 0;
  int64_t headMs, idleMs;
  bool isArray = false;
  napi_typedarray_type type = napi_int8_array;
  if (!checkFunction(env, args.at[0], "onBadBody")) return nullptr;
  if (napi_get_array_length(env, args.at[1], &names) != napi_ok) return throwArgument(env, "names", "an array");
  napi_is_typedarray(env, args.at[2], &isArray);
  if (isArray) napi_get_typedarray_info(env, args.at[2], &type, nullptr, nullptr, nullptr, nullptr);
  if (type != napi_float64_array) return throwArgument(env, "tallies", "a Float64Array");
  if (!readInteger(env, args.at[3], "headTimeoutMs", 1, INT32_MAX, &headMs)) return nullptr;
  if (!readInteger(env, args.at[4], "idleTimeoutMs", 1, INT32_MAX, &idleMs)) return nullptr;
  if (gate != nullptr) return throwCoded(env, "EALREADY", "openGate", "this thread has one", "");
  auto* g = new Gate;
  if (!findUSockets(&g->us)) {
    delete g;
    return throwCoded(env, "ENOTSUP", "openGate", "uWebSockets.js exports no uSockets", "");
  }
  napi_value name, memory, states, marks, out;
  void* data = nullptr;
  void* markData = nullptr;
  if (!readNames(env, args.at[1], names, &g->names) ||
      napi_create_arraybuffer(env, kStates * sizeof(int32_t), &data, &memory) != napi_ok ||
      napi_create_typedarray(env, napi_int32_array, kStates, memory, 0, &states) != napi_ok ||
      napi_create_arraybuffer(env, kMarks * sizeof(int32_t), &markData, &memory) != napi_ok ||
      napi_create_typedarray(env, napi_int32_array, kMarks, memory, 0, &marks) != napi_ok) {
    delete g;
    return nullptr;
  }
  g->marks = static_cast<int32_t*>(markData);
  g->env = env;
  g->state = static_cast<int32_t*>(data);
  g->headSeconds = seconds(headMs);
  g->idleSeconds = seconds(idleMs);
  napi_create_string_utf8(env, "tidegate.gate", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &g->context);
  napi_create_reference(env, args.at[0], 1, &g->onBadBody);
  napi_create_reference(env, args.at[2], 1, &g->tallies);
  napi_create_reference(env, states, 1, &g->states);
  napi_create_reference(env, marks, 1, &g->marksKept);
  uv_loop_t* loop;
  napi_get_uv_event_loop(env, &loop);
  uv_idle_init(loop, &g->turn);
  uv_prepare_init(loop, &g->poll);
  uv_unref(reinterpret_cast<uv_handle_t*>(&g->turn));
  uv_unref(reinterpret_cast<uv_handle_t*>(&g->poll));
  g->turn.data = g->poll.data = g;
  napi_add_async_cleanup_hook(env, onEnvironmentEnds, g, &g->cleanup);
  gate = g;
  napi_create_object(env, &out);
  setProperty(env, out, "states", states);
  setProperty(env, out, "marks", marks);
  return out;
}

// resumeConnection(state): in the next turn of the loop what it has held is handed on, where JavaScript has made that word kIdle, or it is closed,
// where that says kEnds.
napi_value resumeConnection(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  int64_t state;
  if (!readInteger(env, args.at[0], "state", 1, kStates - 1, &state)) return nullptr;
  if (gate == nullptr || static_cast<size_t>(state) >= gate->sockets.size()) return nullptr;
  withNextTurn(*gate, gate->answered, static_cast<int32_t>(state));
  return nullptr;
}

// guardApp(descriptor, tls, relayed): from now on the app's connections pass the gate. `relayed`: they are relay.cc's, which puts a PROXY header before
// each head.
napi_value guardApp(napi_env env, napi_callback_info info) {
  Arguments<3> args(env, info);
  double descriptor;
  bool tls, relayed;
  if (gate == nullptr) return throwCoded(env, "EINVAL", "guardApp", "no gate is open", "");
  if (napi_get_value_double(env, args.at[0], &descriptor) != napi_ok) return throwArgument(env, "descriptor", "a number");
  if (napi_get_value_bool(env, args.at[1], &tls) != napi_ok) return throwArgument(env, "tls", "a boolean");
  if (napi_get_value_bool(env, args.at[2], &relayed) != napi_ok) return throwArgument(env, "relayed", "a boolean");
  // A descriptor is the app's address in the bits of a double; an app begins with its context's.
  us_socket_context_t** app;
  memcpy(&app, &descriptor, sizeof app);
  const auto data = exchange(tls, *app, gate->us.onData, tls ? onData<1> : relayed ? onData<0, true> : onData<0>);
  const auto writable = exchange(tls, *app, gate->us.onWritable, tls ? onWritable<1> : onWritable<0>);
  const auto close = exchange(tls, *app, gate->us.onClose, tls ? onClose<1> : onClose<0>);
  if (data == nullptr || writable == nullptr || close == nullptr) return throwCoded(env, "ENOTSUP", "guardApp", "the app has no handlers", "");
  if (!tls && !relayed) {
    const auto open = exchange(0, *app, gate->us.onOpen, onOpen);
    if (open == nullptr) return throwCoded(env, "ENOTSUP", "guardApp", "the app has no handlers", "");
    gate->onOpen = open;
  }
  // Those of the relay wait for nobody: the acceptor keeps the time of its clients.
  if (!relayed) gate->onTimeout[tls] = exchange(tls, *app, gate->us.onTimeout, tls ? onTimeout<1> : onTimeout<0>);
  gate->onData[tls] = data;
  gate->onWritable[tls] = writable;
  gate->onClose[tls] = close;
  return nullptr;
}

// expectBody(bytes, exchange): what follows the head that is being handled; -1 for chunks. False where no gate has seen that head.
napi_value expectBody(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  double bytes = 0;
  napi_value out;
  const bool known = gate != nullptr && gate->current != nullptr && napi_get_value_double(env, args.at[0], &bytes) == napi_ok;
  if (known) {
    Flow& next = *gate->next;
    if (bytes < 0) {
      next.at = At::kSize;
      letGo(*gate, *gate->current);
      napi_create_reference(env, args.at[1], 1, &gate->current->exchange);
    } else if (bytes > 0) {
      next.at = At::kBody;
      next.bytes = static_cast<uint64_t>(bytes);
    }
  }
  napi_get_boolean(env, known, &out);
  return out;
}

// readHead() -> the head that is being handled, a character a byte, and its marks. Null where no gate has seen it.
napi_value readHead(napi_env env, napi_callback_info) {
  napi_value out = nullptr;
  const Gate* g = gate;
  if (g != nullptr && g->current != nullptr) {
    const char* head = g->headEnding;
    size_t bytes = g->headEndingBytes;
    std::string whole;
    if (!g->headIsRead) {
      whole = g->current->flow.head + std::string(head, bytes);
      lowerNames(whole);
      head = whole.data();
      bytes = whole.size();
    }
    if (markHead(g->names, head, head + bytes, g->marks, kMarks)) napi_create_string_latin1(env, head, bytes, &out);
  }
  if (out == nullptr) napi_get_null(env, &out);
  return out;
}

}  // namespace

bool canDeliver() { return gate != nullptr; }

us_socket_t* takeAdopted() { return gate == nullptr ? nullptr : std::exchange(gate->adopted, nullptr); }

void deliver(us_socket_t* connection, char* data, size_t bytes) {
  if (!gate->us.isClosed(0, connection)) onData<0>(connection, data, static_cast<int>(bytes));
}

void registerGate(napi_env env, napi_value exports) {
  setFunction(env, exports, "openGate", openGate);
  setFunction(env, exports, "guardApp", guardApp);
  setFunction(env, exports, "expectBody", expectBody);
  setFunction(env, exports, "resumeConnection", resumeConnection);
  setFunction(env, exports, "readHead", readHead);
}

}  // namespace tidegate
