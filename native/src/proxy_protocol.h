// The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): a header before the first request, in which a
// proxy says whose connection it passes on. Pure; whom to believe is the acceptor's business. Reads nothing beyond the
// bytes it is given.
#pragma once

#include "address.h"

#include <cstddef>
#include <string>

namespace tidegate {

constexpr uint8_t kProxySignature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
constexpr size_t kProxyV1Bytes = 107;   // section 2.1: the longest line, its CRLF included
constexpr size_t kProxyV2Bytes = 4096;  // of ours: addresses take 36 bytes, the extensions (TLVs) in use some hundred

struct ProxyHeader {
  enum Kind {
    kNone,        // something else, an HTTP request perhaps
    kIncomplete,  // a beginning of one
    kBad,         // meant as one, and wrong
    kLocal,       // the proxy speaks for itself, or does not say for whom: the connection's own address counts
    kSource,      // `source` is whose connection it is
  } kind;
  size_t bytes = 0;  // of kLocal and kSource, what has to be taken out of the stream
  Address source = {};
};

namespace proxy_protocol {

// The next word of a version 1 line, between `at` and `end`; words are apart by exactly one space.
inline bool word(const char*& at, const char* end, char* out, size_t capacity) {
  size_t n = 0;
  if (at == end || *at != ' ') return false;
  for (at++; at < end && *at != ' '; at++) {
    if (n + 1 >= capacity || *at <= ' ' || static_cast<unsigned char>(*at) >= 0x7f) return false;
    out[n++] = *at;
  }
  out[n] = 0;
  return n > 0;
}

inline bool isPort(const char* text) {
  unsigned value = 0;
  if (text[0] == '0' && text[1] != 0) return false;
  for (const char* c = text; *c != 0; c++) {
    if (*c < '0' || *c > '9') return false;
    value = value * 10 + static_cast<unsigned>(*c - '0');
    if (value > 65535) return false;
  }
  return true;
}

inline ProxyHeader parseV1(const char* data, size_t n) {
  static const char prefix[] = "PROXY ";
  const size_t known = n < 6 ? n : 6;
  if (memcmp(data, prefix, known) != 0) return {ProxyHeader::kNone};
  if (n < 6) return {ProxyHeader::kIncomplete};
  const size_t most = n < kProxyV1Bytes ? n : kProxyV1Bytes;
  const void* newline = memchr(data, '\n', most);
  if (newline == nullptr) return {most == kProxyV1Bytes ? ProxyHeader::kBad : ProxyHeader::kIncomplete};
  const char* end = static_cast<const char*>(newline) - 1;
  const size_t bytes = static_cast<size_t>(end + 2 - data);
  if (end <= data + 5 || *end != '\r') return {ProxyHeader::kBad};

  const char* at = data + 5;
  char protocol[8], source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN], ports[2][6];
  if (!word(at, end, protocol, sizeof protocol)) return {ProxyHeader::kBad};
  if (strcmp(protocol, "UNKNOWN") == 0) return {ProxyHeader::kLocal, bytes};  // what follows is to be ignored
  const bool v4 = strcmp(protocol, "TCP4") == 0;
  if (!v4 && strcmp(protocol, "TCP6") != 0) return {ProxyHeader::kBad};
  if (!word(at, end, source, sizeof source) || !word(at, end, destination, sizeof destination) ||
      !word(at, end, ports[0], sizeof ports[0]) || !word(at, end, ports[1], sizeof ports[1]) || at != end ||
      !isPort(ports[0]) || !isPort(ports[1])) {
    return {ProxyHeader::kBad};
  }
  uint8_t raw[16], unused[16];
  const int family = v4 ? AF_INET : AF_INET6;
  if (inet_pton(family, source, raw) != 1 || inet_pton(family, destination, unused) != 1) return {ProxyHeader::kBad};
  return {ProxyHeader::kSource, bytes, v4 ? Address::v4(raw) : Address::v6(raw)};
}

//   0 signature, 12 bytes   12 version 2 │ command   13 family │ transport   14 length of the rest, big-endian
//  16 source, destination, 4 or 16 bytes each; ports, 2 each; extensions, which are skipped
inline ProxyHeader parseV2(const uint8_t* data, size_t n) {
  const size_t known = n < sizeof kProxySignature ? n : sizeof kProxySignature;
  if (memcmp(data, kProxySignature, known) != 0) return {ProxyHeader::kNone};
  if (n < 16) return {ProxyHeader::kIncomplete};
  const unsigned version = data[12] >> 4, command = data[12] & 15;
  const size_t length = static_cast<size_t>(data[14]) << 8 | data[15];
  if (version != 2 || command > 1 || 16 + length > kProxyV2Bytes) return {ProxyHeader::kBad};
  if (n < 16 + length) return {ProxyHeader::kIncomplete};
  if (command == 0) return {ProxyHeader::kLocal, 16 + length};
  switch (data[13]) {
    case 0x11:  // TCP over IPv4
      if (length < 12) return {ProxyHeader::kBad};
      return {ProxyHeader::kSource, 16 + length, Address::v4(data + 16)};
    case 0x21:  // TCP over IPv6
      if (length < 36) return {ProxyHeader::kBad};
      return {ProxyHeader::kSource, 16 + length, Address::v6(data + 16)};
    case 0x00:  // section 2.2: not specified
    case 0x31:  // a Unix socket: no address that we could use
      return {ProxyHeader::kLocal, 16 + length};
    default:
      return {ProxyHeader::kBad};  // datagrams, and what is not assigned
  }
}

}  // namespace proxy_protocol

inline ProxyHeader parseProxyHeader(const void* data, size_t n) {
  if (n == 0) return {ProxyHeader::kIncomplete};
  const ProxyHeader v2 = proxy_protocol::parseV2(static_cast<const uint8_t*>(data), n);
  return v2.kind != ProxyHeader::kNone ? v2 : proxy_protocol::parseV1(static_cast<const char*>(data), n);
}

// A version 2 header that names `source` and nothing else.
inline std::string proxyHeader(const Address& source) {
  std::string out(reinterpret_cast<const char*>(kProxySignature), sizeof kProxySignature);
  const bool v4 = source.isV4();
  const size_t size = v4 ? 4 : 16;
  out += '\x21';
  out += v4 ? '\x11' : '\x21';
  out += '\0';
  out += static_cast<char>(2 * size + 4);
  out.append(reinterpret_cast<const char*>(source.bytes) + (v4 ? 12 : 0), size);
  out.append(size + 4, '\0');
  return out;
}

}  // namespace tidegate
