// Who is on the other end: the peer of the socket or, when that is a trusted proxy, the address it vouches for. Runs per request.

import type { HttpResponse } from 'uWebSockets.js'
import ipaddr from 'ipaddr.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Peer } from './uws/peers.js'

export type AddressRange = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

const decoder = new TextDecoder('latin1')

export function setAddresses(exchange: Exchange, peer: Peer, ranges: readonly AddressRange[]): void {
  const known = peer.address !== ''
  const address = known ? peer.address : peerAddress(exchange.res as HttpResponse, peer.relayed)
  exchange.peerAddress = address
  exchange.clientAddress = address
  if (!(known ? peer.trusted : isTrusted(address, ranges))) return
  exchange.peerTrusted = true
  exchange.clientAddress = forwardedAddress(address, exchange.fields.list('x-forwarded-for'), ranges)
}

/** An IPv4-mapped IPv6 address comes out as the IPv4 it is; uWS writes IPv6 in full, it is shortened as RFC 5952 says. */
function peerAddress(res: HttpResponse, relayed: boolean): string {
  const text = decoder.decode(relayed ? res.getProxiedRemoteAddressAsText() : res.getRemoteAddressAsText())
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

/** Each costs some microseconds, and no request passes so many proxies. */
const MOST_HOPS = 100

/**
 * The right-most address of X-Forwarded-For, all its lines as one list, that is not itself a trusted proxy: what is left of it was written by whoever wanted to
 * (as nginx's real_ip_recursive does). The peer itself where the list is empty or its last entry is no address.
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
