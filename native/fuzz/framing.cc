// The gate's state machine (src/uws/framing.h) on any bytes in any split, with a sink that reads what it is handed as
// strictly as RFC 9112 asks and takes what follows a head from a few digits in its target. The first byte of the input
// decides on TLS, the relay and the sink's patience, the second on the split.
//
// Held: no split changes what is handed on, nor what is refused. A head is handed on up to its CRLFCRLF, and nothing of
// what is behind it; a body's bytes are those of the input, as many as were announced; chunks are well formed, with
// nothing between them, and end only where those of the input do; nothing is handed on to a busy sink, or after the
// end.
#include "input.h"

#include "../src/uws/framing.h"
#include "../src/uws/head_marks.h"

using namespace tidegate;

namespace {

// Some heads are over it.
constexpr size_t kMostHeadBytes = 500;

// What head_marks.h finds in a head lies within it, in order, and is what a reader of lines finds.
HeadFault markedAsRead(char* data, char* end, const RequestLine& first) {
  static const FieldNames names = [] {
    FieldNames all;
    for (const char* name : {"host", "content-length", "transfer-encoding", "connection", "expect"}) all.add(name);
    return all;
  }();
  std::string head(data, end);
  int32_t marks[kHeadMarks + 20 * kFieldMarks];
  const HeadFault fault = markHead(names, &head[0], &head[0] + head.size(), first, marks, sizeof marks / sizeof *marks, true);
  if (fault != HeadFault::kNone) return fault;
  hold(head[static_cast<size_t>(marks[kMethodEnd])] == ' ' && head.compare(static_cast<size_t>(marks[kTargetEnd]), 11, " HTTP/1.1\r\n") == 0,
      "a request line that is read wrong");
  size_t line = head.find('\n') + 1;
  int hosts = 0;
  for (int32_t i = 0; i < marks[kFieldCount]; i++) {
    const int32_t* field = marks + kHeadMarks + i * kFieldMarks;
    const size_t colon = head.find(':', line), cr = head.find('\r', line);
    hold(static_cast<size_t>(field[kLine]) == line && colon < cr, "a field that begins elsewhere");
    hold(static_cast<size_t>(field[kValue]) > colon && field[kValue] <= field[kValueEnd] && static_cast<size_t>(field[kValueEnd]) <= cr, "a value outside its line");
    for (size_t at = line; at < colon; at++) hold(isToken(static_cast<unsigned char>(head[at])) && !(head[at] >= 'A' && head[at] <= 'Z'), "a name that is none");
    for (size_t at = colon; at < cr; at++) hold(static_cast<unsigned char>(head[at]) >= ' ' || head[at] == '\t', "a control in a value");
    hosts += head.compare(line, 5, "host:") == 0;
    line = cr + 2;
  }
  hold(line == head.size() - 2, "lines that are no fields");
  hold(hosts == 1, "not one host");
  return fault;
}

// A reader of what is handed on: of heads it knows where they end, of chunked bodies all of it.
struct Sink {
  bool relayed;        // a PROXY header may stand before a head, which is no text
  bool patient;        // it is never busy
  std::string heads;   // one after the other
  std::string bodies;  // of both kinds, without chunk lines, a NUL behind each
  int64_t left = 0;    // of a body of declared length
  bool chunked = false;
  enum { kLine, kData, kDataEnd } in = kLine;
  std::string line;
  uint64_t chunkLeft = 0;
  bool mayEnd = false;  // endBody() was called
  int busy = 0;         // more is not to come before it is answered
  int answers = 0;

  // Where the head begins, behind a PROXY header of version 2.
  size_t announced(const std::string& head) const {
    if (!relayed || head[0] != '\r') return 0;
    const size_t bytes = head.size() < 16 ? 16 : 16 + static_cast<unsigned char>(head[15]);
    return bytes < head.size() ? bytes : head.size();
  }

  HeadFault markHead(char* head, char* end, const RequestLine& line) { return markedAsRead(head, end, line); }

  bool feedHead(char* data, size_t length, Flow& next) {
    hold(length > 0, "an empty head");
    hold(left == 0 && !chunked, "a head within a body");
    hold(busy == 0, "a head to a busy sink");
    const std::string head(data, length);
    const size_t from = announced(head);
    hold(length <= from + kMostHeadBytes, "a head over the limit");
    hold(head.size() >= from + 4 && head.find("\r\n\r\n", from) == head.size() - 4, "a head that does not end at its first CRLFCRLF");
    hold(head.find(" HTTP/", from) < head.find("\r\n", from), "a request line without a version");
    hold(head.find("\r\n:", from) == std::string::npos, "an empty field name");
    heads += head;
    answers++;
    if (!patient) busy = 1;
    const size_t space = head.find(' ', from);
    const char what = space == std::string::npos || head.size() < space + 4 ? ' ' : head[space + 2];
    if (what == 'c') {
      next.at = At::kSize;
      chunked = true;
      in = kLine;
      mayEnd = false;
    } else if (what >= '1' && what <= '9') {
      left = (what - '0') * 7;
      next.at = At::kBody;
      next.bytes = static_cast<uint64_t>(left);
    }
    return true;
  }

  bool feedText(const char* text, size_t length) {
    hold(chunked, "text that is no chunk's");
    return chunk(text, length);
  }

  bool feed(char* data, size_t length) {
    hold(length > 0, "nothing is handed on");
    if (chunked) return chunk(data, length);
    hold(left > 0 && static_cast<uint64_t>(left) >= length, "more of a body than was announced");
    bodies.append(data, length);
    left -= static_cast<int64_t>(length);
    if (left == 0) bodies += '\0';
    return true;
  }

  bool chunk(const char* data, size_t length) {
    for (size_t i = 0; i < length; i++) {
      hold(chunked, "bytes behind the last chunk");
      const char c = data[i];
      if (in == kData) {
        bodies += c;
        if (--chunkLeft == 0) in = kDataEnd;
        continue;
      }
      line += c;
      if (in == kDataEnd) {
        if (line.size() < 2) continue;
        hold(line == "\r\n", "a chunk without its CRLF");
        line.clear();
        in = kLine;
        continue;
      }
      if (line == "0\r\n\r\n") {
        hold(mayEnd, "an end before the end");
        line.clear();
        chunked = false;
        bodies += '\0';
        continue;
      }
      if (line.size() < 2 || line[0] == '0' || line.compare(line.size() - 2, 2, "\r\n") != 0) {
        hold(line.size() < 20, "a chunk line that does not end");
        hold(line.size() < 2 || c == '\r' || c == '\n' || hexDigit(static_cast<unsigned char>(c)) >= 0, "a chunk line with more than a size");
        continue;
      }
      chunkLeft = strtoull(line.c_str(), nullptr, 16);
      hold(chunkLeft > 0, "an empty chunk");
      line.clear();
      in = kData;
    }
    return true;
  }

  void endBody() { mayEnd = true; }
  bool isBusy() const { return busy > 0; }
};

struct Outcome {
  Passed passed = Passed::kOpen;
  Sink sink;
};

Outcome fed(const std::string& input, int tls, bool relayed, bool patient, const std::string& cuts) {
  Outcome out;
  out.sink.relayed = relayed;
  out.sink.patient = patient;
  Flow flow;
  std::string pending;  // what a busy sink has not let through
  size_t from = 0, turn = 0;
  while (from < input.size() && (out.passed == Passed::kOpen || out.passed == Passed::kHeld)) {
    size_t length = cuts.empty() ? input.size() : static_cast<unsigned char>(cuts[turn % cuts.size()]) % 24 + 1;
    if (length > input.size() - from) length = input.size() - from;
    pending += input.substr(from, length);
    from += length;
    turn++;
    for (;;) {
      const Exact part(pending);
      char* p = part.bytes.get();
      out.passed = passBytes(out.sink, flow, tls, relayed, kMostHeadBytes, p, p + part.size);
      if (out.passed != Passed::kHeld) {
        pending.clear();
        break;
      }
      hold(out.sink.busy > 0, "held without a reason");
      pending.erase(0, static_cast<size_t>(p - part.bytes.get()));
      out.sink.busy = 0;  // it has answered
    }
  }
  return out;
}

// Which of two faults of one head is seen first may depend on the split.
Passed verdict(const Outcome& outcome) {
  const bool badHead = outcome.passed >= Passed::kBadHead && outcome.passed <= Passed::kLongHead;
  return badHead ? Passed::kBadHead : outcome.passed;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int tls = data[0] & 1;
  const bool relayed = (data[0] & 6) == 6, patient = (data[0] & 8) == 0;
  const size_t cutBytes = data[1] % 16;
  if (size < 2 + cutBytes) return 0;
  const std::string cuts(reinterpret_cast<const char*>(data) + 2, cutBytes);
  const std::string input(reinterpret_cast<const char*>(data) + 2 + cutBytes, size - 2 - cutBytes);

  const Outcome whole = fed(input, tls, relayed, patient, "");
  for (const std::string& way : {cuts.empty() ? std::string(1, '\0') : cuts, std::string(1, '\0')}) {
    const Outcome split = fed(input, tls, relayed, patient, way);
    hold(verdict(split) == verdict(whole), "another verdict in another split");
    hold(split.sink.heads == whole.sink.heads, "other heads in another split");
    hold(split.sink.bodies == whole.sink.bodies, "other bodies in another split");
  }
  const Outcome hurried = fed(input, tls, relayed, !patient, cuts);
  hold(verdict(hurried) == verdict(whole) && hurried.sink.heads == whole.sink.heads && hurried.sink.bodies == whole.sink.bodies,
      "a sink that is busy gets something else");
  return 0;
}
