// HTTP/1.0 over time: uWebSockets.js ends what is idle for 10 s, the relay's lines too, and a client that takes nothing
// is not waited for for ever.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireAcceptor } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'
import { ConnectionCut } from '../support/wire.js'

/** Above uWS's timeout, of 10 s in ticks of 4. */
const IDLE_MS = 13_000

let origin: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/large': (exchange) => exchange.answer(200, {}, 'x'.repeat(20_000_000)),
    '/late': async (exchange) => {
      await pause(IDLE_MS)
      await exchange.answer(200, {}, 'late')
    },
  })
  gateway = await startGateway({
    workers: 1,
    config: {
      services: { origin: { endpoints: [origin.url], timeouts: { firstByte: '30s' } } },
      routes: [{ match: { path: '/' }, service: 'origin', auth: 'none' }],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

beforeEach((context) => requireAcceptor(context))

test('a request after a long silence is served as the one before it', async () => {
  for (let i = 0; i < 3; i++) {
    const answers = await Promise.all(Array.from({ length: 8 }, () => call(gateway.port, { version: '1.0' })))
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    if (i < 2) await pause(IDLE_MS)
  }
})

test('an answer may take longer than anything that is idle', async () => {
  const connection = await Connection.open(gateway.port)
  connection.reader.silenceMs = 2 * IDLE_MS
  expect((await connection.exchange({ version: '1.0', target: '/late' })).text).toBe('late')
  await connection.closedByPeer()
})

test('a client that takes nothing is cut, and its connection is not counted any more', async () => {
  const connection = await Connection.open(gateway.port)
  connection.socket.pause()
  await connection.send({ version: '1.0', target: '/large' })
  await origin.requests.find((seen) => seen.url === '/large', 'the request')
  const open = async () => (await gateway.status()).workers[0]!.connections
  await eventually('the connection', open, 1)
  await eventually('the end of the connection', open, 0, 60_000)
  await expect(connection.answer()).rejects.toThrow(ConnectionCut)
})
