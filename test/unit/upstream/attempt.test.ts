import fc from 'fast-check'
import type { Dispatcher } from 'undici'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { Service } from '../../../src/config/compile.js'
import { BreakerTable } from '../../../src/state/breaker-table.js'
import { EndpointTable } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { Attempt, type AttemptSink } from '../../../src/upstream/attempt.js'
import { Breaker } from '../../../src/upstream/breaker.js'
import { EndpointState } from '../../../src/upstream/cluster/endpoint-state.js'
import { DeadlineError } from '../../../src/upstream/failure.js'
import { FieldLines } from '../../../src/upstream/field-lines.js'
import { errors } from '../../../src/upstream/undici.js'

const breakerRules = {
  windowMs: 10_000,
  minRequests: 1000,
  failureRatio: 1,
  slowCallMs: 1000,
  slowRatio: 1,
  openForMs: 5000,
  maxOpenForMs: 30_000,
  probes: 1,
  rampMs: 0,
  failureStatuses: new Set([503]),
}
const request = {
  method: 'GET',
  path: '/',
  headers: new FieldLines('', -1),
  body: null,
  servername: '',
  reset: false,
} as const

let breaker: Breaker
let endpoint: EndpointState
let nowUs = 0
/** What the endpoint's client was given: a test says in which order it tells of what. */
let handler: Dispatcher.DispatchHandler
let aborted: Error | null
/** What the sink says to a failure: where another attempt is to be made. */
let next: EndpointState | null = null
/** What the sink was told. */
let told: string[]
const controller = {
  abort: (reason: Error) => {
    aborted = reason
    // As both clients do, at once.
    handler.onResponseError!(controller, reason)
  },
  pause() {},
  resume() {},
} as unknown as Dispatcher.DispatchController

beforeEach(begin)

function begin(): void {
  const segment = openSegment(
    SECTIONS,
    { workers: 1, rateLimitKeys: 15, services: 4, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  nowUs = Date.UTC(2026, 5, 1) * 1000
  breaker = new Breaker(new BreakerTable(segment), { name: 'demo', totalTimeoutMs: 20_000, breaker: breakerRules }, 0)
  const client = {
    dispatch(_: unknown, given: Dispatcher.DispatchHandler) {
      handler = given
      return true
    },
    close: async () => {
      told.push('closed')
    },
  } as unknown as Dispatcher
  const configured = { origin: 'http://a', authority: 'a', serverName: 'a', index: 0, slot: 0 }
  const endpoints = new EndpointTable(segment, { endpoints: 1, workers: 1 })
  endpoint = new EndpointState(client, { pipelining: 1 } as Service, configured, {
    connections: 4,
    endpoints,
    worker: 0,
    nowUs: () => nowUs,
  })
  aborted = null
  next = null
  told = []
}

const sink: AttemptSink = {
  onSentAgain: () => void told.push('sent again'),
  onHead: (status) => void told.push(`head ${status}`),
  onData: () => void told.push('data'),
  onEnd: () => void told.push('end'),
  retryAt: () => next,
  onFailure: ({ rejection }) => void told.push(`failure ${rejection.reason}`),
  onException: () => void told.push('exception'),
}

function started(): Attempt {
  const attempt = new Attempt(breaker, breaker.admit(nowUs), () => nowUs)
  attempt.start(request, endpoint, sink)
  return attempt
}

/** ok, failed, slow. */
function reported(): number[] {
  const { ok, failed, slow } = breaker.snapshot().window
  return [ok, failed, slow]
}

type Event = (attempt: Attempt) => void
const events: Readonly<Record<string, Event>> = {
  start: () => handler.onRequestStart!(controller, {}),
  head: () => handler.onResponseStart!(controller, 200, {}, 'OK'),
  data: () => handler.onResponseData!(controller, Buffer.from('x')),
  end: () => handler.onResponseEnd!(controller, {}),
  error: () => handler.onResponseError!(controller, new errors.SocketError('other side closed')),
  complete: (attempt) => attempt.complete(10, nowUs),
  abort: (attempt) => attempt.abort(new Error('the client left')),
  deadline: (attempt) => attempt.abort(new DeadlineError('total timeout')),
}

describe('what an attempt holds', () => {
  it('is given back once, in whatever order its end is told of', () => {
    const name = fc.constantFrom(...Object.keys(events))
    fc.assert(
      fc.property(fc.array(name, { maxLength: 8 }), (names) => {
        begin()
        const attempt = started()
        expect([endpoint.inFlight, attempt.isRunning]).toEqual([1, true])
        for (const one of names) events[one]!(attempt)
        const ending = names.find((one) => ['error', 'complete', 'abort', 'deadline'].includes(one))
        expect([endpoint.inFlight, attempt.isRunning]).toEqual(ending === undefined ? [1, true] : [0, false])
        const outcomes = { error: [0, 1, 0], complete: [1, 0, 0], abort: [0, 0, 0], deadline: [0, 1, 0] } as const
        expect(reported()).toEqual(ending === undefined ? [0, 0, 0] : outcomes[ending as keyof typeof outcomes])
        // Nothing is told once it is over.
        const before = told.length
        for (const one of Object.keys(events)) events[one]!(attempt)
        if (ending !== undefined) expect(told.length).toBe(before)
      }),
    )
  })

  it('a permit comes back of one that never started', () => {
    const attempt = new Attempt(breaker, breaker.admit(nowUs), () => nowUs)
    attempt.abort(new DeadlineError('total timeout'))
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 1, 0]])
  })

  it.each([
    [200, 10, [1, 0, 0]],
    [200, 1_000_001, [0, 0, 1]],
    [503, 10, [0, 1, 0]],
  ])('of a response with %i after %i µs the breaker hears', (status, spentUs, expected) => {
    const attempt = started()
    events.start!(attempt)
    handler.onResponseStart!(controller, status, {}, '')
    attempt.complete(spentUs, nowUs)
    expect(reported()).toEqual(expected)
  })

  it('where another attempt follows, the breaker hears of that one', () => {
    let successor: Attempt | null = null
    const first = new Attempt(breaker, breaker.admit(nowUs), () => nowUs)
    const retrying: AttemptSink = {
      ...sink,
      retryAt() {
        successor = first.successor()
        return endpoint
      },
    }
    first.start(request, endpoint, retrying)
    handler.onResponseError!(controller, new errors.SocketError('other side closed'))
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 0, 0]])
    successor!.start(request, endpoint, sink)
    events.error!(successor!)
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 1, 0]])
    first.abort(new DeadlineError('total timeout'))
    expect(reported()).toEqual([0, 1, 0])
  })

  it('a permit goes on with the successor, and comes back of one that never started', () => {
    const first = started()
    const successor = first.successor()
    first.abort(new DeadlineError('total timeout'))
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 0, 0]])
    successor.abort(new DeadlineError('total timeout'))
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 1, 0]])
  })

  it('keeps a client whose endpoint is gone until it is over', () => {
    const attempt = started()
    endpoint.retire()
    events.start!(attempt)
    expect(told).toEqual([])
    events.error!(attempt)
    expect(told).toEqual(['closed', 'failure connection lost'])
  })
})

describe('what an attempt tells', () => {
  it('the response, without interim ones', () => {
    const attempt = started()
    events.start!(attempt)
    handler.onResponseStart!(controller, 103, {}, '')
    for (const one of ['head', 'data', 'end']) events[one]!(attempt)
    expect(told).toEqual(['head 200', 'data', 'end'])
  })

  it('that the client sends the request again', () => {
    const attempt = started()
    for (const one of ['start', 'start', 'start', 'head']) events[one]!(attempt)
    expect(told).toEqual(['sent again', 'sent again', 'head 200'])
  })

  it('the end of a 304, although undici misses the body that its length speaks of', () => {
    const attempt = started()
    events.start!(attempt)
    handler.onResponseStart!(controller, 304, { 'content-length': '5' }, '')
    handler.onResponseError!(controller, new errors.ResponseContentLengthMismatchError())
    expect([told, attempt.isRunning]).toEqual([['head 304', 'end'], true])
  })

  it('a mistake of the client as an exception: it says nothing of the service', () => {
    const attempt = started()
    events.start!(attempt)
    handler.onResponseError!(controller, new TypeError('a mistake'))
    expect(told).toEqual(['exception'])
    attempt.abort(new Error('the exchange has ended'))
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 0, 0]])
  })

  it('undici, once it has a controller, that the attempt was given up before', () => {
    const attempt = started()
    const reason = new Error('the client left')
    attempt.abort(reason)
    expect(aborted).toBeNull()
    events.start!(attempt)
    expect([aborted, told]).toEqual([reason, []])
  })
})

describe('a response that is not wanted', () => {
  const unwanted = (declaredBytes: number): Attempt => {
    const attempt = started()
    events.start!(attempt)
    handler.onResponseStart!(controller, 503, {}, '')
    attempt.discard(declaredBytes)
    return attempt
  }
  const chunk = Buffer.alloc(16_384)
  const receive = (chunks: number): void => {
    for (let i = 0; i < chunks; i++) handler.onResponseData!(controller, chunk)
  }

  it('is read to its end, for nobody, and holds nothing meanwhile', () => {
    unwanted(65_536)
    expect([endpoint.inFlight, reported()]).toEqual([0, [0, 0, 0]])
    receive(4)
    handler.onResponseEnd!(controller, {})
    expect([aborted, told]).toEqual([null, ['head 503']])
  })

  it('is not read where it says that it is long', () => {
    unwanted(65_537)
    expect(aborted?.message).toBe('the response was not wanted')
  })

  it('is not read on where it proves long', () => {
    unwanted(-1)
    receive(4)
    expect(aborted).toBeNull()
    receive(1)
    expect([aborted?.message, told]).toEqual(['the response was not wanted', ['head 503']])
  })

  it('is not read on where it takes long', () => {
    vi.useFakeTimers()
    unwanted(-1)
    vi.advanceTimersByTime(999)
    expect(aborted).toBeNull()
    vi.advanceTimersByTime(1)
    expect(aborted?.message).toBe('the response was not wanted')
    vi.useRealTimers()
  })
})
