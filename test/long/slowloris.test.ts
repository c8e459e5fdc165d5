// Ten thousand clients that never finish their head, and a few that ask as they should: these are served as if they were alone. Their latency is told,
// not held: it says as much of the machine.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { residentGrowth } from '../support/memory.js'
import { startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor, requireDescriptors } from '../support/requirements.js'

const SLOW = 10_000
const GOOD = 64
/** Between two requests of a good one. */
const PACE_MS = 100
const ALONE_MS = 5_000
const BESET_MS = Number(process.env.TIDEGATE_TEST_SLOWLORIS_MS ?? 30_000)

const SLOW_HEADS = fileURLToPath(new URL('../support/slow-heads.mjs', import.meta.url))

/** Each on a connection of its own that it keeps; every answer must be 200. Sorted latencies. */
async function ask(port: number, forMs: number): Promise<number[]> {
  const latencies: number[] = []
  const until = performance.now() + forMs
  await Promise.all(
    Array.from({ length: GOOD }, async (_, i) => {
      const connection = await Connection.open(port)
      await new Promise((resolve) => setTimeout(resolve, (PACE_MS * i) / GOOD))
      while (performance.now() < until) {
        const sentMs = performance.now()
        expect((await connection.exchange({})).status).toBe(200)
        const tookMs = performance.now() - sentMs
        latencies.push(tookMs)
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, PACE_MS - tookMs)))
      }
      connection.destroy()
    }),
  )
  return latencies.sort((a, b) => a - b)
}

const told = (name: string, sorted: readonly number[]): string =>
  `${name}: ${sorted.length} requests, ` +
  [0.5, 0.99, 0.999].map((q) => `p${q * 100} ${sorted[Math.floor(q * sorted.length)]!.toFixed(1)} ms`).join(', ')

test(`${SLOW} slow heads leave ${GOOD} good clients served`, async (context) => {
  // Both ends of the slow ones are on this machine, and one worker may have most of them.
  requireDescriptors(context, SLOW + 1000)
  requireAcceptor(context)
  const origin = await startEcho()
  const gateway = await startGateway({
    workers: 2,
    env: { TIDEGATE_ACCESS_LOG: 'off' },
    config: {
      services: { origin: { endpoints: [origin.url] } },
      routes: [{ match: { path: '/' }, service: 'origin', auth: 'none' }],
    },
  })
  const slow = fork(SLOW_HEADS, [String(gateway.port), String(SLOW)])
  slow.kill('SIGSTOP')
  try {
    const alone = await ask(gateway.port, ALONE_MS)
    let beset: number[] = []
    let most = 0
    let last = { open: 0, ended: 0 }
    slow.on('message', (message) => {
      last = message as typeof last
      most = Math.max(most, last.open)
    })
    const growth = await residentGrowth(gateway, async () => {
      slow.kill('SIGCONT')
      await expect.poll(() => last.open, { timeout: 30_000 }).toBeGreaterThan(SLOW * 0.9)
      beset = await ask(gateway.port, BESET_MS)
    })
    const counted = await gateway.metric('tidegate_connections_refused_total{reason="slow_head"}')
    console.log(told('alone', alone))
    console.log(told(`with ${most} slow ones`, beset))
    console.log(
      `${last.ended} slow ones were ended, ${counted} counted; a worker grew by ${Math.round(growth / 2 ** 20)} MiB at most`,
    )
    expect(counted).toBeGreaterThan(0)
    expect(counted).toBeLessThanOrEqual(last.ended + SLOW)
  } finally {
    slow.kill('SIGKILL')
    await gateway.close()
    await origin.close()
  }
})
