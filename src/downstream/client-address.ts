// The client's address: the peer of its connection or, where that is a trusted proxy, the address that the proxy
// vouches for. Pure; runs per request.

import ipaddr from 'ipaddr.js'
import type { Exchange } from '../exchange/exchange.js'

export type AddressRange = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

/** @param peerAddress the address at the other end of the connection */
export function setAddresses(
  exchange: Exchange,
  peerAddress: string,
  isPeerTrusted: boolean,
  ranges: readonly AddressRange[],
): void {
  exchange.peerAddress = peerAddress
  exchange.clientAddress = peerAddress
  if (!isPeerTrusted) return
  exchange.peerTrusted = true
  exchange.clientAddress = forwardedAddress(peerAddress, exchange.fields.list('x-forwarded-for'), ranges)
}

/** IPv6 as RFC 5952 shortens it; an IPv4-mapped address comes out as the IPv4 it is. */
export function canonicalAddress(text: string): string {
  return text.includes(':') ? ipaddr.process(text).toString() : text
}

export function isTrusted(address: string, ranges: readonly AddressRange[]): boolean {
  return ranges.length > 0 && ipaddr.isValid(address) && isWithin(ipaddr.process(address), ranges)
}

function isWithin(parsed: ipaddr.IPv4 | ipaddr.IPv6, ranges: readonly AddressRange[]): boolean {
  for (const [network, bits] of ranges) {
    if (parsed.kind() === network.kind() && parsed.match([network, bits] as [ipaddr.IPv4, number])) return true
  }
  return false
}

/** Each costs some microseconds, and no request passes this many proxies. */
const MOST_HOPS = 100

/**
 * The right-most address in X-Forwarded-For that is not a trusted proxy, all lines of the field taken as one list. Any
 * client can write what stands to the left of it (nginx's real_ip_recursive does the same). The peer itself where the
 * list is empty or its last entry is no address.
 */
export function forwardedAddress(peer: string, forwardedFor: string, ranges: readonly AddressRange[]): string {
  let address = peer
  const hops = forwardedFor.split(',')
  for (let i = hops.length - 1; i >= Math.max(0, hops.length - MOST_HOPS); i--) {
    const hop = (hops[i] as string).trim()
    if (!ipaddr.isValid(hop)) break
    const parsed = ipaddr.process(hop)
    address = parsed.toString()
    if (!isWithin(parsed, ranges)) break
  }
  return address
}
