// Connections on which nothing would ever happen again: nobody reads from them, or nobody is going to answer, and no
// clock runs that would end them. There are none unless the gateway has a fault. So it looks at some of them now and
// then, and whoever is seen so twice is ended and counted.
//
//   a request is being handled ─── a deadline of JavaScript's runs: it is owned, and let alone
//   anything else ──────────────── it is read from, or what it says waits in gate_held.cc, or its client has not taken
//                                  all of the response (then uWebSockets' clock runs)
#include "gate_state.h"

#include <algorithm>

namespace tidegate::gating {
namespace {

// A look at one costs some 50 ns: JavaScript waits less than a millisecond for all of them.
constexpr size_t kLooks = 4096;

bool waitsInGate(const Gate& g, const Connection& connection, bool untaken) {
  if (!connection.paused) return false;
  return untaken || std::find(g.answered.begin(), g.answered.end(), connection.state) != g.answered.end();
}

// What is wrong with it; kTallies: nothing.
Tally faultOf(const Gate& g, us_socket_t* s, const Connection& connection, int32_t word) {
  const int events = g.us.events(s);
  const bool untaken = events & kWritable;
  if (!(events & kReadable)) return waitsInGate(g, connection, untaken) ? kTallies : kUnread;
  return (word == kBusy || word == kHeld) && !untaken ? kUnanswered : kTallies;
}

}  // namespace

int32_t endStuck(Gate& g, const uint8_t* owned) {
  int32_t ended = 0;
  const size_t last = g.sockets.size();
  // Each of them once: what is seen twice in one turn is nothing yet.
  for (size_t looks = 1; looks <= kLooks && looks < last; looks++) {
    const size_t state = g.watchedTo >= last ? (g.watchedTo = 1) : g.watchedTo;
    g.watchedTo++;
    const auto [s, connection] = numbered(g, static_cast<int32_t>(state));
    if (s == nullptr) continue;
    const Tally fault = owned[state] ? kTallies : faultOf(g, s, *connection, g.state[state]);
    const bool again = g.suspects[state];
    g.suspects[state] = fault != kTallies;
    if (fault == kTallies || !again) continue;
    tally(g, fault);
    closeNow(g, connection->tls, s);
    ended++;
  }
  return ended;
}

}  // namespace tidegate::gating
