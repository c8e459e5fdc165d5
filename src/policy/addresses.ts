// Does the route let this address in? Asked first, because it is cheap: no credentials are checked for a refused
// address. Runs per request on routes with address lists. Entries are found by prefix, so long lists cost no more than
// short ones.
import ipaddr from 'ipaddr.js'
import type { AddressRange, Route } from '../config/compile.js'
import { Rejection } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'

const refused = new Rejection('forbidden', 'address not allowed on this route')

/** Verdicts remembered per route, because most addresses come again. */
const MOST_REMEMBERED = 10_000

export function addressCheck({ addresses }: Route): Check | null {
  if (addresses === null) return null
  const lists = new AddressLists(addresses)
  return (exchange) => (lists.admit(exchange.clientAddress) ? null : refused)
}

export class AddressLists {
  private readonly allow: AddressSet | null
  private readonly deny: AddressSet
  private readonly verdicts = new Map<string, boolean>()

  constructor({ allow, deny }: NonNullable<Route['addresses']>) {
    this.allow = allow === null ? null : new AddressSet(allow)
    this.deny = new AddressSet(deny)
  }

  admit(address: string): boolean {
    const known = this.verdicts.get(address)
    if (known !== undefined) return known
    const verdict = this.decide(address)
    if (this.verdicts.size >= MOST_REMEMBERED) this.verdicts.clear()
    this.verdicts.set(address, verdict)
    return verdict
  }

  private decide(address: string): boolean {
    // A text that is not an address is in no list, so no list lets it in.
    if (!ipaddr.isValid(address)) return false
    const bits = bitsOf(ipaddr.process(address))
    return !this.deny.has(bits) && (this.allow === null || this.allow.has(bits))
  }
}

class AddressSet {
  /** The prefixes, by their length. */
  private readonly prefixes = new Map<number, Set<string>>()

  constructor(ranges: readonly AddressRange[]) {
    for (const range of ranges) {
      const prefix = prefixOf(range)
      const same = this.prefixes.get(prefix.length) ?? new Set()
      this.prefixes.set(prefix.length, same.add(prefix))
    }
  }

  has(bits: string): boolean {
    for (const [length, prefixes] of this.prefixes) if (prefixes.has(bits.slice(0, length))) return true
    return false
  }
}

/** Family and bits as text: 4 or 6, then 32 or 128 digits. */
function bitsOf(address: ipaddr.IPv4 | ipaddr.IPv6): string {
  const bytes = address.toByteArray().map((byte) => byte.toString(2).padStart(8, '0'))
  return `${bytes.length === 4 ? 4 : 6}${bytes.join('')}`
}

/** Turns ::ffff:a.b.c.d/96 and longer into the IPv4 network it means: client addresses have that form. */
function prefixOf([network, length]: AddressRange): string {
  if (network.kind() === 'ipv6' && length >= 96 && (network as ipaddr.IPv6).isIPv4MappedAddress()) {
    return bitsOf((network as ipaddr.IPv6).toIPv4Address()).slice(0, 1 + length - 96)
  }
  return bitsOf(network).slice(0, 1 + length)
}
