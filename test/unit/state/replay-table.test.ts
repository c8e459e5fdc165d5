import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../../native/index.js'
import { KeyHash } from '../../../src/state/key-hash.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { REPLAY, ReplayTable } from '../../../src/state/replay-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

const { fresh, repeated, full, stuck } = REPLAY
const NOON = Date.UTC(2026, 5, 1, 12) / 1000
const GRACE = 5
const SPEC = { workers: 2, rateLimitKeys: 15, services: 1, endpoints: 1, routes: 1 }

const segmentFor = (replayKeys: number): Segment =>
  openSegment(SECTIONS, { ...SPEC, replayKeys }, { path: null, isolation: 'thread' })

function keyFor(segment: Segment, text: string): KeyHash {
  const [a, b, c, d] = segment.seed as unknown as [number, number, number, number]
  return new KeyHash().seed(a, b, c, d).text(text).finish()
}

/** The row's lock, as an index of the section's 64-bit words. */
function lockWord(segment: Segment, rows: number, row: number): [BigInt64Array, number] {
  const { offset, bytes } = segment.section('replays')
  return [new BigInt64Array(segment.buffer, offset, bytes / 8), (bytes - rows * 1024 + row * 1024) / 8]
}

describe('a key', () => {
  let segment: Segment
  let table: ReplayTable
  const bring = (key: string, until: number, now: number): number => table.insert(keyFor(segment, key), until, now)

  beforeEach(() => {
    segment = segmentFor(1000)
    table = new ReplayTable(segment, 0)
  })

  it('is let in once, whichever worker it comes to', () => {
    const other = new ReplayTable(segment, 1)
    expect(bring('a', NOON + 300, NOON)).toBe(fresh)
    expect(bring('a', NOON + 300, NOON + 1)).toBe(repeated)
    expect(other.insert(keyFor(segment, 'a'), NOON + 300, NOON + 299)).toBe(repeated)
    expect(other.insert(keyFor(segment, 'b'), NOON + 300, NOON)).toBe(fresh)
    expect(bring('b', NOON + 300, NOON)).toBe(repeated)
    expect(table.totals()).toEqual({ fresh: 2, repeated: 3, full: 0, stuck: 0, share: 0 })
  })

  it('keeps the time it was put in with, whatever a repeat brings', () => {
    table = new ReplayTable(segmentFor(16), 0)
    expect(bring('a', NOON + 10, NOON)).toBe(fresh)
    expect(bring('a', NOON + 1000, NOON)).toBe(repeated)
    expect(table.occupancy(NOON + 9)).toEqual({ live: 1, slots: 48 })
    expect(table.occupancy(NOON + 10)).toEqual({ live: 0, slots: 48 })
  })

  it('keeps its slot for some seconds beyond its time: who read the clock before may be that late', () => {
    table = new ReplayTable(segmentFor(16), 0)
    for (let i = 0; i < 48; i++) expect(bring(`${i}`, NOON + 10, NOON)).toBe(fresh)
    expect(bring('another', NOON + 20, NOON + 10 + GRACE)).toBe(full)
    expect(bring('7', NOON + 10, NOON + 10 + GRACE)).toBe(repeated)
    expect(bring('another', NOON + 20, NOON + 11 + GRACE)).toBe(fresh)
    expect(bring('another', NOON + 20, NOON + 11 + GRACE)).toBe(repeated)
  })
})

describe('of those who bring keys', () => {
  /** How many of `count` keys of one of them are let in. */
  const fill = (table: ReplayTable, segment: Segment, whose: number, count: number): number => {
    let passed = 0
    for (let i = 0; i < count; i++) {
      const { a, b, c } = keyFor(segment, `${whose}/${i}`)
      if (table.insert({ a, b, c, d: whose }, NOON + 300, NOON) === fresh) passed++
    }
    return passed
  }

  it('one alone has room for all keys that the table is made for, and leaves a third', () => {
    const segment = segmentFor(10_000)
    const table = new ReplayTable(segment, 0)
    expect(fill(table, segment, 1, 10_000)).toBeGreaterThan(9_990)
    fill(table, segment, 2, 40_000)
    const { live, slots } = table.occupancy(NOON)
    expect(live).toBeLessThan(slots * 0.85)
    expect(table.totals().full).toBe(0)
  })

  it('some who take all they can leave room for another', () => {
    const segment = segmentFor(10_000)
    const table = new ReplayTable(segment, 0)
    for (const whose of [1, 2]) fill(table, segment, whose, 60_000)
    expect(table.totals().share).toBeGreaterThan(80_000)
    expect(fill(table, segment, 3, 500)).toBeGreaterThan(495)
  })
})

it('without rows takes no memory and lets nothing in', () => {
  const segment = segmentFor(0)
  expect(segment.section('replays').bytes).toBe(0)
  const table = new ReplayTable(segment, 0)
  expect(table.insert(keyFor(segment, 'a'), NOON + 1, NOON)).toBe(full)
  expect(table.occupancy(NOON)).toEqual({ live: 0, slots: 0 })
})

it('has room for the keys it is made for', () => {
  const segment = segmentFor(100_000)
  const table = new ReplayTable(segment, 0)
  for (let i = 0; i < 100_000; i++) table.insert(keyFor(segment, `${i}`), NOON + 300, NOON)
  expect(table.totals().full).toBeLessThanOrEqual(3)
  expect(segment.section('replays').bytes).toBeLessThan(100_000 * 66)
})

it('is what a set with expiry dates is, as long as there is room', () => {
  const step = fc.record({ key: fc.nat(60), after: fc.nat(20), lives: fc.nat(90) })
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 200 }), (steps) => {
      const segment = segmentFor(240)
      const tables = [new ReplayTable(segment, 0), new ReplayTable(segment, 1)]
      const untils = new Map<number, number>()
      let now = NOON
      for (const [i, { key, after, lives }] of steps.entries()) {
        now += after
        // As policy/replay.ts has it: what has run out is refused before it gets here.
        const verdict = tables[i % 2]!.insert(keyFor(segment, `${key}`), now + lives + 1, now)
        const until = untils.get(key)
        if (verdict === fresh) {
          expect(until === undefined || until + GRACE < now).toBe(true)
          untils.set(key, now + lives + 1)
        } else {
          // One that has run out may be remembered for longer: nobody needs its slot yet.
          expect(verdict).toBe(repeated)
          expect(until).toBeDefined()
        }
      }
    }),
    { numRuns: 200 },
  )
})

describe('a worker that died', () => {
  it('is noticed, refused for, and undone by release', () => {
    const segment = segmentFor(16)
    const living = new ReplayTable(segment, 1)
    const dead = new ReplayTable(segment, 0)
    const [words, lock] = lockWord(segment, 1, 0)
    // As it is left between the lock's taking and its opening: the journal names the lock, and the lock its holder.
    const { offset } = segment.section('replays')
    new Int32Array(segment.buffer, offset, 2).set([1, 0])
    words[lock] = -1n
    expect(living.insert(keyFor(segment, 'a'), NOON + 1, NOON)).toBe(stuck)
    dead.release(1)
    expect(living.insert(keyFor(segment, 'a'), NOON + 1, NOON)).toBe(stuck)
    living.release(0)
    expect(living.insert(keyFor(segment, 'a'), NOON + 1, NOON)).toBe(fresh)
  })
})

describe.skipIf(native === null)(`over restarts${nativeProblem && `: ${nativeProblem}`}`, () => {
  let folder: string
  let path: string
  let current: Segment | null = null
  const start = (replayKeys: number): Segment => {
    if (current !== null) native?.closeFd(current.fd)
    current = openSegment(SECTIONS, { ...SPEC, replayKeys }, { path, isolation: 'process' })
    return current
  }
  const nowSeconds = Math.floor(Date.now() / 1000)

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidegate-replay-'))
    path = join(folder, 'state')
  })
  afterEach(() => {
    if (current !== null) native?.closeFd(current.fd)
    current = null
    rmSync(folder, { recursive: true })
  })

  it.each([
    ['the same size', 1000, ''],
    ['more keys', 50_000, '; tables resized'],
    ['fewer keys', 500, '; tables resized'],
  ])('keys are remembered by a table for %s', (_, keys, resized) => {
    const first = start(1000)
    const table = new ReplayTable(first, 0)
    for (let i = 0; i < 100; i++) table.insert(keyFor(first, `${i}`), nowSeconds + 300, nowSeconds)
    table.insert(keyFor(first, 'over'), nowSeconds - 100, nowSeconds - 400)
    // A lock that its holder did not live to open.
    const [words, lock] = lockWord(first, table.rows, 1)
    words[lock] = -2n
    const second = start(keys)
    expect(second.notice).toBe(`state restored from ${path}: 0 rate limit keys, 0 breakers, 100 signatures${resized}`)
    const later = new ReplayTable(second, 0)
    for (let i = 0; i < 100; i++)
      expect(later.insert(keyFor(second, `${i}`), nowSeconds + 300, nowSeconds)).toBe(repeated)
    for (let i = 100; i < 200; i++)
      expect(later.insert(keyFor(second, `${i}`), nowSeconds + 300, nowSeconds)).toBe(fresh)
  })

  it('the table comes and goes with the routes that ask for it, and takes nothing from the others', () => {
    start(0)
    const without = statSync(path).size
    expect(start(1000).notice).toBe(
      `state restored from ${path}: 0 rate limit keys, 0 breakers, 0 signatures; tables resized`,
    )
    expect(statSync(path).size).toBeGreaterThan(without)
    expect(start(0).notice).toBe(`state restored from ${path}: 0 rate limit keys, 0 breakers; tables resized`)
    expect(statSync(path).size).toBe(without)
  })
})
