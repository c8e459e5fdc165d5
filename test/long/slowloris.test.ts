// Ten thousand clients that never finish their head, and a few that ask as they should: these are served as if they
// were alone. Alone and beset take turns, so that what else the machine does falls on both. Their latency is told, not
// held: it says as much of the machine.
import { expect, test } from 'vitest'
import { forwardAll, startGateway } from '../support/gateway.js'
import { askWell, told } from '../support/good-clients.js'
import { residentGrowth } from '../support/memory.js'
import { startEcho } from '../support/origins.js'
import { requireAcceptor, requireDescriptors } from '../support/requirements.js'
import { type SlowClients, startSlowClients } from '../support/slow-clients.js'
import { eventually } from '../support/waiting.js'

const SLOW = 10_000
const GOOD = 64
/** Between two requests of a good one. */
const PACE_MS = 100
const ROUNDS = 3
const ALONE_MS = 5_000
/** Longer than a head's time, so that all of them come to their end. */
const BESET_MS = Number(process.env.TIDEGATE_TEST_SLOWLORIS_MS ?? 45_000) / ROUNDS

test(`${SLOW} slow heads leave ${GOOD} good clients served`, async (context) => {
  // Both ends of the slow ones are on this machine, and one worker may have most of them.
  requireDescriptors(context, SLOW + 1000)
  requireAcceptor(context)
  const origin = await startEcho()
  const gateway = await startGateway({
    workers: 2,
    env: { TIDEGATE_ACCESS_LOG: 'off' },
    config: forwardAll(origin),
  })
  let slow: SlowClients | null = null
  let ended = 0
  let growth = 0
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const alone = await askWell(gateway.port, GOOD, PACE_MS, ALONE_MS)
      let beset: number[] = []
      const grown = await residentGrowth(gateway, async () => {
        slow = await startSlowClients('heads', gateway.port, SLOW)
        beset = await askWell(gateway.port, GOOD, PACE_MS, BESET_MS)
      })
      growth = Math.max(growth, grown)
      const { now } = slow!
      ended += now.ended
      slow!.kill()
      const connections = async () =>
        (await gateway.status()).workers.reduce((sum, worker) => sum + worker.connections, 0)
      await eventually('the end of the slow ones', connections, 0, 30_000)
      console.log(`alone: ${told(alone)}; with ${now.open} slow ones: ${told(beset)}`)
    }
    const counted = await gateway.metric('tidegate_connections_refused_total{reason="slow_head"}')
    console.log(
      `${ended} slow ones were ended, ${counted} counted; a worker grew by ${Math.round(growth / 2 ** 20)} MiB at most`,
    )
    expect(counted).toBeGreaterThan(0)
    expect(counted).toBeLessThanOrEqual(ended + SLOW * ROUNDS)
  } finally {
    ;(slow as SlowClients | null)?.kill()
    await gateway.close()
    await origin.close()
  }
})
