// Chunked bodies (RFC 9112, 7.1), byte by byte and in any split: what is well formed is handed on to a sink without
// extensions and trailers. Pure. Fuzzed in native/fuzz.
#pragma once

#include "flow.h"

#include <cstdio>
#include <cstring>

namespace tidegate {

constexpr size_t kExtensionBytes = 8192;  // that no data has paid for
constexpr size_t kTrailerBytes = 16384;
constexpr uint64_t kMostChunkBytes = 1ull << 53;

inline bool isControl(unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; }

inline bool isToken(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

inline int hexDigit(unsigned char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112, 7.1.1, from behind the first semicolon
// on. False: it is not.
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

// Moves *p over chunks. Their data is gathered in front of what is left, [*data, *dataEnd): many small chunks cost
// whoever gets them as much as one large one.
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
        // What a chunk carries pays for what is said of it, as in Go's net/http: only extensions for their own sake run
        // into the limit.
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

}  // namespace tidegate
