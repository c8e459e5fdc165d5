// Values of fields in bytes beyond ASCII, wherever the gateway looks at them: they are compared as bytes, and what the
// configuration says in UTF-8 is its bytes (RFC 9110, 5.5). That they reach the service is in headers.test.ts, and what
// is signed in http-signature.test.ts.
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { requireAcceptor, requireGate } from '../support/requirements.js'

const KEY = 'clé-de-la-boutique-grüße'
const bytes = (text: string): string => Buffer.from(text).toString('latin1')

let echo: Origin
let gateway: Gateway
beforeAll(async () => {
  echo = await startEcho()
  const route = (path: string, rest: object = {}) => ({ match: { path }, service: 'echo', auth: 'none', ...rest })
  gateway = await startGateway({
    workers: 1,
    secrets: [KEY],
    config: {
      services: { echo: { endpoints: [echo.url] } },
      consumers: { shop: { apiKeys: [`sha256:${createHash('sha256').update(KEY).digest('hex')}`] } },
      apiKeys: { header: 'x-api-key', query: 'key' },
      routes: [
        route('/'),
        route('/', { name: 'chosen', match: { path: '/', headers: { 'x-colour': 'grün' } } }),
        route('/limited', { limits: [{ by: 'header:x-tenant', rate: '1/h', burst: 1 }] }),
        route('/key', { auth: 'api-key' }),
      ],
    },
  })
})
afterAll(async () => {
  await gateway.close()
  await echo.close()
})

test('a limit by header has a bucket for each, however like they would be when decoded', async (context) => {
  requireGate(context, gateway)
  for (const tenant of ['\xe9', '\xc3\xa9', '\xff', '\xfe', '\xef\xbf\xbd', '?']) {
    const statuses: number[] = []
    for (let i = 0; i < 2; i++)
      statuses.push((await call(gateway.port, { target: '/limited', headers: { 'X-Tenant': tenant } })).status)
    expect(statuses).toEqual([200, 429])
  }
})

test('a route is chosen by the UTF-8 of its value, and by nothing like it', async (context) => {
  requireGate(context, gateway)
  const routeFor = async (colour: string): Promise<string | undefined> =>
    (await gateway.logged(await call(gateway.port, { headers: { 'X-Colour': colour } }))).route
  expect(await routeFor(bytes('grün'))).toBe('chosen')
  expect(await routeFor('gr\xfcn')).toBe('/')
})

test('an API key may have them, in the header and in the query', async (context) => {
  requireGate(context, gateway)
  const status = async (target: string, headers: Record<string, string> = {}): Promise<number> =>
    (await call(gateway.port, { target, headers })).status
  expect(await status('/key', { 'X-Api-Key': bytes(KEY) })).toBe(200)
  expect(await status(`/key?key=${encodeURIComponent(KEY)}`)).toBe(200)
  expect(await status('/key', { 'X-Api-Key': Buffer.from(KEY, 'latin1').toString('latin1') })).toBe(401)
})

test('HTTP/1.0 brings them as well', async (context) => {
  requireAcceptor(context)
  const answer = await call(gateway.port, { version: '1.0', headers: { 'X-Name': '\xff\xa0\xe9' } })
  expect(answer.status).toBe(200)
  expect(headerOf(answer.json<Seen>(), 'x-name')).toEqual(['\xff\xa0\xe9'])
})
