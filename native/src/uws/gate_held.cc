// Requests that a client sends before the answer to the last one is through (RFC 9112, 9.3.2): kept, and handed on one
// after the other. What is kept is bounded, of a connection and of all; beyond the first part of it nothing more is
// read. And what the gate leaves for the next turn of the loop. Never on the way of a client that waits.
#include "../server.h"
#include "gate_state.h"

#include <poll.h>

#include <string>
#include <utility>

namespace tidegate::gating {
namespace {

// Of requests behind the one that is being answered: where reading stops, what there may be with a last read and one
// that slips in (onPoll), and what ends the connection, as anything does in uWebSockets.
constexpr size_t kHeldEnough = 16 * 1024;
constexpr size_t kMostRead = 512 * 1024;  // of uSockets at a time
constexpr size_t kHeldMost = kHeldEnough + 2 * kMostRead;
constexpr size_t kHeldOfAll = 64 * 1024 * 1024;

// Those that fell silent together come to their time in one tick of 4 s. Ending one takes tens of microseconds: others
// are served in between.
constexpr int kExpiriesPerTurn = 16;

// Who is gone is found out by reading alone: uSockets takes a write's error for a full socket.
bool isGone(int fd) {
  pollfd one = {fd, 0, 0};
  return ::poll(&one, 1, 0) > 0;  // POLLERR and POLLHUP, which nobody has to ask for
}

// uSockets reads on from whom it cannot write to (us_socket_write watches for both), and a paused one would send more
// than is held. A write within the poll phase may still be followed by one read.
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
    const auto [s, connection] = numbered(g, g.paused[i]);
    if (s != nullptr && !(g.us.events(s) & kReadable)) {
      i++;
      continue;
    }
    if (s != nullptr) {
      if (connection->paused && !isGone(g.us.fd(s))) {
        setReading(g, s, *connection, false);
        i++;
        continue;
      }
      connection->listed = false;
    }
    g.paused[i] = g.paused.back();
    g.paused.pop_back();
  }
  if (g.paused.empty()) uv_prepare_stop(poll);
}

// With the next turn, if there is nothing to wait for.
void keepHeld(Gate& g, us_socket_t* s, Connection& connection) {
  int32_t& state = g.state[connection.state];
  if (state == kBusy) state = kHeld;
  else if (!isBusy(g, s, connection)) withNextTurn(g, g.answered, connection.state);
}

}  // namespace

// Who asks behind an answer that ends the connection is told so by its end, once the answer is out.
void hold(Gate& g, us_socket_t* s, Connection& connection, const char* data, size_t length) {
  if (g.state[connection.state] == kEnds) {
    if (!(g.us.events(s) & kWritable)) closeNow(g, connection.tls, s);
    return;
  }
  std::string& held = connection.held;
  if (held.size() - connection.heldFrom + length > kHeldMost || g.heldBytes + length > kHeldOfAll) return closeNow(g, connection.tls, s);
  if (held.empty()) held.assign(connection.heldFrom = kPadding, '\0');
  held.append(data, length);
  g.heldBytes += length;
  keepHeld(g, s, connection);
  if (held.size() - connection.heldFrom > kHeldEnough && !connection.paused) setReading(g, s, connection, false);
}

// The answer that what is held has waited for is complete, or the last one, of which uWebSockets does not know that it
// is.
void resume(Gate& g, us_socket_t* s, Connection& connection) {
  const bool tls = connection.tls;
  if (g.state[connection.state] == kEnds) {
    connection.ending = g.us.events(s) & kWritable;
    if (!connection.ending) closeNow(g, tls, s);
    return;
  }
  if (connection.held.empty() || isBusy(g, s, connection) || g.us.isShutDown(tls, s)) return;
  // Not the connection's while uWebSockets works on it. If all of it goes, so does its room: what all connections hold
  // is bounded.
  std::string held;
  held.swap(connection.held);
  const size_t from = std::exchange(connection.heldFrom, 0);
  const size_t length = held.size() - from;
  g.heldBytes -= length;
  held.append(kPadding, '\0');
  const size_t left = pass(g, s, connection, &held[from], length);
  if (g.us.isClosed(tls, s) || g.us.isShutDown(tls, s)) return;  // it may be forgotten
  if (left > 0) {
    held.resize(from + length);
    connection.heldFrom = held.size() - left;
    // Moved only where that is less than what has been: a request at a time, each would move all that are behind it.
    if (left < held.size() / 2) held = std::string(connection.heldFrom = kPadding, '\0').append(held, held.size() - left, left);
    connection.held.swap(held);
    g.heldBytes += left;
    keepHeld(g, s, connection);
  }
  if (connection.paused && left <= kHeldEnough) setReading(g, s, connection, true);
}

namespace {

void onTurn(uv_idle_t* turn) {
  Gate& g = *static_cast<Gate*>(turn->data);
  std::vector<int32_t> answered;
  answered.swap(g.answered);
  for (const int32_t state : answered) {
    const auto [s, connection] = numbered(g, state);
    if (s != nullptr) resume(g, s, *connection);
  }
  for (int n = 0; n < kExpiriesPerTurn && !g.expired.empty(); n++) {
    const auto [s, connection] = numbered(g, g.expired.back());
    g.expired.pop_back();
    if (s != nullptr) expire(g, s, *connection);
  }
  if (g.answered.empty() && g.expired.empty()) uv_idle_stop(turn);
}

}  // namespace

void withNextTurn(Gate& g, std::vector<int32_t>& states, int32_t state) {
  states.push_back(state);
  uv_idle_start(&g.turn, onTurn);
}

}  // namespace tidegate::gating
