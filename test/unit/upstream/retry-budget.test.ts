import { beforeEach, describe, expect, it } from 'vitest'
import { RetryBudget } from '../../../src/upstream/retry-budget.js'

let nowUs: number
let budget: RetryBudget

beforeEach(() => {
  nowUs = Date.UTC(2026, 5, 1) * 1000
  budget = new RetryBudget(0.2, nowUs)
})

/** How many of so many retries it lets pass. */
const taken = (times: number): number => {
  let passed = 0
  for (let i = 0; i < times; i++) if (budget.take(nowUs)) passed++
  return passed
}

/** Requests at an even rate, each of which fails and asks for a retry if `failing`. */
function traffic(seconds: number, perSecond: number, failing: boolean): number {
  let passed = 0
  for (let i = 0; i < seconds * perSecond; i++) {
    nowUs += 1e6 / perSecond
    budget.deposit(nowUs)
    if (failing && budget.take(nowUs)) passed++
  }
  return passed
}

describe('a retry budget', () => {
  it('lets a quiet service have ten retries, and one more each second', () => {
    expect(taken(20)).toBe(10)
    nowUs += 1e6
    expect(taken(20)).toBe(0)
    nowUs += 1e6
    expect(taken(20)).toBe(1)
    nowUs += 3600e6
    expect(taken(20)).toBe(10)
  })

  it('bounds the extra load of a service that is down for 30 s at 200 requests a second', () => {
    traffic(60, 200, false)
    const extra = traffic(30, 200, true)
    // A fifth of what comes, and what the ten seconds before had left.
    expect(extra).toBeLessThanOrEqual(0.2 * 40 * 200)
    expect(extra).toBeGreaterThan(0.9 * 0.2 * 30 * 200)
    // Nothing is left of before.
    expect(traffic(30, 200, true) / (30 * 200)).toBeCloseTo(0.2, 1)
  })

  it('has room for all that is in flight at an endpoint that is lost', () => {
    traffic(20, 500, false)
    expect(taken(1000)).toBeGreaterThan(800)
  })

  it('counts the traffic of the last seconds, however long none came before', () => {
    nowUs += 3600e6
    traffic(10, 500, false)
    expect(taken(1000)).toBeGreaterThan(500)
  })

  it('lets as many requests pass in a moment as come with them', () => {
    taken(10)
    for (let i = 0; i < 50; i++) budget.deposit(nowUs)
    expect(taken(20)).toBe(10)
  })

  it('goes by the newest ratio', () => {
    budget.ratio = 1
    traffic(60, 100, false)
    expect(traffic(10, 100, true)).toBe(1000)
  })
})
