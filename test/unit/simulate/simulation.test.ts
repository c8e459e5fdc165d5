// What a configuration does with the requests of a log, and what it leaves open because the log does not tell.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../../src/config/load.js'
import { type Decision, describeDecision } from '../../../src/simulate/decision.js'
import { type Entry, parseEntry } from '../../../src/simulate/entry.js'
import { Simulation } from '../../../src/simulate/simulation.js'
import { temporaryFolder } from '../../support/gateway.js'

const TIME = Date.UTC(2026, 10, 21, 22, 59, 0)
const SECRET = 'a secret of thirty-two bytes or more'

function simulationOf(config: object): Simulation {
  const file = join(temporaryFolder(), 'tidegate.yaml')
  writeFileSync(file, JSON.stringify({ services: SERVICES, ...config }))
  return new Simulation(loadConfig({ file, env: { TIDEGATE_RATE_LIMIT_KEYS: '1024' } }), TIME * 1000)
}

const SERVICES = {
  one: { endpoints: ['http://127.0.0.1:9001'] },
  two: { endpoints: ['http://127.0.0.1:9002'] },
}

/** A route of its own name. */
function open(name: string, match: object, rest: object = {}): object {
  return { name, match, service: 'one', auth: 'none', ...rest }
}

function entry(over: Record<string, unknown> = {}): Entry {
  const line = { time: TIME, rid: '00', client: '192.0.2.1', method: 'GET', path: '/', status: 200, totalMs: 1 }
  const parsed = parseEntry(JSON.stringify({ ...line, upstreamMs: 1, attempts: 1, ...over }))
  if (typeof parsed === 'string') throw new Error(parsed)
  return parsed
}

function decide(simulation: Simulation, one: Entry, nowUs = one.beginUs): Decision {
  return simulation.decide(one, nowUs)
}

describe('the route', () => {
  const table = {
    routes: [
      open('host', { host: 'a.example', path: '/x' }),
      open('header', { path: '/x', headers: { 'x-beta': 'yes' } }),
      open('any', { path: '/x' }),
      open('plain', { path: '/plain' }),
    ],
  }

  it('is found by the path where nothing else decides', () => {
    const simulation = simulationOf(table)
    expect(decide(simulation, entry({ path: '/plain/%7Ea', route: 'other' })).route).toBe('plain')
    expect(decide(simulation, entry({ path: '/none', route: 'other' }))).toMatchObject({
      status: 404,
      code: 'no_route',
    })
    expect(decide(simulation, entry({ path: '/a%00', route: 'plain' }))).toMatchObject({ code: 'bad_request' })
    expect(simulation.assumptions).toMatchObject({ routeOfLog: 0, routeOpen: 0 })
  })

  it('is that of the log where a host or headers decide, if the request can have got there', () => {
    const simulation = simulationOf(table)
    for (const route of ['host', 'header', 'any']) {
      expect(decide(simulation, entry({ path: '/x/y', route })).route).toBe(route)
    }
    expect(simulation.assumptions).toMatchObject({ routeOfLog: 3, routeOpen: 0 })
    // The path of another route.
    expect(decide(simulation, entry({ path: '/x', route: 'plain', status: 207 }))).toMatchObject({ status: 207 })
    expect(decide(simulation, entry({ path: '/x', route: 'gone', status: 208 }))).toMatchObject({ status: 208 })
    expect(simulation.assumptions).toMatchObject({ routeOfLog: 3, routeOpen: 2 })
  })

  it('is that of the log where the path was cut', () => {
    const simulation = simulationOf(table)
    expect(decide(simulation, entry({ path: '/pl…', route: 'plain' })).route).toBe('plain')
    decide(simulation, entry({ path: '/pl…', route: 'gone' }))
    expect(simulation.assumptions).toMatchObject({ routeOfLog: 1, routeOpen: 1 })
  })

  it('is certain for no request if hosts and headers have too many combinations', () => {
    const routes = Array.from({ length: 300 }, (_, i) => open(`r${i}`, { host: `${i}.example`, path: '/' }))
    const simulation = simulationOf({ routes })
    expect(decide(simulation, entry({ route: 'r299' })).route).toBe('r299')
    expect(simulation.assumptions.routeOfLog).toBe(1)
  })
})

describe('limits', () => {
  it('by the calendar follow the times of the log', () => {
    const simulation = simulationOf({
      limits: { hourly: { by: 'address', quota: '2/hour' } },
      routes: [open('r', { path: '/' }, { limits: ['hourly'] })],
    })
    const at = (seconds: number) => decide(simulation, entry({ route: 'r', time: TIME + seconds * 1000 })).status
    expect([at(1), at(2), at(3), at(59), at(62), at(63), at(64)]).toEqual([200, 200, 429, 429, 200, 200, 429])
  })

  it('by a header are left as logged, and this is said', () => {
    const simulation = simulationOf({
      limits: { tenant: { by: 'header:x-tenant', rate: '1/h' }, all: { by: 'route', rate: '2/h' } },
      routes: [open('r', { path: '/' }, { limits: ['tenant', 'all'] })],
    })
    const refused = entry({ route: 'r', status: 429, code: 'rate_limited', reason: 'limit tenant', attempts: 0 })
    const seen = [refused, entry(), refused, entry(), entry()].map((one) => describeDecision(decide(simulation, one)))
    expect(seen).toEqual(['429 limit tenant', '200', '429 limit tenant', '200', '429 limit all'])
    expect(simulation.blindSpots).toEqual([expect.stringMatching(/^limit tenant: .*x-tenant/)])
  })

  it('on requests in flight are left as logged, and this is said', () => {
    const simulation = simulationOf({
      limits: { calls: { by: 'route', inFlight: 1 } },
      routes: [open('r', { path: '/' }, { limits: ['calls'] })],
    })
    const reason = 'limit calls: too many requests in flight'
    const refused = entry({ route: 'r', status: 429, code: 'rate_limited', reason, attempts: 0 })
    const seen = [refused, entry(), entry()].map((one) => describeDecision(decide(simulation, one)))
    expect(seen).toEqual(['429 limit calls', '200', '200'])
    expect(simulation.blindSpots).toEqual([expect.stringMatching(/^limit calls: .*in flight/)])
  })

  it('in report mode count, and admit', () => {
    const simulation = simulationOf({
      limits: { plan: { by: 'consumer', rate: '1/h', mode: 'report' } },
      consumers: { a: { secret: SECRET } },
      routes: [open('r', { path: '/' }, { auth: 'x-m', limits: ['plan'] })],
    })
    const seen = [1, 2].map(() => decide(simulation, entry({ consumer: 'a' })))
    expect(seen.map(({ status, limitReported }) => [status, limitReported])).toEqual([
      [200, false],
      [200, true],
    ])
  })
})

describe('callers', () => {
  const config = {
    consumers: { a: { secret: SECRET } },
    routes: [
      open('r', { path: '/' }, { auth: 'x-m', allow: ['a'], addresses: { deny: ['198.51.100.0/24'] } }),
      open('free', { path: '/free' }),
    ],
  }

  it.each([
    ['the consumer that is allowed', { consumer: 'a' }, '200'],
    ['one that is not in the configuration', { consumer: 'b' }, '401 unauthorized'],
    ['an address that is denied', { consumer: 'a', client: '198.51.100.7' }, '403 forbidden'],
    ['credentials that were wrong', { status: 401, code: 'unauthorized', attempts: 0 }, '401 unauthorized'],
    ['no credentials', { status: 203 }, '203'],
    [
      'one that was not allowed',
      { consumer: 'a', status: 403, code: 'forbidden', attempts: 0, reason: 'consumer not allowed on this route' },
      'forwarded',
    ],
    ['a malformed head', { status: 400, code: 'bad_request', attempts: 0 }, '400 bad_request'],
    [
      'wrong credentials where none are asked for',
      { path: '/free', status: 401, code: 'unauthorized', attempts: 0 },
      'forwarded',
    ],
  ])('%s', (_, over, expected) => {
    const simulation = simulationOf(config)
    const route = 'code' in over && over.code === 'bad_request' ? {} : { route: 'r' }
    expect(describeDecision(decide(simulation, entry({ ...route, ...over })))).toBe(expected)
    expect(simulation.assumptions.noCredentials).toBe(expected === '203' ? 1 : 0)
    expect(simulation.assumptions.unanswered).toBe(expected === 'forwarded' ? 1 : 0)
  })

  it('whom a token names need not be in the configuration', () => {
    const simulation = simulationOf({
      jwt: { i: { issuer: 'i', audience: 'a', secrets: [SECRET], unlisted: 'admit', groupsClaim: 'roles' } },
      limits: { plan: { by: 'consumer', rate: '1/h', burst: 1, tiers: { 'group:g': { rate: '2/h', burst: 2 } } } },
      routes: [open('r', { path: '/' }, { auth: 'jwt', limits: ['plan'] })],
    })
    const seen = ['i:x', 'i:y', 'i:x'].map((consumer) => decide(simulation, entry({ consumer })).status)
    expect(seen).toEqual([200, 200, 429])
    expect(simulation.blindSpots).toEqual([expect.stringMatching(/^groups that a token names/)])
  })
})

describe('a service that fails', () => {
  const FAILED = { status: 502, code: 'upstream_error', reason: 'ECONNREFUSED' }

  it('is stood in for by the fallback of the configuration, whatever the log had', () => {
    const routes = [
      open('static', { path: '/static' }, { fallback: { status: 203, body: 'x' } }),
      open('other', { path: '/other' }, { fallback: { service: 'two' } }),
      open('none', { path: '/none' }),
    ]
    const seen = (path: string, over: object) =>
      describeDecision(decide(simulationOf({ routes }), entry({ path, route: path.slice(1), ...over })))
    expect(seen('/static', FAILED)).toBe('203 in place of upstream_error')
    expect(seen('/none', FAILED)).toBe('502 upstream_error')
    expect(seen('/none', { status: 200, fallback: 'upstream_timeout', handler: 'static' })).toBe('504 upstream_timeout')
    // The log has no response of the service that would stand in, or has one.
    expect(seen('/other', FAILED)).toBe('forwarded')
    expect(seen('/other', { status: 204, fallback: 'upstream_error', attempts: 2 })).toBe(
      '204 in place of upstream_error',
    )
    expect(seen('/static', { status: 503, code: 'no_endpoint', attempts: 0 })).toBe('203 in place of no_endpoint')
  })

  it("for want of room fails again, after the limits; what was shed is no limit's", () => {
    const simulation = simulationOf({
      services: { one: { ...SERVICES.one, maxInFlight: 10 } },
      limits: { plan: { by: 'route', rate: '2/h' } },
      routes: [open('r', { path: '/' }, { limits: ['plan'] })],
    })
    const refused = { route: 'r', status: 503, code: 'overloaded', attempts: 0 }
    const full = entry({ ...refused, reason: 'bulkhead one: too many requests in flight' })
    const shed = entry({ ...refused, reason: 'the worker is overloaded' })
    const seen = [shed, full, shed, full, shed, full].map((one) => describeDecision(decide(simulation, one)))
    const same = '503 overloaded'
    expect(seen).toEqual([same, same, same, same, same, '429 limit plan'])
    expect(simulation.blindSpots).toEqual([expect.stringMatching(/^service one: /)])
  })

  it('opens the breaker, which refuses until its time is over', () => {
    const breaker = { minRequests: 3, failureRatio: 0.5, window: '10s', openFor: '5s', probes: 1, ramp: '0s' }
    const simulation = simulationOf({
      services: { one: { ...SERVICES.one, breaker } },
      routes: [open('r', { path: '/' })],
    })
    const at = (seconds: number, over: object = {}) =>
      describeDecision(decide(simulation, entry({ route: 'r', time: TIME + seconds * 1000, ...over })))
    const seen = [at(1, FAILED), at(2, FAILED), at(3, FAILED), at(4), at(5, FAILED), at(9), at(10)]
    const open_ = '503 breaker of one'
    expect(seen).toEqual(['502 upstream_error', '502 upstream_error', '502 upstream_error', open_, open_, '200', '200'])
    simulation.finish()
    const [replay] = simulation.services
    expect(replay).toMatchObject({ openingsTotal: 1, openings: [{ reason: 'failures', refused: 2 }] })
    expect(replay!.openings[0]!.atUs).toBe((TIME + 3000) * 1000)
    expect(replay!.openings[0]!.closedUs).toBe((TIME + 9000) * 1000)
  })

  it('that the client left, or that was never asked, is not to blame', () => {
    const breaker = { minRequests: 1, failureRatio: 0.1, window: '10s' }
    const simulation = simulationOf({
      services: { one: { ...SERVICES.one, breaker } },
      routes: [open('r', { path: '/' })],
    })
    const left = entry({ route: 'r', status: 499, code: 'client_closed' })
    const never = entry({ route: 'r', status: 503, code: 'breaker_open', attempts: 0, service: 'one' })
    const seen = [left, never, never, left].map((one) => describeDecision(decide(simulation, one)))
    expect(seen).toEqual(['499 client_closed', 'forwarded', 'forwarded', '499 client_closed'])
    simulation.finish()
    expect(simulation.services[0]!.openingsTotal).toBe(0)
  })
})

describe('a split', () => {
  function sharesOf(split: object, sticky: object, requests: readonly Entry[]): Record<string, number> {
    const route = { name: 'r', match: { path: '/' }, auth: 'none', split, ...sticky }
    const simulation = simulationOf({ routes: [route] })
    const shares: Record<string, number> = {}
    for (const one of requests) {
      const { service } = decide(simulation, one)
      shares[service] = (shares[service] ?? 0) + 1
    }
    return shares
  }

  /** Of a split of nine to one. */
  const requests = Array.from({ length: 1000 }, (_, i) =>
    entry({ route: 'r', handler: 'split', service: i % 10 === 0 ? 'two' : 'one', client: `192.0.2.${i % 250}` }),
  )

  it('keeps what each service had, as far as its share reaches', () => {
    expect(sharesOf({ one: 90, two: 10 }, {}, requests)).toEqual({ one: 900, two: 100 })
    const { one, two } = sharesOf({ one: 50, two: 50 }, {}, requests)
    expect(one! + two!).toBe(1000)
    expect(two).toBeGreaterThan(480)
    expect(two).toBeLessThan(520)
    expect(sharesOf({ one: 0, two: 100 }, {}, requests)).toEqual({ two: 1000 })
  })

  it('that is sticky goes by the key', () => {
    const route = { name: 'r', match: { path: '/' }, auth: 'none', split: { one: 50, two: 50 }, sticky: 'address' }
    const simulation = simulationOf({ routes: [route] })
    const services = requests.map((one) => decide(simulation, one).service)
    expect(services.slice(0, 250)).toEqual(services.slice(250, 500))
    expect(new Set(services.slice(0, 250)).size).toBe(2)
    expect(simulation.blindSpots).toEqual([])
    const byHeader = simulationOf({ routes: [{ ...route, sticky: 'header:x-user' }] })
    expect(byHeader.blindSpots).toEqual([expect.stringContaining('sticky by a header')])
  })
})

describe('retries', () => {
  const [A, B] = ['http://127.0.0.1:9001', 'http://127.0.0.1:9002']
  const FAILED = { status: 503, endpoint: A }
  const LOST = { status: 502, code: 'upstream_error', reason: 'connection lost', endpoint: A }

  function simulationWith(retries: unknown, endpoints = [A, B]): Simulation {
    const services = { one: { endpoints, retries } }
    return simulationOf({ services, routes: [open('r', { path: '/' })] })
  }

  /** Which answers it has, and how many retries it made and was refused. */
  function run(simulation: Simulation, ...lines: object[]): (string | number)[][] {
    return lines.map((over, i) => {
      const decision = decide(simulation, entry({ route: 'r', time: TIME + i * 100, ...over }))
      return [describeDecision(decision), decision.retries, decision.retriesRefused]
    })
  }

  it('are answered as another endpoint has answered lately', () => {
    const seen = run(simulationWith({}), { endpoint: B }, FAILED, LOST, { ...FAILED, method: 'POST' }, { endpoint: A })
    expect(seen).toEqual([
      ['200', 0, 0],
      ['200', 1, 0],
      ['200', 1, 0],
      ['503', 0, 0],
      ['200', 0, 0],
    ])
  })

  it('fail as the first attempt where no other endpoint answers', () => {
    expect(run(simulationWith({}), FAILED, { ...FAILED, endpoint: B }, LOST)).toEqual([
      ['503', 1, 0],
      ['503', 1, 0],
      ['502 upstream_error', 1, 0],
    ])
    // It is long ago that the other one has answered.
    const seen = run(simulationWith({}), { endpoint: B, time: TIME - 60_000 }, FAILED)
    expect(seen[1]).toEqual(['503', 1, 0])
  })

  it('are not made where the configuration has none, or one endpoint', () => {
    expect(run(simulationWith(false), { endpoint: B }, FAILED, LOST).slice(1)).toEqual([
      ['503', 0, 0],
      ['502 upstream_error', 0, 0],
    ])
    expect(run(simulationWith({}, [A]), FAILED)).toEqual([['503', 0, 0]])
  })

  it('that the log has are undone where the configuration has none', () => {
    const lines = [
      { attempts: 2, retried: 'timeout' },
      { attempts: 2, retried: 'status' },
      { attempts: 2, retried: 'hedge' },
    ]
    expect(run(simulationWith({}), ...lines)).toEqual([
      ['200', 1, 0],
      ['200', 1, 0],
      ['200', 0, 0],
    ])
    expect(run(simulationWith(false), ...lines)).toEqual([
      ['504 upstream_timeout', 0, 0],
      ['502 upstream_error', 0, 0],
      ['200', 0, 0],
    ])
  })

  it('are refused when the budget is used up', () => {
    const seen = run(simulationWith({ budget: 0.1 }), ...Array.from({ length: 100 }, () => FAILED))
    const made = seen.filter(([, retries]) => retries === 1).length
    const refused = seen.filter(([, , budget]) => budget === 1).length
    expect(made + refused).toBe(100)
    expect(made).toBeGreaterThanOrEqual(10)
    expect(made).toBeLessThanOrEqual(35)
  })

  it('leave the breaker closed as long as one endpoint answers', () => {
    const breaker = { minRequests: 10, failureRatio: 0.3, window: '60s' }
    const refusals = (retries: unknown): number => {
      const services = { one: { endpoints: [A, B], breaker, retries } }
      const simulation = simulationOf({ services, routes: [open('r', { path: '/' })] })
      const seen = run(simulation, ...Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? { endpoint: B } : FAILED)))
      return seen.filter(([what]) => what === '503 breaker of one').length
    }
    expect(refusals({ budget: 1 })).toBe(0)
    expect(refusals(false)).toBe(30)
  })
})
