import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { compile } from '../../../src/config/compile.js'
import { ConfigError, type Environment, loadConfig, loadSettings } from '../../../src/config/load.js'
import { rateTableBytes } from '../../../src/state/rate-slots.js'
import { replayTableBytes } from '../../../src/state/replay-table.js'

const SERVICES = 'services: { s: { endpoints: [http://h:1] } }\n'
const ROUTES = 'routes:\n  - { match: { path: / }, service: s, auth: none }\n'
const SOUND = SERVICES + ROUTES

function load(yaml: string, env: Environment = {}) {
  return loadConfig({ text: { origin: 'gw.yaml', yaml }, env })
}

function problemsOf(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigError) return [...error.problems]
    throw error
  }
  return []
}

const problemsIn = (yaml: string, env?: Environment) => problemsOf(() => load(yaml, env))
const folder = () => mkdtempSync(path.join(os.tmpdir(), 'tidegate-config-'))

/** A route of the service `s` with these keys in place of the usual ones. */
const route = (keys: string) => `${SERVICES}routes:\n  - { ${keys} }\n`

describe('a config that breaks a rule is refused with the key, its place and what would be right:', () => {
  const cases: [name: string, yaml: string, ...problems: string[]][] = [
    ['nothing', '', 'gw.yaml: is empty'],
    ['a comment alone', '# soon\n', 'gw.yaml: is empty'],
    ['a list', '- 1\n', 'gw.yaml:1:1: must be keys and values'],
    ['a word', 'hello', 'gw.yaml:1:1: must be keys and values'],
    [
      'no sections',
      '{}',
      'gw.yaml:1:1: services: is missing (keys and values)',
      'gw.yaml:1:1: routes: is missing (a list)',
    ],
    ['no routes', `${SERVICES}routes: []\n`, 'gw.yaml:2:1: routes: must have at least 1 entry'],
    [
      'an unknown section',
      `${SOUND}servces: {}\n`,
      'gw.yaml:4:1: servces: unknown key; known: consumers, apiKeys, jwt, httpSignature, replay, limits, tls, shedding, trustedProxies, paths, underscoresInHeaders',
    ],
    [
      'a misspelt key',
      route('match: { path: / }, service: s, auth: none, allwo: [x], preserve_host: true'),
      'gw.yaml:3:51: routes[0].allwo: unknown key; did you mean "allow"?',
      'gw.yaml:3:63: routes[0].preserve_host: unknown key; did you mean "preserveHost"?',
    ],
    [
      'a key that belongs one level down',
      route('path: /x, match: { path: / }, service: s, auth: none'),
      'gw.yaml:3:7: routes[0].path: unknown key; it belongs in match',
    ],
    [
      'a key that belongs one level up',
      route('match: { path: /, service: s }, service: s, auth: none'),
      'gw.yaml:3:25: routes[0].match.service: unknown key; it belongs next to match',
    ],
    ['a key that is given twice', `${SOUND}${SERVICES}`, 'gw.yaml:4:1: "services" is given twice'],
    [
      'an unknown service',
      `services: { demo: { endpoints: [http://h:1] } }\nroutes:\n  - match: { path: / }\n    service: dmeo\n    auth: none\n`,
      'gw.yaml:4:5: routes[0].service: no service is named "dmeo"; did you mean "demo"?',
    ],
    [
      'an unknown consumer, also next to another mistake',
      `consumers: { test: { secret: long-enough-secret } }\n${route('match: { path: x }, service: s, auth: x-m, allow: [tset]')}`,
      `gw.yaml:4:16: routes[0].match.path: must start with '/', "x" does not`,
      'gw.yaml:4:58: routes[0].allow[0]: no consumer is named "tset"; did you mean "test"?',
    ],
    [
      'an unknown limit',
      route('match: {}, service: s, auth: none, limits: [nope]'),
      'gw.yaml:3:51: routes[0].limits[0]: no limit is named "nope"; none is defined',
    ],
    [
      'auth: x-m without consumers',
      route('match: {}, service: s, auth: x-m'),
      'gw.yaml:3:30: routes[0].auth: x-m needs someone who may call: consumers is empty',
    ],
    [
      'no auth',
      route('match: {}, service: s'),
      'gw.yaml:3:5: routes[0].auth: is missing (x-m, http-signature, api-key, basic, jwt, client-certificate or none)',
    ],
    [
      'what only signed routes have on an open one',
      route('match: {}, service: s, auth: none, signBody: true, maxSkew: 1s'),
      'gw.yaml:3:42: routes[0].signBody: has no effect with auth: none, where callers are not identified',
      'gw.yaml:3:58: routes[0].maxSkew: has no effect with auth: none, where callers are not identified',
    ],
    [
      'endpoints that are no origins',
      'services:\n  s:\n    endpoints:\n      - ftp://h\n      - h:80\n      - http://h/x\n      - http://h?q\n      - http://h#f\n      - http://me:pw@h\n      - http://h:99999\n      - 7\n' +
        ROUTES,
      'gw.yaml:4:9: services.s.endpoints[0]: must be an http:// or https:// URL, or unix:/path of a Unix socket',
      'gw.yaml:5:9: services.s.endpoints[1]: must be an http:// or https:// URL, or unix:/path of a Unix socket',
      `gw.yaml:6:9: services.s.endpoints[2]: must not have a path (it has "/x"); use the route's rewrite`,
      'gw.yaml:7:9: services.s.endpoints[3]: must not have a query',
      'gw.yaml:8:9: services.s.endpoints[4]: must not have a fragment',
      'gw.yaml:9:9: services.s.endpoints[5]: must not carry a user name or password',
      'gw.yaml:10:9: services.s.endpoints[6]: is not a URL',
      'gw.yaml:11:9: services.s.endpoints[7]: must be a URL, or a map such as { url: http://10.0.0.1:9000, weight: 2, zone: a }',
    ],
    [
      'endpoints as maps, each with something wrong',
      `services:\n  s:\n    endpoints:\n      - { weight: 2 }\n      - { uri: http://a }\n      - { url: http://b, weight: 0, zone: '' }\n      - { url: unix:///o, weigth: 2 }\n      - [http://c]\n${ROUTES}`,
      'gw.yaml:4:9: services.s.endpoints[0].url: is missing (a string)',
      'gw.yaml:5:9: services.s.endpoints[1].url: is missing (a string)',
      'gw.yaml:5:11: services.s.endpoints[1].uri: unknown key; did you mean "url"?',
      'gw.yaml:6:26: services.s.endpoints[2].weight: must be at least 1',
      'gw.yaml:6:37: services.s.endpoints[2].zone: a name starts with a letter or digit and goes on with letters, digits and . _ @ : / + - (128 in all)',
      'gw.yaml:7:11: services.s.endpoints[3].url: is not how a Unix socket is written: write unix:/o',
      'gw.yaml:7:27: services.s.endpoints[3].weigth: unknown key; did you mean "weight"?',
      'gw.yaml:8:9: services.s.endpoints[4]: must be a URL, or a map such as { url: http://10.0.0.1:9000, weight: 2, zone: a }',
    ],
    [
      'an endpoint given twice, once as a map, and TLS to neither',
      `services: { s: { endpoints: [http://h, { url: 'http://h/', weight: 2 }], tls: {} } }\n${ROUTES}`,
      'gw.yaml:1:40: services.s.endpoints[1]: "http://h" is listed twice',
      'gw.yaml:1:74: services.s.tls: has no effect: no endpoint is https',
    ],
    [
      'balancers that are none, and hashes of nothing',
      `services:\n  a: { endpoints: [http://a], balance: random }\n  b: { endpoints: [http://a], balance: { hash: cookie } }\n  c: { endpoints: [http://a], balance: { hash: user, bounded: 0.5 } }\n  s: { endpoints: [http://a], balance: { hash: 'header:a b', bounded: all } }\n  e: { endpoints: [http://a], balance: { bound: 2 } }\n  f: { endpoints: [http://a], balance: [p2c], slowStart: 2h }\n${ROUTES}`,
      'gw.yaml:2:31: services.a.balance: must be p2c, round-robin, ewma or a map such as { hash: consumer }',
      'gw.yaml:3:42: services.b.balance.hash: must say which cookie: write cookie:NAME',
      'gw.yaml:4:42: services.c.balance.hash: must be consumer, address, path, header:NAME or cookie:NAME',
      'gw.yaml:4:54: services.c.balance.bounded: must be at least 1',
      'gw.yaml:5:42: services.s.balance.hash: "a b" is not the name of a header',
      'gw.yaml:5:62: services.s.balance.bounded: must be a number from 1 to 100, or none',
      'gw.yaml:6:31: services.e.balance.hash: is missing (a string)',
      'gw.yaml:6:42: services.e.balance.bound: unknown key; known: hash, bounded',
      'gw.yaml:7:31: services.f.balance: must be p2c, round-robin, ewma or a map such as { hash: consumer }',
      'gw.yaml:7:47: services.f.slowStart: must be between 0ms and 1h',
    ],
    [
      'the shorthands that a newcomer tries',
      `services:
  a: { endpoints: [http://a], retries: 3 }
  b: { endpoints: [http://a], retries: { on: 503 } }
  c: { endpoints: [http://a], retries: { on: [5xx], budget: 20% } }
  d: { endpoints: [http://a], outliers: off }
  e: { endpoints: [http://a], outliers: { slow: false } }
  f: { endpoints: [http://a], health: /healthz }
  g: { endpoints: [http://a], health: { statuses: 200 } }
  h: { endpoints: [http://a], maxInFlight: unlimited }
  i: { endpoints: [http://a], maxInFlight: { most: 5, queue: 10 } }
  j: { endpoints: [http://a], concurrency: { adaptive: true } }
  s: { endpoints: [http://a], breaker: true }
shedding: off
routes:
  - { match: { path: / }, service: s, auth: none, hedge: p95 }
`,
      'gw.yaml:2:31: services.a.retries: must be false, or a map such as { attempts: 3 }',
      'gw.yaml:3:42: services.b.retries.on: must be a list such as [connect, reset, 503]',
      'gw.yaml:4:47: services.c.retries.on[0]: must be connect, reset, timeout or a status from 400 to 599',
      'gw.yaml:4:53: services.c.retries.budget: must be a number; 0.2 means 20 %',
      'gw.yaml:5:31: services.d.outliers: must be false, or a map such as { failures: 5 }',
      'gw.yaml:6:43: services.e.outliers.slow: must be a number from 1.5 to 1000, or none',
      'gw.yaml:7:31: services.f.health: must be a map such as { path: /healthz } or { type: tcp }',
      'gw.yaml:8:41: services.g.health.statuses: must be a list such as [200-299, 401]',
      'gw.yaml:9:31: services.h.maxInFlight: must be a number, or { most: 500, queue: { size: 100, wait: 1s } }; without this key there is no limit',
      'gw.yaml:10:55: services.i.maxInFlight.queue: must be a map such as { size: 100, wait: 1s }',
      'gw.yaml:11:46: services.j.concurrency.adaptive: must be a map such as { start: 20 }',
      'gw.yaml:12:31: services.s.breaker: must be a map such as { openFor: 5s }, or {} for the defaults',
      'gw.yaml:13:1: shedding: must be false, or a map such as { target: 200ms }',
      'gw.yaml:15:51: routes[0].hedge: must be a map such as { after: p95 }',
    ],
    [
      'a Unix socket in the spelling of another program',
      `services:\n  s:\n    endpoints:\n      - unix:///run/o.sock\n      - http://unix:/run/o.sock:/api\n      - unix:run/o.sock\n${ROUTES}`,
      'gw.yaml:4:9: services.s.endpoints[0]: is not how a Unix socket is written: write unix:/run/o.sock',
      'gw.yaml:5:9: services.s.endpoints[1]: is not how a Unix socket is written: write unix:/run/o.sock',
      'gw.yaml:6:9: services.s.endpoints[2]: must have an absolute path behind unix:, as in unix:/run/orders.sock',
    ],
    [
      'a Unix socket given twice, and TLS to it',
      `services: { s: { endpoints: ['unix:/run/o.sock', 'unix:/run/o.sock'], tls: {} } }\n${ROUTES}`,
      'gw.yaml:1:50: services.s.endpoints[1]: "unix:/run/o.sock" is listed twice',
      'gw.yaml:1:71: services.s.tls: has no effect: no endpoint is https',
    ],
    [
      'no endpoint',
      `services: { s: { endpoints: [] } }\n${ROUTES}`,
      'gw.yaml:1:18: services.s.endpoints: must have at least 1 entry',
    ],
    [
      'an endpoint given twice',
      `services: { s: { endpoints: [http://h, 'http://H:80/'] } }\n${ROUTES}`,
      'gw.yaml:1:40: services.s.endpoints[1]: "http://h" is listed twice',
    ],
    [
      'durations, sizes and rates without a unit or out of range',
      `services: { s: { endpoints: [http://h], timeouts: { connect: 5, firstByte: 5 s, total: 0s } } }\nlimits: { a: { by: route, rate: 0/s }, b: { by: route, rate: 5 }, c: { by: route, rate: 2000000000/d } }\n${'routes: [{ match: {}, service: s, auth: none, maxBody: 1MB }]'}`,
      'gw.yaml:1:53: services.s.timeouts.connect: must be a duration: 500ms, 1s, 2m or 1h',
      'gw.yaml:1:65: services.s.timeouts.firstByte: is not a duration; write 500ms, 1s, 2m or 1h, or none',
      'gw.yaml:1:81: services.s.timeouts.total: must be between 1ms and 24h, or none',
      'gw.yaml:2:27: limits.a.rate: must be between 1 and 1000000000 per unit',
      'gw.yaml:2:56: limits.b.rate: must be a rate: 1000/s, 60/m, 5000/h or 100000/d',
      'gw.yaml:2:83: limits.c.rate: must be between 1 and 1000000000 per unit',
      'gw.yaml:3:47: routes[0].maxBody: is not a size; write bytes, 16KiB, 1MiB or 2GiB, or unlimited',
    ],
    [
      'numbers out of range',
      `services: { s: { endpoints: [http://h], breaker: { failureRatio: 1.5, slowRatio: 0, probes: 0, minRequests: 1.5, openFor: 2m }, health: { interval: 1s, timeout: 2s } } }\n${ROUTES}`,
      'gw.yaml:1:52: services.s.breaker.failureRatio: must be at most 1',
      'gw.yaml:1:71: services.s.breaker.slowRatio: must be more than 0',
      'gw.yaml:1:85: services.s.breaker.probes: must be at least 1',
      'gw.yaml:1:96: services.s.breaker.minRequests: must be a whole number',
      'gw.yaml:1:153: services.s.health.timeout: must be at most interval; without this key it is 1s',
    ],
    [
      'health checks that cannot be made',
      `services: { s: { endpoints: [http://h], health: { type: tcp, path: /up, statuses: [200] } },
  t: { endpoints: [http://h], health: { method: HEAD, statuses: [299-200, 99, 200-600, fine], host: 'a b' } },
  u: { endpoints: [http://h], health: { statuses: [] } },
  v: { endpoints: [http://h], health: { method: HEAD, body: ok } } }\n${ROUTES}`,
      'gw.yaml:1:62: services.s.health.path: has no meaning with type: tcp; remove one of the two',
      'gw.yaml:1:73: services.s.health.statuses: has no meaning with type: tcp; remove one of the two',
      'gw.yaml:2:66: services.t.health.statuses[0]: is no range of statuses; write 200-299: two statuses from 200 to 599, the lower one first',
      'gw.yaml:2:75: services.t.health.statuses[1]: must be at least 200',
      'gw.yaml:2:79: services.t.health.statuses[2]: is no range of statuses; write 200-299: two statuses from 200 to 599, the lower one first',
      'gw.yaml:2:88: services.t.health.statuses[3]: is no range of statuses; write 200-299: two statuses from 200 to 599, the lower one first',
      'gw.yaml:2:95: services.t.health.host: is not a host; write a name or an address, and :port if need be',
      'gw.yaml:3:41: services.u.health.statuses: must have at least 1 entry',
      'gw.yaml:4:55: services.v.health.body: cannot be checked with method: HEAD, whose responses have no body; use GET',
    ],
    [
      'a cost that the limit never admits',
      `${SOUND}limits: { a: { by: route, rate: 10/s, cost: { POST: 11 } } }\n`,
      'gw.yaml:4:39: limits.a.cost: is more than the limit ever admits (10): nothing would pass',
    ],
    [
      'limits that say too little, too much, or what does not fit',
      `${SOUND}limits:
  a: { by: route }
  b: { by: route, rate: 1/s, quota: 1/day }
  c: { by: route, quota: 1/day, burst: 2 }
  d: { by: route, rate: 1/s, timezone: UTC }
  e: { by: route, quota: 1/year }
  f: { by: route, quota: 1/day, timezone: Mars/Olympus }
  g: { by: route, rate: 5/s, tiers: { c: 6/s } }
consumers: { c: { secret: long-enough-secret } }
`,
      'gw.yaml:5:3: limits.a: needs rate (100/s), quota (100000/day) or inFlight (10)',
      'gw.yaml:6:30: limits.b.quota: cannot stand next to rate: write two limits',
      'gw.yaml:7:33: limits.c.burst: has no effect without rate',
      'gw.yaml:8:30: limits.d.timezone: has no effect without quota',
      'gw.yaml:9:19: limits.e.quota: is not a quota; write 1000/hour, 100000/day, 500000/week or 2000000/month',
      'gw.yaml:10:33: limits.f.timezone: is not a time zone; write UTC or a name such as Europe/Berlin',
      'gw.yaml:11:30: limits.g.tiers: needs consumer in by: tiers are for consumers',
    ],
    [
      'tiers of nobody, or of another kind',
      `${SOUND}limits:
  a: { by: consumer, rate: 5/s, tiers: { nobody: 6/s } }
  b: { by: consumer, rate: 5/s, tiers: { 'group:nobodies': 6/s } }
  d: { by: consumer, quota: 5/day, tiers: { c: 6/s } }
  e: { by: consumer, rate: 5/s, burst: 6, tiers: { c: 7/s } }
  f: { by: consumer, rate: 5/s, tiers: { c: { rate: 6/s, burst: 7 } } }
  g: { by: consumer, rate: 5/s, cost: 4, tiers: { c: 3/s } }
  h: { by: consumer, rate: 5/s, tiers: { gold: 6/s } }
consumers: { c: { secret: long-enough-secret, groups: [gold] } }
`,
      'gw.yaml:5:42: limits.a.tiers.nobody: no consumer is named "nobody"; known: c',
      'gw.yaml:6:42: limits.b.tiers.group:nobodies: nobody is in a group "nobodies"; known: gold',
      'gw.yaml:7:45: limits.d.tiers.c: must be a quota, as the limit is: 100000/day',
      'gw.yaml:8:52: limits.e.tiers.c: must have a burst, as the limit has: { rate: 100/s, burst: 200 }',
      'gw.yaml:9:42: limits.f.tiers.c: cannot have a burst where the limit has none',
      'gw.yaml:10:51: limits.g.tiers.c: admits 3 at most, and a request may cost more',
      `gw.yaml:11:42: limits.h.tiers.gold: no consumer is named "gold"; for the group write 'group:gold'`,
    ],
    [
      'a tier that is no rate',
      `${SOUND}limits: { a: { by: consumer, rate: 5/s, tiers: { c: true } } }\n`,
      'gw.yaml:4:50: limits.a.tiers.c: must be a rate (100/s), a quota (100000/day), { rate: 100/s, burst: 200 }, or a number of requests in flight',
    ],
    [
      'numbers of requests in flight beside what counts otherwise',
      `${SOUND}consumers: { c: { secret: long-enough-secret } }
limits:
  a: { by: address, inFlight: 5, rate: 6/s }
  b: { by: address, inFlight: 5, on: failedAuth }
  c: { by: address, inFlight: 5, cost: 2 }
  d: { by: consumer, inFlight: 5, tiers: { c: 6/s } }
  e: { by: consumer, rate: 5/s, tiers: { c: 6 } }
  f: { by: address, inFlight: 0 }
`,
      'gw.yaml:6:21: limits.a.inFlight: cannot stand next to rate: write two limits',
      'gw.yaml:7:34: limits.b.on: must be request with inFlight: wrong credentials are not in flight',
      'gw.yaml:8:34: limits.c.cost: cannot be used with inFlight: each request counts once',
      'gw.yaml:9:44: limits.d.tiers.c: must be a number of requests, as the limit is: 10',
      'gw.yaml:10:42: limits.e.tiers.c: must be a rate, as the limit is: 100/s',
      'gw.yaml:11:21: limits.f.inFlight: must be at least 1',
    ],
    [
      'bounds of a service that are none',
      `services:
  s: { endpoints: [http://h], maxInFlight: { most: 5, queue: { size: 0 } } }
  t: { endpoints: [http://h], maxInFlight: many }
  u: { endpoints: [http://h], concurrency: fixed }
  v: { endpoints: [http://h], concurrency: { adaptive: { start: 2, least: 5 } } }
${ROUTES}`,
      'gw.yaml:2:64: services.s.maxInFlight.queue.size: must be at least 1',
      'gw.yaml:3:31: services.t.maxInFlight: must be a number, or { most: 500, queue: { size: 100, wait: 1s } }; without this key there is no limit',
      'gw.yaml:4:31: services.u.concurrency: must be adaptive, or { adaptive: { start: 20 } }',
      'gw.yaml:5:58: services.v.concurrency.adaptive.start: must not be below least',
    ],
    [
      'a limit by consumer where nobody is identified',
      `limits: { a: { by: [consumer], rate: 1/s } }\n${route('match: {}, service: s, auth: none, limits: [a]')}`,
      'gw.yaml:4:51: routes[0].limits[0]: counts by consumer, and with auth: none callers are not identified',
    ],
    [
      'methods, headers and hosts that are none',
      route("match: { methods: ['G T'], headers: { 'a:b': c }, host: 'http://h' }, service: s, auth: none"),
      'gw.yaml:3:26: routes[0].match.methods[0]: is not a method name (RFC 9110, 9.1)',
      'gw.yaml:3:45: routes[0].match.headers.a:b: is not a header name (RFC 9110, 5.1)',
      'gw.yaml:3:57: routes[0].match.host: is not a host; write a name without scheme, port or path, or *.suffix (leave host out for any)',
    ],
    [
      'paths that no request has',
      `${SERVICES}routes:\n${['a', '/a?b', '/a b', '/*', '/a/../b', '/%zz', '/:', '/a//b', '/a\\b'].map((p) => `  - { match: { path: '${p}' }, service: s, auth: none }\n`).join('')}`,
      `gw.yaml:3:16: routes[0].match.path: must start with '/', "a" does not`,
      'gw.yaml:4:16: routes[1].match.path: is a path: no query and no fragment',
      'gw.yaml:5:16: routes[2].match.path: must not contain blanks or control characters',
      "gw.yaml:6:16: routes[3].match.path: has no wildcards: a prefix covers what lies below it, ':name' stands for one segment",
      "gw.yaml:7:16: routes[4].match.path: must not contain '.' or '..' segments",
      'gw.yaml:8:16: routes[5].match.path: has a % that is not followed by two hex digits',
      `gw.yaml:9:16: routes[6].match.path: has ":": a parameter is ':' and a name`,
      'gw.yaml:10:16: routes[7].match.path: must not contain empty segments',
      'gw.yaml:11:16: routes[8].match.path: must not contain backslashes',
    ],
    [
      'two kinds of path',
      route('match: { path: /a, exactPath: /a }, service: s, auth: none'),
      'gw.yaml:3:26: routes[0].match.exactPath: cannot stand next to path',
    ],
    [
      'two kinds of rewriting',
      route('match: {}, service: s, auth: none, stripPrefix: true, rewrite: /b'),
      'gw.yaml:3:61: routes[0].rewrite: cannot stand next to stripPrefix: "/" does the same',
    ],
    [
      'a breaker whose open time shrinks',
      `services:\n  s:\n    endpoints: [http://h]\n    breaker: { openFor: 10s, maxOpenFor: 5s }\n${ROUTES}`,
      'gw.yaml:4:30: services.s.breaker.maxOpenFor: must be at least openFor',
    ],
    [
      'rewriting a path with parameters',
      route('match: { path: "/a/:b" }, service: s, auth: none, rewrite: /c'),
      'gw.yaml:3:57: routes[0].rewrite: cannot be used with parameters in the path ("/a/:b")',
    ],
    [
      'a signed body without a limit',
      `consumers: { c: { secret: long-enough-secret } }\n${route('match: {}, service: s, auth: x-m, maxBody: unlimited')}`,
      'gw.yaml:4:41: routes[0].maxBody: cannot be unlimited where the signature covers the body, which is held in memory; see signBody',
    ],
    [
      'names that are given twice',
      `${SERVICES}limits: { l: { by: route, rate: 1/s } }\nroutes:\n  - { name: a, match: { path: /a }, service: s, auth: none, limits: [{ name: l, by: route, rate: 1/s }] }\n  - { name: a, match: { path: /b }, service: s, auth: none }\n`,
      'gw.yaml:4:72: routes[0].limits[0].name: "l" is already the name of a limit; to share it, put it under limits',
      'gw.yaml:5:7: routes[1].name: "a" is already the name of routes[0]',
    ],
    [
      'routes that nothing tells apart',
      `${SERVICES}routes:\n  - { match: { host: [x, A], path: /a/:b, methods: [GET, POST] }, service: s, auth: none }\n  - { match: { host: a, path: /a/:c/, methods: [post] }, service: s, auth: none }\n  - { match: { host: a, path: /a/:c, methods: [PUT] }, service: s, auth: none }\n  - { match: { host: a, path: /a/:c }, service: s, auth: none }\n  - { match: { host: a, path: /a/:d }, service: s, auth: none }\n  - { match: { host: a, path: /a/:d }, service: s, auth: none, priority: 1 }\n`,
      'gw.yaml:4:7: routes[1].match: matches the same POST requests as routes[0]; give one a higher priority',
      'gw.yaml:7:7: routes[4].match: matches the same requests as routes[3]; give one a higher priority',
    ],
    [
      'routes that only their spelling tells apart, where it says nothing',
      `${SERVICES}routes:\n  - { match: { exactPath: /a/, caseInsensitive: true, trailingSlash: ignore }, service: s, auth: none }\n  - { match: { exactPath: /A, caseInsensitive: true, trailingSlash: ignore }, service: s, auth: none }\n  - { match: { exactPath: /A, caseInsensitive: true }, service: s, auth: none }\n  - { match: { exactPath: /A/ }, service: s, auth: none }\n`,
      'gw.yaml:4:7: routes[1].match: matches the same requests as routes[0]; give one a higher priority',
    ],
    [
      'a slash that is ignored behind a prefix',
      route('match: { path: /a, trailingSlash: ignore }, service: s, auth: none'),
      'gw.yaml:3:26: routes[0].match.trailingSlash: has no effect without exactPath: path is a prefix, and covers both',
    ],
    [
      'proxies that are no addresses',
      `${SOUND}trustedProxies: [10.0.0.0/33, localhost, 1, '10.1']\n`,
      'gw.yaml:4:18: trustedProxies[0]: is not an address or CIDR range',
      'gw.yaml:4:31: trustedProxies[1]: is not an address or CIDR range',
      'gw.yaml:4:42: trustedProxies[2]: must be a string',
    ],
    [
      'a name that cannot be sent',
      `consumers: { 'a b': { secret: long-enough-secret } }\n${SOUND}`,
      'gw.yaml:1:14: consumers.a b: a name starts with a letter or digit and goes on with letters, digits and . _ @ : / + - (128 in all)',
    ],
    [
      'what is not YAML',
      'services: {\nroutes: [',
      'gw.yaml:2:1: is not YAML: flow map in block collection must be sufficiently indented and end with a }',
    ],
    ['two documents', `${SOUND}---\n${SOUND}`, 'gw.yaml:4:1: is not YAML: it holds several documents'],
    ['tags', `services: !x { }\n${ROUTES}`, 'gw.yaml:1:11: has a tag that means nothing here'],
    [
      'an alias without its anchor',
      `services: *x\n${ROUTES}`,
      'gw.yaml: has an alias (*name) without its anchor, or too many of them',
    ],
    [
      'aliases of aliases of aliases',
      `a: &a [x, x, x, x, x, x, x, x, x]\n${'bcdefgh'
        .split('')
        .map((key, i) => `${key}: &${key} [${Array(9).fill(`*${'abcdefg'[i]}`).join(', ')}]\n`)
        .join('')}`,
      'gw.yaml: has an alias (*name) without its anchor, or too many of them',
    ],
  ]
  test.each(cases)('%s', (_name, yaml, ...expected) => {
    const problems = problemsIn(yaml)
    expect(problems).toEqual(expected)
    for (const problem of problems) {
      const [, line, column, key] = /^gw\.yaml:(\d+):(\d+): [\w.[\]]*\b(\w+): (?!is missing)/.exec(problem) ?? []
      if (key === undefined) continue
      const place = yaml.split('\n')[Number(line) - 1]?.slice(Number(column) - 1)
      expect(place, problem).toMatch(new RegExp(`^["']?${key}["']? ?:`))
    }
  })
})

describe('secrets', () => {
  const consumers = (secret: string) => `consumers: { c: { secret: ${secret} } }\n${SOUND}`

  test('come from the config, the environment or a file beside the config, one or several', () => {
    const dir = folder()
    writeFileSync(path.join(dir, 'one.secret'), 'from-a-file-of-mine\n')
    writeFileSync(path.join(dir, 'gw.yaml'), consumers('[written-right-here, env:ONE, file:one.secret]'))
    const { config } = loadConfig({ file: path.join(dir, 'gw.yaml'), env: { ONE: 'from-the-environment' } })
    expect(config.consumers.c?.secret).toEqual(['written-right-here', 'from-the-environment', 'from-a-file-of-mine'])
    expect(load(consumers('the-only-one-there-is')).config.consumers.c?.secret).toEqual(['the-only-one-there-is'])
  })

  test('that cannot be had are named by their source, all of them', () => {
    expect(problemsIn(consumers('[env:NOPE, env:EMPTY, file:nope.secret, file:.]'), { EMPTY: '' })).toEqual([
      'gw.yaml:1:28: consumers.c.secret[0]: the environment variable NOPE is not set',
      'gw.yaml:1:38: consumers.c.secret[1]: the environment variable EMPTY is empty',
      'gw.yaml:1:49: consumers.c.secret[2]: the file nope.secret does not exist',
      'gw.yaml:1:67: consumers.c.secret[3]: the file . cannot be read (EISDIR)',
    ])
    expect(problemsIn(consumers("''"))).toEqual(['gw.yaml:1:19: consumers.c.secret: must not be empty'])
  })

  test.each([
    ['of the wrong type', 'consumers: { c: hunter2 }\n'],
    ['next to an unknown key', 'consumers: { c: { secret: hunter2, foo: hunter2 } }\n'],
    ['that look like an alias', 'consumers: { c: { secret: *hunter2 } }\n'],
    ['that look like a tag', 'consumers: { c: { secret: !hunter2 } }\n'],
    ['that look like an escape', 'consumers: { c: { secret: "\\qhunter2" } }\n'],
    ['after a broken line', 'consumers:\n  c:\n    secret: "a" hunter2\n'],
    ['with a reserved first character', 'consumers:\n  c:\n    secret: @hunter2\n'],
    ['with a colon', 'consumers:\n  c:\n    secret: a: hunter2\n'],
    ['in a list of the wrong shape', 'consumers: { c: { secret: [{ hunter2: 1 }, 7] } }\n'],
  ])('%s never appear in a message', (_name, yaml) => {
    const text = problemsIn(yaml + SOUND).join('\n')
    expect(text).not.toBe('')
    expect(text).not.toContain('hunter2')
  })
})

describe('files', () => {
  test('a directory, a missing file and an empty one are told apart', () => {
    const dir = folder()
    const empty = path.join(dir, 'empty.yaml')
    writeFileSync(empty, '')
    mkdirSync(path.join(dir, 'sub'))
    const at = (file: string) => problemsOf(() => loadConfig({ file, env: {} }))
    expect(at(path.join(dir, 'sub'))).toEqual([`${path.join(dir, 'sub')}: is a directory, not a configuration file`])
    expect(at(path.join(dir, 'no.yaml'))).toEqual([`${path.join(dir, 'no.yaml')}: no such file`])
    expect(at(empty)).toEqual([`${empty}: is empty`])
    expect(problemsOf(() => loadConfig({ env: { TIDEGATE_CONFIG: empty } }))).toEqual([`${empty}: is empty`])
  })

  test('JSON is read as well', () => {
    const json = { services: { s: { endpoints: ['http://h:1'] } }, routes: [{ match: {}, service: 's', auth: 'none' }] }
    expect(load(JSON.stringify(json, null, '\t')).config).toEqual(load(SOUND.replace('path: / ', '')).config)
  })

  const examples = readdirSync('examples').filter((file) => /\.(yaml|json)$/.test(file))
  test.each(examples)('examples/%s is sound', (file) => {
    const text = readFileSync(path.join('examples', file), 'utf8')
    const env = Object.fromEntries(
      [...text.matchAll(/env:(\w+)/g)].map(([, name]) => [name, 'a secret of thirty-two bytes or more']),
    )
    const { config, settings } = loadConfig({ file: path.join('examples', file), env })
    expect(compile(config, settings).routes.length).toBe(config.routes.length)
  })
})

test('what is loaded is frozen and survives being sent to a worker as JSON', () => {
  const loaded = load(`${SOUND}trustedProxies: [10.0.0.0/8]\n`)
  expect(JSON.parse(JSON.stringify(loaded))).toEqual(loaded)
  expect(() => {
    ;(loaded.config.routes[0] as { service: string }).service = 'x'
  }).toThrow(TypeError)
})

describe('the environment', () => {
  test('has defaults with which the state, signatures included, fits the 64 MB that Docker gives /dev/shm, with room to spare', () => {
    const { rateLimitKeys, replayKeys } = loadSettings({})
    expect(rateTableBytes(rateLimitKeys) + replayTableBytes(replayKeys)).toBeLessThan(56 * 2 ** 20)
  })

  test('has defaults for everything, and an empty variable is an unset one', () => {
    const runtime = mkdtempSync(path.join(os.tmpdir(), 'tidegate-runtime-'))
    const settings = loadSettings({ XDG_RUNTIME_DIR: runtime, TIDEGATE_PORT: '' })
    expect(settings).toEqual({
      configFile: 'tidegate.yaml',
      host: '0.0.0.0',
      port: 8080,
      adminHost: '127.0.0.1',
      adminNames: [],
      adminPort: 9901,
      workers: Math.min(128, os.availableParallelism()),
      isolation: 'auto',
      state: `${runtime}/tidegate-${process.getuid?.()}-8080.state`,
      log: 'stderr',
      logLevel: 'info',
      accessLog: 'stdout',
      upstreamConnections: 128,
      hmacOffloadBytes: 32768,
      hmacThreads: 1,
      maxHeaderBytes: 16384,
      headerTimeoutMs: 10_000,
      idleTimeoutMs: 75_000,
      maxConnections: 100_000,
      maxConnectionsPerAddress: 0,
      proxyProtocol: 'off',
      maxBodyBytes: 1048576,
      minBodyBytesPerSecond: 240,
      bodyMemoryBytes: 268_435_456,
      rateLimitKeys: 65_536,
      replayKeys: 262144,
      drainTimeoutMs: 10000,
      shutdownDelayMs: 0,
      watchConfig: 'off',
      uwsPatches: 'on',
      workerMemoryMaxBytes: 0,
      zone: '',
    })
    rmSync(runtime, { recursive: true })
    expect(loadSettings({ TIDEGATE_MAX_BODY_BYTES: '2MiB' }).maxBodyBytes).toBe(2 ** 21)
  })

  test('is refused where a value is out of range or a name unknown, together with what is wrong with the file', () => {
    const env = {
      TIDEGATE_PROT: '1',
      TIDEGATE_PORT: '65536',
      TIDEGATE_WORKERS: '0',
      TIDEGATE_ISOLATION: 'fork',
      TIDEGATE_MAX_BODY_BYTES: '1MB',
      TIDEGATE_DRAIN_TIMEOUT_MS: '-1',
      TIDEGATE_WHATEVER_ELSE: '1',
      TIDEGATE_ADMIN_NAMES: '::1,gw:9901',
      TIDEGATE_LOG: 'off',
      TIDEGATE_ACCESS_LOG: 'stderr',
      TIDEGATE_TEST_X: '1',
      TIDEGATE_NATIVE: '1',
    }
    expect(problemsIn('', env)).toEqual([
      'TIDEGATE_PROT: no such setting; did you mean TIDEGATE_PORT?',
      'TIDEGATE_WHATEVER_ELSE: no such setting',
      'TIDEGATE_PORT: must be a whole number between 0 and 65535, "65536" is not',
      'TIDEGATE_ADMIN_NAMES: must be host names or addresses with commas between them, without ports or brackets, "::1,gw:9901" is not',
      'TIDEGATE_WORKERS: must be a whole number between 1 and 128, "0" is not',
      'TIDEGATE_ISOLATION: must be auto, process or thread, "fork" is not',
      'TIDEGATE_LOG: must be stderr or the path of a file (./NAME for one of such a name), "off" is not',
      'TIDEGATE_ACCESS_LOG: must be stdout, off or the path of a file (./NAME for one of such a name), "stderr" is not',
      'TIDEGATE_MAX_BODY_BYTES: must be a number of bytes between 0 and 1099511627776, KiB, MiB and GiB allowed, "1MB" is not',
      'TIDEGATE_DRAIN_TIMEOUT_MS: must be a whole number between 0 and 3600000, "-1" is not',
      'gw.yaml: is empty',
    ])
  })
})
