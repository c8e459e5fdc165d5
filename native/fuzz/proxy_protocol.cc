// PROXY protocol headers (src/proxy_protocol.h) from any bytes.
//
// Held: a beginning is never judged otherwise than the whole, none is complete before its end, and what is written of
// an address is read as it.
#include "input.h"

#include "../src/proxy_protocol.h"

using namespace tidegate;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const Exact exact(input);
  const ProxyHeader whole = parseProxyHeader(exact.bytes.get(), exact.size);
  hold(whole.bytes <= size, "more bytes than there are");
  const bool taken = whole.kind == ProxyHeader::kLocal || whole.kind == ProxyHeader::kSource;
  hold(taken == (whole.bytes > 0), "bytes and kind do not fit");
  for (size_t n = 1; n < size && n < 600; n++) {
    const Exact part(input.substr(0, n));
    const ProxyHeader early = parseProxyHeader(part.bytes.get(), n);
    if (early.kind == ProxyHeader::kIncomplete) continue;
    hold(early.kind == whole.kind && early.bytes == whole.bytes, "judged otherwise by its beginning");
    if (taken) hold(n >= whole.bytes, "complete before its end");
  }
  if (whole.kind != ProxyHeader::kSource) return 0;
  const std::string own = proxyHeader(whole.source);
  const ProxyHeader back = parseProxyHeader(own.data(), own.size());
  hold(back.kind == ProxyHeader::kSource && back.bytes == own.size() && memcmp(&back.source, &whole.source, sizeof whole.source) == 0,
      "our own header");
  return 0;
}
