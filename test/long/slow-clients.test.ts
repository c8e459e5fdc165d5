// Clients that stop in the middle of a body: told so, whether it is gathered or passed on. Those that are held back are
// not to blame.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startEcho, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'
import { signedHeaders, TEST } from '../support/signing.js'

const LARGE_BYTES = 64 << 20

let origin: Origin
let late: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startEcho()
  const large = async (exchange: RawExchange) => {
    await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE_BYTES}\r\n\r\n`)
    await exchange.send(Buffer.alloc(LARGE_BYTES))
  }
  late = await startScripted({
    // Longer than uWS's own timeout of a connection.
    '/late': async (exchange) => {
      await pause(15_000)
      await exchange.answer(200, {}, String((await exchange.body()).bytes.length))
    },
    // More than the kernel and uWebSockets.js hold of it.
    '/large': large,
    '/unread': large,
  })
  gateway = await startGateway({
    config: {
      consumers: { test: { secret: TEST.secret } },
      services: {
        origin: { endpoints: [origin.url] },
        late: { endpoints: [late.url], timeouts: { firstByte: '30s' } },
      },
      routes: [
        { match: { path: '/signed' }, service: 'origin', auth: 'x-m' },
        { match: { path: '/open' }, service: 'origin', auth: 'none' },
        { match: { path: '/large' }, service: 'late', auth: 'none' },
        { match: { path: '/unread' }, service: 'late', auth: 'none' },
        { match: { path: '/late' }, service: 'late', auth: 'none', maxBody: 'unlimited' },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
  await late.close()
})

test.concurrent.each(['/signed', '/open'])('%s: 408, logged once, and the connection ends', async (target) => {
  const connection = await Connection.open(gateway.port)
  const headers = target === '/signed' ? signedHeaders(TEST, { method: 'POST', target, body: 'x'.repeat(1000) }) : {}
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  await connection.write(
    `POST ${target} HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1000\r\n${lines.join('')}\r\nxxx`,
  )
  const answer = await connection.answer()
  expect(answer.status).toBe(408)
  expect(answer.json()).toMatchObject({ code: 'request_timeout' })
  await connection.closedByPeer()
  expect(await gateway.logged(answer)).toMatchObject({ status: 408, code: 'request_timeout', bytesIn: 3 })
})

/** A body, so many bytes at a time. */
async function trickle(connection: Connection, target: string, bytesPerSecond: number, seconds: number): Promise<void> {
  const body = 'x'.repeat(bytesPerSecond * seconds)
  const headers = target === '/signed' ? signedHeaders(TEST, { method: 'POST', target, body }) : {}
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  await connection.write(
    `POST ${target} HTTP/1.1\r\nHost: demo.test\r\nContent-Length: ${body.length}\r\n${lines.join('')}\r\n`,
  )
  for (let sent = 0; sent < body.length && !connection.socket.readableEnded; sent += bytesPerSecond) {
    await connection.write(body.slice(sent, sent + bytesPerSecond)).catch(() => {})
    await pause(1000)
  }
}

test.concurrent.each(['/signed', '/open'])('%s: a body that is slow but steady is waited for', async (target) => {
  const connection = await Connection.open(gateway.port)
  await trickle(connection, target, 500, 25)
  const answer = await connection.answer()
  expect(answer.status).toBe(200)
  expect(answer.json<{ bodyBytes: number }>().bodyBytes).toBe(12_500)
  connection.destroy()
})

test.concurrent.each(['/signed', '/open'])('%s: 408 for one slower than TIDEGATE_MIN_BODY_RATE', async (target) => {
  const connection = await Connection.open(gateway.port)
  connection.reader.silenceMs = 60_000
  const sending = trickle(connection, target, 100, 25)
  const answer = await connection.answer()
  expect(answer.status).toBe(408)
  expect(answer.json()).toMatchObject({ code: 'request_timeout' })
  await connection.closedByPeer()
  await sending
})

test.concurrent('a service that reads nothing for a quarter of a minute gets the whole body in the end', async () => {
  const connection = await Connection.open(gateway.port)
  connection.reader.silenceMs = 60_000
  const body = Buffer.alloc(32 << 20, 'x')
  const answer = await connection.exchange({ method: 'POST', target: '/late', body })
  connection.destroy()
  expect([answer.status, answer.text]).toEqual([200, String(body.length)])
})

test.concurrent('a response that is read slowly but steadily is not cut', async (context) => {
  requireGate(context, gateway)
  const connection = await Connection.open(gateway.port)
  await connection.send({ target: '/large' })
  expect((await connection.head()).status).toBe(200)
  // Far too little for the kernel to make room for more of it, for three times as long as uWebSockets.js has patience.
  for (let second = 0; second < 35; second++) {
    await connection.reader.exactly(20_000)
    await pause(1000)
  }
  await connection.reader.exactly(LARGE_BYTES - 35 * 20_000)
  connection.destroy()
})

test.concurrent('a response that is not read at all is cut, and its client is to blame', async () => {
  const connection = await Connection.open(gateway.port)
  connection.socket.pause()
  await connection.send({ target: '/unread' })
  const line = await gateway.access.find(({ path }) => path === '/unread', 'the response', 120_000)
  connection.destroy()
  expect(line).toMatchObject({ status: 200, code: 'client_closed' })
  expect(line.totalMs).toBeLessThan(100_000)
})
