// Whether the caller may have one more: after authorize, before the breaker is asked. Runs per request. Turns the route's policies into
// charges on shared buckets (state/rate-table.ts), all of which must admit; the numbers for the answer's headers are left in the
// exchange. Knows no client and no upstream.
//
// Header syntax: draft-ietf-httpapi-ratelimit-headers-10.
import type { LimitPolicy, Route } from '../config/compile.js'
import type { Exchange } from '../ingress/exchange.js'
import { Rejection } from '../outcome.js'
import { Charge, VERDICT } from '../state/charge.js'
import { KeyHash } from '../state/key-hash.js'
import { Rate, ticksAt } from '../state/rate.js'
import { MAX_CHARGES, type RateTable } from '../state/rate-table.js'
import type { Segment } from '../state/segment.js'
import { hashAddress } from './address-key.js'

const TICKS_PER_SECOND = Number(ticksAt(1_000_000) - ticksAt(0))

/** A policy with all that does not depend on the request. */
class PreparedPolicy {
  readonly rate: Rate
  readonly cost: bigint
  readonly costByMethod: ReadonlyMap<string, bigint> | null
  /** Hash of what all its keys begin with. */
  readonly start: KeyHash
  readonly refusal: Rejection
  readonly noRoom: Rejection

  constructor(
    readonly policy: LimitPolicy,
    seed: Int32Array,
  ) {
    const { name, quantity, windowSeconds, burst, cost, costByMethod } = policy
    this.rate = new Rate(quantity, windowSeconds, burst)
    this.cost = this.rate.costTicks(cost)
    this.costByMethod =
      costByMethod && new Map([...costByMethod].map(([method, cost]) => [method, this.rate.costTicks(cost)]))
    const [a, b, c, d] = seed as unknown as [number, number, number, number]
    this.start = new KeyHash().seed(a, b, c, d).text(name)
    this.refusal = new Rejection('rate_limited', `limit ${name}`)
    this.noRoom = new Rejection('rate_limited', `limit ${name}: no room for another key`)
  }

  costOf(method: string): bigint {
    return this.costByMethod?.get(method) ?? this.cost
  }
}

class PreparedRoute {
  readonly policies: readonly PreparedPolicy[]
  readonly charges: readonly Charge[]
  /** Some policy wants its headers on admitted answers too. */
  readonly tells: boolean

  constructor(
    readonly route: Route,
    prepare: (policy: LimitPolicy) => PreparedPolicy,
  ) {
    // A limit named twice is one bucket, and is charged once.
    const limits = route.limits.filter((limit, at) => route.limits.findIndex(({ name }) => name === limit.name) === at)
    if (limits.length > MAX_CHARGES) throw new RangeError(`route ${route.name} has more than ${MAX_CHARGES} limits`)
    this.policies = limits.map(prepare)
    this.tells = limits.some(({ headers }) => headers)
    this.charges = limits.map((limit) => {
      const charge = new Charge()
      charge.reports = limit.mode === 'report'
      charge.admitsUndecided = limit.onFull === 'allow'
      return charge
    })
  }
}

export function createRateLimit(table: RateTable, segment: Segment): (exchange: Exchange) => Rejection | null {
  const routes: PreparedRoute[] = []
  const hash = new KeyHash()

  function prepared(route: Route): PreparedRoute {
    const made = new PreparedRoute(route, (policy) => new PreparedPolicy(policy, segment.seed))
    routes[route.index] = made
    return made
  }

  return function rateLimit(exchange) {
    const route = exchange.route as Route
    if (route.limits.length === 0) return null
    let known = routes[route.index]
    if (known === undefined || known.route !== route) known = prepared(route)
    const { policies, charges } = known
    const count = policies.length
    for (let i = 0; i < count; i++) {
      const policy = policies[i] as PreparedPolicy
      hash.from(policy.start)
      hashKey(hash, policy.policy, exchange)
      ;(charges[i] as Charge).set(policy.rate, policy.costOf(exchange.method), hash.finish())
    }
    // Who has waited, for a body or for a thread, is watched; all else is decided in the loop turn it came in.
    const nowUs = exchange.watched ? segment.nowUs() : exchange.startUs
    let refusing: number
    if (count === 1) refusing = decidesAlone(charges[0] as Charge, table.admit(charges[0] as Charge, nowUs))
    else refusing = table.admitAll(charges, count, nowUs)
    return settle(exchange, known, refusing, nowUs)
  }
}

/** What admitAll makes of a verdict. */
function decidesAlone(charge: Charge, verdict: number): number {
  if (verdict === VERDICT.admitted || charge.reports) return -1
  return verdict === VERDICT.undecided && charge.admitsUndecided ? -1 : 0
}

function hashKey(hash: KeyHash, policy: LimitPolicy, exchange: Exchange): void {
  const { by } = policy
  for (let i = 0; i < by.length; i++) {
    const key = by[i] as LimitPolicy['by'][number]
    if (key.kind === 'header') hash.text(exchange.header(key.header))
    else if (key.kind === 'consumer') hash.text(exchange.consumer === null ? '' : exchange.consumer.name)
    else if (key.kind === 'address') hashAddress(hash, exchange.clientAddress)
    else hash.text((exchange.route as Route).name)
  }
}

function settle(
  exchange: Exchange,
  { policies, charges, tells }: PreparedRoute,
  refusing: number,
  nowUs: number,
): Rejection | null {
  for (let i = 0; i < charges.length; i++) {
    const { reports, verdict, admitsUndecided } = charges[i] as Charge
    if (reports && (verdict === VERDICT.refused || (verdict === VERDICT.undecided && !admitsUndecided)))
      exchange.limitReported = true
  }
  if (refusing >= 0) {
    const policy = policies[refusing] as PreparedPolicy
    describe(exchange, policy, charges[refusing] as Charge, nowUs)
    return (charges[refusing] as Charge).verdict === VERDICT.undecided ? policy.noRoom : policy.refusal
  }
  if (!tells) return null
  // Of those that show themselves on admitted answers too, the one with least left.
  let least = -1
  let leastLeft = Number.POSITIVE_INFINITY
  const now = ticksAt(nowUs)
  for (let i = 0; i < charges.length; i++) {
    if (!(policies[i] as PreparedPolicy).policy.headers) continue
    const charge = charges[i] as Charge
    const { burst, interval } = charge.rate as Rate
    const left = (burst - Number(BigInt.asIntN(64, charge.tat - now))) / interval
    if (left >= leastLeft) continue
    least = i
    leastLeft = left
  }
  describe(exchange, policies[least] as PreparedPolicy, charges[least] as Charge, nowUs)
  return null
}

function describe(exchange: Exchange, { policy }: PreparedPolicy, charge: Charge, nowUs: number): void {
  const { burst, interval } = charge.rate as Rate
  const fillTicks = Math.max(0, Number(BigInt.asIntN(64, charge.tat - ticksAt(nowUs))))
  exchange.limit = policy
  exchange.limitRemaining = Math.max(0, Math.floor((burst - fillTicks) / interval))
  exchange.limitResetSeconds = Math.ceil(fillTicks / TICKS_PER_SECOND)
  // What costs more than the bucket holds never gets in: told to come back when it is full, for less.
  const missing = Math.min(fillTicks + Number(charge.costTicks) - burst, Math.max(fillTicks, 1))
  exchange.limitRetrySeconds = Math.max(1, Math.ceil(missing / TICKS_PER_SECOND))
}

/** `RateLimit-Policy`: the policy alone, so made once for each. */
export function rateLimitPolicyHeader(limit: LimitPolicy): string {
  let text = policyHeaders.get(limit)
  if (text === undefined) {
    text = `${quoted(limit.name)};q=${limit.quantity};w=${limit.windowSeconds}`
    policyHeaders.set(limit, text)
  }
  return text
}

/** `RateLimit`: what is left of exchange.limit and the seconds until it is whole again. Not for an exchange without one. */
export function rateLimitHeader(exchange: Exchange): string {
  const limit = exchange.limit as LimitPolicy
  let name = names.get(limit)
  if (name === undefined) {
    name = quoted(limit.name)
    names.set(limit, name)
  }
  return `${name};r=${exchange.limitRemaining};t=${exchange.limitResetSeconds}`
}

const policyHeaders = new WeakMap<LimitPolicy, string>()
const names = new WeakMap<LimitPolicy, string>()

/** RFC 9651, 3.3.3: a String is printable ASCII. Of anything else in a name the UTF-8 is written, percent-encoded. */
function quoted(name: string): string {
  const ascii = name.replace(/[^\x20-\x7e]+/g, (run) =>
    Buffer.from(run)
      .toString('hex')
      .replace(/../g, (byte) => `%${byte.toUpperCase()}`),
  )
  return `"${ascii.replace(/["\\]/g, '\\$&')}"`
}
