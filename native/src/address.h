// An IP address as the addon keeps it: IPv6, or IPv4 mapped into it, so that one and the same client has one form.
// Pure.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace tidegate {

struct Address {
  uint8_t bytes[16] = {};  // all zero: not known

  static Address v4(const void* four) {
    Address address;
    address.bytes[10] = address.bytes[11] = 0xff;
    memcpy(address.bytes + 12, four, 4);
    return address;
  }
  static Address v6(const void* sixteen) {
    Address address;
    memcpy(address.bytes, sixteen, 16);
    return address;
  }
  static Address of(const sockaddr_storage& peer) {
    if (peer.ss_family == AF_INET) return v4(&reinterpret_cast<const sockaddr_in&>(peer).sin_addr);
    if (peer.ss_family == AF_INET6) return v6(&reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr);
    return Address();
  }
  bool isV4() const {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(bytes, mapped, sizeof mapped) == 0;
  }
  bool operator==(const Address& other) const { return memcmp(bytes, other.bytes, sizeof bytes) == 0; }
  bool known() const {
    static const uint8_t none[16] = {};
    return memcmp(bytes, none, sizeof none) != 0;
  }
};

constexpr size_t kAddressTextBytes = INET6_ADDRSTRLEN;

// As RFC 5952 writes it; '' where it is not known.
inline void addressText(const Address& address, char text[kAddressTextBytes]) {
  text[0] = 0;
  if (!address.known()) return;
  if (address.isV4()) inet_ntop(AF_INET, address.bytes + 12, text, kAddressTextBytes);
  else inet_ntop(AF_INET6, address.bytes, text, kAddressTextBytes);
}

// What addressText wrote; anything else is not known.
inline Address addressOf(const char* text) {
  uint8_t bytes[16];
  if (inet_pton(AF_INET, text, bytes) == 1) return Address::v4(bytes);
  if (inet_pton(AF_INET6, text, bytes) == 1) return Address::v6(bytes);
  return Address();
}

}  // namespace tidegate
