// Heads that are refused before they are requests: nobody logs those, but they are counted, by what was wrong with them.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { Connection } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'

let gateway: Gateway
beforeAll(async () => {
  gateway = await startGateway({
    workers: 1,
    config: {
      services: { nobody: { endpoints: ['http://127.0.0.1:1'] } },
      routes: [{ match: { path: '/' }, service: 'nobody', auth: 'none' }],
    },
  })
})
afterAll(() => gateway.close())
beforeEach((context) => requireGate(context, gateway))

const counted = async (reason: string): Promise<number> =>
  (await gateway.metric(`tidegate_heads_refused_total{reason="${reason}"}`)) ?? Number.NaN

test.each([
  ['request_line', 400, 'G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['request_line', 400, 'GET * HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['request_line', 400, 'GET /\r\nHost: a\r\n\r\n'],
  ['line_end', 400, 'GET / HTTP/1.1\rHost: a\r\n\r\n'],
  ['field_name', 400, 'GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n'],
  ['field_value', 400, 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\xa0\r\n\r\n'],
  ['field_value', 400, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: \xa3close\r\n\r\n'],
  ['parser', 505, 'GET / HTTP/1.7\r\nHost: a\r\n\r\n'],
  ['parser', 400, 'GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n'],
  ['parser', 431, `GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(120)}\r\n`],
  ['parser', 431, `GET / HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(40_000)}`],
])('%s: %i is counted once', async (reason, status, head) => {
  const before = await counted(reason)
  const connection = await Connection.open(gateway.port)
  await connection.write(Buffer.from(head, 'latin1'))
  expect((await connection.answer()).status).toBe(status)
  await connection.closedByPeer()
  expect(await counted(reason)).toBe(before + 1)
})

test('what is refused as a request, or closed behind one, is not among them', async () => {
  const all = async () => Promise.all(['request_line', 'line_end', 'field_name', 'field_value', 'parser'].map(counted))
  const before = await all()
  for (const fields of ['Host: a\r\nContent-Length: 1, 1', 'Host: a/b', 'Host: a\r\nConnection: close']) {
    const connection = await Connection.open(gateway.port)
    await connection.write(`GET / HTTP/1.1\r\n${fields}\r\n\r\n`)
    await connection.answer()
    await connection.closedByPeer()
  }
  expect(await all()).toEqual(before)
})
