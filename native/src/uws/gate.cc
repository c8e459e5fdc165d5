// The gate: every byte of a connection passes it before uWebSockets.js' parser sees it, decrypted where there is TLS.
// It serves no request: framing.h finds where heads and bodies end, head_marks.h where a head's fields are, and what
// that parser takes, waits on for ever or answers by itself is refused; the rest is handed on, each head in one piece.
//
// Works around: the parser of uWebSockets.js (20.51.4 and 20.69.0) is too lenient where framing is in doubt, and
// answers in HTML. Without the gate, a chunked request gets 400, a pipelined one may lose its response, and
// bad heads get what that parser makes of them. What it does (test/e2e/framing.test.ts asks for all of it):
//   chunk sizes      takes `g`, `:` and `;` for digits, blanks and controls for an end, LF for CRLF, any two bytes for
//                    a chunk's CRLF
//   extensions       `5;a` is a chunk of 0x5ba bytes
//   trailers         the bytes after `0 CRLF` but two are the next request: a way to smuggle one past a proxy in front
//   empty names      end the list of fields: a Content-Length after one is not seen, its body is the next request
//   bare CR, no version, an empty line before the request:  waits for more until the connection idles out
//   targets that are no path are answered 505, as if it were for their version
//   bytes over 127 at either end of a value are taken for blanks and cut off, so that `chunked\xa0` is chunked
//
//   on_data ──► framing.h ─ head ─► head_marks.h ─► uWebSockets' on_data ─► handler ─► expectBody(length | chunked),
//                                                                      in time for the bytes behind the head
//
// A request that comes while another's answer is not complete would end the connection there (both answers are lost),
// so what lies behind a request is held (gate_held.cc) until JavaScript says that its answer is through, and the kernel
// has all of it: who asks on and on and reads nothing would have answer after answer gathered in memory.
//
// Stands between uSockets and uWebSockets: a socket context's on_open, on_data, on_writable, on_close and on_timeout
// are exchanged for ours (usockets.h).
#include "../addon.h"
#include "../server.h"
#include "gate_state.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>

namespace tidegate {
namespace gating {
namespace {

// uWebSockets marks the end of what it was given with two bytes behind it and looks up to 32 further.
static_assert(kPadding >= 32 && kSlack >= 32);

// uWebSockets' own, of 10 s, which it sets when an answer is complete.
constexpr unsigned kUwsIdleSeconds = 10;
constexpr int kMostStalls = 6;

// Of heads that are not complete, over all connections: TIDEGATE_MAX_HEADER_BYTES bounds each, and nothing else bounds
// how many there are.
constexpr size_t kGatheredOfAll = 64 * 1024 * 1024;

// One read may bring ten thousand of them, and each may be answered on the spot: others are served in between.
constexpr int kHeadsPerTurn = 64;

// What is behind the part handed on lies in the same buffer, where uWebSockets sets its marks.
bool feed(Gate& g, int tls, us_socket_t* s, char* data, size_t length) {
  char behind[2];
  memcpy(behind, data + length, sizeof behind);
  g.onData[tls](s, data, static_cast<int>(length));
  memcpy(data + length, behind, sizeof behind);
  return !g.us.isClosed(tls, s) && !g.us.isShutDown(tls, s);
}

void enter(Gate& g, us_socket_t* s, Connection& connection) {
  if (!g.vacant.empty()) {
    connection.state = g.vacant.back();
    g.vacant.pop_back();
  } else if (g.sockets.size() < kStates) {
    connection.state = static_cast<int32_t>(g.sockets.size());
    g.sockets.push_back(nullptr);
    g.suspects.push_back(false);
  } else {
    return;
  }
  g.sockets[static_cast<size_t>(connection.state)] = s;
  g.state[connection.state] = kIdle;
  g.suspects[static_cast<size_t>(connection.state)] = false;
}

void leave(Gate& g, us_socket_t* s, Connection& connection) {
  if (connection.exchange != nullptr) napi_delete_reference(g.env, connection.exchange);
  if (connection.state != kNowhere) {
    g.sockets[static_cast<size_t>(connection.state)] = nullptr;
    g.vacant.push_back(connection.state);
  }
  g.heldBytes -= connection.held.size() - connection.heldFrom;
  g.gatheredBytes -= connection.gathered;
  g.connections.erase(s);
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

// uWebSockets asks a bloom filter whether a Host is the second one, and finds that very field where the names before it
// happen to set the same bits: 20 of them do so once in a hundred times. Node's own client sends it last.
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

// What framing.h hands on goes to uWebSockets' parser.
struct Parser {
  Gate& g;
  int tls;
  us_socket_t* s;
  Connection& connection;
  int heads = 0;

  bool feed(char* data, size_t length) { return gating::feed(g, tls, s, data, length); }
  bool feedText(const char* text, size_t length) {
    char padded[32 + 2 * kPadding];
    memcpy(padded + kPadding, text, length);
    return feed(padded + kPadding, length);
  }
  HeadFault markHead(char* head, char* end, const RequestLine& line) {
    putHostFirst(head + line.targetEnd + kVersionBytes + 2, end);
    return tidegate::markHead(g.names, head, end, line, g.marks, kMarks, connection.state != kNowhere);
  }
  bool feedHead(char* data, size_t length, Flow& next) {
    heads++;
    g.current = &connection;
    g.head = data + connection.flow.announcedBytes;
    g.headBytes = length - connection.flow.announcedBytes;
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
  bool isBusy() const { return gating::isBusy(g, s, connection) || (heads == kHeadsPerTurn && connection.state != kNowhere); }
};

void answer(Gate& g, us_socket_t* s, const Connection& connection, Refusal refusal) {
  const Flow& flow = connection.flow;
  std::string text = g.refusals[refusal];
  if (flow.head.find("HEAD ", flow.announcedBytes) == flow.announcedBytes) text.resize(text.find("\r\n\r\n") + 4);  // RFC 9110, 9.3.2
  char date[48];
  const time_t now = time(nullptr);
  tm utc;
  const size_t dateBytes = strftime(date, sizeof date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime_r(&now, &utc));
  text.insert(text.find('\n') + 1, date, dateBytes);
  g.us.write(connection.tls, s, text.data(), static_cast<int>(text.size()), 0);
  closeNow(g, connection.tls, s);
}

void refuse(Gate& g, us_socket_t* s, const Connection& connection, Tally why, Refusal refusal = kBadRequest) {
  tally(g, why);
  answer(g, s, connection, refusal);
}

void refuseFault(Gate& g, us_socket_t* s, const Connection& connection, HeadFault fault) {
  const auto refuse = [&](Tally why, Refusal refusal = kBadRequest) { gating::refuse(g, s, connection, why, refusal); };
  switch (fault) {
    case HeadFault::kNone: break;
    case HeadFault::kBadLine: refuse(kRequestLine); break;
    case HeadFault::kBadLineEnd: refuse(kLineEnd); break;
    case HeadFault::kBadVersion: refuse(kRequestLine, kOtherVersion); break;
    case HeadFault::kBadName: refuse(kFieldName); break;
    case HeadFault::kBadValue: refuse(kFieldValue); break;
    case HeadFault::kBadHost: refuse(kHost); break;
    case HeadFault::kBadLength: refuse(kBodyLength); break;
    case HeadFault::kManyFields: refuse(kSize, kHeadTooLarge); break;
  }
}

}  // namespace

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

void letGo(Gate& g, Connection& connection) {
  if (connection.exchange != nullptr) napi_delete_reference(g.env, connection.exchange);
  connection.exchange = nullptr;
}

namespace {

// False: there is no room for what has come of this head.
bool countGathered(Gate& g, Connection& connection) {
  const size_t now = connection.flow.head.size();
  g.gatheredBytes += now - std::exchange(connection.gathered, now);
  return now == 0 || g.gatheredBytes <= kGatheredOfAll;
}

}  // namespace

size_t pass(Gate& g, us_socket_t* s, Connection& connection, char* data, size_t length) {
  const int tls = connection.tls;
  char* const end = data + length;
  Parser parser{g, tls, s, connection};
  size_t left = 0;
  connection.within = true;
  const Passed passed = passBytes(parser, connection.flow, tls, connection.relayed, g.mostHeadBytes, data, end);
  const bool fits = countGathered(g, connection);
  switch (passed) {
    case Passed::kOpen:
      if (!fits) {
        refuse(g, s, connection, kSize, kOverloaded);
        break;
      }
      if (connection.flow.at > At::kBefore && connection.flow.at < At::kBody && !connection.headTimed && !connection.relayed) {
        connection.headTimed = true;
        g.us.timeout(tls, s, g.headSeconds);
      }
      break;
    case Passed::kClosed: break;  // by uWebSockets, or by the request's handler
    case Passed::kHeld: left = static_cast<size_t>(end - data); break;
    case Passed::kBadHead: refuseFault(g, s, connection, connection.flow.fault); break;
    case Passed::kLongMethod: refuse(g, s, connection, kSize, kNoSuchMethod); break;
    case Passed::kLongTarget: refuse(g, s, connection, kSize, kTargetTooLong); break;
    case Passed::kLongHead: refuse(g, s, connection, kSize, kHeadTooLarge); break;
    case Passed::kBadBody: tellBadBody(g, tls, s, connection); break;
  }
  connection.within = false;
  if (!connection.closed) return left;
  leave(g, s, connection);
  return 0;
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
  answer(g, s, connection, kTooSlow);
}

namespace {

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
    const size_t left = pass(g, s, connection, data, static_cast<size_t>(length));
    if (left > 0) hold(g, s, connection, data + static_cast<size_t>(length) - left, left);
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

// Whether the client has taken anything of its response in the last minute, looked at every 10 s. uWebSockets hears
// only of room in our kernel's buffer, of which a slow client makes none for minutes; and the client's kernel
// acknowledges in steps of a sixteenth of its own.
bool stillTakes(Gate& g, us_socket_t* s, Connection& connection) {
  int unsent = 0;
  if (ioctl(g.us.fd(s), SIOCOUTQ, &unsent) != 0) return false;
  if (unsent == connection.unsent) return ++connection.stalls < kMostStalls;
  connection.unsent = unsent;
  connection.stalls = 0;
  return true;
}

// uWebSockets sets its clock when an answer is complete, and while it has bytes that the client does not take. In ticks
// of 4 s.
template <int kTls>
us_socket_t* onTimeout(us_socket_t* s) {
  Gate& g = *gate;
  const auto found = g.connections.find(s);
  if (found == g.connections.end()) return g.onTimeout[kTls](s);
  Connection& connection = found->second;
  const At at = connection.flow.at;
  if ((g.us.events(s) & kWritable) && stillTakes(g, s, connection)) {
    g.us.timeout(kTls, s, kUwsIdleSeconds);
    return s;
  }
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

}  // namespace

bool standBefore(Gate& g, us_socket_context_t* context, bool tls, bool relayed) {
  const auto data = exchange(tls, context, g.us.onData, tls ? onData<1> : relayed ? onData<0, true> : onData<0>);
  const auto writable = exchange(tls, context, g.us.onWritable, tls ? onWritable<1> : onWritable<0>);
  const auto close = exchange(tls, context, g.us.onClose, tls ? onClose<1> : onClose<0>);
  if (data == nullptr || writable == nullptr || close == nullptr) return false;
  if (!tls && !relayed) {
    const auto open = exchange(0, context, g.us.onOpen, onOpen);
    if (open == nullptr) return false;
    g.onOpen = open;
  }
  // Those of the relay wait for nobody: the acceptor keeps the time of its clients.
  if (!relayed) {
    g.onTimeout[tls] = exchange(tls, context, g.us.onTimeout, tls ? onTimeout<1> : onTimeout<0>);
    if (g.onTimeout[tls] == nullptr) return false;
  }
  g.onData[tls] = data;
  g.onWritable[tls] = writable;
  g.onClose[tls] = close;
  return true;
}

}  // namespace gating

bool takesReceived() { return gating::gate != nullptr && gating::gate->takesFirstBytes; }

void awaitAdoption() {
  if (gating::gate != nullptr) gating::gate->adopted = nullptr;
}

void deliverToAdopted(char* data, size_t bytes) {
  us_socket_t* s = gating::gate == nullptr ? nullptr : std::exchange(gating::gate->adopted, nullptr);
  if (breaks("delivery")) return;
  if (s != nullptr && !gating::gate->us.isClosed(0, s)) gating::onData<0>(s, data, static_cast<int>(bytes));
}

}  // namespace tidegate
