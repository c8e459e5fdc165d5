// A gateway that gets three times the load that it can serve: it serves as many requests as without that, and loses
// next to none of high importance. Each request has a signature, so that one that is served costs the gateway far more
// than its client, and than one that is refused.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { GreedyClients } from '../support/greedy-clients.js'
import { httpSignatureKeys, signedMessage } from '../support/http-signing.js'
import { eventually } from '../support/waiting.js'

const KEY = 'test-key-ecc-p256'
/** Enough to keep the worker busy, and too few to make it late. */
const BUSY = 40
const CLIENTS = 600
const HIGH = CLIENTS / 10
const MEASURED_MS = 5000
/** In a process of its own: it must not be what is slow. */
const SERVICE = `const server = require('node:http').createServer((_, response) => response.end('ok'))
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))`

interface Overloaded {
  readonly workers: readonly { readonly overload: { readonly refusedShare: number } | null }[]
}

test('an overloaded gateway serves as much as it can, and requests of high importance first', async () => {
  const service = spawn(process.execPath, ['-e', SERVICE], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [port] = (await once(service.stdout, 'data')) as [Buffer]
  const gateway = await startGateway({
    workers: 1,
    env: { TIDEGATE_ACCESS_LOG: 'off' },
    config: {
      consumers: { test: { httpSignatureKeys: httpSignatureKeys(KEY) } },
      services: { service: { endpoints: [`http://127.0.0.1:${Number(port)}`] } },
      shedding: { target: '40ms', interval: '250ms' },
      routes: [
        { name: 'rest', match: { path: '/' }, service: 'service', auth: 'http-signature' },
        { name: 'high', match: { path: '/high' }, service: 'service', auth: 'http-signature', importance: 'high' },
      ],
    },
  })
  const clients = (count: number, target: string) =>
    new GreedyClients(gateway.port, count, signedMessage({ target }, { keyid: KEY }))
  const running: GreedyClients[] = []
  try {
    const busy = clients(BUSY, '/')
    running.push(busy)
    await pause(2000)
    busy.take()
    await pause(MEASURED_MS)
    const peak = busy.take()
    busy.stop()
    expect(peak.refused).toBe(0)

    const many = clients(CLIENTS - HIGH, '/')
    const high = clients(HIGH, '/high')
    running.push(many, high)
    await gateway.log.find(({ msg }) => msg.startsWith('overloaded'), 'the begin of the overload')
    const overload = async () => (await gateway.status<Overloaded>()).workers[0]!.overload
    await eventually('the worker to be overloaded', overload, (seen) => seen !== null)
    // Until the share that is refused is found.
    await pause(MEASURED_MS)
    many.take()
    high.take()
    await pause(MEASURED_MS)
    const rest = many.take()
    const important = high.take()
    console.log({ peak, rest, important, overload: await overload() })

    expect(rest.refused).toBeGreaterThan(0)
    // Within a tenth on a quiet machine; on a busy one both are what the moment allows.
    expect(rest.ok + important.ok).toBeGreaterThan(0.5 * peak.ok)
    expect(important.refused).toBeLessThan(Math.max(1, important.ok / 100))
    const series = (route: string, importance: string) =>
      `tidegate_shed_requests_total{route="${route}",importance="${importance}"}`
    expect(await gateway.metric(series('rest', 'normal'))).toBeGreaterThan(0)

    for (const one of running) one.stop()
    const over = await gateway.log.find(({ msg }) => msg === 'no longer overloaded', 'the end of the overload')
    expect(over).toMatchObject({ refused: { low: 0 } })
    await eventually('the worker to be well', overload, null)
  } finally {
    for (const one of running) one.stop()
    await gateway.close()
    service.kill()
  }
})
