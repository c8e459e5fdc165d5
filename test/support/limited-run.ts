// A gateway of its own under a load far above its limit, from a full bucket on: what both ends of it counted. What that
// must add up to is for the tests to say, a short one in e2e and long ones in long.
import { setTimeout as pause } from 'node:timers/promises'
import { startGateway } from './gateway.js'
import { Load } from './load.js'
import { startEcho } from './origins.js'

const CLIENTS = 16

export interface LimitedRun {
  /** Answered 200, as the clients counted them. */
  readonly admitted: number
  /** Requests that reached the service. */
  readonly served: number
  readonly refused: number
  /** From before the first admission to after the last. */
  readonly seconds: number
  /**
   * Of these, stretches in which nobody was refused: the load was not there (the machine did other things), the bucket
   * may have been full, and what would have come on top is lost. Between two refusals that lie closer together it
   * cannot have filled up.
   */
  readonly quietSeconds: number
}

export async function limitedRun(
  workers: number,
  perSecond: number,
  burst: number,
  seconds: number,
): Promise<LimitedRun> {
  const origin = await startEcho()
  const gateway = await startGateway({
    workers,
    config: {
      services: { origin: { endpoints: [origin.url] } },
      routes: [
        {
          match: { path: '/limited' },
          service: 'origin',
          auth: 'none',
          accessLog: false,
          limits: [{ by: 'route', rate: `${perSecond}/s`, burst }],
        },
      ],
    },
  })
  try {
    const load = await Load.start(gateway, CLIENTS, '/limited')
    await pause(seconds * 1000)
    await load.stop()
    const { count, firstSentMs, lastAnsweredMs } = load.of(200)
    return {
      admitted: count,
      served: origin.requests.all.length,
      refused: load.of(429).count,
      seconds: (lastAnsweredMs - firstSentMs) / 1000,
      quietSeconds: load.of(429).quietMs / 1000,
    }
  } finally {
    await gateway.close()
    await origin.close()
  }
}
