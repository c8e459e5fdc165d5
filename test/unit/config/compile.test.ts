import { expect, test } from 'vitest'
import { compile } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'

function tableOf(yaml: string, env = {}) {
  const { config, settings } = loadConfig({ text: { origin: 'gw.yaml', yaml }, env })
  return compile(config, settings)
}

const services = 'services: { s: { endpoints: [http://h:1] } }\n'
const routesOf = (...routes: string[]) =>
  tableOf(`${services}routes:\n${routes.map((route) => `  - { service: s, auth: none, ${route} }\n`).join('')}`).routes

test('limits on wrong credentials are apart from those on requests, and know no consumer', () => {
  const { routes } = tableOf(`consumers: { c: { secret: long-enough-secret } }
services: { s: { endpoints: ['http://h'] } }
limits: { guesses: { by: [address, consumer], rate: 10/m, on: failedAuth } }
routes: [{ match: {}, service: s, auth: x-m, limits: [guesses, { by: consumer, rate: 1/s }] }]
`)
  expect(routes[0]?.limits.map(({ name }) => name)).toEqual(['/#1'])
  expect(routes[0]?.guessLimits).toMatchObject([
    { name: 'guesses', on: 'failedAuth', by: [{ kind: 'address' }, { kind: 'claimed' }] },
  ])
})

test('every default is there, in the units the phases use', () => {
  const table = tableOf(`
consumers: { c: { secret: long-enough-secret } }
services: { s: { endpoints: ['http://h'], breaker: {}, health: {} }, bare: { endpoints: [https://h:443], outliers: false } }
routes: [{ match: {}, service: s, auth: x-m, limits: [{ by: route, rate: 5/m }] }]
`)
  expect(table.consumers).toEqual([
    {
      name: 'c',
      index: 0,
      secrets: ['long-enough-secret'],
      algorithm: 'sha256',
      signs: 'request',
      apiKeys: [],
      password: null,
      groups: [],
      httpSignatureKeys: [],
      certificateNames: [],
    },
  ])
  expect(table.consumersByName.get('c')).toBe(table.consumers[0])
  expect(table.services).toEqual([
    {
      name: 's',
      index: 0,
      slot: 0,
      endpoints: [
        { origin: 'http://h', authority: 'h', serverName: 'h', socketPath: null, weight: 1, zone: '', slot: 0 },
      ],
      connectTimeoutMs: 2000,
      firstByteTimeoutMs: 15_000,
      idleTimeoutMs: 60_000,
      totalTimeoutMs: Infinity,
      client: 'lean',
      pipelining: 1,
      tls: { verify: true },
      balance: { kind: 'p2c' },
      slowStartMs: 10_000,
      breaker: {
        windowMs: 10_000,
        minRequests: 20,
        failureRatio: 0.5,
        slowCallMs: Infinity,
        slowRatio: 0.8,
        openForMs: 5000,
        maxOpenForMs: 60_000,
        probes: 3,
        rampMs: 10_000,
        failureStatuses: new Set([502, 503, 504]),
      },
      outliers: {
        failures: 5,
        ratio: 0.1,
        slow: 5,
        windowUs: 10_000_000,
        ejectForUs: 3_000_000,
        maxEjectForUs: 12_000_000,
        maxShare: 0.5,
        statuses: null,
      },
      bulkhead: null,
      retries: {
        attempts: 2,
        reasons: new Set(['connect', 'reset', 'timeout', 'status']),
        statuses: new Set([500, 502, 503, 504]),
        backoffMs: 25,
        perTryMs: Infinity,
        budget: 0.2,
        maxBodyBytes: 65_536,
      },
      health: {
        http: { method: 'GET', path: '/', host: null, statuses: [[200, 299]], text: '' },
        intervalMs: 5000,
        timeoutMs: 1000,
        healthyAfter: 2,
        unhealthyAfter: 3,
      },
    },
    expect.objectContaining({
      name: 'bare',
      endpoints: [
        { origin: 'https://h', authority: 'h', serverName: 'h', socketPath: null, weight: 1, zone: '', slot: 1 },
      ],
      breaker: null,
      health: null,
      outliers: null,
    }),
  ])
  expect(table.endpoints).toEqual(table.services.flatMap((service) => service.endpoints))
  expect(table.routes).toEqual([
    {
      name: '/',
      index: 0,
      slot: 0,
      match: {
        hosts: [],
        path: { text: '/', exact: false, segments: [] },
        caseInsensitive: false,
        slashIgnored: false,
        methods: null,
        headers: [],
        priority: 0,
      },
      importance: 1,
      handler: { kind: 'proxy', service: table.services[0] },
      auth: ['x-m'],
      challenge: '\r\nwww-authenticate: x-m',
      signBody: true,
      maxSkewSeconds: 300,
      maxLeadSeconds: 300,
      httpSignature: null,
      replayOnce: false,
      allow: null,
      allowGroups: [],
      addresses: null,
      mirror: null,
      hedge: null,
      strippedFields: ['x-m'],
      strippedParameter: null,
      hiddenParameter: null,
      limits: [
        {
          name: '/#0',
          by: [{ kind: 'route' }],
          measure: { kind: 'window', quantity: 5, windowSeconds: 60 },
          tiers: [],
          cost: 1,
          costByMethod: null,
          on: 'request',
          mode: 'enforce',
          onFull: 'allow',
          headers: false,
        },
      ],
      inFlightLimits: [],
      guessLimits: [],
      trustRid: false,
      preserveHost: false,
      stripPrefix: null,
      rewrite: null,
      fallback: null,
      maxBodyBytes: 1048576,
      logQuery: false,
      accessLog: true,
    },
  ])
  expect(table.trustedProxies).toEqual([])
})

test('durations, sizes and rates arrive as numbers', () => {
  const table = tableOf(`
services: { s: { endpoints: ['http://h'], timeouts: { connect: 500ms, firstByte: 1.5s, idle: none, total: 2m } } }
routes:
  - match: {}
    service: s
    auth: none
    maxBody: 2GiB
    limits: [{ by: address, rate: 7/hour, burst: 3, cost: { post: 2 } }, { by: 'header:X-Key', rate: 8/day }, { by: [address, route], rate: 9/min, name: nine }]
`)
  expect(table.services[0]).toMatchObject({
    connectTimeoutMs: 500,
    firstByteTimeoutMs: 1500,
    idleTimeoutMs: Infinity,
    totalTimeoutMs: 120_000,
  })
  expect(table.routes[0]?.maxBodyBytes).toBe(2 ** 31)
  expect(table.routes[0]?.limits).toMatchObject([
    {
      name: '/#0',
      measure: { kind: 'bucket', quantity: 7, windowSeconds: 3600, burst: 3 },
      cost: 1,
      costByMethod: new Map([['POST', 2]]),
    },
    {
      name: '/#1',
      measure: { kind: 'window', quantity: 8, windowSeconds: 86_400 },
      by: [{ kind: 'header', header: 'x-key' }],
    },
    {
      name: 'nine',
      measure: { kind: 'window', quantity: 9, windowSeconds: 60 },
      by: [{ kind: 'address' }, { kind: 'route' }],
    },
  ])
})

test('a limit with a name of its own is one policy for all routes that use it', () => {
  const { routes } = tableOf(`${services}limits: { l: { by: route, rate: 1/s } }
routes:
  - { match: { path: /a }, service: s, auth: none, limits: [l] }
  - { match: { path: /b }, service: s, auth: none, limits: [l] }
`)
  expect(routes[0]?.limits[0]).toBe(routes[1]?.limits[0])
  expect(routes[0]?.limits[0]?.name).toBe('l')
})

test('routes without a name get one of host and path that no other has', () => {
  const names = routesOf(
    'match: { host: [A.com, "*.b.com"], path: /x/ }',
    'match: { host: [a.com, "*.b.com"], path: /x, methods: [GET] }',
    'match: { exactPath: /x }',
    'match: { host: b.org, path: /z }',
    'match: { path: /x }, name: b.org/z',
  ).map((route) => route.name)
  expect(names).toEqual(['a.com,*.b.com/x', 'a.com,*.b.com/x~2', '=/x', 'b.org/z~2', 'b.org/z'])
})

test('what is cut off and put in place of the matched path is settled beforehand', () => {
  const rewrites = routesOf(
    'match: { path: /a/ }, stripPrefix: true',
    'match: { path: / , methods: [GET] }, stripPrefix: true',
    'match: { path: /b }, rewrite: /v1/',
    'match: { path: / , methods: [PUT] }, rewrite: /v1',
    'match: { path: /c }, rewrite: /',
    'match: { exactPath: /d }, rewrite: /e/',
    'match: { path: /f }',
  ).map(({ stripPrefix, rewrite }) => [stripPrefix, rewrite])
  expect(rewrites).toEqual([
    ['/a', null],
    [null, null],
    ['/b', '/v1'],
    ['', '/v1'],
    ['/c', ''],
    ['/d', '/e/'],
    [null, null],
  ])
})

test('trusted proxies are ranges, a single address one of full length', () => {
  const { trustedProxies } = tableOf(`${services}routes: [{ match: {}, service: s, auth: none }]
trustedProxies: [10.0.0.0/8, 192.168.1.1, 'fd00::/8', '::1', '::ffff:1.2.3.4']
`)
  expect(trustedProxies.map(([address, bits]) => `${address}/${bits}`)).toEqual([
    '10.0.0.0/8',
    '192.168.1.1/32',
    'fd00::/8',
    '::1/128',
    '1.2.3.4/32',
  ])
})

test('what ends at the gateway are the fields of the kinds of credentials that a route allows', () => {
  const table = tableOf(`
apiKeys: { header: X-Key, query: key }
consumers: { c: { secret: long-enough-secret, apiKeys: [sha256:${'a'.repeat(64)}], password: sha256:${'b'.repeat(64)} } }
${services}
routes:
  - { match: { path: /a }, service: s, auth: [api-key, basic] }
  - { match: { path: /b }, service: s, auth: basic, stripCredentials: false }
  - { match: { path: /c }, service: s, auth: none }
`)
  expect(table.routes.map(({ strippedFields, strippedParameter }) => [strippedFields, strippedParameter])).toEqual([
    [['authorization', 'x-key'], 'key'],
    [[], null],
    [[], null],
  ])
  expect(table.routes.map(({ hiddenParameter }) => hiddenParameter)).toEqual(['key', 'key', 'key'])
  expect(table.routes[0]?.challenge).toBe(
    '\r\nwww-authenticate: ApiKey\r\nwww-authenticate: Basic realm="tidegate", charset="UTF-8"',
  )
})

test('an issuer has its defaults, and knows which consumer each claim means', () => {
  const table = tableOf(`
consumers: { alice: { jwt: { acme: 'auth0|1' } }, bob: { jwt: { acme: b, other: alice } } }
jwt:
  acme: { issuer: https://acme.example/, audience: gw, jwks: { url: https://acme.example/jwks } }
  other: { issuer: other, audience: [gw, api], secrets: ${'s'.repeat(32)}, leeway: 5s }
${services}
routes: [{ match: {}, service: s, auth: jwt }]
`)
  const [acme, other] = table.issuers
  expect(acme).toEqual({
    name: 'acme',
    issuer: 'https://acme.example/',
    audience: ['gw'],
    algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
    secrets: [],
    keys: [],
    jwks: { url: 'https://acme.example/jwks', maxAgeMs: 600_000, cooldownMs: 30_000 },
    leewaySeconds: 30,
    consumerClaim: 'sub',
    groupsClaim: null,
    groups: [],
    admitsUnlisted: false,
    consumers: new Map([
      ['auth0|1', table.consumersByName.get('alice')],
      ['b', table.consumersByName.get('bob')],
    ]),
  })
  expect(other).toMatchObject({ algorithms: ['HS256'], audience: ['gw', 'api'], leewaySeconds: 5, jwks: null })
  expect(other?.consumers.get('alice')?.name).toBe('bob')
})

test('a limit is a window, a bucket or a quota, and its tiers are of the same kind', () => {
  const { routes } = tableOf(`consumers: { shop: { secret: long-enough-secret, groups: [gold] } }
services: { s: { endpoints: [http://h] } }
limits:
  plan: { by: consumer, quota: 100000/day, timezone: europe/berlin, tiers: { shop: 5000/week, 'group:gold': 1000000/day } }
  fair: { by: consumer, rate: 100/s, tiers: { 'group:gold': 1000/d } }
  burst: { by: consumer, rate: 100/s, burst: 200, tiers: { 'group:gold': { rate: 1000/s, burst: 3000 } } }
  hours: { by: route, quota: 10/h }
routes: [{ match: {}, service: s, auth: x-m, limits: [plan, fair, burst, hours] }]
`)
  const said = routes[0]!.limits.map(({ measure, tiers }) => [
    measure,
    ...tiers.map(({ consumer, group, policy }) => [consumer, group, policy.measure]),
  ])
  const timezone = 'Europe/Berlin'
  expect(said).toEqual([
    [
      { kind: 'quota', quantity: 100_000, period: 'day', timezone },
      ['shop', null, { kind: 'quota', quantity: 5000, period: 'week', timezone }],
      [null, 'gold', { kind: 'quota', quantity: 1_000_000, period: 'day', timezone }],
    ],
    [
      { kind: 'window', quantity: 100, windowSeconds: 1 },
      [null, 'gold', { kind: 'window', quantity: 1000, windowSeconds: 86_400 }],
    ],
    [
      { kind: 'bucket', quantity: 100, windowSeconds: 1, burst: 200 },
      [null, 'gold', { kind: 'bucket', quantity: 1000, windowSeconds: 1, burst: 3000 }],
    ],
    [{ kind: 'quota', quantity: 10, period: 'hour', timezone: 'UTC' }],
  ])
})

test('true stands for the defaults where false turns something off', () => {
  const tableWith = (given: string) =>
    tableOf(`services: { s: { endpoints: [http://a, http://b], retries: ${given}, outliers: ${given} } }
shedding: ${given}
routes: [{ match: {}, service: s, auth: none }]
`)
  const [on, byDefault, off] = ['true', '{}', 'false'].map(tableWith)
  const told = ({ shedding, services }: ReturnType<typeof tableOf>) => ({
    shedding,
    retries: services[0]?.retries,
    outliers: services[0]?.outliers,
  })
  expect(told(on!)).toEqual(told(byDefault!))
  expect(told(off!)).not.toEqual(told(byDefault!))
})
