// concurrency: adaptive before a service that works on a few requests at a time and queues the rest: three times what
// it can do is offered.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { Connection } from '../support/raw-client.js'

const PLACES = 8
const SERVICE_MS = 50
const CAPACITY = (PLACES * 1000) / SERVICE_MS

/** So many at a time, in order of arrival. */
async function startLimited() {
  let free = PLACES
  const queue: (() => void)[] = []
  /** How many requests each one found there, itself included: that decides how long it takes. */
  const found: number[] = []
  const server = createServer((_, response) => {
    found.push(PLACES - free + queue.length + 1)
    const work = (): void => {
      setTimeout(() => {
        response.end('done')
        const next = queue.shift()
        if (next === undefined) free++
        else next()
      }, SERVICE_MS)
    }
    if (free === 0) return void queue.push(work)
    free--
    work()
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  return { url, found, close }
}

interface Run {
  readonly served: number
  readonly refused: number
}

/** So many clients, each with one request at a time, that come back a while after they were refused. */
async function run(port: number, clients: number, seconds: number, pauseMs: number): Promise<Run> {
  let served = 0
  let refused = 0
  const until = performance.now() + seconds * 1000
  const client = async (): Promise<void> => {
    const connection = await Connection.open(port)
    while (performance.now() < until) {
      const { status } = await connection.exchange({ target: '/' })
      if (status === 200) served++
      else {
        expect(status).toBe(503)
        refused++
        await pause(pauseMs * (0.5 + Math.random()))
      }
    }
    connection.destroy()
  }
  await Promise.all(Array.from({ length: clients }, client))
  return { served: served / seconds, refused: refused / seconds }
}

// Twice as many as it works on at a time: what is admitted takes twice as long as alone. The times themselves are the
// machine's as well, and no test's.
test('goodput stays near the peak, and 99 % of what is admitted find no more than twice as many as it has places', async () => {
  const origin = await startLimited()
  const gateway = await startGateway({
    workers: 2,
    config: {
      services: { limited: { endpoints: [origin.url], concurrency: 'adaptive' } },
      routes: [{ match: { path: '/' }, service: 'limited', auth: 'none', accessLog: false }],
    },
  })
  try {
    const normal = await run(gateway.port, PLACES / 2, 3, 0)
    expect(normal.refused).toBe(0)
    // Until the limit is found.
    await run(gateway.port, 60, 6, 100)
    origin.found.length = 0
    const loaded = await run(gateway.port, 60, 12, 100)
    expect(loaded.served + loaded.refused).toBeGreaterThan(2 * CAPACITY)
    expect(loaded.served).toBeGreaterThan(0.8 * CAPACITY)
    const found = origin.found.sort((a, b) => a - b)
    expect(found[Math.floor(found.length * 0.99)]).toBeLessThanOrEqual(2 * PLACES)
  } finally {
    await gateway.close()
    origin.close()
  }
}, 60_000)
