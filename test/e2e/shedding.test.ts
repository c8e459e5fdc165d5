// A worker that has more to do than time for it, and what becomes of requests then. The target is so short that a
// few hundred clients are too many; test/long/shedding.test.ts has a load as it may happen.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { GreedyClients } from '../support/greedy-clients.js'
import { httpSignatureKeys, signedMessage } from '../support/http-signing.js'
import { type Origin, startEcho } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { eventually } from '../support/waiting.js'

const KEY = 'test-key-ecc-p256'
const CLIENTS = 300
/** Less than a refusal is held back. */
const HELD_MS = 900

let origin: Origin
let gateway: Gateway
let clients: GreedyClients

interface Status {
  readonly workers: readonly { readonly overload: { readonly waitMs: number } | null }[]
}

const overload = async () => (await gateway.status<Status>()).workers[0]!.overload

beforeAll(async () => {
  origin = await startEcho()
  gateway = await startGateway({
    workers: 1,
    config: {
      consumers: { test: { httpSignatureKeys: httpSignatureKeys(KEY) } },
      services: { origin: { endpoints: [origin.url] } },
      shedding: { target: '20ms', interval: '50ms' },
      routes: [
        // A signature is what the worker has to do.
        { name: 'rest', match: { path: '/' }, service: 'origin', auth: 'http-signature', accessLog: false },
        // What comes first is the shedding, and not the credentials.
        { name: 'low', match: { path: '/low' }, service: 'origin', auth: 'http-signature', importance: 'low' },
        { name: 'high', match: { path: '/high' }, service: 'origin', auth: 'none', importance: 'high' },
      ],
    },
  })
  clients = new GreedyClients(gateway.port, CLIENTS, signedMessage({ target: '/' }, { keyid: KEY }))
  await gateway.log.find(({ msg }) => msg.startsWith('overloaded'), 'the begin of the overload')
})

afterAll(async () => {
  clients.stop()
  await gateway.close()
  await origin.close()
})

/** Asks until a request is refused: before that it gets 401. */
async function refused(parts: object): Promise<{ answer: Answer; tookMs: number }> {
  let sentMs = 0
  const ask = (): Promise<Answer> => {
    sentMs = performance.now()
    return call(gateway.port, { target: '/low', ...parts })
  }
  const answer = await eventually('a refusal', ask, ({ status }) => status === 503)
  return { answer, tookMs: performance.now() - sentMs }
}

describe('an overloaded worker', () => {
  test('refuses a request with 503 before its credentials are checked, and not at once', async () => {
    const { answer, tookMs } = await refused({})
    expect(answer.json()).toMatchObject({ code: 'overloaded' })
    expect(answer.one('retry-after')).toBe('1')
    expect(tookMs).toBeGreaterThan(HELD_MS)
    expect((await gateway.logged(answer)).reason).toBe('the worker is overloaded')
  })

  test.each([
    ['with a body', { method: 'POST', body: 'a body' }],
    ['with a deadline', { headers: { 'x-timeout-ms': '60000' } }],
  ])('refuses a request %s as well', async (_, parts) => {
    const { answer } = await refused(parts)
    expect(answer.json()).toMatchObject({ code: 'overloaded' })
  })

  test('lets a client leave that it has not told yet', async () => {
    const left = await eventually(
      'a client that left in time',
      async () => {
        const connection = await Connection.open(gateway.port)
        await connection.send({ target: '/low/left' })
        await new Promise((resolve) => setTimeout(resolve, 100))
        connection.destroy()
        return gateway.access.all.find(({ path, status }) => path === '/low/left' && status === 499)
      },
      (line) => line !== undefined,
    )
    expect(left).toMatchObject({ code: 'client_closed', attempts: 0 })
  })

  test('serves requests of high importance', async () => {
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) statuses.push((await call(gateway.port, { target: '/high' })).status)
    // All of them, unless the machine has so little time that refusing all others is not enough.
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(5)
  })

  test('shows that it is', async () => {
    expect(await overload()).toMatchObject({ waitMs: expect.any(Number) })
    const count = (labels: string) => gateway.metric(`tidegate_shed_requests_total{${labels}}`)
    expect(await count('route="low",importance="low"')).toBeGreaterThan(0)
    expect(await count('route="high",importance="high"')).toBeLessThan(5)
  })

  test('says so when it is no longer, and refuses nothing then', async () => {
    clients.stop()
    await gateway.log.find(({ msg }) => msg === 'no longer overloaded', 'the end of the overload')
    expect(await eventually('the end of the overload', overload, null)).toBeNull()
    expect((await call(gateway.port, { target: '/low' })).status).toBe(401)
  })
})
