// The fields of a request head, before uWebSockets.js reads them: what is wrong with them (uWebSockets.js would answer
// in HTML, without a length), or where they are, so that JavaScript cuts them out without a call for each
// (src/exchange/fields.ts). Pure. gate.cc says what it works around.
#pragma once

#include "breaks.h"
#include "request_line.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace tidegate {

// The layout of `marks`: what comes before the fields, and of each field. kAuthority is gate_binding.cc's.
enum HeadMark { kFieldCount, kLooks, kMethodEnd, kPathEnd, kTargetEnd, kAuthority, kHeadMarks };
enum FieldMark { kName, kLine, kValue, kValueEnd, kFieldMarks };

// In kLooks: some field …
constexpr int32_t kHasBlanks = 1;   // is not `name: value` but has fewer or more blanks
constexpr int32_t kHasOddName = 2;  // has something else than letters, digits and `-` in its name
constexpr int32_t kHasWide = 4;     // has bytes in its value that are not ASCII
constexpr int32_t kHasDel = 8;      // has a DEL in its value

// Names with a number of their own, from 1.
class FieldNames {
 public:
  void add(std::string name) {
    const size_t length = name.size();
    if (byLength_.size() <= length) byLength_.resize(length + 1);
    byLength_[length].push_back({std::move(name), ++count_});
    host = find("host", 4);
    contentLength = find("content-length", 14);
    transferEncoding = find("transfer-encoding", 17);
    connection = find("connection", 10);
    expect = find("expect", 6);
  }

  int32_t find(const char* name, size_t length) const {
    if (length >= byLength_.size()) return 0;
    for (const Known& known : byLength_[length]) {
      if (memcmp(known.name.data(), name, length) == 0) return known.number;
    }
    return 0;
  }

  // Those that decide where the request goes or ends, or its connection.
  int32_t host = 0, contentLength = 0, transferEncoding = 0, connection = 0;
  int32_t expect = 0;

 private:
  struct Known {
    std::string name;
    int32_t number;
  };
  std::vector<std::vector<Known>> byLength_;
  int32_t count_ = 0;
};

// Of RFC 9110, 5.6.2, with letters in lower case; 0 for what is none.
struct TokenTable {
  unsigned char lower[256] = {};
  bool odd[256] = {};
  constexpr TokenTable() {
    for (const char* c = "!#$%&'*+.^_`|~"; *c != 0; c++) lower[static_cast<unsigned char>(*c)] = static_cast<unsigned char>(*c);
    for (const char* c = "!#$%&'*+.^_`|~"; *c != 0; c++) odd[static_cast<unsigned char>(*c)] = true;
    for (unsigned char c = '0'; c <= '9'; c++) lower[c] = c;
    for (unsigned char c = 'a'; c <= 'z'; c++) lower[c] = lower[c - 'a' + 'A'] = c;
    lower[static_cast<unsigned char>('-')] = '-';
  }
};
inline constexpr TokenTable kTokens;

// uWebSockets tells a client to continue before anybody has looked at its request, where the first Expect is
// `100-continue` in lower case, with blanks or bytes over 127 around it. In other letters, and RFC 9110 (10.1.1) has it
// in any, it leaves that to JavaScript (continueRequest).
inline void hideExpectation(char* value, const char* valueEnd) {
  for (; value < valueEnd; value++) {
    if (*value == 'c') *value = 'C';
  }
}

// Of a whole head whose first line is read. Puts names in lower case, as uWebSockets does. `capacity` is that of
// `marks`, in numbers. `hidesExpect`: JavaScript tells a client to continue, not uWebSockets.
inline HeadFault markHead(
    const FieldNames& names, char* head, char* end, const RequestLine& first, int32_t* marks, size_t capacity, bool hidesExpect) {
  const auto at = [head](const char* p) { return static_cast<int32_t>(p - head); };
  const auto find = [end](char* from, char c) { return static_cast<char*>(memchr(from, c, static_cast<size_t>(end - from))); };
  marks[kMethodEnd] = first.methodEnd;
  marks[kPathEnd] = first.pathEnd;
  marks[kTargetEnd] = first.targetEnd;
  marks[kAuthority] = 0;
  char* cr = head + first.targetEnd + kVersionBytes;
  int32_t looks = 0, count = 0, hosts = 0;
  bool hasLength = false, hasCoding = false;
  int32_t* field = marks + kHeadMarks;
  char* line = cr + 2;
  for (; *line != '\r'; line = cr + 2) {
    if (field + kFieldMarks > marks + capacity) return HeadFault::kManyFields;
    char* colon = line;
    for (unsigned char lower; (lower = kTokens.lower[static_cast<unsigned char>(*colon)]) != 0; colon++) *colon = static_cast<char>(lower);
    if (*colon != ':' || colon == line) return HeadFault::kBadName;
    cr = find(colon, '\r');  // the head ends in one
    if (cr[1] != '\n') return HeadFault::kBadLineEnd;
    const char* value = colon + 1;
    const char* valueEnd = cr;
    while (value < valueEnd && (*value == ' ' || *value == '\t')) value++;
    while (valueEnd > value && (valueEnd[-1] == ' ' || valueEnd[-1] == '\t')) valueEnd--;
    if (value != colon + 2 || colon[1] != ' ' || valueEnd != cr) looks |= kHasBlanks;
    unsigned char all = 0;
    bool del = false, control = false;
    for (const char* c = value; c < valueEnd; c++) {
      all |= static_cast<unsigned char>(*c);
      del |= *c == 0x7f;
      control |= static_cast<unsigned char>(*c) < 0x20 && *c != '\t';
    }
    if (control) return HeadFault::kBadValue;
    if (all >= 0x80) looks |= kHasWide;
    if (del) looks |= kHasDel;
    const auto nameLength = static_cast<size_t>(colon - line);
    const int32_t name = names.find(line, nameLength);
    if (name == 0) {
      bool odd = false;
      for (const char* c = line; c < colon; c++) odd |= kTokens.odd[static_cast<unsigned char>(*c)];
      if (odd) looks |= kHasOddName;
    } else if (name == names.host || name == names.contentLength || name == names.transferEncoding || name == names.connection) {
      // uWebSockets takes these bytes for blanks at either end of a value.
      if (all >= 0x80) return HeadFault::kBadValue;
      hosts += name == names.host;
      hasLength |= name == names.contentLength && value < valueEnd;
      hasCoding |= name == names.transferEncoding && value < valueEnd;
    } else if (name == names.expect && hidesExpect) {
      hideExpectation(colon + 1, valueEnd);
    }
    field[kName] = name;
    field[kLine] = at(line);
    field[kValue] = at(value);
    field[kValueEnd] = at(valueEnd);
    field += kFieldMarks;
    count++;
  }
  if (line + 2 != end) return HeadFault::kBadLineEnd;
  if (hosts != 1 && !breaks("gate")) return HeadFault::kBadHost;
  if (hasLength && hasCoding) return HeadFault::kBadLength;
  marks[kFieldCount] = count;
  marks[kLooks] = looks;
  return HeadFault::kNone;
}

}  // namespace tidegate
