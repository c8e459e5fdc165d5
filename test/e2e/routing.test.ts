// Which route a request takes, seen from outside: the service that answers. The order of precedence in full is
// test/unit/config/match.test.ts.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { call, type RequestParts } from '../support/raw-client.js'

const SERVICES = [
  'any',
  'exact-host',
  'suffix',
  'deep-suffix',
  'api',
  'exact-path',
  'parameter',
  'literal',
  'writes',
  'beta',
  'high',
]

let origins: Origin[]
let gateway: Gateway

beforeAll(async () => {
  origins = await Promise.all(SERVICES.map((name) => startEcho({ headers: { 'x-service': name } })))
  const route = (service: string, match: object, rest: object = {}) => ({ match, service, auth: 'none', ...rest })
  gateway = await startGateway({
    config: {
      services: Object.fromEntries(SERVICES.map((name, i) => [name, { endpoints: [origins[i]!.url] }])),
      routes: [
        route('any', { path: '/' }),
        route('exact-host', { host: 'one.example', path: '/' }),
        route('suffix', { host: '*.example', path: '/' }),
        route('deep-suffix', { host: '*.deep.example', path: '/' }),
        route('api', { path: '/api' }),
        route('exact-path', { exactPath: '/api/version' }),
        route('parameter', { path: '/api/users/:id/orders' }),
        route('literal', { path: '/api/users/me/orders' }),
        route('writes', { path: '/api', methods: ['POST', 'PUT'] }),
        route('beta', { path: '/api', headers: { 'X-Channel': 'beta' } }),
        route('high', { path: '/contested', headers: { 'x-a': '1' } }, { priority: 5 }),
        route('api', { path: '/contested', headers: { 'x-a': '1', 'x-b': '2' } }),
        route('suffix', { host: 'only.test', path: '/inside' }),
        route('api', { path: '/Admin/:user', caseInsensitive: true }),
        route('writes', { exactPath: '/exact/', caseInsensitive: true, trailingSlash: 'ignore' }),
        route('beta', { exactPath: '/old', trailingSlash: 'ignore' }, { rewrite: '/new/' }),
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await Promise.all(origins.map((origin) => origin.close()))
})

test.each([
  ['a host nobody names', 'any', { host: 'nobody.test' }],
  ['an exact host', 'exact-host', { host: 'one.example' }],
  ['an exact host in another case, with a port', 'exact-host', { host: 'ONE.Example:8080' }],
  ['an exact host as a fully qualified name', 'exact-host', { host: 'one.example.' }],
  ['a name below a suffix', 'suffix', { host: 'two.example' }],
  ['a name two labels below a suffix', 'suffix', { host: 'three.two.example' }],
  ['the longest suffix', 'deep-suffix', { host: 'x.deep.example' }],
  ['the suffix itself, which is not below it', 'any', { host: 'example' }],
  ['a name that only ends like a suffix', 'any', { host: 'notexample' }],
  ['a prefix as a whole', 'api', { target: '/api' }],
  ['a path below a prefix', 'api', { target: '/api/x?y=/api/version' }],
  ['a path that only begins like a prefix', 'any', { target: '/apix' }],
  ['an escaped spelling of a prefix', 'api', { target: '/%61pi/x' }],
  ['an exact path', 'exact-path', { target: '/api/version' }],
  ['a path below an exact path', 'api', { target: '/api/version/2' }],
  ['a parameter', 'parameter', { target: '/api/users/17/orders/4' }],
  ['a literal before a parameter', 'literal', { target: '/api/users/me/orders' }],
  ['a parameter without a value', 'api', { target: '/api/users//orders' }],
  ['a method', 'writes', { target: '/api/x', method: 'POST', body: 'x' }],
  ['a method that the route does not list', 'api', { target: '/api/x', method: 'DELETE' }],
  ['a header', 'beta', { target: '/api/x', headers: { 'x-channel': 'beta' } }],
  ['another value of the header', 'api', { target: '/api/x', headers: { 'x-channel': 'Beta' } }],
  ['priority before the number of headers', 'high', { target: '/contested', headers: { 'x-a': '1', 'x-b': '2' } }],
  ['a host whose routes do not fit, and so the next', 'any', { host: 'only.test', target: '/outside' }],
] as [string, string, RequestParts][])('%s', async (_name, service, parts) => {
  const answer = await call(gateway.port, parts)
  expect(answer.status).toBe(200)
  expect(answer.one('x-service')).toBe(service)
})

test.each([
  ['/admin/x', 'api'],
  ['/ADMIN/x/y', 'api'],
  ['/aDm%49n/X', 'api'],
  ['/admin', 'any'],
  ['/exact', 'writes'],
  ['/EXACT/', 'writes'],
  ['/exact//', 'writes'],
  ['/exact/x', 'any'],
  ['/API', 'any'],
  ['/api/version/', 'api'],
])('case and a slash at the end say nothing where the route says so: %s', async (target, service) => {
  const answer = await call(gateway.port, { target })
  expect(answer.one('x-service')).toBe(service)
  // It reaches the service as it was sent, but for what is normalised on every route.
  expect(answer.json<{ url: string }>().url).toBe(target.replace('%49', 'I').replace('//', '/'))
})

test('what stands in place of a path whose slash is ignored has one where the path had', async () => {
  for (const [target, url] of [
    ['/old', '/new'],
    ['/old/', '/new/'],
  ] as const)
    expect((await call(gateway.port, { target })).json()).toMatchObject({ url })
})

test.each([
  ['/public/../api', 'api'],
  ['/api/..', 'any'],
  ['/./api', 'api'],
  ['//api', 'api'],
  ['/x/%2e%2e/api', 'api'],
  ['/public/.%2E/%61pi/', 'api'],
])('%s is read as its service would', async (target, service) => {
  expect((await call(gateway.port, { target })).one('x-service')).toBe(service)
})

test.each([
  '/..',
  '/api/../../x',
  '/api%2Fx',
  '/api%5cx',
  '/api\\x',
  '/..;/api',
  '/public/..;x=1/api',
  '/%',
  '/%zz',
  '/a%00',
])('what services read in different ways is refused: %s', async (target) => {
  const answer = await call(gateway.port, { target })
  expect(answer.status).toBe(400)
  expect(await gateway.logged(answer)).toMatchObject({ code: 'bad_request', reason: 'ambiguous path', path: target })
})
