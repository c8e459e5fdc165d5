// What a caller gets in place of a service that fails, and an operator's hand on a breaker.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, refusingPort, sha256, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'

/** More than a socket takes at once. */
const LARGE = 'large '.repeat(500_000)

let origin: Origin
let gateway: Gateway
let alsoGone: string

beforeAll(async () => {
  origin = await startScripted({
    '/other': (exchange) => exchange.answer(200, {}, 'from the stand-in'),
    '/held': (exchange) => exchange.answer(200, {}, 'from the stand-in'),
    '/upload': async (exchange) => exchange.answer(200, {}, sha256((await exchange.body()).bytes)),
    '/own': (exchange) => exchange.answer(503, {}, 'its own words'),
  })
  alsoGone = `http://127.0.0.1:${await refusingPort()}`
  const page = join(temporaryFolder(), 'sorry.html')
  writeFileSync(page, Buffer.from('<p>sorry \u00e4</p>', 'utf8'))
  const route = (path: string, fallback: object, service = 'gone') => ({
    match: { path },
    service,
    auth: 'none',
    fallback,
  })
  gateway = await startGateway({
    config: {
      services: {
        gone: { endpoints: [`http://127.0.0.1:${await refusingPort()}`] },
        alsoGone: { endpoints: [alsoGone] },
        well: { endpoints: [origin.url], breaker: {} },
      },
      routes: [
        route('/body', {
          status: 203,
          headers: { 'content-type': 'text/plain', 'cache-control': 'no-store' },
          body: 'so\u00e9so',
        }),
        route('/file', { headers: { 'content-type': 'text/html' }, file: page }),
        route('/other', { service: 'well' }),
        route('/upload', { service: 'well' }),
        route('/twice', { service: 'alsoGone' }),
        route('/own', { body: 'not this' }, 'well'),
        route('/held', { body: 'held' }, 'well'),
        route('/held-large', { body: LARGE }, 'well'),
        { match: { path: '/bare' }, service: 'well', auth: 'none' },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

test('a static answer: status, headers and body of the route, marked with why, and logged as what it is', async () => {
  const answer = await call(gateway.port, { target: '/body' })
  expect(answer.status).toBe(203)
  expect(answer.text).toBe('so\u00e9so')
  expect(answer.one('content-type')).toBe('text/plain')
  expect(answer.one('cache-control')).toBe('no-store')
  expect(answer.one('x-tidegate-fallback')).toBe('upstream_error')
  expect(answer.one('x-rid')).toMatch(/^[0-9a-f]{32}$/)
  const line = await gateway.logged(answer)
  expect(line).toMatchObject({ status: 203, service: 'gone', fallback: 'upstream_error', reason: 'ECONNREFUSED' })
  // Asked, and not who has answered.
  expect(line.handler).toBe('static')
  expect(line.code).toBeUndefined()
  expect(await gateway.metric('tidegate_fallbacks_total{route="/body"}')).toBe(1)
})

test('HEAD gets the head of it alone', async () => {
  const answer = await call(gateway.port, { method: 'HEAD', target: '/body' })
  expect(answer.status).toBe(203)
  expect(answer.text).toBe('')
  expect(answer.one('content-length')).toBe('6')
})

test.each([
  ['of a length', { body: 'x'.repeat(100) }],
  ['of a length that is held back', { body: 'x'.repeat(1_000_000) }],
  ['in chunks', { chunks: ['x'.repeat(70_000), 'y'.repeat(70_000)] }],
] as const)('an upload %s reaches the stand-in whole where nobody has taken any of it', async (_, parts) => {
  const answer = await call(gateway.port, { method: 'POST', target: '/upload', ...parts })
  const body = 'body' in parts ? parts.body : parts.chunks.join('')
  expect([answer.status, answer.text]).toEqual([200, sha256(body)])
})

test('a body from a file, byte for byte', async () => {
  const answer = await call(gateway.port, { target: '/file' })
  expect(answer.status).toBe(200)
  expect(answer.text).toBe('<p>sorry \u00e4</p>')
})

test('another service: its answer, marked with why', async () => {
  const answer = await call(gateway.port, { target: '/other' })
  expect(answer.status).toBe(200)
  expect(answer.text).toBe('from the stand-in')
  expect(answer.one('x-tidegate-fallback')).toBe('upstream_error')
  // The line pairs that service with its endpoint; the route tells whose place it took.
  const line = await gateway.logged(answer)
  expect(line).toMatchObject({ route: '/other', service: 'well', endpoint: origin.url, fallback: 'upstream_error' })
  expect(line.handler).toBeUndefined()
  expect(line.reason).toBeUndefined()
})

test('another service that fails as well: a problem, and no third attempt', async () => {
  const answer = await call(gateway.port, { target: '/twice' })
  expect(answer.status).toBe(502)
  expect(answer.json()).toMatchObject({ code: 'upstream_error' })
  expect(await gateway.logged(answer)).toMatchObject({ service: 'alsoGone', endpoint: alsoGone, attempts: 2 })
})

test('what a service answers by itself is its own affair', async () => {
  const answer = await call(gateway.port, { target: '/own' })
  expect(answer.status).toBe(503)
  expect(answer.text).toBe('its own words')
  expect(answer.one('x-tidegate-fallback')).toBeNull()
})

test('a breaker held open refuses until it is released; only who is no browser may hold it', async () => {
  const hold = (query: string, headers: Record<string, string> = {}) =>
    call(gateway.adminPort, { method: 'POST', target: `/breakers?${query}`, host: 'localhost', headers })
  expect((await hold('service=well&hold=open')).status).toBe(200)
  const refused = await call(gateway.port, { target: '/held' })
  expect(refused.text).toBe('held')
  expect(refused.one('x-tidegate-fallback')).toBe('breaker_open')
  expect(await gateway.logged(refused)).toMatchObject({ fallback: 'breaker_open', status: 200 })
  expect((await call(gateway.port, { target: '/held-large' })).text).toBe(LARGE)
  const bare = await call(gateway.port, { target: '/bare' })
  expect([bare.status, bare.json<{ code: string }>().code]).toEqual([503, 'breaker_open'])
  const line = await gateway.logged(bare)
  expect(line).toMatchObject({ reason: 'breaker held open', attempts: 0 })
  expect(line, 'no endpoint was asked').not.toHaveProperty('endpoint')
  // Held, refused, and answered in its place: what alerts need.
  const metrics = (await gateway.admin('/metrics')).text.split('\n')
  expect(metrics).toContain('tidegate_breaker_held{service="well",state="open"} 1')
  expect(metrics).toContain('tidegate_breaker_refusals_total{service="well"} 3')
  expect(metrics).toContain('tidegate_fallback_causes_total{route="/held",service="well",code="breaker_open"} 1')
  expect(metrics).toContain('tidegate_fallback_causes_total{route="/file",service="gone",code="upstream_error"} 1')
  expect(metrics).toContain('tidegate_fallbacks_total{route="/held"} 1')
  expect((await hold('service=well&hold=none', { origin: 'http://evil.example' })).status).toBe(403)
  const { breakers } = await gateway.status<{ breakers: { service: string; held: string | null }[] }>()
  expect(breakers.find(({ service }) => service === 'well')?.held).toBe('open')
  expect((await hold('service=well&hold=none')).status).toBe(200)
  const said = (msg: string) => gateway.log.find((line) => line.msg === msg && line.service === 'well', msg)
  expect(await said('breaker held by an operator')).toMatchObject({ held: 'open' })
  expect(await said('breaker released by an operator')).toMatchObject({ state: 'closed' })
  expect((await call(gateway.port, { target: '/held' })).text).toBe('from the stand-in')
  expect((await hold('service=well&hold=ajar')).status).toBe(400)
  expect((await hold('service=gone&hold=open')).status).toBe(404)
})

test('a client that leaves while its body is waited for once more is logged with all of its time', async () => {
  const busy = await startGateway({
    workers: 1,
    // One upload that is not complete may hold a connection.
    env: { TIDEGATE_UPSTREAM_CONNECTIONS: '2' },
    config: {
      services: { gone: { endpoints: [alsoGone] }, well: { endpoints: [origin.url] } },
      routes: [
        { match: { path: '/upload' }, service: 'well', auth: 'none' },
        { match: { path: '/waits' }, service: 'gone', auth: 'none', fallback: { service: 'well' } },
      ],
    },
  })
  const half = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 8\r\n\r\nhalf`
  const holder = await Connection.open(busy.port)
  await holder.write(half('/upload?busy'))
  await origin.requests.find(({ url }) => url === '/upload?busy', 'the upload that holds it')
  const client = await Connection.open(busy.port)
  await client.write(half('/waits'))
  await pause(700)
  client.destroy()
  const line = await busy.access.find(({ path }) => path === '/waits', 'its line')
  expect(line).toMatchObject({ status: 499, fallback: 'upstream_error', attempts: 1 })
  expect(line.totalMs).toBeGreaterThan(650)
  holder.destroy()
  await busy.close()
})
