// Heads that are refused before they are requests: nobody logs those, but they are counted, by what was wrong with
// them, and the gate answers them all by itself: uWebSockets.js would in HTML, without a length and a Date.
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

const CODES: Readonly<Record<number, string>> = {
  400: 'bad_request',
  414: 'uri_too_long',
  431: 'headers_too_large',
  501: 'not_implemented',
  505: 'version_not_supported',
}

test.each([
  ['request_line', 400, 'G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['request_line', 400, 'GET * HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['request_line', 400, 'GET /\r\nHost: a\r\n\r\n'],
  ['line_end', 400, 'GET / HTTP/1.1\rHost: a\r\n\r\n'],
  ['field_name', 400, 'GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n'],
  ['field_value', 400, 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\xa0\r\n\r\n'],
  ['field_value', 400, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: \xa3close\r\n\r\n'],
  ['request_line', 505, 'GET / HTTP/1.7\r\nHost: a\r\n\r\n'],
  ['request_line', 505, 'HEAD / HTTP/2.0\r\nHost: a\r\n\r\n'],
  ['field_name', 400, 'GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n'],
  ['field_name', 400, 'GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n'],
  ['field_name', 400, 'GET / HTTP/1.1\r\nHost: a\r\n folded: y\r\n\r\n'],
  ['field_value', 400, 'GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n'],
  ['line_end', 400, 'GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n'],
  ['host', 400, 'GET / HTTP/1.1\r\n\r\n'],
  ['host', 400, 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n'],
  ['body_length', 400, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ['size', 431, `GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(98)}\r\n`],
  ['size', 431, `GET / HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(40_000)}`],
  ['size', 431, `GET /${'y'.repeat(16_360)} HTTP/1.1\r\nHost: a\r\n\r\n`],
  ['size', 414, `GET /${'y'.repeat(16_384)} HTTP/1.1\r\nHost: a\r\n\r\n`],
  ['size', 414, `GET /${'y'.repeat(40_000)}`],
  ['size', 501, 'y'.repeat(40_000)],
  ['size', 414, `HEAD http://a/${'y'.repeat(40_000)} HTTP/1.1\r\nHost: a\r\n\r\n`],
])('%s: %i is counted once', async (reason, status, head) => {
  const before = await counted(reason)
  const connection = await Connection.open(gateway.port)
  await connection.write(Buffer.from(head, 'latin1'))
  const answer = await connection.answer(head.startsWith('HEAD') ? 'HEAD' : 'GET')
  expect(answer.status).toBe(status)
  expect(Math.abs(Date.parse(answer.one('date')!) - Date.now())).toBeLessThan(60_000)
  expect(answer.one('connection')).toBe('close')
  expect(answer.one('content-type')).toBe('application/problem+json')
  if (head.startsWith('HEAD')) expect(answer.text).toBe('')
  else {
    expect(Number(answer.one('content-length'))).toBe(answer.text.length)
    expect(answer.json()).toMatchObject({ type: 'about:blank', status, code: CODES[status] })
  }
  await connection.closedByPeer()
  expect(await counted(reason)).toBe(before + 1)
})

test('heads that do not come to their end take 64 MiB of a worker in all; one that would take more gets 503', async () => {
  const other = await startGateway({
    workers: 1,
    config: {
      services: { nobody: { endpoints: ['http://127.0.0.1:1'] } },
      routes: [{ match: { path: '/x' }, service: 'nobody', auth: 'none' }],
    },
    env: { TIDEGATE_MAX_HEADER_BYTES: '1MiB', TIDEGATE_HEADER_TIMEOUT_MS: '60000' },
  })
  const begun = `GET / HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(1_000_000)}`
  const open = async () => {
    const connection = await Connection.open(other.port)
    // What is not read when the connection ends resets it, and may take the answer with it.
    const answer = connection.answer().catch(() => null)
    await connection.write(begun).catch(() => {})
    return { connection, answer }
  }
  // As many as have room, and one.
  const all = await Promise.all(Array.from({ length: Math.floor((64 << 20) / begun.length) + 1 }, open))
  const [refused, answer] = await Promise.race(all.map(async (one) => [one, await one.answer] as const))
  if (answer !== null) expect([answer.status, answer.json<{ code: string }>().code]).toEqual([503, 'overloaded'])
  expect(await other.metric('tidegate_heads_refused_total{reason="size"}')).toBe(1)
  // There is room again once one of the others is whole.
  for (const next of [async () => all.find((one) => one !== refused)!, open]) {
    const one = await next()
    await one.connection.write('\r\n\r\n')
    expect((await one.answer)?.status).toBe(404)
    all.push(one)
  }
  for (const { connection } of all) connection.destroy()
  await other.close()
})

test('HEAD is told nothing behind the head, also where its name comes in two pieces', async () => {
  const connection = await Connection.open(gateway.port)
  // What comes first on a connection is gathered elsewhere (native/src/arrivals.cc).
  await connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\nHE')
  expect((await connection.answer()).status).toBe(502)
  await connection.write('AD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n')
  expect((await connection.answer('HEAD')).status).toBe(400)
  await connection.closedByPeer()
})

test('a head of exactly the limit is served, however it comes', async () => {
  const rest = ' HTTP/1.1\r\nHost: a\r\n\r\n'
  const head = `GET /${'y'.repeat(16_384 - 5 - rest.length)}${rest}`
  for (const parts of [[head], [head.slice(0, 9000), head.slice(9000)]]) {
    const connection = await Connection.open(gateway.port)
    for (const part of parts) await connection.write(part)
    // The service is not there; the request has passed.
    expect((await connection.answer()).status).toBe(502)
    connection.destroy()
  }
})

test('what is refused as a request, or closed behind one, is not among them', async () => {
  const reasons = ['request_line', 'line_end', 'field_name', 'field_value', 'host', 'body_length', 'size', 'parser']
  const all = async () => Promise.all(reasons.map(counted))
  const before = await all()
  for (const fields of ['Host: a\r\nContent-Length: 1, 1', 'Host: a/b', 'Host: a\r\nConnection: close']) {
    const connection = await Connection.open(gateway.port)
    await connection.write(`GET / HTTP/1.1\r\n${fields}\r\n\r\n`)
    await connection.answer()
    await connection.closedByPeer()
  }
  expect(await all()).toEqual(before)
})
