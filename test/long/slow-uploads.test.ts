// A thousand clients that upload at 300 bytes a second, and others that ask or upload as they should: these are served
// as if they were alone. Alone and beset take turns, so that what else the machine does falls on both.
import { expect, test } from 'vitest'
import { forwardAll, startGateway } from '../support/gateway.js'
import { askWell, quantile, told } from '../support/good-clients.js'
import { startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { requireDescriptors } from '../support/requirements.js'
import { type SlowClients, startSlowClients } from '../support/slow-clients.js'

const SLOW = 1000
const GOOD = 64
/** Between two requests of a good one. */
const PACE_MS = 100
const ROUNDS = 3
const ROUND_MS = 5_000
/**
 * How much longer the median of the good ones may take beside the slow ones: what they take together costs some time of
 * the cores.
 */
const MOST_MORE_MS = 10

test(`${SLOW} slow uploads leave ${GOOD} good clients served`, async (context) => {
  requireDescriptors(context, 2 * SLOW + 1000)
  const origin = await startEcho()
  const gateway = await startGateway({
    workers: 2,
    env: { TIDEGATE_ACCESS_LOG: 'off' },
    config: forwardAll(origin, { maxBody: 'unlimited' }),
  })
  let slow: SlowClients | null = null
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const alone = await askWell(gateway.port, GOOD, PACE_MS, ROUND_MS)
      slow = await startSlowClients('uploads', gateway.port, SLOW)
      const asking = askWell(gateway.port, GOOD, PACE_MS, ROUND_MS)
      // Both short ones, that are read ahead whole, and long ones, that are not.
      for (const length of [100, 50_000, 100, 50_000])
        expect((await call(gateway.port, { method: 'POST', body: Buffer.alloc(length) })).status).toBe(200)
      const beset = await asking
      const { open, ended } = slow.now
      console.log(`alone: ${told(alone)}; with ${open} slow uploads: ${told(beset)}; ${ended} were ended`)
      expect(open).toBeGreaterThan(SLOW * 0.9)
      expect(quantile(beset, 0.5)).toBeLessThan(quantile(alone, 0.5) + MOST_MORE_MS)
      slow.kill()
    }
  } finally {
    slow?.kill()
    await gateway.close()
    await origin.close()
  }
})
