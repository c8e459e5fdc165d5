// An exception on a request's way, wherever JavaScript is entered: its client gets a 500, or an end where the response
// has begun; nothing stays held; the log has the stack; the requests beside it go on. The phases here are real, with
// uWS before them and both upstream clients behind; what throws are the objects that they are given.
import { scryptSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Dispatcher } from 'undici'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compile } from '../../src/config/compile.js'
import { loadConfig } from '../../src/config/load.js'
import { BodyMemory } from '../../src/downstream/body-memory.js'
import { uWS } from '../../src/downstream/uws/load.js'
import { receive } from '../../src/downstream/uws/server.js'
import { Deadlines } from '../../src/exchange/deadlines.js'
import { DigestPool } from '../../src/policy/digest-pool.js'
import { SharedState } from '../../src/primary/shared-state.js'
import { WorkerCounters } from '../../src/state/counters.js'
import { InFlightTable } from '../../src/state/in-flight-table.js'
import type { AccessLog } from '../../src/telemetry/access-log.js'
import type { Logger } from '../../src/telemetry/log.js'
import type { EndpointState } from '../../src/upstream/cluster/endpoint-state.js'
import { Upstreams } from '../../src/upstream/upstreams.js'
import { createPhases, type Phases } from '../../src/worker/phases.js'
import { Shedder } from '../../src/worker/shedder.js'
import { type Answer, Connection, type RequestParts } from '../support/raw-client.js'
import { signedHeaders } from '../support/signing.js'
import { eventually } from '../support/waiting.js'
import { ConnectionCut } from '../support/wire.js'

const LARGE = Buffer.alloc(32 << 20, 'x')
const salt = Buffer.alloc(16, 's')
const base64 = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')
const password = `$scrypt$ln=4,r=8,p=1$${base64(salt)}$${base64(scryptSync('open', salt, 32, { N: 16, r: 8, p: 1 }))}`
const fail = (): never => {
  throw new Error('expected of this test')
}
/** Throws with the first look at anything in it. */
const poison = (): never => new Proxy({}, { get: fail, ownKeys: fail }) as never

/** What the upstream does, by the last part of the path. */
const upstream: Readonly<Record<string, (request: IncomingMessage, response: ServerResponse) => void>> = {
  empty: (_, response) => response.end(),
  whole: (_, response) => response.setHeader('content-length', 2).end('ok'),
  busy: (_, response) => response.writeHead(503).end(),
  // The head, and in a turn of its own a chunk, and then another one.
  parts: async (_, response) => {
    response.flushHeaders()
    for (const part of ['one', 'two'])
      await new Promise<void>((resolve) => response.write(part, () => setImmediate(resolve)))
    response.end()
  },
  large: (_, response) => response.setHeader('content-length', LARGE.length).end(LARGE),
  silent: () => {},
  late: (_, response) => void setTimeout(() => response.end('ok'), 60),
  reset: (request) => request.socket.resetAndDestroy(),
  body: (request, response) => request.resume().on('end', () => response.setHeader('content-length', 2).end('ok')),
}

/** Between an upstream client and whoever forwards: what it tells of some responses throws. */
class Saboteur implements Dispatcher.DispatchHandler {
  private chunks = 0

  constructor(
    private readonly handler: Dispatcher.DispatchHandler,
    private readonly how: string,
  ) {}

  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    const given = {
      pause: () => {
        pauses++
        controller.pause()
      },
      resume: () => (this.how === 'resume' ? fail() : controller.resume()),
      abort: (reason: Error) => {
        controller.abort(reason)
        if (this.how === 'abort') fail()
      },
    }
    this.handler.onRequestStart!(given as Dispatcher.DispatchController, context)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, headers: never, phrase?: string): void {
    const length = headers['content-length']
    const fields = new Proxy({}, { get: (_, name) => (name === 'content-length' ? length : undefined), ownKeys: fail })
    const given = this.how === 'head' ? poison() : this.how === 'fields' ? fields : headers
    this.handler.onResponseStart!(controller, status, given, phrase)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    // The client may hand over what comes in one read as one chunk: the response begins with a part of it.
    const isFirst = this.how === 'chunk' && this.chunks++ === 0
    this.handler.onResponseData!(controller, isFirst ? chunk.subarray(0, 1) : chunk)
    if (isFirst) this.handler.onResponseData!(controller, poison())
  }

  onResponseEnd(controller: Dispatcher.DispatchController, trailers: never): void {
    this.handler.onResponseEnd!(controller, trailers)
  }

  onResponseError(controller: Dispatcher.DispatchController, error: Error): void {
    const given =
      this.how === 'error' ? poison() : this.how === 'mistake' ? new TypeError('expected of this test') : error
    this.handler.onResponseError!(controller, given)
  }
}

/** How often a response was held back because its client did not read. */
let pauses = 0
/** Set to what a test wants to throw, once. */
let throwing = ''
/** How many times that goes well before. */
let spared = 0
function mayThrow(what: string): void {
  if (throwing !== what || spared-- > 0) return
  throwing = ''
  fail()
}

const origin = createServer((request, response) => upstream[request.url!.split('/').at(-1)!]!(request, response))
const logged: { level: string; object: { err?: Error }; text: string }[] = []
const lines: string[] = []
const held: EndpointState[] = []
let deadlines: Deadlines
let phases: Phases
let app: ReturnType<typeof uWS.App>
let port = 0
let closeAll: () => void
/** Places at services, and requests that limits count as in flight. */
let heldOfTables: () => { places: number; limited: number }

beforeAll(async () => {
  origin.listen(0, '127.0.0.1')
  await once(origin, 'listening')
  const { port: originPort } = origin.address() as AddressInfo
  const endpoints = `[http://127.0.0.1:${originPort}]`
  // Two names of one server.
  const twice = (client: string) =>
    `{ endpoints: [http://127.0.0.1:${originPort}, http://localhost:${originPort}], client: ${client}, breaker: {}, outliers: false }`
  const service = (client: string, more = '', firstByte = '20s') =>
    `{ endpoints: ${endpoints}, client: ${client}, timeouts: { firstByte: ${firstByte}, idle: 20s, total: 20s }${more} }`
  const breaker = ', breaker: { minRequests: 1, failureRatio: 0.01, openFor: 100ms, probes: 1, ramp: 0s }'
  const bound = ', maxInFlight: { most: 100, queue: { size: 10 } }'
  const { config, settings } = loadConfig({
    text: {
      origin: 'gateway.yaml',
      yaml: `
consumers: { test: { secret: the-secret-of-test, password: '${password}' } }
services: { lean: ${service('lean')}, undici: ${service('undici', bound)}, breaks: ${service('lean', breaker)},
            twice-lean: ${twice('lean')}, twice-undici: ${twice('undici')},
            hasty-lean: ${service('lean', '', '300ms')}, hasty-undici: ${service('undici', bound, '300ms')} }
routes:
  - { match: { path: /lean }, service: lean, auth: none, limits: [{ by: route, rate: 100000/s }] }
  - { match: { path: /undici }, service: undici, auth: none, limits: [{ by: address, inFlight: 100 }] }
  - { match: { path: /lean/abort }, service: hasty-lean, auth: none }
  - { match: { path: /undici/abort }, service: hasty-undici, auth: none, limits: [{ by: address, inFlight: 100 }] }
  - { match: { path: /breaks }, service: breaks, auth: none }
  - { match: { path: /twice-lean }, service: twice-lean, auth: none }
  - { match: { path: /twice-undici }, service: twice-undici, auth: none }
  - { match: { path: /hedged-lean }, service: twice-lean, auth: none, hedge: { after: 10ms, budget: 1 } }
  - { match: { path: /hedged-undici }, service: twice-undici, auth: none, hedge: { after: 10ms, budget: 1 } }
  - { match: { path: /signed }, service: lean, auth: x-m, limits: [{ by: route, rate: 100000/s }, { by: consumer, inFlight: 100 }] }
  - { match: { path: /named }, service: lean, auth: basic, limits: [{ by: route, rate: 100000/s }] }
  - { match: { path: /guessed }, service: lean, auth: basic, limits: [{ by: address, rate: 100000/s, on: failedAuth }] }
`,
    },
    env: { TIDEGATE_STATE: 'none', TIDEGATE_WORKERS: '1' },
  })
  const table = compile(config, settings)
  const state = new SharedState(table, settings, { kind: 'thread', why: 'a test' }, undefined)
  const { segment } = state
  heldOfTables = () => {
    const { buffer, offset, bytes } = segment.section('inFlight')
    const entries = new Int32Array(buffer, offset, bytes / 4).slice(16)
    return {
      places: table.services.reduce((sum, one) => {
        return sum + (one.bulkhead === null ? 0 : state.bulkheads.read(one.slot, one.bulkhead).inFlight)
      }, 0),
      limited: entries.reduce((sum, word, at) => sum + (at % 4 === 2 ? word : 0), 0),
    }
  }
  const clock = new Proxy(segment, {
    get(target, name) {
      if (name === 'nowUs') mayThrow('clock')
      const value = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  const rates = new Proxy(state.rates, {
    get(target, name) {
      mayThrow('rates')
      const value = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  const log = (level: string) => (object: object, text: string) => {
    mayThrow(`log.${level}`)
    logged.push({ level, object, text })
  }
  const warn = log('warn')
  const upstreams = new Upstreams({
    owner: 0,
    breakers: state.breakers,
    worker: 0,
    endpoints: state.endpoints,
    bulkheads: state.bulkheads,
    connections: 64,
    nowUs: () => clock.nowUs(),
    onBreakerChange: (service, change) => warn({ service, ...change }, 'breaker changed state'),
    onOutlierChange() {},
  })
  const hold = upstreams.hold.bind(upstreams)
  upstreams.hold = (...args) => {
    const endpoint = hold(...args)
    const { client } = endpoint
    const dispatch = client.dispatch.bind(client)
    client.dispatch = (options, handler) => {
      const how = options.path.split('/')[2]!
      if (how === 'dispatch') fail()
      return dispatch(options, new Saboteur(handler, how))
    }
    held.push(endpoint)
    return endpoint
  }
  deadlines = new Deadlines(() => segment.nowUs())
  const digestPool = new DigestPool(table.consumers, 1)
  const logger = { warn, error: log('error') } as unknown as Logger
  const counters = new WorkerCounters(segment, state.workers, 0, state.spec.routes)
  const shedder = new Shedder({ counters, upstreams, deadlines, log: logger, nowUs: () => segment.nowUs() })
  phases = createPhases(
    {
      owner: 0,
      settings,
      segment: clock,
      counters,
      accessLog: {
        write(exchange: { path: string }) {
          mayThrow('access log')
          lines.push(exchange.path)
        },
      } as unknown as AccessLog,
      log: logger,
      deadlines,
      rates,
      inFlight: new InFlightTable(segment, 0),
      replays: state.replays,
      upstreams,
      bodyMemory: new BodyMemory(settings.bodyMemoryBytes, (address) => address),
      shedder,
    },
    table,
    digestPool,
  )
  const peer = { address: '127.0.0.1', trusted: false, relayed: false, connections: 0, place: -1, counted: 0 }
  const parts = { nowUs: () => clock.nowUs(), log: { warn: log('warn'), error: log('error') } }
  app = uWS.App().any('/*', (res, req) => receive(res, req, peer, false, phases, parts))
  port = await new Promise((resolve) => {
    app.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
  closeAll = () => {
    app.close()
    deadlines.close()
    void upstreams.close()
    void digestPool.close()
  }
})

afterAll(() => {
  closeAll()
  origin.closeAllConnections()
  origin.close()
})

async function ask(parts: RequestParts): Promise<Answer | 'cut'> {
  const connection = await Connection.open(port)
  try {
    return await connection.exchange(parts)
  } catch (error) {
    if (!(error instanceof ConnectionCut)) throw error
    return 'cut'
  } finally {
    connection.destroy()
  }
}

/** Beside others that nothing is wrong with, and twice. */
async function askAmongOthers(parts: RequestParts): Promise<(Answer | 'cut')[]> {
  const good = (client: string) => ask({ target: `/${client}/none/parts` })
  const [before, ...answers] = await Promise.all([good('lean'), ask(parts), good('undici'), ask(parts), good('lean')])
  for (const one of [before, answers[1], answers[3]]) expect((one as Answer).text).toBe('onetwo')
  return [answers[0]!, answers[2]!]
}

/** Of one that is over: everything is given back, it is logged once, and so is the stack. */
async function expectNothingHeld(): Promise<void> {
  const now = () => ({
    inFlight: phases.inFlight,
    deadlines: deadlines.size,
    held: held.map((one) => one.inFlight),
    ...heldOfTables(),
  })
  const nothing = { inFlight: 0, deadlines: 0, held: held.map(() => 0), places: 0, limited: 0 }
  await eventually('everything to be given back', now, nothing)
}

function expectStack(): void {
  const errors = logged.splice(0).filter(({ level }) => level === 'error')
  expect(errors.length).toBeGreaterThan(0)
  for (const { object } of errors) expect(object.err?.stack).toContain('expected of this test')
}

function expectInternalError(answer: Answer | 'cut'): void {
  expect(answer).not.toBe('cut')
  expect((answer as Answer).status).toBe(500)
  expect((answer as Answer).json()).toMatchObject({ code: 'internal_error', rid: expect.stringMatching(/^\w{32}$/) })
}

describe.each(['lean', 'undici'])('through %s', (client) => {
  test.each([
    ['a request that cannot be sent', 'dispatch/whole'],
    ['a head', 'head/whole'],
    ['the fields of a whole response', 'fields/whole'],
    ['the fields of an empty one', 'fields/empty'],
    ['the fields of one that comes in parts', 'fields/parts'],
    ['the fields of a long one', 'fields/large'],
    ['an error', 'error/reset'],
    ['an error that is a mistake of the client', 'mistake/reset'],
    ['a deadline', 'abort/silent'],
  ])('%s: 500', async (_, path) => {
    const from = lines.length
    for (const answer of await askAmongOthers({ target: `/${client}/${path}` })) expectInternalError(answer)
    await expectNothingHeld()
    expect(lines.slice(from).filter((line) => line.endsWith(path))).toHaveLength(2)
    expectStack()
  })

  test('a chunk, once the response has begun: the connection is cut', async () => {
    expect(await askAmongOthers({ target: `/${client}/chunk/parts` })).toEqual(['cut', 'cut'])
    await expectNothingHeld()
    expectStack()
  })

  test('a client that can take more: the connection is cut', async () => {
    const socket = await slowReader(`/${client}/resume/large`)
    let bytes = 0
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    socket.resume()
    await once(socket, 'close')
    expect(bytes).toBeLessThan(LARGE.length)
    await expectNothingHeld()
    expectStack()
  })

  test.each([
    ['twice', 'busy', 503],
    ['twice', 'reset', 502],
    ['hedged', 'late', 200],
  ])(
    'the clock, whenever it is asked about a request that has two attempts (%s, %s): 500',
    async (service, path, status) => {
      const target = `/${service}-${client}/none/${path}`
      for (let times = 0; ; times++) {
        throwing = 'clock'
        spared = times
        const answer = await ask({ target })
        spared = 0
        const isThrown = throwing === ''
        throwing = ''
        await expectNothingHeld()
        if (!isThrown) {
          expect((answer as Answer).status).toBe(status)
          // When the head comes, for each of two attempts, and for each of their ends.
          expect(times).toBeGreaterThan(5)
          break
        }
        // The first look is taken before the request is read, and the last one after its response.
        expect(['cut', 500, 502, 503, status]).toContain(answer === 'cut' ? answer : answer.status)
        expectStack()
      }
    },
  )

  test('a client that leaves: all is given back', async () => {
    const connection = await Connection.open(port)
    await connection.send({ target: `/${client}/abort/silent` })
    await once(origin, 'request')
    connection.destroy()
    await expectNothingHeld()
    expectStack()
  })
})

/** Of a client whose window is full. */
async function slowReader(target: string): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' }).on('error', () => {})
  const before = pauses
  socket.pause().write(`GET ${target} HTTP/1.1\r\nHost: demo.test\r\n\r\n`)
  await once(socket, 'readable')
  await eventually('a response that is held back', () => pauses > before, true)
  return socket
}

describe('of ours', () => {
  test.each([
    ['the head', { target: '/lean/none/whole' }],
    ['the last of a body that is read whole', { target: '/signed/none/body', method: 'POST', body: 'hello' }],
    ['a password that a thread has checked', { target: '/named/none/whole' }],
  ] as const)('a limit that cannot be asked, behind %s: 500', async (_, parts) => {
    const headers = parts.target.startsWith('/signed')
      ? signedHeaders({ source: 'test', secret: 'the-secret-of-test' }, parts)
      : { authorization: `Basic ${Buffer.from('test:open').toString('base64')}` }
    throwing = 'rates'
    expectInternalError((await ask({ ...parts, headers })) as Answer)
    expect(throwing).toBe('')
    await expectNothingHeld()
    expectStack()
  })

  test.each(['right', 'wrong'])('a limit on guesses, whenever it is asked about a %s password: 500', async (which) => {
    for (let times = 0; ; times++) {
      const known = which === 'wrong' ? `${times}` : ''
      // The right one is remembered: other bytes around it are checked anew.
      const credentials = Buffer.from(`test:${known || 'open'}`).toString('base64')
      const headers = { authorization: `Basic ${' '.repeat(known === '' ? times : 0)}${credentials}` }
      throwing = 'rates'
      spared = times
      const answer = (await ask({ target: '/guessed/none/whole', headers })) as Answer
      spared = 0
      if (throwing !== '') {
        throwing = ''
        expect(answer.status).toBe(which === 'right' ? 200 : 401)
        // Before it is looked up, when its check begins, and after that.
        expect(times).toBeGreaterThanOrEqual(3)
        break
      }
      expectInternalError(answer)
      await expectNothingHeld()
      expectStack()
    }
  })

  test('a request that cannot even be read: its connection is closed', async () => {
    throwing = 'clock'
    expect(await ask({ target: '/lean/none/whole' })).toBe('cut')
    await expectNothingHeld()
    expectStack()
  })

  test('a part of a body on its way through: 500', async () => {
    const connection = await Connection.open(port)
    const asked = once(origin, 'request')
    await connection.write('POST /lean/none/body HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 10\r\n\r\nhello')
    await asked
    throwing = 'clock'
    await connection.write('hell')
    expectInternalError(await connection.answer())
    connection.destroy()
    await expectNothingHeld()
    expectStack()
  })

  test('the access log: the client has its response all the same', async () => {
    throwing = 'access log'
    expect(((await ask({ target: '/lean/none/whole' })) as Answer).text).toBe('ok')
    await expectNothingHeld()
    expectStack()
  })

  test('a breaker’s change that cannot be logged, and a probe that is lost to an exception: the permit comes back', async () => {
    throwing = 'log.warn'
    expectInternalError(await ask({ target: '/breaks/none/busy' }))
    expectStack()
    // Open; then there is one probe at a time.
    const isProbe = (answer: Answer | 'cut') => answer !== 'cut' && answer.status === 500
    expectInternalError(await eventually('a probe', () => ask({ target: '/breaks/fields/whole' }), isProbe))
    expect(((await ask({ target: '/breaks/none/whole' })) as Answer).status).toBe(200)
    await expectNothingHeld()
    expectStack()
  })
})
