// Three seconds of what test/long/limits.test.ts does for longer: two workers together admit what the limit allows.
import { expect, test } from 'vitest'
import { limitedRun } from '../support/limited-run.js'

test('two workers under a load far above the limit admit what the rate allows and no request more', async () => {
  const { admitted, served, refused, seconds, quietSeconds } = await limitedRun(2, 500, 100, 3)
  expect(served).toBe(admitted)
  expect(admitted).toBeLessThanOrEqual(500 * seconds + 100)
  expect(admitted).toBeGreaterThanOrEqual(500 * (seconds - quietSeconds))
  expect(refused).toBeGreaterThan(admitted)
})
