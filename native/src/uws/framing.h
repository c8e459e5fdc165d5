// Where the heads and bodies of a connection's requests end, byte by byte and in any split; what is refused, and what is handed on. Pure: a
// sink gets the bytes. gate.cc says what it works around and what it costs to be without. Fuzzed in native/fuzz.
//
//           ┌─ head ──► whole, up to its CRLFCRLF ──► sink.feedHead, which says what follows: a length, or chunks
//   bytes ──┼─ body ──► as it is, as many bytes as were declared
//           └─ chunks ► written anew: `size CRLF data CRLF`, all that came at once as one, without extensions and trailers. The last one goes in
//                       when all is well
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

namespace tidegate {

constexpr size_t kExtensionBytes = 8192;  // that no data has paid for
constexpr size_t kTrailerBytes = 16384;
constexpr uint64_t kMostChunkBytes = 1ull << 53;

// Where the next byte of a connection lies.
enum class At : uint8_t {
  kAnnounced,                              // a PROXY header before the head, where relay.cc is the client
  kBefore, kBeforeLf,                      // empty lines before a request (RFC 9112, 2.2): left out
  kMethod, kTargetStart, kAbsolute, kTarget, kLine, kLf, kLineStart, kEndLf,  // a head
  kBody,                                   // of declared length
  kSize, kDigits, kBlanks, kSizeLf, kData, kDataCr, kDataLf,  // RFC 9112, 7.1
  kExtension, kName, kNameEnd, kValue, kToken, kQuoted, kQuotedPair, kQuotedEnd,  // … of a chunk's extensions
  kTrailer, kTrailerName, kTrailerValue, kTrailerLf, kLastLf,
};

struct Flow {
  At at = At::kBefore;
  char tail[9] = {'-', '-', '-', '-', '-', '-', '-', '-', '-'};  // the end of what has come of target and version
  bool blank = false;          // there was one before that
  std::string absolute;        // scheme and authority of a target in absolute-form, which are not in the head that is handed on
  std::string head;            // what has come of a head in earlier pieces, behind its PROXY header
  bool first = true;           // no chunk has been handed on yet
  uint64_t bytes = 0;          // of the body or the chunk, still to come
  size_t announcedBytes = 0;   // of a PROXY header, in all
  size_t extensionBytes = 0;
  size_t trailerBytes = 0;
};

constexpr size_t kSlack = 32;  // before and behind a head, for a sink that writes there

inline bool isControl(unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; }

inline bool isToken(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

inline int hexDigit(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// kCut: of what has come, the bytes up to `kept.after` are the head's, then the text in place of those up to *p.
enum class Head { kIncomplete, kComplete, kBad, kCut };

struct Kept {
  char* after;
  const char* text;
};

inline constexpr const char* kSchemes[2] = {"http://", "https://"};
constexpr size_t kAuthorityBytes = 262;  // a name of 255, a colon, a port

// Whether a byte is below `least`. Without a branch, so that the compiler looks at many at once.
inline bool hasBelow(const char* from, const char* to, unsigned char least) {
  bool found = false;
  for (; from < to; from++) found |= static_cast<unsigned char>(*from) < least;
  return found;
}

// Keeps the last bytes of target and version, however they are split, and looks at those that these push out.
inline void keepTail(Flow& flow, const char* from, const char* to) {
  const size_t length = static_cast<size_t>(to - from);
  constexpr size_t kKept = sizeof flow.tail;
  flow.blank |= hasBelow(flow.tail, flow.tail + (length < kKept ? length : kKept), '!');
  if (length > kKept) flow.blank |= hasBelow(from, to - kKept, '!');
  if (length >= kKept) {
    memcpy(flow.tail, to - kKept, kKept);
    return;
  }
  memmove(flow.tail, flow.tail + length, kKept - length);
  memcpy(flow.tail + kKept - length, from, length);
}

// Moves *p over the head; *start is where what is handed on begins.
inline Head passHead(Flow& flow, int tls, bool relayed, char** p, char** start, char* end, Kept* kept) {
  char* target = *p;  // where that begins, in this part
  while (*p < end) {
    const char c = **p;
    switch (flow.at) {
      case At::kAnnounced:
        // Version 2, with fewer than 256 bytes behind the 16 of which the last says how many.
        if (++flow.bytes == 16) flow.announcedBytes = 16 + static_cast<unsigned char>(c);
        if (flow.bytes < 16 || flow.bytes < flow.announcedBytes) break;
        ++*p;
        flow.bytes = 0;
        flow.at = At::kMethod;
        *kept = {*p, ""};
        return Head::kCut;
      case At::kBefore:
        if (c == '\r' && relayed) {
          *start = *p;
          flow.at = At::kAnnounced;
          continue;
        }
        if (c == '\r') {
          flow.at = At::kBeforeLf;
          break;
        }
        *start = *p;
        flow.at = At::kMethod;
        continue;
      case At::kBeforeLf:
        if (c != '\n') return Head::kBad;
        flow.at = At::kBefore;
        break;
      case At::kMethod:
        if (c == ' ') flow.at = At::kTargetStart;
        else if (c < '!' || c > '~') return Head::kBad;
        break;
      case At::kTargetStart:
        // `*` and an authority alone are none of a gateway's (RFC 9112, 3.2).
        target = *p;
        flow.at = c == '/' ? At::kTarget : At::kAbsolute;
        continue;
      case At::kAbsolute: {
        // RFC 9112, 3.2.2. The sink gets the path alone, and finds the rest in flow.absolute.
        const size_t schemeLength = strlen(kSchemes[tls]);
        const size_t length = flow.absolute.size();
        if (length < schemeLength) {
          if ((c | 0x20) != (kSchemes[tls][length] | 0x20)) return Head::kBad;
        } else if (c == '/' || c == '?' || c == ' ') {
          if (length == schemeLength) return Head::kBad;
          flow.at = At::kTarget;
          *kept = {target, c == '/' ? "" : "/"};
          return Head::kCut;
        } else if (c < '!' || c > '~' || c == '@' || length == schemeLength + kAuthorityBytes) {
          return Head::kBad;
        }
        flow.absolute += c;
        break;
      }
      case At::kTarget:
      case At::kLine: {
        char* cr = static_cast<char*>(memchr(*p, '\r', static_cast<size_t>(end - *p)));
        char* to = cr == nullptr ? end : cr;
        if (flow.at == At::kTarget) {
          if (hasBelow(*p, to, ' ')) return Head::kBad;
          keepTail(flow, *p, to);
        } else if (memchr(*p, '\n', static_cast<size_t>(to - *p)) != nullptr) {
          flow.at = At::kLf;  // that is what is wrong with it
          return Head::kBad;
        }
        *p = kept->after = to;
        if (cr == nullptr) return Head::kIncomplete;
        if (flow.at == At::kTarget && (flow.blank || memcmp(flow.tail, " HTTP/", 6) != 0)) return Head::kBad;
        flow.at = At::kLf;
        break;
      }
      case At::kLf:
        if (c != '\n') return Head::kBad;
        flow.at = At::kLineStart;
        break;
      case At::kLineStart:
        if (c == ':') return Head::kBad;
        flow.at = c == '\r' ? At::kEndLf : At::kLine;
        if (c == '\r') break;
        continue;
      default:
        if (c != '\n') return Head::kBad;
        ++*p;
        return Head::kComplete;
    }
    ++*p;
  }
  if (flow.at == At::kBefore || flow.at == At::kBeforeLf) *start = end;
  kept->after = flow.at == At::kAbsolute ? target : *p;
  return Head::kIncomplete;
}

// *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112, 7.1.1, from behind the first semicolon on. False: it is not.
inline bool readExtension(At& at, unsigned char c) {
  const bool blank = c == ' ' || c == '\t';
  // What may follow a whole extension.
  const auto ends = [&](At blanks) {
    at = c == ';' ? At::kExtension : c == '\r' ? At::kSizeLf : blanks;
    return c == ';' || c == '\r' || blank;
  };
  switch (at) {
    case At::kExtension:
      if (!blank) at = At::kName;
      return blank || isToken(c);
    case At::kName:
    case At::kNameEnd:
      if (c == '=') at = At::kValue;
      else if (at == At::kName && isToken(c)) return true;
      else if (at == At::kNameEnd && c == '\r') return false;
      else return ends(At::kNameEnd);
      return true;
    case At::kValue:
      if (!blank) at = c == '"' ? At::kQuoted : At::kToken;
      return blank || c == '"' || isToken(c);
    case At::kToken: return isToken(c) || ends(At::kBlanks);
    case At::kQuoted:
      if (c == '"') at = At::kQuotedEnd;
      else if (c == '\\') at = At::kQuotedPair;
      return !isControl(c);
    case At::kQuotedPair:
      at = At::kQuoted;
      return !isControl(c);
    default: return ends(At::kBlanks);  // kQuotedEnd
  }
}

enum class Chunks { kMore, kDone, kBad, kClosed };

// Moves *p over chunks. Their data is gathered in front of what is left, [*data, *dataEnd): many small chunks cost whoever gets them as much as
// one large one.
inline Chunks readChunks(Flow& flow, char** p, char* end, char** data, char** dataEnd) {
  *data = *dataEnd = *p;
  while (*p < end) {
    const unsigned char c = static_cast<unsigned char>(**p);
    switch (flow.at) {
      case At::kSize:
        if (hexDigit(c) < 0) return Chunks::kBad;
        flow.bytes = 0;
        flow.at = At::kDigits;
        continue;
      case At::kDigits: {
        const int digit = hexDigit(c);
        if (digit >= 0) {
          // Zeros in front are as good as an extension.
          if (flow.bytes == 0 && digit == 0 && ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
          flow.bytes = flow.bytes * 16 + static_cast<uint64_t>(digit);
          if (flow.bytes > kMostChunkBytes) return Chunks::kBad;
          break;
        }
        if (c == '\r') flow.at = At::kSizeLf;
        else if (c == ';') flow.at = At::kExtension;
        else if (c == ' ' || c == '\t') flow.at = At::kBlanks;
        else return Chunks::kBad;
        break;
      }
      case At::kBlanks:
        if (c == ';') flow.at = At::kExtension;
        else if ((c != ' ' && c != '\t') || ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
        break;
      case At::kExtension: case At::kName: case At::kNameEnd: case At::kValue:
      case At::kToken: case At::kQuoted: case At::kQuotedPair: case At::kQuotedEnd:
        if (!readExtension(flow.at, c) || ++flow.extensionBytes > kExtensionBytes) return Chunks::kBad;
        break;
      case At::kSizeLf: {
        if (c != '\n') return Chunks::kBad;
        ++*p;
        if (flow.bytes == 0) {
          flow.at = At::kTrailer;
          continue;
        }
        flow.at = At::kData;
        // What a chunk carries pays for what is said of it, as in Go's net/http: only extensions for their own sake run into the limit.
        const uint64_t paid = 16 + 2 * flow.bytes;
        flow.extensionBytes = flow.extensionBytes > paid ? flow.extensionBytes - static_cast<size_t>(paid) : 0;
        continue;
      }
      case At::kData: {
        size_t length = static_cast<size_t>(end - *p);
        if (length > flow.bytes) length = static_cast<size_t>(flow.bytes);
        flow.bytes -= length;
        if (flow.bytes == 0) flow.at = At::kDataCr;
        memmove(*dataEnd, *p, length);
        *dataEnd += length;
        *p += length;
        continue;
      }
      case At::kDataCr:
        if (c != '\r') return Chunks::kBad;
        flow.at = At::kDataLf;
        break;
      case At::kDataLf:
        if (c != '\n') return Chunks::kBad;
        flow.at = At::kSize;
        break;
      case At::kTrailer:
        if (c == '\r') flow.at = At::kLastLf;
        else if (!isToken(c) || ++flow.trailerBytes > kTrailerBytes) return Chunks::kBad;
        else flow.at = At::kTrailerName;
        break;
      case At::kTrailerName:
        if (c == ':') flow.at = At::kTrailerValue;
        else if (!isToken(c) || ++flow.trailerBytes > kTrailerBytes) return Chunks::kBad;
        break;
      case At::kTrailerValue:
        if (c == '\r') flow.at = At::kTrailerLf;
        else if (isControl(c) || ++flow.trailerBytes > kTrailerBytes) return Chunks::kBad;
        break;
      case At::kTrailerLf:
        if (c != '\n') return Chunks::kBad;
        flow.at = At::kTrailer;
        break;
      default:  // kLastLf
        if (c != '\n') return Chunks::kBad;
        ++*p;
        return Chunks::kDone;
    }
    ++*p;
  }
  return Chunks::kMore;
}

template <typename Sink>
Chunks passChunks(Sink& sink, Flow& flow, char** p, char* end) {
  char *data, *dataEnd;
  const Chunks passed = readChunks(flow, p, end, &data, &dataEnd);
  if (data == dataEnd) return passed;
  char line[32];
  const size_t bytes = static_cast<size_t>(dataEnd - data);
  const int length = snprintf(line, sizeof line, "%s%zx\r\n", flow.first ? "" : "\r\n", bytes);
  flow.first = false;
  return sink.feedText(line, static_cast<size_t>(length)) && sink.feed(data, bytes) ? passed : Chunks::kClosed;
}

// kHeld: what is left is not to be handed on before the sink has answered what was. kBad…: what is wrong with a head, or a chunked body.
// kLong…: what is over the limit, or brings the head over it. What has come of a head that is refused is in flow.head.
enum class Passed { kOpen, kClosed, kHeld, kBadLine, kBadLineEnd, kBadFieldName, kLongMethod, kLongTarget, kLongHead, kBadBody };

inline Passed faultAt(At at) {
  switch (at) {
    case At::kBeforeLf: case At::kLf: case At::kEndLf: return Passed::kBadLineEnd;
    case At::kLineStart: return Passed::kBadFieldName;
    default: return Passed::kBadLine;
  }
}

// Of a head over the limit: what has no end within it (RFC 9112, 3).
inline Passed tooLong(const Flow& flow, size_t mostHeadBytes) {
  const auto endsWithin = [&](char c) { return flow.head.find(c, flow.announcedBytes) <= flow.announcedBytes + mostHeadBytes; };
  return endsWithin('\r') ? Passed::kLongHead : endsWithin(' ') ? Passed::kLongTarget : Passed::kLongMethod;
}

// Moves p over bytes that have come. A sink takes what is handed on, each call false where that has ended the connection, and then `flow` is not
// touched:
//   feed(data, length)            lies in the bytes that have come; may change up to 32 behind it, and puts them back
//   feedText(text, length)        what was not in them, 32 bytes at most
//   feedHead(data, length, next)  a head, behind flow.announcedBytes of a PROXY header; kSlack bytes before and behind it are the sink's to change,
//                                 and to put back. `next` is for the sink to say what follows it
//   isBusy()                      no further request is to be handed on now
//   endBody()                     a chunked body was sound to its end, which comes next
template <typename Sink>
Passed passBytes(Sink& sink, Flow& flow, int tls, bool relayed, size_t mostHeadBytes, char*& p, char* const end) {
  while (p < end) {
    if (flow.at == At::kBefore && sink.isBusy()) return Passed::kHeld;
    if (flow.at < At::kBody) {
      char* start = p;  // of what is the head's
      Kept kept;
      const Head head = passHead(flow, tls, relayed, &p, &start, end, &kept);
      if (head == Head::kBad) {
        flow.head.append(start, p);
        return faultAt(flow.at);
      }
      if (head == Head::kComplete) {
        const size_t length = flow.head.size() + static_cast<size_t>(p - start);
        if (length > flow.announcedBytes + mostHeadBytes) {
          flow.head.append(start, p);
          return tooLong(flow, mostHeadBytes);
        }
        Flow next;
        if (flow.head.empty()) {
          if (!sink.feedHead(start, length, next)) return Passed::kClosed;
        } else {
          std::string whole(kSlack, '\0');
          whole.append(flow.head).append(start, p).append(kSlack, '\0');
          if (!sink.feedHead(&whole[kSlack], length, next)) return Passed::kClosed;
        }
        flow = std::move(next);
        continue;
      }
      if (start < kept.after) flow.head.append(start, kept.after);
      if (head == Head::kCut) flow.head.append(kept.text);
      if (flow.head.size() > flow.announcedBytes + mostHeadBytes) return tooLong(flow, mostHeadBytes);
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
