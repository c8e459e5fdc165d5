// Chunked bodies (readChunks of src/uws/chunks.h) against a reader that is as slow and as plain as RFC 9112, 7.1, is:
// line by line, over all of the body at once. The first byte of the input says how it is split.
//
// Held: both find the same bodies complete, with the same data and the same end, and nothing else, in any split.
#include "input.h"

#include "../src/uws/chunks.h"

#include <optional>

using namespace tidegate;

namespace {

struct Body {
  std::string data;
  size_t end;
};

// What is left of a line.
struct Line {
  const std::string& text;
  size_t at = 0;

  bool atEnd() const { return at == text.size(); }
  bool take(char c) {
    if (atEnd() || text[at] != c) return false;
    at++;
    return true;
  }
  void blanks() {
    while (take(' ') || take('\t')) {
    }
  }
  bool token() {
    const size_t from = at;
    while (!atEnd() && isToken(static_cast<unsigned char>(text[at]))) at++;
    return at > from;
  }
  bool quoted() {
    if (!take('"')) return false;
    while (!atEnd() && text[at] != '"') {
      if (isControl(static_cast<unsigned char>(text[at]))) return false;
      if (text[at++] == '\\' && (atEnd() || isControl(static_cast<unsigned char>(text[at++])))) return false;
    }
    return take('"');
  }
  bool extension() {
    blanks();
    if (!take(';')) return false;
    blanks();
    if (!token()) return false;
    const size_t from = at;
    blanks();
    if (!take('=')) {
      at = from;
      return true;
    }
    blanks();
    return token() || quoted();
  }
};

std::optional<std::string> lineAt(const std::string& in, size_t from) {
  const size_t end = in.find("\r\n", from);
  if (end == std::string::npos) return std::nullopt;
  return in.substr(from, end - from);
}

bool isTrailer(const std::string& text) {
  Line line{text};
  if (!line.token() || !line.take(':')) return false;
  while (!line.atEnd()) {
    if (isControl(static_cast<unsigned char>(text[line.at++]))) return false;
  }
  return true;
}

// None: it is not complete, or malformed.
std::optional<Body> read(const std::string& in) {
  Body body{"", 0};
  for (;;) {
    const auto text = lineAt(in, body.end);
    if (!text) return std::nullopt;
    Line line{*text};
    uint64_t size = 0;
    for (; !line.atEnd() && hexDigit(static_cast<unsigned char>((*text)[line.at])) >= 0; line.at++) {
      size = size * 16 + static_cast<uint64_t>(hexDigit(static_cast<unsigned char>((*text)[line.at])));
      if (size > in.size()) return std::nullopt;
    }
    if (line.at == 0) return std::nullopt;
    while (!line.atEnd()) {
      if (!line.extension()) return std::nullopt;
    }
    body.end += text->size() + 2;
    if (size == 0) break;
    if (in.compare(body.end + size < in.size() ? body.end + size : in.size(), 2, "\r\n") != 0) return std::nullopt;
    body.data += in.substr(body.end, size);
    body.end += size + 2;
  }
  for (;;) {
    const auto text = lineAt(in, body.end);
    if (!text) return std::nullopt;
    body.end += text->size() + 2;
    if (text->empty()) return body;
    if (!isTrailer(*text)) return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t step = data[0] % 32 == 0 ? size : data[0] % 32;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (input.size() > kExtensionBytes) return 0;
  Flow flow;
  flow.at = At::kSize;
  Body found{"", 0};
  Chunks passed = Chunks::kMore;
  while (passed == Chunks::kMore && found.end < input.size()) {
    const Exact part(input.substr(found.end, step));
    char *p = part.bytes.get(), *from, *to;
    passed = readChunks(flow, &p, p + part.size, &from, &to);
    found.data.append(from, to);
    found.end += static_cast<size_t>(p - part.bytes.get());
  }
  const auto expected = read(input);
  hold(expected.has_value() == (passed == Chunks::kDone), "a body that is complete and sound to one reader alone");
  if (!expected) return 0;
  hold(expected->data == found.data, "other data");
  hold(expected->end == found.end, "another end");
  return 0;
}
