// When a worker counts as overloaded, and which requests it refuses then: with a clock and waits of the test's own.
import { beforeEach, describe, expect, test } from 'vitest'
import { IMPORTANCES } from '../../../src/config/shedding.js'
import { Overload } from '../../../src/worker/overload.js'

const TARGET_US = 200_000
const INTERVAL_US = 500_000
const [LOW, NORMAL, HIGH] = [0, 1, 2] as const

let overload: Overload
let nowUs: number
let requests: number
/** How often it began or ended. */
let changes: number

beforeEach(() => {
  overload = new Overload()
  overload.use({ targetUs: TARGET_US, intervalUs: INTERVAL_US })
  nowUs = 1e9
  requests = 0
  changes = 0
  overload.onChange = () => changes++
})

/** One look, after so many requests of each importance. The requests that were refused. */
function look(waitUs: number, counts: readonly number[] = [0, 100, 0]): number[] {
  nowUs += 50_000 + waitUs
  const refused = IMPORTANCES.map(() => 0)
  counts.forEach((count, importance) => {
    requests += count
    for (let i = 0; i < count; i++) if (overload.isActive && !overload.admits(importance)) refused[importance]!++
  })
  overload.look(nowUs, waitUs, requests)
  return refused
}

/** As many looks as make an interval. */
function interval(waitUs: number, counts?: readonly number[]): number[] {
  let refused = [0, 0, 0]
  const endUs = nowUs + INTERVAL_US
  for (let looks = 0; looks < 3 || nowUs < endUs; looks++) {
    const more = look(waitUs, counts)
    refused = refused.map((count, i) => count + more[i]!)
  }
  return refused
}

describe('a worker is overloaded', () => {
  test('when all waits of an interval were too long', () => {
    interval(TARGET_US + 1)
    expect(overload.isActive).toBe(true)
    expect(changes).toBe(1)
    expect(overload.waitUs).toBe(TARGET_US + 1)
  })

  test('not when one of them was short enough', () => {
    for (let i = 0; i < 50; i++) {
      look(TARGET_US * 3)
      look(TARGET_US * 3)
      look(TARGET_US)
    }
    expect(changes).toBe(0)
  })

  test('not when it was stopped for a while, however long', () => {
    for (let i = 0; i < 5; i++) {
      look(60e6)
      look(0)
    }
    look(60e6)
    look(60e6)
    expect(changes).toBe(0)
  })

  test('not when it has few requests: something else keeps it busy', () => {
    for (let i = 0; i < 10; i++) interval(TARGET_US * 5, [1, 2, 1])
    expect(changes).toBe(0)
  })

  test('never without rules', () => {
    overload.use(null)
    for (let i = 0; i < 10; i++) interval(TARGET_US * 5)
    expect(changes).toBe(0)
  })
})

describe('while it is overloaded', () => {
  test('it refuses a share that grows while requests wait, and falls when they do not', () => {
    interval(TARGET_US * 2)
    const growing = [1, 2, 3, 4, 5].map(() => interval(TARGET_US * 2)[NORMAL]!)
    // The first one only counts.
    expect(growing[0]).toBe(0)
    expect(growing).toEqual([...growing].sort((a, b) => a - b))
    expect(growing.at(-1)).toBeGreaterThan(growing[1]!)
    const falling = [1, 2, 3, 4, 5, 6].map(() => overload.share + 0 * interval(0)[NORMAL]!)
    expect(falling.at(-1)).toBeLessThan(falling[1]!)
  })

  test('it grows less where the wait is a little too long', () => {
    const share = (waitUs: number): number => {
      const one = new Overload()
      one.use({ targetUs: TARGET_US, intervalUs: INTERVAL_US })
      overload = one
      for (let i = 0; i < 6; i++) interval(waitUs)
      return one.share
    }
    expect(share(TARGET_US * 1.2)).toBeLessThan(share(TARGET_US * 2) / 2)
  })

  test('requests of low importance go first, then normal, and high when all others are refused', () => {
    const counts = [100, 800, 100]
    const totals: number[][] = []
    for (let i = 0; i < 16; i++) totals.push(interval(TARGET_US * 3, counts))
    for (const [low, normal, high] of totals as [number, number, number][]) {
      // All but the fraction that was carried over.
      if (normal > 1) expect(low).toBeGreaterThanOrEqual(299)
      if (high > 1) expect(normal).toBeGreaterThanOrEqual(2399)
    }
    expect(totals.some(([low, normal]) => low! > 0 && normal === 0)).toBe(true)
    expect(totals.some(([, normal, high]) => normal! > 0 && normal! < 2000 && high === 0)).toBe(true)
    expect(totals.at(-1)![HIGH]).toBeGreaterThan(0)
    // Some of them always pass: else nothing would ever be served again.
    expect(totals.at(-1)![HIGH]).toBeLessThan(300)
  })

  test('requests of low importance that come later go first as well', () => {
    for (let i = 0; i < 4; i++) interval(TARGET_US * 3, [0, 100, 0])
    expect(look(TARGET_US * 3, [10, 0, 0])).toEqual([10, 0, 0])
  })

  test('it counts whom it refused', () => {
    let refused = 0
    for (let i = 0; i < 6; i++) refused += interval(TARGET_US * 3)[NORMAL]!
    expect(overload.refused[NORMAL]).toBe(refused)
    expect(overload.refused[LOW]).toBe(0)
  })
})

describe('it is over', () => {
  beforeEach(() => {
    for (let i = 0; i < 6; i++) interval(TARGET_US * 3)
  })

  test('some intervals after the share has come to nothing, with one change', () => {
    let passed = 0
    while (overload.isActive && passed++ < 100) interval(0)
    expect(passed).toBeGreaterThan(10)
    expect(passed).toBeLessThan(40)
    expect([changes, overload.share]).toEqual([2, 0])
    expect(interval(0)).toEqual([0, 0, 0])
  })

  test('not between two waves', () => {
    for (let wave = 0; wave < 5; wave++) {
      for (let i = 0; i < 4; i++) interval(TARGET_US * 3)
      for (let i = 0; i < 8; i++) interval(0)
    }
    expect(changes).toBe(1)
  })

  test('at once where the rules are taken away', () => {
    overload.use(null)
    expect([overload.isActive, changes]).toEqual([false, 2])
  })

  test('when no requests come any more', () => {
    for (let i = 0; i < 40; i++) interval(TARGET_US * 3, [0, 0, 0])
    expect(overload.isActive).toBe(false)
  })
})
