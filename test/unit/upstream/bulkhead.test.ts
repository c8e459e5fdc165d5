// The queue in front of a service's places. Two workers in one process, with a clock of the test's.
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { BulkheadTable } from '../../../src/state/bulkhead-table.js'
import { EndpointTable } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { type Bulkhead, Bulkheads } from '../../../src/upstream/bulkhead.js'
import type { Cluster } from '../../../src/upstream/cluster/cluster.js'

const SPEC = { workers: 2, rateLimitKeys: 15, services: 1, endpoints: 1, routes: 1 }
let nowUs: number
let ours: Bulkhead
let theirs: Bulkhead
let got: string[]

const clusterOf = (most: number, queueSize: number): Cluster =>
  ({
    endpoints: [],
    service: { name: 's', slot: 0, bulkhead: { most, queueSize, waitMs: 1000, adaptive: null } },
  }) as unknown as Cluster

let workers: Bulkheads[]

beforeEach(() => {
  vi.useFakeTimers()
  nowUs = 1e9
  got = []
  const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })
  const parts = { bulkheads: new BulkheadTable(segment, SPEC), endpoints: new EndpointTable(segment, SPEC) }
  workers = [0, 1].map((worker) => new Bulkheads({ ...parts, worker, nowUs: () => nowUs }))
  ;[ours, theirs] = workers.map((one) => one.hold(clusterOf(2, 3))) as [Bulkhead, Bulkhead]
})

afterEach(() => {
  vi.useRealTimers()
})

/** Both clocks go on. */
const pass = (ms: number): void => {
  for (let i = 0; i < ms; i++) {
    nowUs += 1000
    vi.advanceTimersByTime(1)
  }
}

const waiting = (name: string) => ({ sinceUs: nowUs, onPlace: () => void got.push(name) })

test('serves those that wait in order, as places come back, and none overtakes them', async () => {
  expect([ours.take(), ours.take(), ours.take()]).toEqual([true, true, false])
  for (const name of ['a', 'b', 'c']) expect(ours.join(waiting(name))).toBe(true)
  expect(ours.join(waiting('d'))).toBe(false)
  ours.leave()
  expect(ours.take()).toBe(false)
  // Not before the caller has ended what had the place.
  expect(got).toEqual([])
  await Promise.resolve()
  expect(got).toEqual(['a'])
  ours.leave()
  ours.leave()
  await Promise.resolve()
  expect(got).toEqual(['a', 'b', 'c'])
  expect(ours.take()).toBe(false)
})

test('one that leaves the queue makes room in it, and gets no place', () => {
  expect([ours.take(), ours.take()]).toEqual([true, true])
  const leaving = waiting('a')
  expect([ours.join(leaving), ours.join(waiting('b')), ours.join(waiting('c'))]).toEqual([true, true, true])
  ours.quit(leaving)
  ours.quit(leaving)
  expect(ours.join(waiting('d'))).toBe(true)
  expect(theirs.join(waiting('e'))).toBe(false)
})

test('a place that another worker gives back is found within milliseconds', () => {
  expect([theirs.take(), theirs.take()]).toEqual([true, true])
  expect(ours.join(waiting('a'))).toBe(true)
  pass(10)
  expect(got).toEqual([])
  theirs.leave()
  pass(2)
  expect(got).toEqual(['a'])
  expect(vi.getTimerCount()).toBe(0)
})

test('a worker leaves a free place to another whose request has waited clearly longer', async () => {
  expect([ours.take(), ours.take()]).toEqual([true, true])
  expect(theirs.join(waiting('theirs'))).toBe(true)
  pass(15)
  expect(ours.join(waiting('ours'))).toBe(true)
  ours.leave()
  await Promise.resolve()
  expect(got).toEqual([])
  pass(2)
  expect(got).toEqual(['theirs'])
})

test('for five milliseconds: the other may hang', () => {
  expect([ours.take(), ours.take()]).toEqual([true, true])
  expect(theirs.join(waiting('theirs'))).toBe(true)
  // It hangs: its timer comes no more.
  vi.clearAllTimers()
  pass(15)
  expect(ours.join(waiting('ours'))).toBe(true)
  ours.leave()
  pass(4)
  expect(got).toEqual([])
  pass(6)
  expect(got).toEqual(['ours'])
  // And once for that request, not each time.
  expect(ours.join(waiting('another'))).toBe(true)
  ours.leave()
  pass(2)
  expect(got).toEqual(['ours', 'another'])
})

test('the newest rules apply to all generations, until the last one is gone', () => {
  expect([ours.take(), ours.take(), ours.take()]).toEqual([true, true, false])
  const next = clusterOf(3, 0)
  expect(workers[0]!.hold(next)).toBe(ours)
  expect([ours.take(), ours.take()]).toEqual([true, false])
  workers[0]!.release(clusterOf(2, 3))
  expect(workers[0]!.hold(next)).toBe(ours)
  workers[0]!.release(next)
  workers[0]!.release(next)
  expect(workers[0]!.hold(next)).not.toBe(ours)
})
