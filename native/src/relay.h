// One exchange of HTTP/1.0: uWS answers 505 to it, so it gets the request as HTTP/1.1 from one end of a socket pair.
#pragma once

#include "arrivals.h"

namespace tidegate {

// `headBytes` of the visitor's bytes, which are in arrivals.buffer and still to be received, are a request's head. Owns visitor.fd.
void relay(Arrivals& arrivals, const Visitor& visitor, size_t headBytes, Calls& call);

}  // namespace tidegate
