import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { Bucket } from '../../../src/state/bucket.js'
import { type Meter, VERDICT } from '../../../src/state/charge.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'
import { Window } from '../../../src/state/window.js'
import { chargeFor } from '../../support/charges.js'
import { WindowModel } from '../../support/window-model.js'

const { admitted, refused } = VERDICT
const START_US = Date.UTC(2026, 5, 1) * 1000

let segment: Segment
let table: RateTable
let keys = 0
beforeEach(() => {
  segment = openSegment(
    SECTIONS,
    { workers: 2, rateLimitKeys: 2000, services: 1, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  table = new RateTable(segment, 0)
})

/** Without the thousand arrivals that led to it. */
function shortly({ failed, errorInstance, seed }: { failed: boolean; errorInstance?: unknown; seed: number }): void {
  if (failed) throw new Error(`seed ${seed}: ${errorInstance}`)
}

const take = (key: string, meter: Meter, nowUs: number, cost = 1): number =>
  table.admit(chargeFor(segment, key, meter, cost), nowUs)

describe('a window', () => {
  it('admits as many as it says in a window, from idle and on, where a bucket lets twice as many pass', () => {
    const window = new Window(100, 1)
    const bucket = new Bucket(100, 1, 100)
    let [ofWindow, ofBucket] = [0, 0]
    for (let us = 0; us < 1_000_000; us += 1000) {
      if (take('w', window, START_US + us) === admitted) ofWindow++
      if (take('b', bucket, START_US + us) === admitted) ofBucket++
    }
    expect(ofWindow).toBe(100)
    expect(ofBucket).toBe(199)
  })

  it('lets the next one in when the first has left, to the microsecond', () => {
    const window = new Window(3, 60)
    for (const us of [0, 10, 20]) expect(take('k', window, START_US + us)).toBe(admitted)
    expect(take('k', window, START_US + 59_999_999)).toBe(refused)
    expect(take('k', window, START_US + 60_000_000)).toBe(admitted)
    expect(take('k', window, START_US + 60_000_009)).toBe(refused)
    expect(take('k', window, START_US + 60_000_010)).toBe(admitted)
  })

  it('says what is left, and when more is', () => {
    const window = new Window(3, 60)
    for (const us of [0, 5e6, 20e6]) take('k', window, START_US + us)
    const charge = chargeFor(segment, 'k', window, 2)
    expect(table.admit(charge, START_US + 30e6)).toBe(refused)
    window.tell(charge, START_US + 30e6)
    expect(charge).toMatchObject({ left: 0, wholeInUs: 50e6, againInUs: 35e6 })
    expect(table.admit(charge, START_US + 64_999_999)).toBe(refused)
    expect(table.admit(charge, START_US + 65e6)).toBe(admitted)
  })

  it('counts for a request whose time is older than the last one’s what was in its own window', () => {
    const window = new Window(2, 1)
    take('k', window, START_US)
    take('k', window, START_US)
    expect(take('k', window, START_US + 1_000_000)).toBe(admitted)
    // Begun before, decided after.
    expect(take('k', window, START_US + 999_990)).toBe(refused)
    expect(take('k', window, START_US + 1_000_000)).toBe(admitted)
  })

  it('holds for requests whose times come in any order, by those times', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(3, 35, 71, 250),
        fc.array(fc.record({ us: fc.integer({ min: 0, max: 3000 }), behind: fc.integer({ min: 0, max: 3000 }) }), {
          minLength: 3000,
          maxLength: 3000,
          size: 'max',
        }),
        (quantity, each) => {
          const window = new Window(quantity, 1)
          const key = `key ${keys++}`
          const times: number[] = []
          let nowUs = START_US
          for (const { us, behind } of each) {
            nowUs += us
            if (take(key, window, nowUs - behind) === admitted) times.push(nowUs - behind)
          }
          times.sort((a, b) => a - b)
          for (let i = quantity; i < times.length; i++)
            expect(times[i]! - times[i - quantity]!).toBeGreaterThanOrEqual(1e6)
          expect(times.length).toBeGreaterThan(quantity * 2)
        },
      ),
      { numRuns: 12, endOnFailure: true, reporter: shortly },
    )
  })

  it('changes nothing where it is only asked', () => {
    const window = new Window(1, 60)
    for (let i = 0; i < 3; i++) expect(table.peek(chargeFor(segment, 'k', window), START_US)).toBe(admitted)
    expect(table.totals().inserts).toBe(0)
    expect(take('k', window, START_US)).toBe(admitted)
    for (let i = 0; i < 3; i++) expect(table.peek(chargeFor(segment, 'k', window), START_US)).toBe(refused)
  })

  it('takes and refuses costs as large as itself, and what costs nothing passes', () => {
    const window = new Window(1_000_000_000, 86_400)
    expect(take('k', window, START_US, 1_000_000_000)).toBe(admitted)
    expect(take('k', window, START_US + 86_399_999_999)).toBe(refused)
    expect(take('k', window, START_US, 0)).toBe(admitted)
    expect(take('k', window, START_US + 86_400_000_000, 1_000_000_000)).toBe(admitted)
    expect(take('k', window, START_US + 86_400_000_000, 1)).toBe(refused)
    expect(take('k', new Window(5, 1), START_US, 6)).toBe(refused)
  })

  it('goes round, when its positions are used up, without losing count', () => {
    const quantity = 1_000_000_000
    const window = new Window(quantity, 1)
    for (let second = 0; second < 12; second++) {
      const us = START_US + second * 1e6
      expect(take('k', window, us, quantity / 2)).toBe(admitted)
      expect(take('k', window, us, quantity / 2)).toBe(admitted)
      expect(take('k', window, us + 999_999)).toBe(refused)
    }
  })
})

/** Random arrivals in a table of ours and in the model, one by one. */
describe('against every request written down', () => {
  const arrival = fc.record({
    wait: fc.oneof(
      { weight: 8, arbitrary: fc.double({ min: 0, max: 0.01, noNaN: true }) },
      { weight: 4, arbitrary: fc.double({ min: 0, max: 0.3, noNaN: true }) },
      { weight: 1, arbitrary: fc.double({ min: 0, max: 3, noNaN: true }) },
      { weight: 1, arbitrary: fc.constantFrom(0, 1, 0.5) },
    ),
    cost: fc.oneof({ weight: 6, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 5 }) }),
    times: fc.integer({ min: 1, max: 12 }),
  })
  /** Waits are in windows. */
  const arrivals = fc.array(arrival, { minLength: 250, maxLength: 250, size: 'max' })

  it.each([
    [1, 1],
    [2, 60],
    [5, 3600],
    [31, 1],
    [32, 86_400],
    [35, 60],
  ])('%i in %i s are exact', (quantity, seconds) => {
    fc.assert(
      fc.property(arrivals, (each) => {
        const key = `key ${keys++}`
        const window = new Window(quantity, seconds)
        const model = new WindowModel(quantity, seconds * 1e6)
        let nowUs = START_US
        for (const { wait, cost, times } of each) {
          nowUs += Math.round(wait * seconds * 1e6)
          for (let i = 0; i < times; i++) {
            const passes = model.inWindow(nowUs) + cost <= quantity
            if ((take(key, window, nowUs, cost) === admitted) !== passes) throw new Error(`${!passes} at ${nowUs}`)
            if (passes) model.add(cost, nowUs)
          }
        }
      }),
      { numRuns: 12, endOnFailure: true, reporter: shortly },
    )
  })

  it.each([
    [36, 1],
    [37, 60],
    [40, 1],
    [67, 1],
    [73, 3600],
    [100, 1],
    [101, 60],
    [500, 1],
    [1000, 86_400],
  ])('%i in %i s never admit more, and refuse nothing below 0.97 of it', (quantity, seconds) => {
    let most = 0
    fc.assert(
      fc.property(arrivals, fc.integer({ min: 1, max: Math.ceil(quantity / 20) }), (each, many) => {
        const key = `key ${keys++}`
        const window = new Window(quantity, seconds)
        const model = new WindowModel(quantity, seconds * 1e6)
        let nowUs = START_US
        for (const { wait, cost, times } of each) {
          nowUs += Math.round(wait * seconds * 1e6)
          for (let i = 0; i < times * many; i++) {
            const before = model.inWindow(nowUs)
            if (take(key, window, nowUs, cost) === admitted) {
              model.add(cost, nowUs)
              most = Math.max(most, before + cost)
              if (before + cost > quantity) throw new Error(`${before + cost} in a window`)
            } else {
              // What it costs counts as there: a request of one is not refused below 0.97.
              if (before + cost - 1 < 0.97 * quantity) throw new Error(`refused at ${before} and a cost of ${cost}`)
            }
          }
        }
      }),
      { numRuns: 8, endOnFailure: true, reporter: shortly },
    )
    expect(most).toBe(quantity)
  })

  it('stays within both bounds where workers are killed after each step that writes', () => {
    const steps = ['compareExchange', 'store', 'exchange'] as const
    const exact = new Window(35, 1)
    const grouped = new Window(210, 1)
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            wait: fc.oneof(fc.integer({ min: 0, max: 10_000 }), fc.integer({ min: 0, max: 60_000 }), fc.constant(0)),
            kill: fc.integer({ min: -30, max: 9 }),
            both: fc.boolean(),
          }),
          { minLength: 800, maxLength: 800, size: 'max' },
        ),
        (each) => {
          const salt = keys++
          const models = [new WindowModel(35, 1e6), new WindowModel(210, 1e6)] as const
          const charges = () => [
            chargeFor(segment, `exact ${salt}`, exact),
            chargeFor(segment, `grouped ${salt}`, grouped),
          ]
          /** The first word of each, which every charge changes. */
          const wordsOf = () =>
            charges().map((charge) => {
              const at = table.wide.find(charge.key)
              return at < 0 ? 0n : Atomics.load(table.wide.words, at)
            })
          let nowUs = START_US
          for (const { wait, kill, both } of each) {
            nowUs += wait
            const mine = both ? charges() : [charges()[1]!]
            const victim = new RateTable(segment, 1)
            let left = kill
            const undo =
              kill < 0
                ? []
                : steps.map((step) => {
                    const original = Atomics[step] as (...args: unknown[]) => unknown
                    const patched = (...args: unknown[]) => {
                      if (left-- === 0) throw new Error('killed')
                      return original(...args)
                    }
                    Object.assign(Atomics, { [step]: patched })
                    return () => Object.assign(Atomics, { [step]: original })
                  })
            const before = wordsOf()
            let passes: boolean | null = null
            try {
              passes =
                mine.length === 1 ? victim.admit(mine[0]!, nowUs) === admitted : victim.admitAll(mine, 2, nowUs) === -1
            } catch (error) {
              expect((error as Error).message).toBe('killed')
            } finally {
              for (const each of undo) each()
            }
            if (passes === null) table.release(1)
            const inWindow = models.map((model) => model.inWindow(nowUs))
            if (passes === true) {
              models[1].add(1, nowUs)
              if (both) models[0].add(1, nowUs)
            } else if (passes === null) {
              // Killed: what it had counted by then is counted. A slot that it had just made has counted nothing.
              wordsOf().forEach((word, i) => {
                if (word !== before[i] && Number(BigInt.asUintN(32, word)) > 0) models[i]!.add(1, nowUs)
              })
            } else {
              const [first, second] = inWindow as [number, number]
              expect((both && first >= 35) || second >= 204).toBe(true)
            }
            expect(models[0].inWindow(nowUs)).toBeLessThanOrEqual(35)
            expect(models[1].inWindow(nowUs)).toBeLessThanOrEqual(210)
          }
        },
      ),
      { numRuns: 15, endOnFailure: true, reporter: shortly },
    )
  })
})
