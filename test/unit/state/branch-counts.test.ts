// The counts of splits and mirrors: one writer per worker, one reader.
import { expect, test } from 'vitest'
import { BranchCounts } from '../../../src/state/branch-counts.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'

const SPEC = { workers: 2, rateLimitKeys: 15, services: 1, endpoints: 1, routes: 1, branches: 3 }
const NONE = { picked: 0, answered: 0, failed: 0, inFlight: 0, dropped: { body: 0, in_flight: 0, unavailable: 0 } }

function setUp() {
  const all = new BranchCounts(openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' }), SPEC)
  return { all, workers: [all.ofWorker(0), all.ofWorker(1)] as const }
}

test('sum over the workers, and keep branches apart', () => {
  const { all, workers } = setUp()
  const [first, second] = workers
  first.picked(0)
  second.picked(0)
  second.picked(2)
  first.begun(1)
  first.begun(1)
  second.begun(1)
  first.ended(1, false)
  second.ended(1, true)
  first.dropped(1, 'body')
  second.dropped(1, 'in_flight')
  second.dropped(1, 'unavailable')
  second.dropped(1, 'unavailable')
  expect(all.totals(0)).toEqual({ ...NONE, picked: 2 })
  expect(all.totals(1)).toEqual({
    picked: 0,
    answered: 1,
    failed: 1,
    inFlight: 1,
    dropped: { body: 1, in_flight: 1, unavailable: 2 },
  })
  expect(all.totals(2)).toEqual({ ...NONE, picked: 1 })
})

test('what a worker had in flight goes with it, and what it had counted stays', () => {
  const { all, workers } = setUp()
  for (const worker of workers) worker.begun(1)
  workers[0].picked(1)
  all.forget(0)
  expect(all.totals(1)).toEqual({ ...NONE, picked: 1, inFlight: 1 })
  // Its successor begins with none, also where nobody has seen the death.
  all.ofWorker(1)
  expect(all.totals(1)).toEqual({ ...NONE, picked: 1 })
})

test('a place with another branch begins at zero, in all workers', () => {
  const { all, workers } = setUp()
  for (const worker of workers) {
    worker.picked(0)
    worker.picked(1)
  }
  all.clear(1)
  expect(all.totals(0)).toEqual({ ...NONE, picked: 2 })
  expect(all.totals(1)).toEqual(NONE)
})

test('a section that is too small is refused', () => {
  const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })
  expect(() => new BranchCounts(segment, { workers: 2, branches: 4000 })).toThrow(RangeError)
})
