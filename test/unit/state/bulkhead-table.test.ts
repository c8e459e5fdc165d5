// Counts that all workers share: never above the bound, and given back when a worker dies.
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { BulkheadTable } from '../../../src/state/bulkhead-table.js'
import { InFlightTable, NO_ROOM, REFUSED } from '../../../src/state/in-flight-table.js'
import { KeyHash } from '../../../src/state/key-hash.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { rowLength, SharedCount } from '../../../src/state/shared-count.js'

const SPEC = { workers: 3, rateLimitKeys: 15, services: 2, endpoints: 1, routes: 1 }
const RULES = { most: 5, queueSize: 9, waitMs: 1000, adaptive: null }
const open = () => openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })

describe('a shared count', () => {
  it('admits no more than the bound, from whichever worker they come', () => {
    const row = new Int32Array(new SharedArrayBuffer(rowLength(3) * 4))
    const [a, b] = [new SharedCount(row, 0), new SharedCount(row, 2)]
    expect([a.take(3), b.take(3), b.take(3), a.take(3), b.take(3)]).toEqual([true, true, true, false, false])
    b.give()
    expect([a.take(3), a.take(3), a.total]).toEqual([true, false, 3])
  })

  it('never more, where threads take and give at the same time', async () => {
    const MOST = 2
    const buffer = new SharedArrayBuffer(rowLength(3) * 4)
    const tally = new SharedArrayBuffer(12)
    // Built by `npm run build`, which precedes the tests.
    const url = new URL('../../../dist/src/state/shared-count.js', import.meta.url).href
    const code = `
      const { workerData: { buffer, tally, worker } } = require('node:worker_threads')
      import('${url}').then(({ SharedCount }) => {
        const count = new SharedCount(new Int32Array(buffer), worker)
        const seen = new Int32Array(tally)
        Atomics.add(seen, 2, 1)
        while (Atomics.load(seen, 2) < 3) {}
        for (let i = 0; i < 20000; i++) {
          if (!count.take(${MOST})) continue
          const now = Atomics.add(seen, 0, 1) + 1
          if (now > ${MOST}) Atomics.store(seen, 1, now)
          Atomics.sub(seen, 0, 1)
          count.give()
        }
      })`
    const threads = [0, 1, 2].map((worker) => new Worker(code, { eval: true, workerData: { buffer, tally, worker } }))
    await Promise.all(
      threads.map((thread) => new Promise((resolve, reject) => thread.once('exit', resolve).once('error', reject))),
    )
    expect([...new Int32Array(tally)]).toEqual([0, 0, 3])
    expect([...new Int32Array(buffer)].every((count) => count === 0)).toBe(true)
  })
})

describe('the table of bulkheads', () => {
  it('gives back what a worker held, and keeps what it has counted', () => {
    const segment = open()
    const table = new BulkheadTable(segment, SPEC)
    const [first, second] = [table.part(1, 0), table.part(1, 2)]
    for (const part of [first, second, second]) expect(part.held.take(5)).toBe(true)
    expect(second.waiting.take(9)).toBe(true)
    second.noteOldest(77)
    second.noteRefusal(false)
    expect(first.oldestElsewhere).toBe(77)
    expect(table.read(1, RULES)).toMatchObject({ limit: 5, inFlight: 3, waiting: 1, refusedFull: 1 })
    for (const section of SECTIONS) if (!section.kept) section.release?.(segment, 2)
    expect(table.read(1, RULES)).toMatchObject({ inFlight: 1, waiting: 0, refusedFull: 1 })
    expect(first.oldestElsewhere).toBe(Number.POSITIVE_INFINITY)
    expect(table.read(0, RULES)).toMatchObject({ inFlight: 0 })
    table.clear(1)
    expect(table.read(1, RULES)).toMatchObject({ inFlight: 0, refusedFull: 0 })
  })

  it('lets one worker at a time work out the adaptive limit', () => {
    const table = new BulkheadTable(open(), SPEC)
    const [first, second] = [table.part(0, 0), table.part(0, 1)]
    const { turns } = first
    expect([first.takeTurn(turns), second.takeTurn(turns), second.takeTurn(second.turns)]).toEqual([true, false, true])
  })
})

describe('the table of requests in flight', () => {
  const key = (text: string) => new KeyHash().seed(1, 2, 3, 4).text(text).finish()

  it('counts each key over all workers', () => {
    const segment = open()
    const [a, b] = [new InFlightTable(segment, 0, SPEC.workers), new InFlightTable(segment, 2)]
    const entry = a.take(key('x'), 2)
    expect(entry).toBeGreaterThanOrEqual(0)
    expect(b.take(key('x'), 2)).toBeGreaterThanOrEqual(0)
    expect([a.take(key('x'), 2), b.take(key('x'), 2)]).toEqual([REFUSED, REFUSED])
    expect(a.take(key('y'), 1)).toBeGreaterThanOrEqual(0)
    a.give(entry)
    expect([a.count(key('x')), b.take(key('x'), 2) >= 0]).toEqual([1, true])
    for (const section of SECTIONS) if (!section.kept) section.release?.(segment, 2)
    expect([a.count(key('x')), a.count(key('y'))]).toEqual([0, 1])
  })

  it('has room for sixteen keys that fall together, and gives an entry to another key only when it is free', () => {
    const table = new InFlightTable(open(), 1, SPEC.workers)
    const together = (i: number) => Object.assign(new KeyHash(), { a: i, b: i * 7, c: 5, d: 0 })
    const entries = Array.from({ length: 16 }, (_, i) => table.take(together(i + 1), 3))
    expect(new Set(entries).size).toBe(16)
    expect(table.take(together(99), 3)).toBe(NO_ROOM)
    expect(table.take(together(4), 3)).toBe(entries[3])
    table.give(entries[3]!)
    expect(table.take(together(99), 3)).toBe(NO_ROOM)
    table.give(entries[3]!)
    expect(table.take(together(99), 3)).toBe(entries[3])
    expect([table.count(together(4)), table.count(together(99))]).toEqual([0, 1])
  })
})
