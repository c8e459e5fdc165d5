// Do the route's limits admit this request? Asked after authorize and before the handler. Runs per request. Turns the
// route's policies into charges on shared counts (state/rate-table.ts), all of which must admit; leaves the numbers
// for the response headers in the exchange. Knows no client and no upstream.
import { nextPeriodStartMs } from '../config/calendar.js'
import type { Consumer, LimitMeasure, LimitPolicy, Route } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'
import { Bucket } from '../state/bucket.js'
import { Charge, type Cost, type Meter, VERDICT } from '../state/charge.js'
import { KeyHash } from '../state/key-hash.js'
import { Quota } from '../state/quota.js'
import { MAX_CHARGES, type RateTable } from '../state/rate-table.js'
import type { Segment } from '../state/segment.js'
import { type Share, shareOf } from '../state/share.js'
import { Window } from '../state/window.js'
import { hashKey } from './limit-key.js'
import { tierIndex } from './limit-tier.js'

/** A policy, with everything computed that does not depend on the request. */
class PreparedPolicy {
  readonly meter: Meter
  readonly share: Share
  readonly cost: Cost
  readonly costByMethod: ReadonlyMap<string, Cost> | null
  /** Hash of the prefix that all its keys share. */
  readonly start: KeyHash
  readonly refusal: Rejection
  readonly noRoom: Rejection
  private readonly tiers: readonly PreparedPolicy[]
  /** Cached per consumer. */
  private readonly tierOf = new WeakMap<Consumer, PreparedPolicy>()

  /** @param limits how many share the table. @param rows it has */
  constructor(
    readonly policy: LimitPolicy,
    seed: Int32Array,
    limits: number,
    rows: number,
    wallMs: () => number,
  ) {
    const { name, cost, costByMethod } = policy
    this.meter = meterOf(policy.measure, wallMs)
    this.cost = this.meter.cost(cost)
    this.costByMethod =
      costByMethod && new Map([...costByMethod].map(([method, cost]) => [method, this.meter.cost(cost)]))
    const [a, b, c, d] = seed as unknown as [number, number, number, number]
    const limit = new KeyHash().seed(a, b, c, d).text(name)
    this.start = new KeyHash().from(limit).text(this.meter.salt)
    this.share = shareOf(limits, limit, rows, new KeyHash().from(this.start).text('common'))
    this.refusal = new Rejection('rate_limited', `limit ${name}`)
    this.noRoom = new Rejection('rate_limited', `limit ${name}: no room for another key`)
    this.tiers = policy.tiers.map(({ policy }) => new PreparedPolicy(policy, seed, limits, rows, wallMs))
  }

  costOf(method: string): Cost {
    return this.costByMethod?.get(method) ?? this.cost
  }

  /** Returns this policy, or the consumer's tier of it. */
  for(consumer: Consumer | null): PreparedPolicy {
    if (this.tiers.length === 0 || consumer === null) return this
    let tier = this.tierOf.get(consumer)
    if (tier === undefined) {
      tier = this.findTier(consumer)
      this.tierOf.set(consumer, tier)
    }
    return tier
  }

  private findTier(consumer: Consumer): PreparedPolicy {
    return this.tiers[tierIndex(this.policy, consumer)] ?? this
  }
}

function meterOf(measure: LimitMeasure, wallMs: () => number): Meter {
  if (measure.kind === 'inFlight') throw new Error('requests in flight are counted by in-flight-limit.ts')
  const { kind, quantity } = measure
  if (kind === 'window') return new Window(quantity, measure.windowSeconds)
  if (kind === 'bucket') return new Bucket(quantity, measure.windowSeconds, measure.burst)
  const { period, timezone } = measure
  return new Quota(quantity, `${period} ${timezone}`, (ms) => nextPeriodStartMs(period, timezone, ms), wallMs)
}

class PreparedRoute {
  readonly policies: readonly PreparedPolicy[]
  readonly charges: readonly Charge[]
  /** The policy of each charge: the route's own, or the tier of the request's consumer. */
  readonly charging: PreparedPolicy[]
  /** Some policy sends its headers on admitted responses too. */
  readonly tells: boolean

  constructor(route: Route, named: readonly LimitPolicy[], prepare: (policy: LimitPolicy) => PreparedPolicy) {
    // A limit named twice is charged once.
    const limits = named.filter((limit, at) => named.findIndex(({ name }) => name === limit.name) === at)
    if (limits.length > MAX_CHARGES) throw new RangeError(`route ${route.name} has more than ${MAX_CHARGES} limits`)
    this.policies = limits.map(prepare)
    this.charging = [...this.policies]
    this.tells = limits.some(({ headers }) => headers)
    this.charges = limits.map((limit) => {
      const charge = new Charge()
      charge.reports = limit.mode === 'report'
      charge.admitsUndecided = limit.onFull === 'allow'
      return charge
    })
  }
}

/**
 * Decides over the limits of a route that count the same event. Charges them if `writes` is set; else it tells what
 * charging would decide.
 */
type Decide = (exchange: Exchange, writes: boolean) => Rejection | null

/**
 * @param routes all routes, because each of their limits has its share of the table
 * @param wallMs the wall clock, whose periods quotas count; a simulation has its own
 */
export function createRateLimit(
  table: RateTable,
  segment: Segment,
  routes: readonly Route[],
  wallMs: () => number = Date.now,
): (route: Route) => Check | null {
  const limiter = createLimiter(table, segment, routes, wallMs)
  return (route) => {
    const decide = limiter(route, route.limits)
    return decide === null ? null : (exchange) => decide(exchange, true)
  }
}

/**
 * Limits `on: failedAuth`. Asked before credentials are checked, and again if the check had to wait: however many
 * checks run at once, no more failures are reported than the limit admits, because a failure that finds the limit
 * used up gets 429. Nothing is reserved meanwhile, so clients with valid credentials do not slow each other down.
 */
export interface GuessLimit {
  /** Whether charge() would refuse. Charges nothing. */
  ask(exchange: Exchange): Rejection | null
  charge(exchange: Exchange): Rejection | null
}

export function createGuessLimit(table: RateTable, segment: Segment, routes: readonly Route[]): GuessLimit {
  const limiter = createLimiter(table, segment, routes, Date.now)
  const byRoute = routes.map((route) => limiter(route, route.guessLimits))
  const decide = (exchange: Exchange, writes: boolean): Rejection | null => {
    const decide = byRoute[exchange.route!.index] as Decide | null
    return decide === null ? null : decide(exchange, writes)
  }
  return { ask: (exchange) => decide(exchange, false), charge: (exchange) => decide(exchange, true) }
}

function createLimiter(
  table: RateTable,
  segment: Segment,
  routes: readonly Route[],
  wallMs: () => number,
): (route: Route, limits: readonly LimitPolicy[]) => Decide | null {
  const hash = new KeyHash()
  const sharers = Math.max(
    1,
    new Set(routes.flatMap((route) => [...route.limits, ...route.guessLimits].map(({ name }) => name))).size,
  )

  function prepare(route: Route, limits: readonly LimitPolicy[]): PreparedRoute {
    const { rows } = table.narrow
    return new PreparedRoute(route, limits, (policy) => new PreparedPolicy(policy, segment.seed, sharers, rows, wallMs))
  }

  return (route, limits) => {
    if (limits.length === 0) return null
    // Prepared with the first request: in a large configuration most routes get none in most workers.
    let prepared: PreparedRoute | null = null
    return (exchange, writes) => {
      prepared ??= prepare(route, limits)
      const { policies, charging, charges } = prepared
      const count = policies.length
      for (let i = 0; i < count; i++) {
        const policy = (policies[i] as PreparedPolicy).for(exchange.consumer)
        charging[i] = policy
        hash.from(policy.start)
        hashKey(hash, policy.policy, exchange)
        ;(charges[i] as Charge).set(policy.meter, policy.costOf(exchange.method), policy.share, hash.finish())
      }
      // A request that waited for its body or a thread is `watched`; any other is decided in the turn of the loop in
      // which it arrived.
      const nowUs = exchange.downstream.watched ? segment.nowUs() : exchange.startUs
      let refusing: number
      if (!writes) refusing = table.peekAll(charges, count, nowUs)
      else if (count === 1) refusing = decidesAlone(charges[0] as Charge, table.admit(charges[0] as Charge, nowUs))
      else refusing = table.admitAll(charges, count, nowUs)
      return settle(exchange, prepared, refusing, nowUs, writes)
    }
  }
}

/** Handles one verdict of admitAll. */
function decidesAlone(charge: Charge, verdict: number): number {
  if (verdict === VERDICT.admitted || charge.reports) return -1
  return verdict === VERDICT.undecided && charge.admitsUndecided ? -1 : 0
}

function settle(
  exchange: Exchange,
  { charging, charges, tells }: PreparedRoute,
  refusing: number,
  nowUs: number,
  writes: boolean,
): Rejection | null {
  for (let i = 0; i < charges.length; i++) {
    const { reports, verdict, admitsUndecided } = charges[i] as Charge
    if (reports && (verdict === VERDICT.refused || (verdict === VERDICT.undecided && !admitsUndecided)))
      exchange.limitReported = true
  }
  if (refusing >= 0) {
    const policy = charging[refusing] as PreparedPolicy
    const charge = charges[refusing] as Charge
    describe(exchange, policy, charge, nowUs)
    return charge.verdict === VERDICT.undecided ? policy.noRoom : policy.refusal
  }
  if (!tells || !writes) return null
  // Among the policies with headers on admitted responses, the one with least left.
  let least = -1
  let leastLeft = Number.POSITIVE_INFINITY
  for (let i = 0; i < charges.length; i++) {
    if (!(charging[i] as PreparedPolicy).policy.headers) continue
    const charge = charges[i] as Charge
    tell(charge, nowUs)
    if (charge.left >= leastLeft) continue
    least = i
    leastLeft = charge.left
  }
  describe(exchange, charging[least] as PreparedPolicy, charges[least] as Charge, nowUs)
  return null
}

function tell(charge: Charge, nowUs: number): void {
  if (charge.verdict !== VERDICT.undecided) return (charge.meter as Meter).tell(charge, nowUs)
  charge.left = 0
  charge.wholeInUs = 0
  charge.againInUs = 0
}

function describe(exchange: Exchange, { policy }: PreparedPolicy, charge: Charge, nowUs: number): void {
  tell(charge, nowUs)
  exchange.limit = policy
  exchange.limitRemaining = charge.left
  exchange.limitResetSeconds = Math.max(0, Math.ceil(charge.wholeInUs / 1e6))
  exchange.limitRetrySeconds = Math.max(1, Math.ceil(charge.againInUs / 1e6))
}
