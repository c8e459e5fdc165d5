// Which service of a split gets a request: shares over many requests, and that a key keeps its service.
import { describe, expect, it } from 'vitest'
import type { Service, SplitSide } from '../../../src/config/route-table.js'
import { formatShare, parseRequestKey, Split, Spread, splitEntries } from '../../../src/config/split.js'

const sidesOf = (weights: Readonly<Record<string, number>>): SplitSide[] =>
  Object.entries(weights).map(([name, weight]) => ({ service: { name } as Service, weight }))
const splitOf = (weights: Readonly<Record<string, number>>, route = '/orders'): Split =>
  new Split(route, sidesOf(weights))

/** Mulberry32. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const COUNT = 100_000

/** How often each side was chosen, as a share. */
function shares(sides: number, choose: (at: number) => number): number[] {
  const counts = new Array<number>(sides).fill(0)
  for (let i = 0; i < COUNT; i++) counts[choose(i)]!++
  return counts.map((count) => count / COUNT)
}

describe('without a key', () => {
  it('a canary of 5 % gets 4.8 to 5.2 % of 100,000 requests, by chance and evenly', () => {
    const split = splitOf({ orders: 95, 'orders-next': 5 })
    const spread = new Spread(Math.random())
    for (const next of [seeded(42), () => spread.next()]) {
      const [orders, canary] = shares(2, () => split.at(next()))
      expect(Math.abs(canary! - 0.05)).toBeLessThan(0.002)
      expect(orders! + canary!).toBeCloseTo(1)
    }
  })

  it('of any 100 requests in a row, and of every second or third, the canary gets 3 to 7', () => {
    const split = splitOf({ orders: 95, 'orders-next': 5 })
    for (const start of [0, 0.3, 0.949, Math.random()]) {
      for (const step of [1, 2, 3]) {
        const spread = new Spread(start)
        const sides: number[] = []
        for (let i = 0; i < 3000; i++) {
          const side = split.at(spread.next())
          if (i % step === 0) sides.push(side)
        }
        for (let i = 0; i + 100 <= sides.length; i++) {
          const canary = sides.slice(i, i + 100).filter((side) => side === 1).length
          expect(canary).toBeGreaterThanOrEqual(3)
          expect(canary).toBeLessThanOrEqual(7)
        }
      }
    }
  })

  it('all weights count, and one of 0 never', () => {
    const random = seeded(7)
    const split = splitOf({ off: 0, a: 1.5, b: 0.5, c: 2, prepared: 0 })
    const [off, a, b, c, prepared] = shares(5, () => split.at(random()))
    expect([off, prepared]).toEqual([0, 0])
    expect(a).toBeCloseTo(0.375, 2)
    expect(b).toBeCloseTo(0.125, 2)
    expect(c).toBeCloseTo(0.5, 2)
    // Sums of weights are rounded: no point may fall beside the last side that gets requests.
    expect(split.at(1 - Number.EPSILON / 2)).toBe(3)
    expect(split.at(1)).toBe(3)
    expect(split.at(0)).toBe(1)
  })
})

describe('by key', () => {
  const keys = Array.from({ length: COUNT }, (_, i) => `consumer-${i}`)

  it('a canary of 5 % gets 4.8 to 5.2 % of 100,000 keys, whatever they look like', () => {
    const split = splitOf({ orders: 95, 'orders-next': 5 })
    const random = seeded(3)
    for (const keyOf of [
      (i: number) => keys[i]!,
      (i: number) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
      (i: number) => String(i),
      () => Math.floor(random() * 2 ** 32).toString(16),
    ]) {
      const [, next] = shares(2, (i) => split.of(keyOf(i)))
      expect(Math.abs(next! - 0.05)).toBeLessThan(0.002)
    }
  })

  it('every process, order of the file and time of start agree: these values may never change', () => {
    const split = splitOf({ orders: 50, 'orders-next': 50 })
    const turned = splitOf({ 'orders-next': 50, orders: 50 })
    const sides = keys.slice(0, 32).map((key) => split.of(key))
    expect(keys.slice(0, 32).map((key) => 1 - turned.of(key))).toEqual(sides)
    expect(sides.join('')).toBe('11101000011011011111000111001110')
  })

  it('a growing weight moves keys to its service alone, and each of them once', () => {
    const weights = [0, 1, 5, 10, 25, 50, 75, 100]
    let before = keys.map(() => -1)
    for (const weight of weights) {
      const split = splitOf({ a: 60, b: 40, next: weight })
      const now = keys.map((key) => split.of(key))
      if (weight === 0) expect(now).not.toContain(2)
      else expect(now.every((side, i) => side === before[i] || side === 2)).toBe(true)
      before = now
    }
    const all = splitOf({ a: 0, b: 0, next: 1 })
    expect(keys.every((key) => all.of(key) === 2)).toBe(true)
  })

  it('canary steps as people write them, 95 and 5 to 90 and 10, move keys one way', () => {
    let before = new Set<string>()
    for (const canary of [0, 5, 10, 50, 90, 100]) {
      const split = splitOf({ orders: 100 - canary, next: canary })
      const now = new Set(keys.filter((key) => split.of(key) === 1))
      expect([...before].every((key) => now.has(key))).toBe(true)
      before = now
    }
    expect(before.size).toBe(COUNT)
  })

  it('another route divides the same keys anew', () => {
    const [one, other] = ['/orders', '/carts'].map((route) => splitOf({ orders: 50, next: 50 }, route)) as [
      Split,
      Split,
    ]
    const alike = keys.filter((key) => one.of(key) === other.of(key)).length / COUNT
    expect(Math.abs(alike - 0.5)).toBeLessThan(0.01)
  })
})

it('reads and writes what the configuration says', () => {
  expect(parseRequestKey('consumer')).toEqual({ kind: 'consumer' })
  expect(parseRequestKey('header:X-Tenant')).toEqual({ kind: 'header', name: 'x-tenant' })
  expect(parseRequestKey('cookie:Sid')).toEqual({ kind: 'cookie', name: 'Sid' })
  expect([0.05, 0.001, 1 / 3, 1].map(formatShare)).toEqual(['5%', '0.1%', '33.3%', '100%'])
  // What the schema refuses is asked for its services, too.
  for (const odd of [undefined, null, 5, 'orders', [null, 7]]) expect(() => splitEntries(odd)).not.toThrow()
})
