// What every balancer promises, whatever it chooses by.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { compileBalance } from '../../src/config/balance.js'
import { type Balancer, NONE } from '../../src/upstream/cluster/balancer.js'
import { balancerOf } from '../../src/upstream/cluster/balancers.js'
import type { Random } from '../../src/upstream/cluster/candidates.js'
import type { EndpointState } from '../../src/upstream/cluster/endpoint-state.js'
import { answer, Balancing, candidatesOf, load, seeded } from '../support/balancing.js'

const KINDS = [
  { name: 'p2c', balance: 'p2c', keyed: false },
  { name: 'round-robin', balance: 'round-robin', keyed: false },
  { name: 'ewma', balance: 'ewma', keyed: false },
  { name: 'hash', balance: { hash: 'path', bounded: 'none' }, keyed: true },
  { name: 'hash, bounded', balance: { hash: 'path', bounded: 1.25 }, keyed: true },
  { name: 'hash, without the key', balance: { hash: 'path', bounded: 1.25 }, keyed: false },
] as const

let balancing: Balancing

beforeEach(() => {
  balancing = new Balancing()
})

afterEach(() => balancing.close())

describe.each(KINDS)('$name', ({ balance, keyed }) => {
  const made = (random: Random): Balancer =>
    balancerOf({ balance: compileBalance(balance) }, { first: 0, random, nowUs: balancing.nowUs })
  const keyOf = (random: Random): number => (keyed ? Math.floor(random() * 2 ** 32) | 0 || 1 : 0)

  function shares(states: readonly EndpointState[], picks: number, after?: (state: EndpointState) => void): number[] {
    const random = seeded(7)
    const balancer = made(random)
    const candidates = candidatesOf(states)
    const counts = new Map<EndpointState, number>()
    for (let i = 0; i < picks; i++) {
      const state = balancer.pick(candidates, keyOf(random), NONE)!
      counts.set(state, (counts.get(state) ?? 0) + 1)
      after?.(state)
    }
    return states.map((state) => (counts.get(state) ?? 0) / picks)
  }

  test('there is none: null', () => {
    expect(made(seeded(1)).pick(candidatesOf([]), 1, NONE)).toBeNull()
  })

  test.each([[[1, 1]], [[1, 1, 1, 1]], [[1, 2]], [[5, 1, 2]], [[1, 1000]]])(
    'idle endpoints share 100,000 requests by weight: %j',
    (weights) => {
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      const got = shares(balancing.weighted(weights), 100_000)
      for (const [at, weight] of weights.entries()) {
        const share = weight / total
        // More than five standard deviations of independent draws.
        const tolerance = 5 * Math.sqrt((share * (1 - share)) / 100_000)
        expect(Math.abs(got[at]! - share)).toBeLessThan(tolerance)
      }
    },
  )

  test('requests one after the other, each answered in the same time, reach all of them', () => {
    const got = shares(balancing.weighted([1, 1]), 10_000, (state) => answer(state, 1000))
    for (const share of got) expect(share).toBeGreaterThan(0.4)
  })

  test('over 2,000 random cases: one that is free, else one that has failed the request, else any', () => {
    const random = seeded(11)
    const all = balancing.weighted([1, 1, 3, 1, 2, 1])
    const full = all[5]!
    load(full, 2000)
    expect(full.isFull).toBe(true)
    const balancer = made(random)
    for (let i = 0; i < 2000; i++) {
      const states = all.filter(() => random() < 0.5)
      const tried = all.filter(() => random() < 0.4)
      const state = balancer.pick(candidatesOf(states), keyOf(random), tried)
      const free = states.filter((one) => !one.isFull && !tried.includes(one))
      const usable = states.filter((one) => !one.isFull)
      const expected = free.length > 0 ? free : usable.length > 0 ? usable : states
      if (expected.length === 0) expect(state).toBeNull()
      else expect(expected).toContain(state)
    }
  })

  test('a set that changes: those that are gone get nothing, and each of the new ones something', () => {
    const random = seeded(3)
    const balancer = made(random)
    const all = balancing.weighted([1, 1, 2, 1, 1])
    const before = candidatesOf(all.slice(0, 3))
    for (let i = 0; i < 100; i++) balancer.pick(before, keyOf(random), NONE)
    const after = candidatesOf(all.slice(2))
    const picked = new Set(Array.from({ length: 400 }, () => balancer.pick(after, keyOf(random), NONE)))
    expect(picked).toEqual(new Set(all.slice(2)))
  })

  test('weights that change while the set stays', () => {
    const random = seeded(5)
    const balancer = made(random)
    const [a, b] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const candidates = candidatesOf([a, b])
    candidates.weigh([1, 9])
    let first = 0
    for (let i = 0; i < 10_000; i++) if (balancer.pick(candidates, keyOf(random), NONE) === a) first++
    // A hash goes by the configured weights, so that a slow start moves no keys.
    expect(first / 10_000).toBeCloseTo(keyed ? 0.5 : 0.1, 1)
  })
})
