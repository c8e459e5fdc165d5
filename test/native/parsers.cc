// The addon's parsers, and its table of addresses, under random input, for scripts/test-native-sanitized.mjs: parsers
// ROUNDS SEED. Inputs are made from valid ones by mutation, each in a heap block of exactly its size, so that the
// sanitizers see a read beyond it. Besides, what must hold of any input is held: a beginning is never judged otherwise
// than the whole, and no split changes a result.
#include "../../native/src/address_counts.h"
#include "../../native/src/glance.h"
#include "../../native/src/proxy_protocol.h"
#include "../../native/src/uws/http10.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace tidegate;

namespace {

std::mt19937_64 random64;
size_t below(size_t n) { return n == 0 ? 0 : random64() % n; }

[[noreturn]] void fail(const char* what, const std::string& input) {
  printf("%s:", what);
  for (unsigned char c : input) printf(" %02x", c);
  printf("\n");
  exit(1);
}
void hold(bool condition, const char* what, const std::string& input) {
  if (!condition) fail(what, input);
}

// A block of exactly these bytes.
struct Exact {
  explicit Exact(const std::string& from) : bytes(new char[from.size()]), size(from.size()) {
    memcpy(bytes.get(), from.data(), size);
  }
  std::unique_ptr<char[]> bytes;
  size_t size;
};

const char* const kSnippets[] = {"\r\n", "\n", "\r", " ", ":", "HTTP/1.0", "HTTP/1.1", "PROXY ", "TCP4", "TCP6", "UNKNOWN", "0",
    "Content-Length: ", "Transfer-Encoding: chunked", "Connection: ", "keep-alive", "close", ",", "\t", "ffffffffffffffff",
    "HTTP/1.1 100 Continue\r\n\r\n", "\r\n\r\n", "::1", "65536", "99999999999999999999", ";x", "Host: a\r\n", "HEAD "};

std::string mutated(std::string text) {
  for (size_t n = below(4); n > 0; n--) {
    const size_t at = below(text.size() + 1);
    switch (below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        break;
      case 1: text.insert(at, 1, static_cast<char>(below(256))); break;
      case 2: text.erase(at, 1 + below(8)); break;
      case 3: text.insert(at, kSnippets[below(sizeof kSnippets / sizeof *kSnippets)]); break;
      case 4: text.resize(at); break;
      case 5: text.insert(at, text.substr(below(text.size() + 1), below(40))); break;
    }
  }
  return text;
}

std::string v2(uint8_t command, uint8_t family, size_t length) {
  std::string out(reinterpret_cast<const char*>(kProxySignature), sizeof kProxySignature);
  out += static_cast<char>(command);
  out += static_cast<char>(family);
  out += static_cast<char>(length >> 8);
  out += static_cast<char>(length);
  for (size_t i = 0; i < length; i++) out += static_cast<char>(below(256));
  return out;
}

std::string someProxyHeader() {
  static const char* const lines[] = {"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
      "PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n"};
  static const uint8_t families[] = {0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x41};
  if (below(2) == 0) return lines[below(4)];
  return v2(static_cast<uint8_t>(0x20 | below(3)), families[below(8)], below(2) == 0 ? 12 : below(60));
}

void proxyHeaders() {
  const std::string input = mutated(someProxyHeader());
  const Exact exact(input);
  const ProxyHeader whole = parseProxyHeader(exact.bytes.get(), exact.size);
  hold(whole.bytes <= input.size(), "more bytes than there are", input);
  const bool taken = whole.kind == ProxyHeader::kLocal || whole.kind == ProxyHeader::kSource;
  hold(taken == (whole.bytes > 0), "bytes and kind do not fit", input);
  for (size_t n = 1; n < input.size(); n++) {
    const Exact part(input.substr(0, n));
    const ProxyHeader early = parseProxyHeader(part.bytes.get(), n);
    if (early.kind == ProxyHeader::kIncomplete) continue;
    hold(early.kind == whole.kind && early.bytes == whole.bytes, "judged otherwise by its beginning", input);
    if (taken) hold(n >= whole.bytes, "complete before its end", input);
  }
  // What we write ourselves is understood as what it says.
  Address source;
  for (uint8_t& byte : source.bytes) byte = static_cast<uint8_t>(random64());
  if (below(2) == 0) source = Address::v4(source.bytes);
  const std::string own = proxyHeader(source);
  const ProxyHeader back = parseProxyHeader(own.data(), own.size());
  hold(back.kind == ProxyHeader::kSource && back.bytes == own.size() && memcmp(&back.source, &source, sizeof source) == 0,
      "our own header", own);
}

std::string someRequest() {
  std::string out = below(3) == 0 ? "HEAD /x" : "POST /path?query";
  out += below(4) == 0 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n";
  static const char* const fields[] = {"Host: demo.test\r\n", "Content-Length: 12\r\n", "content-length:\t7 \r\n", "Connection: Keep-Alive\r\n",
      "Connection: x, close\r\n", "Transfer-Encoding: chunked\r\n", "X: \r\n", ":\r\n", "no colon\r\n"};
  for (size_t n = below(5); n > 0; n--) out += fields[below(9)];
  return out + "\r\n";
}

void requests() {
  const std::string input = mutated(someRequest());
  const Exact exact(input);
  const Glance seen = glance(exact.bytes.get(), exact.size);
  for (size_t n = 0; n < input.size(); n++) {
    const Exact part(input.substr(0, n));
    const Glance early = glance(part.bytes.get(), n);
    if (early.kind != Glance::kIncomplete) hold(early.kind == seen.kind, "judged otherwise by its beginning", input);
  }
  if (seen.kind != Glance::kHttp10) return;
  hold(seen.bytes <= input.size(), "a head longer than what there is", input);
  const Http10Request request = http10Request(exact.bytes.get(), seen.bytes);
  const Glance again = glance(request.head.data(), request.head.size());
  hold(again.kind == Glance::kOther && again.bytes == request.head.size(), "what it became is no head of HTTP/1.1", request.head);
  hold(request.head.find(" HTTP/1.1\r\n") < request.head.find('\n'), "not HTTP/1.1", request.head);
}

std::string someAnswer() {
  std::string out = below(4) == 0 ? "HTTP/1.1 100 Continue\r\n\r\n" : "";
  out += below(6) == 0 ? "HTTP/1.1 204 No Content\r\n" : "HTTP/1.1 200 OK\r\n";
  if (below(3) == 0) out += "Connection: close\r\n";
  switch (below(3)) {
    case 0: return out + "Content-Length: 11\r\n\r\nhello world";
    case 1: return out + "Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n";
    default: return out + "X: y\r\n\r\nhello world";
  }
}

struct Result {
  bool sound = true, complete, ended, keeps;
  std::string out;
  bool operator==(const Result& other) const {
    return sound == other.sound && complete == other.complete && ended == other.ended && keeps == other.keeps && out == other.out;
  }
};

Result fed(const std::string& input, const std::vector<size_t>& cuts, bool toHead, bool keepAlive) {
  Http10Answer answer(toHead, keepAlive);
  Result result;
  size_t from = 0;
  for (size_t cut : cuts) {
    const Exact part(input.substr(from, cut - from));
    from = cut;
    result.sound = answer.feed(part.bytes.get(), part.size, result.out);
    if (!result.sound) break;
  }
  result.complete = answer.complete(false);
  result.ended = answer.complete(true);
  result.keeps = answer.keeps();
  return result;
}

void answers() {
  const std::string input = mutated(someAnswer());
  const bool toHead = below(4) == 0, keepAlive = below(2) == 0;
  const Result whole = fed(input, {input.size()}, toHead, keepAlive);
  if (whole.keeps) {
    hold(whole.complete, "kept and not complete", input);
    hold(whole.out.find("Connection: keep-alive\r\n\r\n") != std::string::npos, "kept, and not said to be", input);
  }
  std::vector<size_t> cuts;
  for (size_t at = 1 + below(8); at < input.size(); at += 1 + below(8)) cuts.push_back(at);
  cuts.push_back(input.size());
  const Result split = fed(input, cuts, toHead, keepAlive);
  // Of one that is no answer, a split may let more of the sound beginning through.
  hold(whole.sound ? split == whole : !split.sound, "another answer in another split", input);
}

// Three workers over one table, held against plain maps. Few enough addresses that none finds its window full.
struct Crowd {
  static constexpr size_t kWorkers = 3;
  static constexpr int32_t kLimit = 5;
  std::vector<int32_t> table = std::vector<int32_t>(kWorkers * kAddressBlockInts);
  std::map<uint64_t, int> open;
  std::vector<std::pair<uint64_t, std::pair<size_t, int32_t>>> places;

  void step() {
    const size_t worker = below(kWorkers);
    AddressCounts counts(table.data(), kWorkers, worker);
    if (!places.empty() && below(2) == 0) {
      const size_t which = below(places.size());
      const auto [key, place] = places[which];
      AddressCounts(table.data(), kWorkers, place.first).leave(place.second);
      open[key]--;
      places[which] = places.back();
      places.pop_back();
      return;
    }
    uint8_t four[4] = {10, 0, 0, static_cast<uint8_t>(below(200))};
    const uint64_t key = addressKey(Address::v4(four), 7);
    const int32_t place = counts.enter(key, kLimit);
    hold((place == kTooMany) == (open[key] == kLimit), "a limit that is passed, or kept too early", std::to_string(key));
    if (place < 0) return;
    open[key]++;
    hold(counts.total(key) == open[key], "another count", std::to_string(key));
    places.push_back({key, {worker, place}});
  }
};

}  // namespace

int main(int, char** arguments) {
  const long rounds = atol(arguments[1]);
  random64.seed(strtoull(arguments[2], nullptr, 10));
  Crowd crowd;
  for (long i = 0; i < rounds; i++) {
    crowd.step();
    proxyHeaders();
    requests();
    answers();
  }
  printf("%ld rounds of each parser and of the table\n", rounds);
}
