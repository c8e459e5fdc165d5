// What arrivals.cc has of the gate: a connection's first bytes go in with it, so that nobody reads or waits for them again.
#pragma once

#include <cstddef>

namespace tidegate {

struct us_socket_t;

// Read on both sides of what is delivered, and written behind it.
constexpr size_t kPadding = 32;

// Whether there is a gate in this thread.
bool canDeliver();
// The connection that uWebSockets.js has adopted since this was last asked, if it came in cleartext and not from relay.cc.
us_socket_t* takeAdopted();
// As if uSockets had read it. `data` lies in a buffer with kPadding before and behind.
void deliver(us_socket_t* connection, char* data, size_t bytes);

}  // namespace tidegate
