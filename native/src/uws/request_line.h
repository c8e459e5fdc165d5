// A request line (RFC 9112, 3): where its parts are, or what is wrong with it. Pure.
#pragma once

#include <strings.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace tidegate {

// What is wrong with a head. kBadLength: both a length and chunks, or one that is hidden.
enum class HeadFault { kNone, kBadLine, kBadLineEnd, kBadVersion, kBadName, kBadValue, kBadHost, kBadLength, kManyFields };

struct RequestLine {
  int32_t methodEnd = 0, pathEnd = 0, targetEnd = 0;  // from the beginning of the line
  bool isRead = false;
  std::string absolute;  // scheme and authority of a target in absolute-form, which are not in the head that is handed on
};

inline constexpr const char* kSchemes[2] = {"http://", "https://"};
constexpr ptrdiff_t kAuthorityBytes = 262;  // a name of 255, a colon, a port
constexpr ptrdiff_t kVersionBytes = 9;      // ` HTTP/1.1`

// Whether a byte is below `least`. Without a branch, so that the compiler looks at many at once.
inline bool hasBelow(const char* from, const char* to, unsigned char least) {
  bool found = false;
  for (; from < to; from++) found |= static_cast<unsigned char>(*from) < least;
  return found;
}

// The end of scheme and authority of a target in absolute-form (RFC 9112, 3.2.2), null where it is none. `*` and an
// authority alone are none of a gateway's.
inline char* authorityEnd(int tls, char* target, const char* end) {
  const auto schemeLength = static_cast<ptrdiff_t>(strlen(kSchemes[tls]));
  if (end - target <= schemeLength || strncasecmp(target, kSchemes[tls], static_cast<size_t>(schemeLength)) != 0) return nullptr;
  char* const authority = target + schemeLength;
  char* at = authority;
  for (; at < end && *at != '/' && *at != '?'; at++) {
    if (*at < '!' || *at > '~' || *at == '@') return nullptr;
  }
  return at == authority || at - authority > kAuthorityBytes ? nullptr : at;
}

// Reads the line whose CRLF begins at `end`. A target in absolute-form becomes the path alone: *cut bytes behind the
// method and its blank are to be left out then, and `out` says where the parts are without them.
inline HeadFault readRequestLine(int tls, char* const line, char* const end, RequestLine* out, size_t* cut) {
  *cut = 0;
  char* const cr = static_cast<char*>(memchr(line, '\r', static_cast<size_t>(end + 1 - line)));
  char* const blank = static_cast<char*>(memchr(line, ' ', static_cast<size_t>(cr - line)));
  if (blank == nullptr) return HeadFault::kBadLine;
  for (const char* c = line; c < blank; c++) {
    if (*c < '!' || *c > '~') return HeadFault::kBadLine;
  }
  out->methodEnd = static_cast<int32_t>(blank - line);
  char* const target = blank + 1;
  char* const targetEnd = cr - kVersionBytes;
  if (targetEnd <= target || memcmp(targetEnd, " HTTP/", 6) != 0 || hasBelow(target, targetEnd, '!')) return HeadFault::kBadLine;
  if (cr != end) return HeadFault::kBadLineEnd;
  const char* path = target;
  if (*target != '/') {
    char* const after = authorityEnd(tls, target, targetEnd);
    if (after == nullptr) return HeadFault::kBadLine;
    out->absolute.assign(target, after);
    // Where no path follows, it is `/`, in the place of the authority's last byte.
    path = after < targetEnd && *after == '/' ? after : after - 1;
    if (path != after) after[-1] = '/';
    *cut = static_cast<size_t>(path - target);
  }
  if (memcmp(targetEnd + 6, "1.1", 3) != 0) {
    const auto isDigit = [](char c) { return c >= '0' && c <= '9'; };
    return isDigit(targetEnd[6]) && targetEnd[7] == '.' && isDigit(targetEnd[8]) ? HeadFault::kBadVersion : HeadFault::kBadLine;
  }
  const auto* query = static_cast<const char*>(memchr(path, '?', static_cast<size_t>(targetEnd - path)));
  const auto at = [&](const char* p) { return static_cast<int32_t>(p - line - static_cast<ptrdiff_t>(*cut)); };
  out->pathEnd = at(query == nullptr ? targetEnd : query);
  out->targetEnd = at(targetEnd);
  out->isRead = true;
  return HeadFault::kNone;
}

}  // namespace tidegate
