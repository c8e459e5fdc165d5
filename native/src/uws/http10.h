// HTTP/1.0 as bytes, for relay.cc: a request head becomes one of HTTP/1.1, and a response of HTTP/1.1 becomes one that
// a client of HTTP/1.0 understands. Pure. Judges no request: what is doubtful passes as it is, for the gate and
// src/downstream/ to refuse as they would in HTTP/1.1.
//
// Works around: uWebSockets.js (20.51.4 and 20.69.0) answers 505 to HTTP/1.0. Without it, so do we.
//
//   GET / HTTP/1.0            GET / HTTP/1.1         HTTP/1.1 200 OK                 HTTP/1.1 200 OK
//   Connection: keep-alive ─► Host:                  Transfer-Encoding: chunked  ──► Connection: close
//                                                                                    (keep-alive with a length)
//                                                    5 CRLF hello CRLF 0 CRLF CRLF   hello
//
// The version in the answer stays 1.1: it is the sender's (RFC 9110, 2.5), as nginx and Apache have it.
#pragma once

#include "breaks.h"

#include <strings.h>

#include <cstdint>
#include <cstring>
#include <string>

namespace tidegate {

namespace http10 {

struct Field {
  const char* name;
  size_t nameBytes;
  const char* value;
  size_t valueBytes;
  bool is(const char* other) const { return strlen(other) == nameBytes && strncasecmp(name, other, nameBytes) == 0; }
};

// The field on the line from `line` to the CRLF at `end`. Without a colon the whole line is its name, which nothing is
// called.
inline Field fieldOf(const char* line, const char* end) {
  const auto* colon = static_cast<const char*>(memchr(line, ':', static_cast<size_t>(end - line)));
  if (colon == nullptr) return {line, static_cast<size_t>(end - line), end, 0};
  const char* value = colon + 1;
  while (value < end && (*value == ' ' || *value == '\t')) value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
  return {line, static_cast<size_t>(colon - line), value, static_cast<size_t>(end - value)};
}

// Membership in a comma-separated list such as Connection's.
inline bool hasToken(const Field& field, const char* token) {
  const size_t length = strlen(token);
  const char *at = field.value, *end = field.value + field.valueBytes;
  while (at < end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == ',')) at++;
    const char* from = at;
    while (at < end && *at != ',' && *at != ' ' && *at != '\t') at++;
    if (static_cast<size_t>(at - from) == length && strncasecmp(from, token, length) == 0) return true;
  }
  return false;
}

// Digits only, few enough for exact arithmetic on the other side.
inline bool lengthOf(const Field& field, uint64_t* out) {
  if (field.valueBytes == 0 || field.valueBytes > 15) return false;
  *out = 0;
  for (size_t i = 0; i < field.valueBytes; i++) {
    if (field.value[i] < '0' || field.value[i] > '9') return false;
    *out = *out * 10 + static_cast<uint64_t>(field.value[i] - '0');
  }
  return true;
}

// Calls each(field, line, bytes) for the lines between the first and the empty one of a complete head.
template <typename Each>
void eachField(const char* head, size_t bytes, Each each) {
  const char* end = head + bytes - 2;
  const auto* line = static_cast<const char*>(memchr(head, '\n', bytes)) + 1;
  while (line < end) {
    const auto* next = static_cast<const char*>(memchr(line, '\n', static_cast<size_t>(end - line))) + 1;
    each(fieldOf(line, next - line < 2 ? line : next - 2), line, static_cast<size_t>(next - line));
    line = next;
  }
}

}  // namespace http10

struct Http10Request {
  std::string head;            // as it goes to uWebSockets.js
  uint64_t bodyBytes = 0;      // that follow; none where their number is in doubt, and the request is refused then
  bool keepAlive = false;
  bool isHead = false;
  bool sound = true;           // its framing is beyond doubt: another request may follow it on the way to uWS
};

// `data` begins with a head of `bytes` that glance() called kHttp10.
inline Http10Request http10Request(const char* data, size_t bytes) {
  Http10Request out;
  bool hasHost = false, close = false;
  int lengths = 0;
  const size_t first = static_cast<size_t>(static_cast<const char*>(memchr(data, '\n', bytes)) + 1 - data);
  out.head.reserve(bytes + 16);
  out.head.append(data, first - 3).append(breaks("relay") ? "0\r\n" : "1\r\n");
  http10::eachField(data, bytes, [&](const http10::Field& field, const char* line, size_t lineBytes) {
    if (field.is("host")) {
      // First, as uWS needs it (gate.cc).
      if (!hasHost) out.head.insert(first, line, lineBytes);
      else out.head.append(line, lineBytes);
      hasHost = true;
      return;
    }
    if (field.is("content-length")) out.sound = http10::lengthOf(field, &out.bodyBytes) && lengths++ == 0 && out.sound;
    else if (field.is("transfer-encoding")) out.sound = false;  // RFC 9112, 6.1: the framing of such a request is faulty
    else if (field.is("expect") && field.valueBytes == 12 && strncasecmp(field.value, "100-continue", 12) == 0) return;  // RFC 9110, 10.1.1
    else if (field.is("connection")) {
      const bool keeps = http10::hasToken(field, "keep-alive"), closes = http10::hasToken(field, "close");
      out.keepAlive = out.keepAlive || keeps;
      close = close || closes;
      // That is of this hop. A list may name fields that are, too, for those who look into it later.
      if ((keeps && field.valueBytes == 10) || (closes && field.valueBytes == 5)) return;
    }
    out.head.append(line, lineBytes);
  });
  if (!hasHost) out.head.insert(first, "Host:\r\n");  // uWS wants one; HTTP/1.0 does not
  out.head.append("\r\n");
  out.isHead = bytes > 5 && memcmp(data, "HEAD ", 5) == 0;
  out.keepAlive = out.keepAlive && !close && out.sound;
  if (!out.sound) out.bodyBytes = 0;
  return out;
}

// An answer on its way back, in any split.
class Http10Answer {
 public:
  Http10Answer(bool toHead, bool keepAlive) : toHead_(toHead), keepAlive_(keepAlive) {}

  // Appends to `out` what the client is to get of these bytes. False: not an answer; nothing more may be fed.
  bool feed(const char* data, size_t n, std::string& out) {
    const char* end = data + n;
    while (data < end) {
      const size_t left = static_cast<size_t>(end - data);
      switch (state_) {
        case kHead: {
          if (!line(data, end)) break;
          if (text_.size() > kMostHeadBytes) return false;
          const size_t size = text_.size();
          const bool empty = size == lineAt_ + 2 && size > 2;
          lineAt_ = size;
          if (empty && !head(out)) return false;
          break;
        }
        case kLength:
        case kChunk: {
          const size_t part = left < left_ ? left : static_cast<size_t>(left_);
          out.append(data, part);
          data += part;
          left_ -= part;
          if (left_ == 0) state_ = state_ == kLength ? kDone : kChunkEnd;
          break;
        }
        case kToTheEnd:
          out.append(data, left);
          return true;
        case kChunkSize:
          if (!line(data, end)) break;
          if (!chunkSize()) return false;
          text_.clear();
          break;
        case kChunkEnd:
          if (!line(data, end)) break;
          if (text_.size() != 2) return false;
          text_.clear();
          state_ = kChunkSize;
          break;
        case kTrailers:
          if (!line(data, end)) break;
          if (text_.size() == 2) state_ = kDone;
          text_.clear();
          break;
        case kDone:
          ends_ = true;  // uWS has nothing to add: whatever this is, nothing good follows
          return true;
      }
    }
    return true;
  }

  // All of it is there, if the connection ends now or not.
  bool complete(bool ended) const { return state_ == kDone || (ended && state_ == kToTheEnd); }
  // The client was told that the connection stays.
  bool keeps() const { return keepAlive_ && state_ == kDone; }
  // The connection is to end with this answer after all; of use before the head is through.
  void last() {
    if (state_ == kHead) keepAlive_ = false;
  }
  bool begun() const { return state_ != kHead; }
  // uWS has said or shown that nothing follows on its connection.
  bool ends() const { return ends_; }

 private:
  static constexpr size_t kMostHeadBytes = 1 << 20;

  // Gathers into text_; true once that ends with a line.
  bool line(const char*& data, const char* end) {
    const auto* newline = static_cast<const char*>(memchr(data, '\n', static_cast<size_t>(end - data)));
    const char* to = newline == nullptr ? end : newline + 1;
    text_.append(data, static_cast<size_t>(to - data));
    data = to;
    return newline != nullptr;
  }

  bool head(std::string& out) {
    const size_t bytes = text_.size();
    if (bytes < 16 || memcmp(text_.data(), "HTTP/1.1 ", 9) != 0) return false;
    const int status = (text_[9] - '0') * 100 + (text_[10] - '0') * 10 + (text_[11] - '0');
    if (status < 100 || status > 999) return false;
    lineAt_ = 0;
    if (status < 200) {  // RFC 9110, 15.2: not to be sent to an HTTP/1.0 client
      text_.clear();
      return true;
    }
    bool chunked = false, hasLength = false;
    out.append(text_, 0, text_.find('\n') + 1);
    http10::eachField(text_.data(), bytes, [&](const http10::Field& field, const char* line, size_t lineBytes) {
      // So ends what the gate refuses, for one: behind such a head there is no telling where the next begins.
      if (field.is("connection") && http10::hasToken(field, "close")) ends_ = true;
      if (field.is("connection") || field.is("keep-alive")) return;
      if (field.is("transfer-encoding")) {
        chunked = true;
        return;
      }
      if (field.is("content-length")) hasLength = http10::lengthOf(field, &left_);
      out.append(line, lineBytes);
    });
    const bool bodiless = toHead_ || status == 204 || status == 304;
    if (bodiless || (hasLength && !chunked && left_ == 0)) state_ = kDone;
    else state_ = chunked ? kChunkSize : hasLength ? kLength : kToTheEnd;
    if (ends_ || state_ == kChunkSize || state_ == kToTheEnd) keepAlive_ = false;
    out.append(keepAlive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
    text_.clear();
    return true;
  }

  // hexadecimal[;extensions] CRLF
  bool chunkSize() {
    size_t digits = 0;
    left_ = 0;
    for (; digits < text_.size(); digits++) {
      const char c = text_[digits];
      const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (value < 0) break;
      if (digits == 15) return false;
      left_ = left_ * 16 + static_cast<uint64_t>(value);
    }
    if (digits == 0) return false;
    state_ = left_ == 0 ? kTrailers : kChunk;
    return true;
  }

  enum { kHead, kLength, kToTheEnd, kChunkSize, kChunk, kChunkEnd, kTrailers, kDone } state_ = kHead;
  bool toHead_;
  bool keepAlive_;
  bool ends_ = false;
  std::string text_;   // the head, or a line of the chunks' framing, as far as it is there
  size_t lineAt_ = 0;  // where the head's line begins that is being gathered
  uint64_t left_ = 0;  // of the body or the chunk
};

}  // namespace tidegate
