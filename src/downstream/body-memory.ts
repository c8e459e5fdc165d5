// Bounds the memory that request bodies take in this worker: bodies read whole for a signature, and what is read ahead
// of an upload. Runs per request with a body. Nothing is known of a client before its body is here. So the bound counts
// bytes that have arrived, never what a head announces, and one client address gets only a share of it.

import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'

/** The share that the bodies of one client address may take. */
const ADDRESS_SHARE = 0.25

/** The rest of the body is not read, so the connection ends. */
export const memoryFull = new Rejection('overloaded', 'request bodies hold all the memory they may', true)

export class BodyMemory {
  /** What all exchanges hold now. */
  bytes = 0
  /** The most that one client address may hold: a larger body can never be read whole. */
  readonly mostPerAddress: number
  private readonly mostBytes: number
  private readonly keyOf: (address: string) => string
  private readonly byAddress = new Map<string, number>()

  /** @param keyOf what tells one client from another: an IPv4 address, the first half of an IPv6 one */
  constructor(mostBytes: number, keyOf: (address: string) => string) {
    this.mostBytes = mostBytes
    this.mostPerAddress = Math.floor(mostBytes * ADDRESS_SHARE)
    this.keyOf = keyOf
  }

  /**
   * The exchange holds this many bytes from now on; 0 gives all of them back. False, and nothing changes, where that
   * would be too many.
   */
  hold(exchange: Exchange, bytes: number): boolean {
    const more = bytes - exchange.heldBytes
    if (more === 0) return true
    const key = this.keyOf(exchange.clientAddress)
    const held = (this.byAddress.get(key) ?? 0) + more
    if (more > 0 && (held > this.mostPerAddress || this.bytes + more > this.mostBytes)) return false
    this.bytes += more
    exchange.heldBytes = bytes
    if (held > 0) this.byAddress.set(key, held)
    else this.byAddress.delete(key)
    return true
  }
}
