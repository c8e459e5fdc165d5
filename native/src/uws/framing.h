// Where the heads and bodies of a connection's requests end, byte by byte and in any split; what is refused, and what
// is handed on. Pure: a sink gets the bytes. gate.cc says what it works around and what it costs to be without. Fuzzed
// in native/fuzz.
//
//           ┌─ head ──► whole, up to its CRLFCRLF ──► sink.feedHead, which says what follows: a length, or chunks
//   bytes ──┼─ body ──► as it is, as many bytes as were declared
//           └─ chunks ► written anew: `size CRLF data CRLF`, all that came at once as one, without extensions and
//                       trailers. The last one goes in when all is well
#pragma once

#include "chunks.h"
#include "flow.h"

#include <cstring>
#include <string>
#include <utility>

namespace tidegate {

constexpr size_t kSlack = 32;  // before and behind a head, for a sink that writes there

enum class Gathered { kIncomplete, kLine, kComplete, kBad };

// Moves *p over the head's bytes up to the end of its first line, or its own; *start is where in this piece it begins.
inline Gathered gather(Flow& flow, bool relayed, char** p, char** start, char* const end) {
  const auto bad = [&](HeadFault fault) {
    flow.fault = fault;
    return Gathered::kBad;
  };
  while (*p < end) {
    switch (flow.at) {
      case At::kBefore:
        if (**p == '\r' && !relayed) {
          flow.at = At::kBeforeLf;
          break;
        }
        *start = *p;
        flow.at = **p == '\r' ? At::kAnnounced : At::kHead;
        continue;
      case At::kBeforeLf:
        if (**p != '\n') return bad(HeadFault::kBadLineEnd);
        flow.at = At::kBefore;
        break;
      case At::kAnnounced:
        // Version 2, with fewer than 256 bytes behind the 16 of which the last says how many.
        if (++flow.bytes == 16) flow.announcedBytes = 16 + static_cast<unsigned char>(**p);
        if (flow.bytes < 16 || flow.bytes < flow.announcedBytes) break;
        flow.bytes = 0;
        flow.at = At::kHead;
        break;
      default: {
        char* const lf = static_cast<char*>(memchr(*p, '\n', static_cast<size_t>(end - *p)));
        const bool afterCr = *p == *start && flow.lineBytes > 0 && flow.head.back() == '\r';
        if (lf == nullptr) {
          // Nobody need wait for the end of what is no text. Only the last byte may be a CR, until the next has come.
          const bool isText = (!afterCr || flow.line.isRead) && !hasBelow(*p, end[-1] == '\r' ? end - 1 : end, ' ');
          if (!isText && !flow.line.isRead) return bad(HeadFault::kBadLine);
          flow.lineBytes += static_cast<size_t>(end - *p);
          *p = end;
          return Gathered::kIncomplete;
        }
        if (lf == *p ? !afterCr : lf[-1] != '\r') return bad(HeadFault::kBadLineEnd);
        const size_t bytes = flow.lineBytes + static_cast<size_t>(lf + 1 - *p);
        flow.lineBytes = 0;
        *p = lf + 1;
        if (!flow.line.isRead) return Gathered::kLine;
        if (bytes == 2) return Gathered::kComplete;
        continue;
      }
    }
    ++*p;
  }
  if (flow.at == At::kBefore || flow.at == At::kBeforeLf) *start = end;
  return Gathered::kIncomplete;
}

// Reads the first line of a head, of which the last piece is [*start, p). Scheme and authority of its target are left
// out of what is handed on.
inline bool readFirstLine(Flow& flow, int tls, char** start, char* p) {
  size_t cut;
  if (flow.head.empty()) {
    flow.fault = readRequestLine(tls, *start + flow.announcedBytes, p - 2, &flow.line, &cut);
    if (cut > 0) memmove(*start + cut, *start, flow.announcedBytes + static_cast<size_t>(flow.line.methodEnd) + 1);
    *start += cut;
  } else {
    flow.head.append(*start, p);
    *start = p;
    char* const line = &flow.head[flow.announcedBytes];
    flow.fault = readRequestLine(tls, line, &flow.head[flow.head.size() - 2], &flow.line, &cut);
    flow.head.erase(flow.announcedBytes + static_cast<size_t>(flow.line.methodEnd) + 1, cut);
  }
  flow.cutBytes = cut;
  return flow.fault == HeadFault::kNone;
}

// kHeld: what is left is not to be handed on before the sink has answered what was. kBadHead: flow.fault says what is
// wrong with it. kBadBody: so is a chunked body. kLong…: what is over the limit, or brings the head over it. What has
// come of a head that is refused is in flow.head.
enum class Passed { kOpen, kClosed, kHeld, kBadHead, kLongMethod, kLongTarget, kLongHead, kBadBody };

// Of a head over the limit: what has no end within it (RFC 9112, 3).
inline Passed tooLong(const Flow& flow, size_t mostHeadBytes) {
  const auto endsWithin = [&](char c) { return flow.head.find(c, flow.announcedBytes) <= flow.announcedBytes + mostHeadBytes; };
  return endsWithin('\r') ? Passed::kLongHead : endsWithin(' ') ? Passed::kLongTarget : Passed::kLongMethod;
}

// Moves p over bytes that have come. A sink takes what is handed on, each call false where that has ended the
// connection, and then `flow` is not touched:
//   feed(data, length)            lies in the bytes that have come; may change up to 32 behind it, and puts them back
//   feedText(text, length)        what was not in them, 32 bytes at most
//   markHead(head, end, line)     what is wrong with a head, without a PROXY header, whose first line is read
//   feedHead(data, length, next)  that head, behind flow.announcedBytes of a PROXY header; kSlack bytes before and
//                                 behind it are the sink's to change, and to put back. `next` is for the sink to say
//                                 what follows it
//   isBusy()                      no further request is to be handed on now
//   endBody()                     a chunked body was sound to its end, which comes next
template <typename Sink>
Passed passHead(Sink& sink, Flow& flow, int tls, bool relayed, size_t mostHeadBytes, char*& p, char* const end) {
  char* start = p;
  Gathered gathered = gather(flow, relayed, &p, &start, end);
  if (gathered == Gathered::kLine) {
    if (!readFirstLine(flow, tls, &start, p)) gathered = Gathered::kBad;
    else gathered = gather(flow, relayed, &p, &start, end);
  }
  const size_t length = flow.head.size() + static_cast<size_t>(p - start);
  // As it was sent: a head must not pass or fail by how much of it had come when its line was read.
  const bool isLong = length + flow.cutBytes > flow.announcedBytes + mostHeadBytes;
  if (gathered != Gathered::kComplete || isLong) {
    flow.head.append(start, p);
    if (gathered == Gathered::kBad) return Passed::kBadHead;
    return isLong ? tooLong(flow, mostHeadBytes) : Passed::kOpen;
  }
  std::string pieces;
  if (!flow.head.empty()) {
    pieces.reserve(length + 2 * kSlack);
    pieces.append(kSlack, '\0').append(flow.head).append(start, p).append(kSlack, '\0');
  }
  char* const head = pieces.empty() ? start : &pieces[kSlack];
  flow.fault = sink.markHead(head + flow.announcedBytes, head + length, flow.line);
  if (flow.fault != HeadFault::kNone) {
    flow.head.assign(head, length);
    return Passed::kBadHead;
  }
  Flow next;
  if (!sink.feedHead(head, length, next)) return Passed::kClosed;
  flow = std::move(next);
  return Passed::kOpen;
}

template <typename Sink>
Passed passBytes(Sink& sink, Flow& flow, int tls, bool relayed, size_t mostHeadBytes, char*& p, char* const end) {
  while (p < end) {
    if (flow.at == At::kBefore && sink.isBusy()) return Passed::kHeld;
    if (flow.at < At::kBody) {
      const Passed passed = passHead(sink, flow, tls, relayed, mostHeadBytes, p, end);
      if (passed != Passed::kOpen) return passed;
    } else if (flow.at == At::kBody) {
      char* const data = p;
      size_t part = static_cast<size_t>(end - p);
      if (part > flow.bytes) part = static_cast<size_t>(flow.bytes);
      flow.bytes -= part;
      if (flow.bytes == 0) flow = Flow();
      p += part;
      if (!sink.feed(data, part)) return Passed::kClosed;
    } else {
      switch (passChunks(sink, flow, &p, end)) {
        case Chunks::kClosed:
          return Passed::kClosed;
        case Chunks::kBad:
          return Passed::kBadBody;
        case Chunks::kDone: {
          const bool first = flow.first;
          sink.endBody();
          flow = Flow();
          if (!sink.feedText(first ? "0\r\n\r\n" : "\r\n0\r\n\r\n", first ? 5 : 7)) return Passed::kClosed;
          break;
        }
        case Chunks::kMore:
          break;
      }
    }
  }
  return Passed::kOpen;
}

}  // namespace tidegate
