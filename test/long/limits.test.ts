// A limit under a load far above it, over several workers: what is admitted lies between rate × time and rate × time +
// burst, counted by those who ask and by the service.
import { describe, expect, test } from 'vitest'
import { limitedRun } from '../support/limited-run.js'

const PER_SECOND = 500
const BURST = 100
const SECONDS = 10

describe.each([2, 4])('%i workers', (workers) => {
  test.each([1, 2, 3])('admit what the rate allows and no request more, run %i', async () => {
    const { admitted, served, refused, seconds, quietSeconds } = await limitedRun(workers, PER_SECOND, BURST, SECONDS)
    expect(served).toBe(admitted)
    expect(admitted).toBeLessThanOrEqual(PER_SECOND * seconds + BURST)
    expect(admitted).toBeGreaterThanOrEqual(PER_SECOND * (seconds - quietSeconds))
    // Far above the limit and for as long as it was meant to be: less would prove nothing.
    expect(refused).toBeGreaterThan(admitted)
    expect(seconds).toBeGreaterThan(SECONDS * 0.9)
  })
})
