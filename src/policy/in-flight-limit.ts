// Has the caller too many requests in flight on routes of a limit? Asked before the rate limits, which charge for good.
// What is counted here is given back when the exchange concludes (worker/exits.ts). Runs per request, on routes with
// such a limit.
import type { LimitPolicy, Route } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'
import { type InFlightTable, REFUSED } from '../state/in-flight-table.js'
import { KeyHash } from '../state/key-hash.js'
import type { Segment } from '../state/segment.js'
import { hashKey } from './limit-key.js'
import { tierOf } from './limit-tier.js'

class PreparedLimit {
  readonly policy: LimitPolicy
  /** Hash of what all its keys begin with. */
  readonly start: KeyHash
  readonly refusal: Rejection
  readonly noRoom: Rejection

  constructor(policy: LimitPolicy, seed: Int32Array) {
    const [a, b, c, d] = seed as unknown as [number, number, number, number]
    this.policy = policy
    this.start = new KeyHash().seed(a, b, c, d).text(policy.name)
    this.refusal = new Rejection('rate_limited', `limit ${policy.name}: too many requests in flight`)
    this.noRoom = new Rejection('rate_limited', `limit ${policy.name}: no room for another key`)
  }
}

/** Null for a route without such a limit. */
export function createInFlightLimit(table: InFlightTable, segment: Segment): (route: Route) => Check | null {
  const hash = new KeyHash()
  return ({ inFlightLimits }) => {
    if (inFlightLimits.length === 0) return null
    // A limit named twice is counted once.
    const named = inFlightLimits.filter(
      (limit, at) => inFlightLimits.findIndex(({ name }) => name === limit.name) === at,
    )
    const limits = named.map((policy) => new PreparedLimit(policy, segment.seed))
    return (exchange) => {
      const held: number[] = []
      exchange.inFlightHeld = held
      for (let i = 0; i < limits.length; i++) {
        const refusal = take(table, hash, limits[i] as PreparedLimit, exchange, held)
        if (refusal !== null) return refusal
      }
      return null
    }
  }
}

function take(
  table: InFlightTable,
  hash: KeyHash,
  { policy, start, refusal, noRoom }: PreparedLimit,
  exchange: Exchange,
  held: number[],
): Rejection | null {
  const inForce = tierOf(policy, exchange.consumer)
  hash.from(start)
  hashKey(hash, policy, exchange)
  hash.finish()
  const most = inForce.measure.quantity
  const entry = table.take(hash, most)
  if (entry >= 0) {
    held.push(entry)
    if (policy.headers) tell(exchange, inForce, Math.max(0, most - table.count(hash)))
    return null
  }
  if (entry !== REFUSED && policy.onFull === 'allow') return null
  if (policy.mode === 'report') {
    exchange.limitReported = true
    return null
  }
  tell(exchange, inForce, 0)
  return entry === REFUSED ? refusal : noRoom
}

/** For the response's header fields. When others end nobody knows: the client may try again in a second. */
function tell(exchange: Exchange, policy: LimitPolicy, left: number): void {
  exchange.limit = policy
  exchange.limitRemaining = left
  exchange.limitRetrySeconds = 1
}

/** What gives back what the exchange holds; null where no route has such a limit. */
export function createInFlightRelease(
  table: InFlightTable,
  routes: readonly Route[],
): ((exchange: Exchange) => void) | null {
  if (!routes.some(({ inFlightLimits }) => inFlightLimits.length > 0)) return null
  return (exchange) => {
    const held = exchange.inFlightHeld
    if (held === null) return
    exchange.inFlightHeld = null
    for (const entry of held) table.give(entry)
  }
}
