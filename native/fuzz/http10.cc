// HTTP/1.0 from and to HTTP/1.1 (src/uws/http10.h) on any bytes: the first decides what the rest is, a request or an
// answer, and for whom.
//
// Held: a beginning is never judged otherwise than the whole, nor piece by piece; what a request becomes is one head of
// HTTP/1.1 and no more; no split changes an answer.
#include "input.h"

#include "../src/glance.h"
#include "../src/uws/http10.h"

using namespace tidegate;

namespace {

void request(const std::string& input) {
  const Exact exact(input);
  const Glance seen = glance(exact.bytes.get(), exact.size);
  size_t lines = 0;
  for (size_t n = 0; n < input.size() && n < 300; n++) {
    const Exact part(input.substr(0, n));
    const Glance early = glance(part.bytes.get(), n);
    const Glance further = glance(part.bytes.get(), n, &lines);
    hold(further.kind == early.kind && further.bytes == early.bytes, "judged otherwise behind lines that were looked at");
    if (early.kind != Glance::kIncomplete) hold(early.kind == seen.kind, "judged otherwise by its beginning");
  }
  if (seen.kind != Glance::kHttp10) return;
  hold(seen.bytes <= input.size(), "a head longer than what there is");
  const Http10Request made = http10Request(exact.bytes.get(), seen.bytes);
  const Glance again = glance(made.head.data(), made.head.size());
  hold(again.kind == Glance::kOther && again.bytes == made.head.size(), "what it became is no head of HTTP/1.1");
  hold(made.head.find(" HTTP/1.1\r\n") < made.head.find('\n'), "not HTTP/1.1");
}

struct Result {
  bool sound = true, complete = false, ended = false, keeps = false;
  std::string out;
};

Result fed(const std::string& input, size_t step, bool toHead, bool keepAlive) {
  Http10Answer answer(toHead, keepAlive);
  Result result;
  for (size_t from = 0; from < input.size() && result.sound; from += step) {
    const Exact part(input.substr(from, step));
    result.sound = answer.feed(part.bytes.get(), part.size, result.out);
  }
  result.complete = answer.complete(false);
  result.ended = answer.complete(true);
  result.keeps = answer.keeps();
  return result;
}

void answer(const std::string& input, uint8_t how) {
  const bool toHead = how & 2, keepAlive = how & 4;
  const Result whole = fed(input, input.size() + 1, toHead, keepAlive);
  if (whole.keeps) hold(whole.complete, "kept and not complete");
  for (const size_t step : {size_t{1}, size_t{2} + (how >> 3)}) {
    const Result split = fed(input, step, toHead, keepAlive);
    hold(split.sound == whole.sound, "another verdict in another split");
    // Of one that is no answer, a split may let more of the sound beginning through.
    if (whole.sound) hold(split.out == whole.out && split.complete == whole.complete && split.ended == whole.ended && split.keeps == whole.keeps,
        "another answer in another split");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 1) request(input);
  else answer(input, data[0]);
  return 0;
}
