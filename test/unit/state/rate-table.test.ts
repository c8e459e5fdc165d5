import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { Charge, VERDICT } from '../../../src/state/charge.js'
import { KeyHash } from '../../../src/state/key-hash.js'
import { Rate } from '../../../src/state/rate.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { openSegment, type Segment } from '../../../src/state/segment.js'
import { RateModel } from '../../support/rate-model.js'

const { admitted, refused, undecided } = VERDICT
const START_US = Date.UTC(2026, 5, 1) * 1000

function segmentFor(keys: number): Segment {
  return openSegment(
    { workers: 2, rateLimitKeys: keys, services: 1, endpoints: 1, routes: 1, countersBytesPerWorker: 64 },
    { path: null, isolation: 'thread' },
  )
}

function chargeFor(segment: Segment, key: string, rate: Rate, cost = 1): Charge {
  const charge = new Charge()
  const [a, b, c, d] = segment.seed as unknown as [number, number, number, number]
  charge.set(rate, rate.costTicks(cost), new KeyHash().seed(a, b, c, d).text(key).finish())
  return charge
}

describe('one bucket', () => {
  let segment: Segment
  let table: RateTable
  const take = (key: string, rate: Rate, nowUs: number, cost = 1): number =>
    table.admit(chargeFor(segment, key, rate, cost), nowUs)

  beforeEach(() => {
    segment = segmentFor(1000)
    table = new RateTable(segment, 0)
  })

  it('lets exactly the burst pass from idle, then one per interval', () => {
    const rate = new Rate(500, 1, 100)
    for (let i = 0; i < 100; i++) expect(take('k', rate, START_US)).toBe(admitted)
    expect(take('k', rate, START_US)).toBe(refused)
    expect(take('k', rate, START_US + 1999)).toBe(refused)
    expect(take('k', rate, START_US + 2000)).toBe(admitted)
    expect(take('k', rate, START_US + 2000)).toBe(refused)
  })

  it.each([
    [3, 1],
    [7, 60],
    [1_000_000, 1],
    [1000, 86_400],
    [900, 3600],
  ])('admits %i in %i s to the request, however long it is hammered', (quantity, seconds) => {
    const rate = new Rate(quantity, seconds, 2)
    const windows = 3
    const arrivals = Math.min(quantity * windows, 20_000) * 4
    const lastUs = Math.ceil((arrivals * seconds * 1e6) / quantity / 4)
    let passed = 0
    for (let i = 0; i <= arrivals; i++)
      if (take('k', rate, START_US + Math.ceil((lastUs * i) / arrivals)) === admitted) passed++
    expect(passed).toBe(Math.floor((lastUs * quantity) / seconds / 1e6) + 2)
  })

  it('never admits more than a rate whose interval is no whole number of ticks', () => {
    const rate = new Rate(999, 1, 2)
    let passed = 0
    for (let us = 0; us < 30_000_000; us += 50) if (take('k', rate, START_US + us) === admitted) passed++
    expect(passed).toBeLessThanOrEqual(999 * 30 + 1)
    expect(passed).toBeGreaterThanOrEqual(999 * 30)
  })

  it('takes the cost, refuses what costs more than the bucket holds, and takes nothing for nothing', () => {
    const rate = new Rate(10, 1, 10)
    expect(take('k', rate, START_US, 11)).toBe(refused)
    expect(take('k', rate, START_US, 7)).toBe(admitted)
    expect(take('k', rate, START_US, 4)).toBe(refused)
    expect(take('k', rate, START_US, 0)).toBe(admitted)
    expect(take('k', rate, START_US, 3)).toBe(admitted)
    expect(take('k', rate, START_US, 1_000_000)).toBe(refused)
    expect(take('k', rate, START_US, 0)).toBe(admitted)
  })

  it('keeps keys apart', () => {
    const rate = new Rate(1, 1, 1)
    for (let i = 0; i < 500; i++) expect(take(`key-${i}`, rate, START_US)).toBe(admitted)
    for (let i = 0; i < 500; i++) expect(take(`key-${i}`, rate, START_US)).toBe(refused)
    expect(table.totals()).toMatchObject({ inserts: 500, evictions: 0, full: 0 })
  })

  it('holds a bucket of years without overflowing', () => {
    const rate = new Rate(1, 86_400, 3650)
    for (let i = 0; i < 3650; i++) expect(take('k', rate, START_US)).toBe(admitted)
    expect(take('k', rate, START_US)).toBe(refused)
    const cut = new Rate(1, 86_400, 1_000_000_000)
    expect(take('cut', cut, START_US, 7000)).toBe(admitted)
    expect(take('cut', cut, START_US, 7000)).toBe(refused)
  })
})

describe('a full table', () => {
  it('leaves a new key undecided, and gives it a slot once another bucket has been full for a moment', () => {
    const segment = segmentFor(20)
    const table = new RateTable(segment, 0)
    const slots = table.slots.rows * 15
    const rate = new Rate(1, 1, 1)
    const verdicts = Array.from({ length: slots * 4 }, (_, i) =>
      table.admit(chargeFor(segment, `key-${i}`, rate), START_US),
    )
    expect(verdicts.filter((verdict) => verdict === admitted)).toHaveLength(slots)
    expect(verdicts.filter((verdict) => verdict === undecided)).toHaveLength(slots * 3)
    expect(table.totals()).toMatchObject({ full: slots * 3, evictions: 0 })

    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_000_000)).toBe(undecided)
    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_100_000)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_100_000)).toBe(refused)
    expect(table.totals()).toMatchObject({ evictions: 1 })
  })

  it('has room for all but a few in a thousand of the keys it was made for', () => {
    const segment = segmentFor(50_000)
    const table = new RateTable(segment, 0)
    const rate = new Rate(1, 3600, 5)
    for (let i = 0; i < 50_000; i++) table.admit(chargeFor(segment, `key-${i}`, rate), START_US)
    expect(table.totals().full).toBeLessThan(150)
  })
})

describe('several buckets', () => {
  const segment = segmentFor(1000)
  const table = new RateTable(segment, 0)

  it('charges none when one refuses', () => {
    const wide = new Rate(100, 1, 100)
    const narrow = new Rate(1, 1, 1)
    const request = () => [chargeFor(segment, 'wide', wide), chargeFor(segment, 'narrow', narrow)]
    expect(table.admitAll(request(), 2, START_US)).toBe(-1)
    for (let i = 0; i < 50; i++) expect(table.admitAll(request(), 2, START_US)).toBe(1)
    for (let i = 0; i < 99; i++) expect(table.admit(chargeFor(segment, 'wide', wide), START_US)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'wide', wide), START_US)).toBe(refused)
  })

  it('names the one that will refuse for longest', () => {
    const second = new Rate(1, 1, 1)
    const hour = new Rate(1, 3600, 1)
    const request = () => [
      chargeFor(segment, 's', second),
      chargeFor(segment, 'h', hour),
      chargeFor(segment, 't', second),
    ]
    expect(table.admitAll(request(), 3, START_US)).toBe(-1)
    expect(table.admitAll(request(), 3, START_US)).toBe(1)
  })

  it('goes by the others where one only reports, and charges that one as long as it admits', () => {
    const rate = new Rate(1, 1, 2)
    const request = () => {
      const charges = [chargeFor(segment, 'reporting', rate), chargeFor(segment, 'enforcing', new Rate(1, 1, 10))]
      charges[0]!.reports = true
      return charges
    }
    const verdicts: number[] = []
    for (let i = 0; i < 4; i++) {
      const charges = request()
      expect(table.admitAll(charges, 2, START_US)).toBe(-1)
      verdicts.push(charges[0]!.verdict)
    }
    expect(verdicts).toEqual([admitted, admitted, refused, refused])
  })
})

describe('a worker that died', () => {
  const rate = new Rate(1, 1, 5)

  it('while it held a bucket gives it back as it was', () => {
    const segment = segmentFor(100)
    const table = new RateTable(segment, 0)
    const dead = new RateTable(segment, 1)
    const first = chargeFor(segment, 'k', rate)
    expect(table.admit(first, START_US)).toBe(admitted)
    dieHolding(dead, segment, 'k', rate)
    expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(undecided)
    table.release(1)
    for (let i = 0; i < 4; i++) expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(refused)
    expect(table.totals().stuck).toBe(1)
  })

  it('in the middle of giving a key a slot leaves neither the key nor the slot locked', () => {
    const segment = segmentFor(100)
    const table = new RateTable(segment, 0)
    const dead = new RateTable(segment, 1)
    dieInserting(dead, segment, 'k', rate)
    expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(undecided)
    table.release(1)
    for (let i = 0; i < 5; i++) expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'k', rate), START_US)).toBe(refused)
  })

  it('and left workers behind that finish what they have: none ends what another holds under its index', () => {
    const segment = segmentFor(1000)
    const orphan = new RateTable(segment, 0)
    const successor = new RateTable(segment, 0)
    const exchange = Atomics.exchange
    Atomics.exchange = ((...step: Parameters<typeof exchange>) => {
      Atomics.exchange = exchange
      for (let i = 0; i < 20; i++)
        expect(successor.admit(chargeFor(segment, `other ${i}`, rate), START_US)).not.toBe(refused)
      return exchange(...step)
    }) as typeof exchange
    expect(orphan.admit(chargeFor(segment, 'k', rate), START_US)).toBe(admitted)
    for (let i = 0; i < 4; i++) expect(orphan.admit(chargeFor(segment, 'k', rate), START_US)).toBe(admitted)
    expect(orphan.admit(chargeFor(segment, 'k', rate), START_US)).toBe(refused)
    const { offset, bytes } = segment.section('rates')
    const words = new BigInt64Array(segment.buffer, offset, bytes / 8).subarray(-orphan.slots.rows * 128)
    expect(words.filter((word, at) => at % 8 === 0 && word < 0n)).toHaveLength(0)
  })

  /** The worker's steps up to the publication, where the process ends instead. */
  function dieInserting(table: RateTable, segment: Segment, key: string, of: Rate): void {
    const store = Atomics.store
    Atomics.store = () => {
      throw new Error('killed')
    }
    try {
      expect(() => table.admit(chargeFor(segment, key, of), START_US)).toThrow('killed')
    } finally {
      Atomics.store = store
    }
  }

  /** Of several buckets all but the last by place are held: the other one is chosen to be the last. */
  function dieHolding(table: RateTable, segment: Segment, key: string, of: Rate): void {
    const pair = (n: number) => [chargeFor(segment, key, of, 0), chargeFor(segment, `other ${n}`, of)] as const
    const behind = (n: number): boolean => {
      const [held, last] = pair(n)
      table.admitAll([held, last], 2, START_US)
      return held.line < last.line
    }
    let n = 0
    while (!behind(n)) n++
    const store = Atomics.store
    Atomics.store = () => {
      throw new Error('killed')
    }
    try {
      const charges = [chargeFor(segment, key, of), pair(n)[1]]
      expect(() => table.admitAll(charges, 2, START_US)).toThrow('killed')
    } finally {
      Atomics.store = store
    }
  }
})

describe('against a sequential model', () => {
  const policies = [
    { quantity: 3, windowSeconds: 1, burst: 4 },
    { quantity: 500, windowSeconds: 1, burst: 100 },
    { quantity: 7, windowSeconds: 60, burst: 1 },
    { quantity: 1_000_000, windowSeconds: 1, burst: 10 },
    { quantity: 10, windowSeconds: 3600, burst: 20 },
  ].map((policy) => ({ ...policy, rate: new Rate(policy.quantity, policy.windowSeconds, policy.burst) }))

  it('decides 10^5 random arrivals alike, one bucket or several a request, in a table that has to reuse its slots', () => {
    const arrival = fc.record({
      waitUs: fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 0, max: 3000 }) },
        { weight: 3, arbitrary: fc.integer({ min: 0, max: 400_000 }) },
        { weight: 1, arbitrary: fc.integer({ min: 0, max: 600_000_000 }) },
      ),
      takes: fc.uniqueArray(
        fc.record({ policy: fc.nat({ max: policies.length - 1 }), cost: fc.integer({ min: 0, max: 5 }) }),
        { minLength: 1, maxLength: 3, selector: ({ policy }) => policy },
      ),
      key: fc.nat({ max: 400 }),
    })
    let decided = 0
    let evictions = 0
    fc.assert(
      fc.property(fc.array(arrival, { minLength: 1000, maxLength: 1000, size: 'max' }), (arrivals) => {
        const segment = segmentFor(600)
        const table = new RateTable(segment, 0)
        const model = new RateModel()
        let nowUs = START_US
        for (const { waitUs, takes, key } of arrivals) {
          nowUs += waitUs
          const charges = takes.map(({ policy, cost }) =>
            chargeFor(segment, `${policy}/${key}`, policies[policy]!.rate, cost),
          )
          const position =
            charges.length === 1
              ? [-1, 0, 99][table.admit(charges[0]!, nowUs)]
              : table.admitAll(charges, charges.length, nowUs)
          const wanted = model.admits(
            takes.map(({ policy, cost }) => ({ key: `${policy}/${key}`, ...policies[policy]!, cost })),
            nowUs,
          )
          if (position === 99) throw new Error('the table was full: the model knows no such thing')
          expect(position === -1).toBe(wanted)
          decided++
        }
        evictions += table.totals().evictions
      }),
      { numRuns: 100, endOnFailure: true },
    )
    expect(decided).toBeGreaterThanOrEqual(100_000)
    expect(evictions).toBeGreaterThan(100)
  }, 60_000)
})
