// A handler of a new kind costs no change elsewhere: this one is the test's own. It is chosen by a key of the
// configuration, as a route's handler and as a fallback, and answers over HTTP/1.1 and in memory, behind the same
// phases.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { routesAsJson } from '../../src/cli/listings.js'
import { compile } from '../../src/config/compile.js'
import { choices } from '../../src/config/handlers.js'
import { type ConfigError, type Loaded, loadConfig } from '../../src/config/load.js'
import type { HandlerRules } from '../../src/config/route-table.js'
import { addHandlerKind } from '../../src/config/schema/handlers.js'
import { answerWith } from '../../src/downstream/answer.js'
import { BodyMemory } from '../../src/downstream/body-memory.js'
import { MemoryDownstream } from '../../src/downstream/memory.js'
import { uWS } from '../../src/downstream/uws/load.js'
import { receive } from '../../src/downstream/uws/server.js'
import { Deadlines } from '../../src/exchange/deadlines.js'
import { Exchange } from '../../src/exchange/exchange.js'
import { Fields } from '../../src/exchange/fields.js'
import { HeadLines, statusLine } from '../../src/exchange/response-head.js'
import type { Handler, HandlerContext } from '../../src/handlers/handler.js'
import { implementHandlerKind } from '../../src/handlers/kinds.js'
import { DigestPool } from '../../src/policy/digest-pool.js'
import { SharedState } from '../../src/primary/shared-state.js'
import { WorkerCounters } from '../../src/state/counters.js'
import { InFlightTable } from '../../src/state/in-flight-table.js'
import { AccessLog } from '../../src/telemetry/access-log.js'
import type { LineWriter } from '../../src/telemetry/line-writer.js'
import type { Logger } from '../../src/telemetry/log.js'
import { Upstreams } from '../../src/upstream/upstreams.js'
import { createPhases, type Phases } from '../../src/worker/phases.js'
import { Shedder } from '../../src/worker/shedder.js'
import { refusingPort } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'

// The kind, whole.

interface GreetingRules extends HandlerRules {
  readonly greeting: string
}

class Greeter implements Handler {
  readonly needsBody = false

  constructor(
    private readonly context: HandlerContext,
    private readonly greeting: string,
  ) {}

  handle(exchange: Exchange): void {
    exchange.upload?.drop()
    const text = Buffer.from(`${this.greeting}, ${exchange.consumer?.name ?? 'stranger'}`)
    answerWith(exchange, statusLine(200, 'OK'), new HeadLines('\r\ncontent-type: text/plain'), text)
    this.context.conclude(exchange)
  }
}

const greet = z.string().min(2).describe('Greets whoever calls with this.')
addHandlerKind({
  name: 'greeter',
  keys: { route: { greet }, fallback: { greet } },
  compile: ({ greet }) => ({ kind: 'greeter', service: null, greeting: greet }) as GreetingRules,
  describe: (rules) => `greeter "${(rules as GreetingRules).greeting}"`,
})
implementHandlerKind('greeter', (context) => ({
  make: (rules: GreetingRules) => new Greeter(context, rules.greeting),
}))

// The rest is what any kind goes through.

const load = (routes: string, service = 'http://127.0.0.1:9'): Loaded =>
  loadConfig({
    text: {
      origin: 'gateway.yaml',
      yaml: `
consumers: { ada: { apiKeys: ['env:ADA'] }, bob: { apiKeys: ['env:BOB'] } }
services: { gone: { endpoints: ['${service}'] } }
routes:
${routes}`,
    },
    env: {
      TIDEGATE_STATE: 'none',
      TIDEGATE_WORKERS: '1',
      ADA: 'the-key-of-ada-is-long',
      BOB: 'the-key-of-bob-is-long',
    },
  })

const ROUTES = `
  - { match: { path: /hello }, greet: Hello, auth: none }
  - { match: { path: /ada }, greet: Good morning, auth: api-key, allow: [ada] }
  - { match: { path: /gone }, service: gone, auth: none, fallback: { greet: Sorry } }
`

const lines: Record<string, unknown>[] = []
let loaded: Loaded
let phases: Phases
let port = 0
let close: () => void

beforeAll(async () => {
  loaded = load(ROUTES, `http://127.0.0.1:${await refusingPort()}`)
  const { config, settings } = loaded
  const table = compile(config, settings)
  const state = new SharedState(table, settings, { kind: 'thread', why: 'a test' }, undefined)
  const { segment } = state
  const digestPool = new DigestPool(table.consumers, 1)
  const nowUs = () => segment.nowUs()
  const deadlines = new Deadlines(nowUs)
  const upstreams = new Upstreams({
    owner: 0,
    worker: 0,
    breakers: state.breakers,
    endpoints: state.endpoints,
    bulkheads: state.bulkheads,
    connections: 64,
    nowUs,
    onBreakerChange() {},
    onOutlierChange() {},
  })
  const writer = { write: (line: string) => lines.push(JSON.parse(line)) } as unknown as LineWriter
  const log = { warn() {}, error() {} } as unknown as Logger
  const counters = new WorkerCounters(segment, state.workers, 0, state.spec.routes)
  const shedder = new Shedder({ counters, upstreams, deadlines, log, nowUs })
  phases = createPhases(
    {
      owner: 0,
      settings,
      segment,
      counters,
      accessLog: new AccessLog(writer),
      log,
      deadlines,
      inFlight: new InFlightTable(segment, 0),
      rates: state.rates,
      replays: state.replays,
      upstreams,
      branches: state.branches.ofWorker(0),
      bodyMemory: new BodyMemory(settings.bodyMemoryBytes, (address) => address),
      shedder,
    },
    table,
    digestPool,
  )
  const peer = { address: '127.0.0.1', trusted: false, relayed: false, connections: 0, place: -1, counted: 0 }
  const parts = { nowUs, log }
  const app = uWS.App().any('/*', (res, req) => receive(res, req, peer, false, phases, parts))
  port = await new Promise((resolve) => {
    app.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
  close = () => {
    app.close()
    deadlines.close()
    void upstreams.close()
    void digestPool.close()
  }
})

afterAll(() => close())

interface Response {
  readonly status: number
  readonly text: string
  field(name: string): string
}

type Ask = (path: string, key?: string, method?: string, body?: string) => Promise<Response>

const overHttp: Ask = async (target, key, method = 'GET', body) => {
  const connection = await Connection.open(port)
  const headers = key === undefined ? {} : { 'x-api-key': key }
  const answer = await connection.exchange({ target, method, headers, ...(body && { body }) })
  connection.destroy()
  return { status: answer.status, text: answer.text, field: (name) => answer.one(name) ?? '' }
}

const inMemory: Ask = async (path, key, method = 'GET', body) => {
  const downstream = new MemoryDownstream(method)
  const fields = Fields.of(key === undefined ? [] : ['x-api-key', key])
  const exchange = new Exchange(downstream, Date.now() * 1000, method, path, undefined, fields)
  downstream.owner = exchange
  exchange.clientAddress = '127.0.0.1'
  exchange.contentLength = body?.length ?? 0
  phases.begin(exchange)
  phases.pass(exchange, null)
  if (body !== undefined) downstream.send(body, true)
  await expect.poll(() => downstream.ended).toBe(true)
  return {
    status: downstream.head!.status,
    text: downstream.body.toString(),
    field: (name) => downstream.field(name),
  }
}

describe.each([
  ['over HTTP/1.1', overHttp],
  ['in memory', inMemory],
])('%s', (_, ask) => {
  test('answers the requests of its route', async () => {
    const response = await ask('/hello')
    expect([response.status, response.text]).toEqual([200, 'Hello, stranger'])
    expect(response.field('content-type')).toBe('text/plain')
    expect(response.field('x-rid')).toMatch(/^\w{32}$/)
    expect(lines.at(-1)).toMatchObject({ route: '/hello', handler: 'greeter', status: 200, bytesOut: 15, attempts: 0 })
    expect(lines.at(-1)).not.toHaveProperty('service')
  })

  test('behind the policies of its route', async () => {
    expect((await ask('/ada')).status).toBe(401)
    expect((await ask('/ada', 'the-key-of-bob-is-long')).status).toBe(403)
    expect((await ask('/ada', 'the-key-of-ada-is-long')).text).toBe('Good morning, ada')
  })

  test('in place of a service that fails, also when there was a body', async () => {
    for (const [method, body] of [['GET'], ['POST', 'hello']]) {
      const response = await ask('/gone', undefined, method, body)
      expect([response.status, response.text]).toEqual([200, 'Sorry, stranger'])
      expect(response.field('x-tidegate-fallback')).toBe('upstream_error')
      expect(lines.at(-1)).toMatchObject({
        service: 'gone',
        fallback: 'upstream_error',
        handler: 'greeter',
        status: 200,
      })
    }
    expect(phases.inFlight).toBe(0)
  })
})

test('its key is among those that a route or a fallback may have', () => {
  expect(choices('route')).toMatch(/^service, or .*, or greet$/)
  expect(choices('fallback')).toMatch(/^service, or status, headers, body or file, or .*greet$/)
})

test('`tidegate routes` names it', () => {
  const rows = JSON.parse(routesAsJson(loaded)) as { service: string; fallback: string }[]
  const named = rows.map(({ service, fallback }) => [service, fallback])
  expect(named).toContainEqual(['greeter "Hello"', ''])
  expect(named).toContainEqual(['gone', 'greeter "Sorry"'])
})

test.each([
  ['greet: 5', 'routes[0].greet: must be a string'],
  ['gret: Hi', 'routes[0].gret: unknown key; did you mean "greet"?'],
  ['service: gone, greet: Hi', 'routes[0].greet: cannot stand next to service'],
  ['name: idle', `routes[0]: needs ${choices('route')}`],
  ['service: gone, fallback: {}', `routes[0].fallback: needs ${choices('fallback')}`],
  ['service: gone, fallback: { greet: Hi, body: Hi }', 'routes[0].fallback.greet: cannot stand next to body'],
])('its key is a key of the configuration: %s', (keys, problem) => {
  let problems: readonly string[] = []
  try {
    load(`  - { match: {}, auth: none, ${keys} }\n`)
  } catch (error) {
    problems = (error as ConfigError).problems
  }
  expect(problems.join('\n')).toContain(problem)
})
