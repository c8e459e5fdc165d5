// One exchange of HTTP/1.0: uWS answers 505 to it, so it gets the request as HTTP/1.1 from one end of a socket pair.
#pragma once

#include "arrivals.h"

namespace tidegate {

// Of the `bytes` in arrivals.buffer that were received from the visitor the first `headBytes` are a request's head. Owns visitor.fd.
void relay(Arrivals& arrivals, const Visitor& visitor, size_t headBytes, size_t bytes, Calls& call);

// Closes a line that is between two exchanges; there is one.
void dropIdleLine(Arrivals& arrivals);

}  // namespace tidegate
