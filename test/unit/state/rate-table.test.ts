import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { Bucket } from '../../../src/state/bucket.js'
import { type Charge, type Meter, VERDICT } from '../../../src/state/charge.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { Quota } from '../../../src/state/quota.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'
import { ticksAt } from '../../../src/state/ticks.js'
import { Window } from '../../../src/state/window.js'
import { chargeFor } from '../../support/charges.js'
import { RateModel } from '../../support/rate-model.js'

const { admitted, refused, undecided } = VERDICT
const START_US = Date.UTC(2026, 5, 1) * 1000

function segmentFor(keys: number): Segment {
  return openSegment(
    SECTIONS,
    { workers: 2, rateLimitKeys: keys, services: 1, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
}

describe('one bucket', () => {
  let segment: Segment
  let table: BucketTable
  const take = (key: string, rate: Bucket, nowUs: number, cost = 1): number =>
    table.admit(chargeFor(segment, key, rate, cost), nowUs)

  beforeEach(() => {
    segment = segmentFor(1000)
    table = new RateTable(segment, 0)
  })

  it('lets exactly the burst pass from idle, then one per interval', () => {
    const rate = new Bucket(500, 1, 100)
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
    const rate = new Bucket(quantity, seconds, 2)
    const windows = 3
    const arrivals = Math.min(quantity * windows, 20_000) * 4
    const lastUs = Math.ceil((arrivals * seconds * 1e6) / quantity / 4)
    let passed = 0
    for (let i = 0; i <= arrivals; i++)
      if (take('k', rate, START_US + Math.ceil((lastUs * i) / arrivals)) === admitted) passed++
    expect(passed).toBe(Math.floor((lastUs * quantity) / seconds / 1e6) + 2)
  })

  it('never admits more than a rate whose interval is no whole number of ticks', () => {
    const rate = new Bucket(999, 1, 2)
    let passed = 0
    for (let us = 0; us < 30_000_000; us += 50) if (take('k', rate, START_US + us) === admitted) passed++
    expect(passed).toBeLessThanOrEqual(999 * 30 + 1)
    expect(passed).toBeGreaterThanOrEqual(999 * 30)
  })

  it('takes the cost, refuses what costs more than the bucket holds, and takes nothing for nothing', () => {
    const rate = new Bucket(10, 1, 10)
    expect(take('k', rate, START_US, 11)).toBe(refused)
    expect(take('k', rate, START_US, 7)).toBe(admitted)
    expect(take('k', rate, START_US, 4)).toBe(refused)
    expect(take('k', rate, START_US, 0)).toBe(admitted)
    expect(take('k', rate, START_US, 3)).toBe(admitted)
    expect(take('k', rate, START_US, 1_000_000)).toBe(refused)
    expect(take('k', rate, START_US, 0)).toBe(admitted)
  })

  it('keeps keys apart', () => {
    const rate = new Bucket(1, 1, 1)
    for (let i = 0; i < 500; i++) expect(take(`key-${i}`, rate, START_US)).toBe(admitted)
    for (let i = 0; i < 500; i++) expect(take(`key-${i}`, rate, START_US)).toBe(refused)
    expect(table.totals()).toMatchObject({ inserts: 500, evictions: 0, full: 0 })
  })

  it('holds a bucket of years without overflowing', () => {
    const rate = new Bucket(1, 86_400, 3650)
    for (let i = 0; i < 3650; i++) expect(take('k', rate, START_US)).toBe(admitted)
    expect(take('k', rate, START_US)).toBe(refused)
    const cut = new Bucket(1, 86_400, 1_000_000_000)
    expect(take('cut', cut, START_US, 7000)).toBe(admitted)
    expect(take('cut', cut, START_US, 7000)).toBe(refused)
  })
})

describe('a full table', () => {
  const SLOTS_FOR_KEYS = 13
  const rate = new Bucket(1, 1, 1)
  const sharing = (segment: Segment, key: string, limit = 'limit', limits = 1, meter: Meter = rate): Charge => {
    const charge = chargeFor(segment, key, meter, 1, limit, limits)
    charge.admitsUndecided = true
    return charge
  }
  /** How many of `count` keys of the limit were admitted. */
  const fill = (
    table: RateTable,
    segment: Segment,
    count: number,
    limit: string,
    limits: number,
    meter: Meter,
  ): number =>
    Array.from({ length: count }, (_, i) =>
      table.admit(sharing(segment, `${limit} ${i}`, limit, limits, meter), START_US),
    ).filter((verdict) => verdict === admitted).length

  it('leaves a new key undecided that may not share, and gives it a slot once another has been free for a moment', () => {
    const segment = segmentFor(20)
    const table = new RateTable(segment, 0)
    const slots = table.narrow.rows * SLOTS_FOR_KEYS
    const verdicts = Array.from({ length: slots * 4 }, (_, i) =>
      table.admit(chargeFor(segment, `key-${i}`, rate), START_US),
    )
    expect(verdicts.filter((verdict) => verdict === admitted)).toHaveLength(slots)
    expect(verdicts.filter((verdict) => verdict === undecided)).toHaveLength(slots * 3)
    expect(table.totals()).toMatchObject({ full: slots * 3, evictions: 0 })

    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_000_000)).toBe(undecided)
    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_100_000)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'late', rate), START_US + 1_100_000)).toBe(refused)
  })

  it('has room for all but a few in a thousand of the keys it was made for', () => {
    const segment = segmentFor(50_000)
    const table = new RateTable(segment, 0)
    const rate = new Bucket(1, 3600, 5)
    for (let i = 0; i < 50_000; i++) table.admit(chargeFor(segment, `key-${i}`, rate), START_US)
    expect(table.totals().full).toBeLessThan(150)
  })

  it.each<[string, number, Meter]>([
    ['a window', 5, new Window(5, 3600)],
    ['a window of groups', 90, new Window(90, 3600)],
    ['a bucket', 5, new Bucket(5, 3600, 5)],
    ['a quota', 5, new Quota(5, 'day', (ms) => ms + 86_400_000)],
  ])('admits no key more than its limit, which is %s of %i: keys without a slot share some', (_, most, meter) => {
    const segment = segmentFor(200)
    const table = new RateTable(segment, 0)
    fill(table, segment, 4000, 'limit', 1, meter)
    const { full, shared } = table.totals()
    expect(full).toBeGreaterThan(0)
    expect(shared).toBeGreaterThan(0)
    for (const key of ['one', 'two', 'three']) {
      let passed = 0
      for (let i = 0; i < 300; i++)
        if (table.admit(sharing(segment, key, 'limit', 1, meter), START_US) === admitted) passed++
      expect(passed).toBeLessThanOrEqual(most)
    }
  })

  it('gives a key that has shared a slot one of its own with all that the shared one has counted', () => {
    const segment = segmentFor(20)
    const table = new RateTable(segment, 0)
    const brief = new Window(1, 1)
    const window = new Window(3, 3600)
    for (let i = 0; i < 500; i++) table.admit(chargeFor(segment, `brief ${i}`, brief), START_US)
    const take = (nowUs: number) => table.admit(sharing(segment, 'k', 'limit', 1, window), nowUs)
    expect([take(START_US), take(START_US)]).toEqual([admitted, admitted])
    const { shared, inserts } = table.totals()
    // All others have run out; this one has two left of its hour in the slot that it shared.
    expect([take(START_US + 3e6), take(START_US + 3e6)]).toEqual([admitted, refused])
    expect(table.totals()).toMatchObject({ shared, inserts: inserts + 1 })
    expect([take(START_US + 3600e6), take(START_US + 3600e6), take(START_US + 3600e6)]).toEqual([
      admitted,
      admitted,
      refused,
    ])
  })

  it.each([2, 3, 6])('keeps its share for each of %i limits, whatever keys the others have', (limits) => {
    const segment = segmentFor(5000)
    const table = new RateTable(segment, 0)
    // So many that no shared slot refuses: a key that one refuses is not given a slot.
    const window = new Window(10_000, 3600)
    fill(table, segment, 20_000, 'attacked', limits, window)
    const { inserts, full } = table.totals()
    expect(full).toBeGreaterThan(0)
    const keys = table.wide.rows * Math.floor(6 / limits)
    for (let i = 0; i < keys; i++) {
      const charge = sharing(segment, `other ${i}`, 'other', limits, window)
      const verdict = table.admit(charge, START_US)
      if (table.wide.find(charge.key) >= 0) expect(verdict).toBe(admitted)
      else
        for (const word of [charge.key.a, charge.key.b]) {
          table.wide.freeIn(table.wide.rowOf(word), ticksAt(START_US), charge.share!.mark)
          const { liveOfLimit, liveShared } = table.wide
          if (liveShared <= 2) expect(liveOfLimit).toBeGreaterThanOrEqual(charge.share!.own)
        }
    }
    expect(table.totals().inserts - inserts).toBeGreaterThan(keys * 0.5)
  })

  // One worker is stopped just before it charges a shared slot. Meanwhile another one finds a slot free for that key,
  // and charges it there.
  it.each([
    ['one limit', 0, false],
    ['one limit', 2, false],
    ['several', 0, true],
    ['several', 2, true],
  ])('admits no key more than its limit while it moves to a slot of its own: %s, %i before', (_, before, isSeveral) => {
    const segment = segmentFor(20)
    const [table, other] = [new RateTable(segment, 0), new RateTable(segment, 1)]
    const brief = new Window(1, 1)
    const window = new Window(before + 1, 3600)
    for (let i = 0; i < 500; i++) table.admit(chargeFor(segment, `brief ${i}`, brief), START_US)
    const k = () => sharing(segment, 'k', 'limit', 1, window)
    for (let i = 0; i < before; i++) expect(table.admit(k(), START_US)).toBe(admitted)

    const charge = k()
    const { compareExchange } = Atomics
    let meanwhile: number | undefined
    Atomics.compareExchange = ((...step: Parameters<typeof compareExchange>) => {
      const [words, at, expected] = step as unknown as [unknown, number, bigint]
      if (words === table.narrow.words && at === charge.at && expected === charge.seen) {
        Atomics.compareExchange = compareExchange
        meanwhile = other.admit(k(), START_US + 3e6)
      }
      return compareExchange(...step)
    }) as typeof compareExchange
    let isAdmitted: boolean
    try {
      const free = chargeFor(segment, 'free', new Bucket(1, 1, 1))
      isAdmitted = isSeveral
        ? table.admitAll([free, charge], 2, START_US) === -1
        : table.admit(charge, START_US) === admitted
    } finally {
      Atomics.compareExchange = compareExchange
    }
    expect(meanwhile).toBe(admitted)
    expect(isAdmitted).toBe(false)
    expect(table.admit(k(), START_US + 3e6)).toBe(refused)
  })

  it.each([0, 1, 2, 5.5, 14])('keeps what a quota has counted with the wall clock %f hours behind', (hours) => {
    const segment = segmentFor(200)
    const table = new RateTable(segment, 0)
    const wallMs = START_US / 1000 - hours * 3_600_000
    const quota = new Quota(
      2,
      'day',
      () => wallMs + 3_600_000,
      () => wallMs,
    )
    let passed = 0
    for (let round = 0; round < 20; round++) {
      if (table.admit(sharing(segment, 'k', 'limit', 1, quota), START_US) === admitted) passed++
      for (let i = 0; i < 150; i++) table.admit(sharing(segment, `${round} ${i}`, 'limit', 1, quota), START_US)
    }
    expect(passed).toBe(2)
  })

  it('charges several limits at once where none has a slot for its key', () => {
    const segment = segmentFor(20)
    const table = new RateTable(segment, 0)
    const [window, bucket] = [new Window(3, 3600), new Bucket(1, 3600, 2)]
    fill(table, segment, 500, 'w', 2, window)
    fill(table, segment, 500, 'b', 2, bucket)
    let passed = 0
    for (let i = 0; i < 50; i++) {
      const charges = [sharing(segment, 'late', 'w', 2, window), sharing(segment, 'late', 'b', 2, bucket)]
      if (table.admitAll(charges, 2, START_US) === -1) passed++
    }
    expect(passed).toBeLessThanOrEqual(2)
    expect(table.totals().stuck).toBe(0)
  })
})

describe('several buckets', () => {
  const segment = segmentFor(1000)
  const table = new RateTable(segment, 0)

  it('charges none when one refuses', () => {
    const wide = new Bucket(100, 1, 100)
    const narrow = new Bucket(1, 1, 1)
    const request = () => [chargeFor(segment, 'wide', wide), chargeFor(segment, 'narrow', narrow)]
    expect(table.admitAll(request(), 2, START_US)).toBe(-1)
    for (let i = 0; i < 50; i++) expect(table.admitAll(request(), 2, START_US)).toBe(1)
    for (let i = 0; i < 99; i++) expect(table.admit(chargeFor(segment, 'wide', wide), START_US)).toBe(admitted)
    expect(table.admit(chargeFor(segment, 'wide', wide), START_US)).toBe(refused)
  })

  it('names the one that will refuse for longest', () => {
    const second = new Bucket(1, 1, 1)
    const hour = new Bucket(1, 3600, 1)
    const request = () => [
      chargeFor(segment, 's', second),
      chargeFor(segment, 'h', hour),
      chargeFor(segment, 't', second),
    ]
    expect(table.admitAll(request(), 3, START_US)).toBe(-1)
    expect(table.admitAll(request(), 3, START_US)).toBe(1)
  })

  it('goes by the others where one only reports, and charges that one as long as it admits', () => {
    const rate = new Bucket(1, 1, 2)
    const request = () => {
      const charges = [chargeFor(segment, 'reporting', rate), chargeFor(segment, 'enforcing', new Bucket(1, 1, 10))]
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
  const rate = new Bucket(1, 1, 5)

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
    expect(orphan.narrow.words.filter((word, at) => at % 8 === 0 && word < 0n)).toHaveLength(0)
  })

  /** The worker's steps up to the publication, where the process ends instead. */
  function dieInserting(table: BucketTable, segment: Segment, key: string, of: Bucket): void {
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
  function dieHolding(table: BucketTable, segment: Segment, key: string, of: Bucket): void {
    const pair = (n: number) => [chargeFor(segment, key, of, 0), chargeFor(segment, `other ${n}`, of)] as const
    const behind = (n: number): boolean => {
      const [held, last] = pair(n)
      table.admitAll([held, last], 2, START_US)
      return held.at < last.at
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
  ].map((policy) => ({ ...policy, rate: new Bucket(policy.quantity, policy.windowSeconds, policy.burst) }))

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
