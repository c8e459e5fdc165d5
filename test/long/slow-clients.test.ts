// Clients that stop in the middle of a body: told so after a minute, whether it is gathered or passed on.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { type Caller, signedHeaders } from '../support/signing.js'

const TEST: Caller = { source: 'test', secret: 'the-secret-of-test' }

let origin: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startEcho()
  gateway = await startGateway({
    config: {
      consumers: { test: { secret: TEST.secret } },
      services: { origin: { endpoints: [origin.url] } },
      routes: [
        { match: { path: '/signed' }, service: 'origin', auth: 'x-m' },
        { match: { path: '/open' }, service: 'origin', auth: 'none' },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

test.concurrent.each(['/signed', '/open'])('%s: 408, logged once, and the connection ends', async (target) => {
  const connection = await Connection.open(gateway.port)
  connection.reader.silenceMs = 90_000
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
