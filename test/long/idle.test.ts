// Connections between two requests: they stay as long as they are told to, which is longer than uWebSockets.js would
// keep them, and a head that begins late has its own time.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { forwardAll, type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'

/** uWebSockets.js' own 10 s, with its ticks of 4 s. */
const UWS_MOST_MS = 12_000

let origin: Origin
let gateway: Gateway
beforeAll(async () => {
  origin = await startEcho()
  gateway = await startGateway({
    workers: 1,
    env: { TIDEGATE_IDLE_TIMEOUT_MS: '20000', TIDEGATE_HEADER_TIMEOUT_MS: '2000' },
    config: forwardAll(origin),
  })
})
afterAll(async () => {
  await gateway.close()
  await origin.close()
})
beforeEach((context) => requireGate(context, gateway))

const expired = (reason: string) => gateway.metric(`tidegate_connections_expired_total{reason="${reason}"}`)

test.concurrent('silence ends after TIDEGATE_IDLE_TIMEOUT_MS, for any number at once, and is counted', async () => {
  const connections = await Promise.all(Array.from({ length: 200 }, () => Connection.open(gateway.port)))
  await Promise.all(connections.map((connection) => connection.exchange({})))
  const fromMs = performance.now()
  await Promise.all(
    connections.map(async (connection) => {
      connection.reader.silenceMs = 60_000
      await connection.closedByPeer()
      expect(performance.now() - fromMs).toBeGreaterThan(UWS_MOST_MS)
    }),
  )
  expect(await expired('idle')).toBeGreaterThanOrEqual(200)
})

test.concurrent('a request after a silence longer than uWebSockets.js allows is answered, and the time begins anew', async () => {
  const connection = await Connection.open(gateway.port)
  for (let i = 0; i < 3; i++) {
    expect((await connection.exchange({})).status).toBe(200)
    await pause(UWS_MOST_MS + 1000)
  }
  expect((await connection.exchange({})).status).toBe(200)
  connection.destroy()
})

test.concurrent('a later head that does not end is answered 408, whatever comes of it meanwhile, and is counted', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.exchange({})
  await connection.write('GET / HTTP/1.1\r\nX-Slow: ')
  const dripping = setInterval(() => connection.socket.write('x'), 200)
  const answer = await connection.answer()
  clearInterval(dripping)
  expect([answer.status, answer.one('connection')]).toEqual([408, 'close'])
  expect(await expired('slow_head')).toBe(1)
})

test.concurrent('empty lines are no sign of life', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.exchange({})
  const gone = new Promise((resolve) => connection.socket.on('error', () => {}).once('close', resolve))
  connection.socket.resume()
  const dripping = setInterval(() => connection.socket.write('\r\n'), 1000)
  await gone
  clearInterval(dripping)
})
