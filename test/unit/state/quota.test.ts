import { expect, it } from 'vitest'
import { nextPeriodStartMs } from '../../../src/config/calendar.js'
import { VERDICT } from '../../../src/state/charge.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { Quota } from '../../../src/state/quota.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { chargeFor } from '../../support/charges.js'

const START = Date.parse('2026-03-28T22:59:00Z')

/** Two workers with wall clocks of their own over one table; the segment's is another clock again. */
function workers(quantity: number) {
  const segment = openSegment(
    SECTIONS,
    { workers: 2, rateLimitKeys: 1024, services: 1, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  return [0, 1].map((owner) => {
    const table = new RateTable(segment, owner)
    const worker = {
      wallMs: START,
      admits(times: number): number {
        const charge = chargeFor(segment, 'k', quota)
        const nowUs = segment.nowUs() + (worker.wallMs - START) * 1000
        return Array.from({ length: times }, () => table.admit(charge, nowUs)).filter((is) => is === VERDICT.admitted)
          .length
      },
    }
    const quota = new Quota(
      quantity,
      'day Europe/Berlin',
      (ms) => nextPeriodStartMs('day', 'Europe/Berlin', ms),
      () => worker.wallMs,
    )
    return worker
  }) as [Worker, Worker]
}
interface Worker {
  wallMs: number
  admits(times: number): number
}

it('admits so many a calendar day, over all workers, and begins anew with the next', () => {
  const [one, other] = workers(10)
  expect([one.admits(6), other.admits(6)]).toEqual([6, 4])
  one.wallMs += 59_999
  other.wallMs += 59_999
  expect([one.admits(1), other.admits(1)]).toEqual([0, 0])
  one.wallMs += 1
  other.wallMs += 1
  expect([one.admits(6), other.admits(6)]).toEqual([6, 4])
  // That day has 23 hours.
  one.wallMs += 23 * 3_600_000 - 1000
  expect(one.admits(1)).toBe(0)
  one.wallMs += 1000
  expect(one.admits(20)).toBe(10)
})

it('admits nothing twice where one worker’s clock is ahead, or is set back', () => {
  const [one, other] = workers(10)
  expect(one.admits(3)).toBe(3)
  one.wallMs += 60_000
  expect(one.admits(4)).toBe(4)
  // Of the day before, by its own clock: it goes by the later one.
  expect(other.admits(20)).toBe(6)
  one.wallMs -= 10 * 86_400_000
  expect(one.admits(20)).toBe(0)
})
