// What the gate knows of its connections, for the files that it is made of:
//
//   gate.cc          the way of the bytes, between uSockets and uWebSockets
//   gate_held.cc     requests that came before the answer to another was through
//   gate_watch.cc    connections on which nothing would happen any more
//   gate_binding.cc  what JavaScript calls
#pragma once

#include "framing.h"
#include "head_marks.h"
#include "usockets.h"

#include <node_api.h>
#include <uv.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace tidegate::gating {

constexpr int kReadable = 1, kWritable = 2;  // UV_READABLE, UV_WRITABLE

// What a connection's word in `states` says. JavaScript takes kBusy and kHeld back when the answer is complete. kEnds:
// nothing is answered behind it.
enum State : int32_t { kIdle, kBusy, kHeld, kEnds };
constexpr int32_t kNowhere = -1;
constexpr size_t kStates = 1 << 17;  // connections of one worker that have one; the others cannot pipeline

// uWebSockets takes no more fields than 98.
constexpr size_t kMarks = kHeadMarks + 98 * kFieldMarks;

// Positions in `tallies` (src/state/counters.ts).
enum Tally {
  kRequestLine, kLineEnd, kFieldName, kFieldValue, kHost, kBodyLength, kSize, kParser, kIdleOver, kSlowHead, kUnread, kUnanswered, kTallies
};

// Positions in `refusals`, the responses of the gate itself (src/downstream/uws/gate.ts).
enum Refusal { kBadRequest, kTooSlow, kTargetTooLong, kHeadTooLarge, kNoSuchMethod, kOtherVersion, kOverloaded, kRefusals };

struct Connection {
  Flow flow;
  napi_ref exchange = nullptr;  // of the chunked body that flows
  std::string held;             // what came after the request that is being answered, behind what is handed on of it already
  size_t heldFrom = 0;          // where it begins
  size_t gathered = 0;          // bytes of a head that is not complete, as Gate::gatheredBytes counts them
  int32_t state = kNowhere;     // position of its word
  int unsent = 0;               // bytes that the kernel had for its client, when its clock was last over
  int stalls = 0;               // how often in a row they were as many as before
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
  std::string refusals[kRefusals];  // whole, but for their Date
  size_t mostHeadBytes = 0;
  unsigned headSeconds = 0;
  unsigned idleSeconds = 0;
  napi_ref tallies = nullptr;      // Float64Array
  napi_ref states = nullptr;       // the next one's memory
  int32_t* state = nullptr;        // by connection; [0]: whose request is being handed on, 0 once JavaScript has taken it
  size_t heldBytes = 0;                        // of all connections
  size_t gatheredBytes = 0;                    // likewise, of heads that are not complete
  std::vector<us_socket_t*> sockets{nullptr};  // by state
  std::vector<bool> suspects{false};           // by state: nothing would happen on it, when it was last looked at
  size_t watchedTo = 1;                        // the state to look at next
  std::vector<int32_t> vacant;                 // states
  std::vector<int32_t> answered;               // states of those that hold something or are to end, with the next turn
  std::vector<int32_t> expired;                // … and of those whose time is over, a few a turn
  std::vector<int32_t> paused;                 // … and of those that are not read from
  uv_idle_t turn;
  uv_prepare_t poll;                           // while there are such
  int openHandles = 2;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  std::unordered_map<us_socket_t*, Connection> connections;  // that have sent something
  bool takesFirstBytes = true;     // of connections, from the acceptor
  us_socket_t* adopted = nullptr;
  FieldNames names;
  int32_t* marks = nullptr;                                  // kMarks of them, in JavaScript's hands as well
  napi_ref marksKept = nullptr;
  Connection* current = nullptr;                             // whose head is being handed on
  const char* head = nullptr;                                // that head, names in lower case
  size_t headBytes = 0;
  Flow* next = nullptr;                                      // what follows that head
};

// uSockets' handlers get no pointer of ours. An environment has one gate, a thread one environment.
inline thread_local Gate* gate = nullptr;

// A connection with a number, and its record; null where nobody has that number now.
struct Numbered {
  us_socket_t* socket = nullptr;
  Connection* record = nullptr;
};

inline Numbered numbered(Gate& g, int32_t state) {
  us_socket_t* s = static_cast<size_t>(state) < g.sockets.size() ? g.sockets[static_cast<size_t>(state)] : nullptr;
  const auto found = s == nullptr ? g.connections.end() : g.connections.find(s);
  return found == g.connections.end() ? Numbered() : Numbered{s, &found->second};
}

// Whether the answer to the last request is not through yet, or not with the kernel. Who has no word cannot be held
// back.
inline bool isBusy(Gate& g, us_socket_t* s, const Connection& connection) {
  return connection.state != kNowhere && (g.state[connection.state] != kIdle || (g.us.events(s) & kWritable));
}

inline void closeNow(Gate& g, int tls, us_socket_t* s) {
  if (g.us.isClosed(tls, s)) return;
  g.us.shutdown(tls, s);
  g.us.close(tls, s, 0, nullptr);
}

// gate.cc: bytes of a connection go on to uWebSockets. Before and behind them lie kPadding others. How many are left,
// and to be held; if the connection has gone, which is forgotten then, there are none.
size_t pass(Gate& g, us_socket_t* s, Connection& connection, char* data, size_t length);
void letGo(Gate& g, Connection& connection);
void tally(Gate& g, Tally which);
// Ends one whose time is over, if it still is.
void expire(Gate& g, us_socket_t* s, Connection& connection);
// Stands between uSockets and this context. False: it has no handlers.
bool standBefore(Gate& g, us_socket_context_t* context, bool tls, bool relayed);

// gate_held.cc: keeps what came behind a request whose answer is not complete, or behind as many as are served in a
// turn.
void hold(Gate& g, us_socket_t* s, Connection& connection, const char* data, size_t length);
void resume(Gate& g, us_socket_t* s, Connection& connection);
// `states` is one of the gate's lists. uSockets frees what is closed before the loop polls, and leaks what was closed
// later in a turn (us_poll_free takes a handle that is closed for one that is closing).
void withNextTurn(Gate& g, std::vector<int32_t>& states, int32_t state);

// gate_watch.cc: looks at some of the connections, and ends those on which nothing would happen any more. `owned`, by
// state: not 0 where JavaScript has a deadline for the request. From a timer. How many it has ended.
int32_t endStuck(Gate& g, const uint8_t* owned);

}  // namespace tidegate::gating
