// Where the next byte of a connection lies, for framing.h and chunks.h. Pure.
#pragma once

#include "request_line.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace tidegate {

enum class At : uint8_t {
  kAnnounced,          // a PROXY header before the head, where relay.cc is the client
  kBefore, kBeforeLf,  // empty lines before a request (RFC 9112, 2.2): left out
  kHead,
  kBody,               // of declared length
  kSize, kDigits, kBlanks, kSizeLf, kData, kDataCr, kDataLf,  // RFC 9112, 7.1
  kExtension, kName, kNameEnd, kValue, kToken, kQuoted, kQuotedPair, kQuotedEnd,  // … of a chunk's extensions
  kTrailer, kTrailerName, kTrailerValue, kTrailerLf, kLastLf,
};

struct Flow {
  At at = At::kBefore;
  HeadFault fault = HeadFault::kNone;  // of the head that is refused
  RequestLine line;                    // of the head that comes, once all of its first line has come
  std::string head;                    // what has come of a head in earlier pieces, behind its PROXY header
  size_t lineBytes = 0;                // of that, how many are of a line that is not complete
  uint64_t bytes = 0;                  // of the body or the chunk, still to come
  size_t announcedBytes = 0;           // of a PROXY header, in all
  size_t cutBytes = 0;                 // of a target in absolute-form: they are not in the head that is handed on
  bool first = true;                   // no chunk has been handed on yet
  size_t extensionBytes = 0;
  size_t trailerBytes = 0;
};

}  // namespace tidegate
