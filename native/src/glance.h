// What the first bytes of a connection say, for arrivals.cc: whether a request head is complete, and whether it is one
// of HTTP/1.0. Pure. Judges no request.
#pragma once

#include <cstddef>
#include <cstring>

namespace tidegate {

struct Glance {
  enum Kind {
    kIncomplete,
    kHttp10,  // a complete head, whose first line ends in HTTP/1.0
    kOther,   // for the server to judge: a complete head of HTTP/1.1, or what can never be one of HTTP/1.0
  } kind;
  size_t bytes = 0;  // of kHttp10, the head's length
};

// What the first bytes of a request say. `lines`: how many of them an earlier glance found to be whole lines behind the
// first, and then how many are. So each line is looked at once, in however many pieces the head comes.
inline Glance glance(const char* data, size_t n, size_t* lines = nullptr) {
  if (n == 0) return {Glance::kIncomplete};
  // No method begins so; TLS, among others, does.
  if (data[0] <= ' ' || data[0] == 0x7f) return {Glance::kOther};
  bool http10 = false;
  const char* line = data;
  while (line < data + n) {
    const auto* newline = static_cast<const char*>(memchr(line, '\n', static_cast<size_t>(data + n - line)));
    if (newline == nullptr) break;
    if (newline == line || newline[-1] != '\r') return {Glance::kOther};
    const size_t length = static_cast<size_t>(newline - 1 - line);
    if (line == data) {
      http10 = length > 9 && memcmp(newline - 10, " HTTP/1.0", 9) == 0;
      // Another protocol, or no request line: whoever sent it may wait for an answer before there is a head.
      if (!http10 && !(length > 9 && memcmp(newline - 10, " HTTP/1.1", 9) == 0)) return {Glance::kOther};
    }
    if (length == 0) return {http10 ? Glance::kHttp10 : Glance::kOther, static_cast<size_t>(newline + 1 - data)};
    const bool skips = line == data && lines != nullptr && data + *lines > newline + 1;
    line = skips ? data + *lines : newline + 1;
  }
  if (lines != nullptr) *lines = static_cast<size_t>(line - data);
  return {Glance::kIncomplete};
}

}  // namespace tidegate
