// Counts how two sides decided the same requests: the log and a configuration, or two configurations. Memory does not
// grow with the log. Pure.
import { type Decision, describeDecision, UNKNOWN } from './decision.js'
import type { Entry } from './entry.js'
import { TopCounts } from './top-counts.js'

/** Of what the log names (routes, limits, services): more of them are counted together. */
const MOST_KEYS = 5000
const OTHERS = '(others)'

/** On the left and on the right. */
export type Pair = [left: number, right: number]

export const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx', 'forwarded'] as const
export type StatusClass = (typeof CLASSES)[number]

export class RouteCounts {
  readonly requests: Pair = [0, 0]
  readonly classes = CLASSES.map((): Pair => [0, 0])
  readonly limitReported: Pair = [0, 0]
  /** By service. */
  readonly forwarded: readonly [TopCounts, TopCounts] = [new TopCounts(), new TopCounts()]
}

/** What was refused by one limit or breaker. */
export class Refusals {
  readonly who: readonly [TopCounts, TopCounts] = [new TopCounts(), new TopCounts()]
  readonly firstUs: Pair = [0, 0]
  readonly lastUs: Pair = [0, 0]
}

export class RetryCounts {
  readonly made: Pair = [0, 0]
  readonly refused: Pair = [0, 0]
}

/** Requests that end in one way on the left and in another on the right. */
export interface Change {
  readonly left: string
  readonly right: string
  readonly who: TopCounts
}

export class Comparison {
  requests = 0
  changed = 0
  /** Others, that go to another service. */
  elsewhere = 0
  readonly routes = new Map<string, RouteCounts>()
  readonly limits = new Map<string, Refusals>()
  readonly breakers = new Map<string, Refusals>()
  readonly retries = new Map<string, RetryCounts>()
  /** By both descriptions. */
  readonly changes = new Map<string, Change>()
  /** Requests that another route takes, by both names. */
  readonly moved = new TopCounts()

  count(entry: Entry, left: Decision, right: Decision, nowUs: number): void {
    this.requests++
    const who = entry.consumer === '' ? entry.client : entry.consumer
    this.countSide(0, left, who, nowUs)
    this.countSide(1, right, who, nowUs)
    const before = describeDecision(left)
    const after = describeDecision(right)
    const isMoved = left.route !== right.route
    if (isMoved) this.moved.add(`${shownRoute(left.route)} → ${shownRoute(right.route)}`)
    if (before !== after) {
      const change = keyed(this.changes, `${before} → ${after}`, () => ({
        left: before,
        right: after,
        who: new TopCounts(),
      }))
      change.who.add(who)
    }
    if (before !== after || isMoved) this.changed++
    else if (left.service !== '' && right.service !== '' && left.service !== right.service) this.elsewhere++
  }

  private countSide(side: 0 | 1, decision: Decision, who: string, nowUs: number): void {
    const { route, service, status, code, by } = decision
    const counts = keyed(this.routes, route, () => new RouteCounts())
    counts.requests[side]++
    const cell = counts.classes[status === UNKNOWN ? CLASSES.length - 1 : Math.floor(status / 100) - 1]
    if (cell !== undefined) cell[side]++
    if (decision.limitReported) counts.limitReported[side]++
    if (service !== '') counts.forwarded[side].add(service)
    if (by !== '') {
      const of = code === 'rate_limited' ? this.limits : this.breakers
      const refusals = keyed(of, by, () => new Refusals())
      refusals.who[side].add(who)
      if (refusals.firstUs[side] === 0) refusals.firstUs[side] = nowUs
      refusals.lastUs[side] = nowUs
    }
    if (decision.retries > 0 || decision.retriesRefused > 0) {
      const retries = keyed(this.retries, service, () => new RetryCounts())
      retries.made[side] += decision.retries
      retries.refused[side] += decision.retriesRefused
    }
  }
}

export function shownRoute(name: string): string {
  return name === '' ? '(no route)' : name
}

function keyed<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key)
  if (value !== undefined) return value
  const place = map.size < MOST_KEYS ? key : OTHERS
  value = map.get(place)
  if (value === undefined) {
    value = make()
    map.set(place, value)
  }
  return value
}
