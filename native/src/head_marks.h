// Where the fields of a request's head are, for JavaScript to cut it up without a call and a string for each (src/ingress/fields.ts).
// A head as uWebSockets has it: whole, taken by its parser, names in lower case. Judges nothing but what a line looks like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace tidegate {

// The layout of `marks`: what comes before the fields, and of each field.
enum HeadMark { kFieldCount, kLooks, kMethodEnd, kPathEnd, kTargetEnd, kHeadMarks };
enum FieldMark { kName, kLine, kValue, kValueEnd, kFieldMarks };

// In kLooks: some field …
constexpr int32_t kHasBlanks = 1;      // is not `name: value` but has fewer or more blanks
constexpr int32_t kHasUnderscore = 2;  // has one in its name
constexpr int32_t kHasWide = 4;        // has bytes in its value that are not ASCII
constexpr int32_t kHasDel = 8;         // has a DEL in its value, the one control character that uWebSockets lets through

// Names with a number of their own, from 1.
class FieldNames {
 public:
  void add(std::string name) {
    const size_t length = name.size();
    if (byLength_.size() <= length) byLength_.resize(length + 1);
    byLength_[length].push_back({std::move(name), ++count_});
  }

  int32_t find(const char* name, size_t length) const {
    if (length >= byLength_.size()) return 0;
    for (const Known& known : byLength_[length]) {
      if (memcmp(known.name.data(), name, length) == 0) return known.number;
    }
    return 0;
  }

 private:
  struct Known {
    std::string name;
    int32_t number;
  };
  std::vector<std::vector<Known>> byLength_;
  int32_t count_ = 0;
};

// As uWebSockets does it in place.
inline void lowerNames(std::string& head) {
  for (size_t line = head.find('\n') + 1; line < head.size() && head[line] != '\r'; line = head.find('\n', line) + 1) {
    for (size_t i = line; i < head.size() && head[i] != ':'; i++) {
      if (head[i] >= 'A' && head[i] <= 'Z') head[i] |= 0x20;
    }
  }
}

// False: `marks`, of `capacity` numbers, has no room for all of them, or this is no such head.
inline bool markHead(const FieldNames& names, const char* head, const char* end, int32_t* marks, size_t capacity) {
  const auto at = [head](const char* p) { return static_cast<int32_t>(p - head); };
  const auto find = [end](const char* from, char c) {
    return static_cast<const char*>(memchr(from, c, static_cast<size_t>(end - from)));
  };
  const char* cr = find(head, '\r');
  const char* blank = find(head, ' ');
  if (cr == nullptr || blank == nullptr || blank > cr) return false;
  const auto* targetEnd = static_cast<const char*>(memrchr(head, ' ', static_cast<size_t>(cr - head)));
  const auto* query = static_cast<const char*>(memchr(blank, '?', static_cast<size_t>(targetEnd - blank)));
  marks[kMethodEnd] = at(blank);
  marks[kPathEnd] = at(query == nullptr ? targetEnd : query);
  marks[kTargetEnd] = at(targetEnd);
  int32_t looks = 0, count = 0;
  int32_t* field = marks + kHeadMarks;
  for (const char* line = cr + 2; line < end && *line != '\r'; line = cr + 2) {
    if (field + kFieldMarks > marks + capacity) return false;
    const char* colon = find(line, ':');
    cr = colon == nullptr ? nullptr : find(colon, '\r');
    if (cr == nullptr) return false;
    const char* value = colon + 1;
    const char* valueEnd = cr;
    while (value < valueEnd && (*value == ' ' || *value == '\t')) value++;
    while (valueEnd > value && (valueEnd[-1] == ' ' || valueEnd[-1] == '\t')) valueEnd--;
    if (value != colon + 2 || colon[1] != ' ' || valueEnd != cr) looks |= kHasBlanks;
    const auto nameLength = static_cast<size_t>(colon - line);
    if (memchr(line, '_', nameLength) != nullptr) looks |= kHasUnderscore;
    unsigned char all = 0;
    bool del = false;
    for (const char* c = value; c < valueEnd; c++) {
      all |= static_cast<unsigned char>(*c);
      del |= *c == 0x7f;
    }
    if (all >= 0x80) looks |= kHasWide;
    if (del) looks |= kHasDel;
    field[kName] = names.find(line, nameLength);
    field[kLine] = at(line);
    field[kValue] = at(value);
    field[kValueEnd] = at(valueEnd);
    field += kFieldMarks;
    count++;
  }
  marks[kFieldCount] = count;
  marks[kLooks] = looks;
  return true;
}

}  // namespace tidegate
