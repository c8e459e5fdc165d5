// What a limit has a count of its own for: a consumer, an address, a route, the value of a header, or several of these.
// Runs per request.
import type { LimitPolicy, Route } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import type { KeyHash } from '../state/key-hash.js'
import { hashAddress } from './address-key.js'

export function hashKey(hash: KeyHash, policy: LimitPolicy, exchange: Exchange): void {
  const { by } = policy
  for (let i = 0; i < by.length; i++) {
    const key = by[i] as LimitPolicy['by'][number]
    if (key.kind === 'header') hash.text(exchange.header(key.header))
    else if (key.kind === 'consumer') hash.text(exchange.consumer === null ? '' : exchange.consumer.name)
    else if (key.kind === 'address' || (key.kind === 'claimed' && exchange.claimed === ''))
      hashAddress(hash, exchange.clientAddress)
    else if (key.kind === 'claimed') hash.text(exchange.claimed)
    else hash.text((exchange.route as Route).name)
  }
}
