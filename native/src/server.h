// What the acceptor asks of the HTTP server that serves its connections. The files in uws/ answer, and they alone know
// which server that is.
#pragma once

#include <cstddef>

namespace tidegate {

class Arrivals;
class Calls;
struct Visitor;

// The server reads and writes this many bytes behind what it is given, and may read as many before it.
constexpr size_t kPadding = 32;

// Whether the server takes bytes that the acceptor has received. If not, they stay in the socket, and the server
// receives them itself.
bool takesReceived();
// Before a connection is handed over: notes which one the server adopts next.
void awaitAdoption();
// To the connection that the server has adopted since, as if it had received the bytes itself. `data` lies in a buffer
// with kPadding bytes before and behind. Does nothing where no such connection was adopted: a refused one, or one of
// relay().
void deliverToAdopted(char* data, size_t bytes);

// Whether the server of this thread watches this descriptor in an epoll set that libuv does not know.
bool isWatchedByServer(int fd);

// Serves one exchange of HTTP/1.0, which the server cannot: as HTTP/1.1, over a socket pair. The first `headBytes` of
// the `bytes` in arrivals.buffer are the request's head. Owns visitor.fd.
void relay(Arrivals& arrivals, const Visitor& visitor, size_t headBytes, size_t bytes, Calls& call);
// Closes a socket pair that no exchange uses now. At least one must be in arrivals.idleLines.
void dropIdleLine(Arrivals& arrivals);

}  // namespace tidegate
