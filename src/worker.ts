// One worker's uWS app: the phases of a request, wired once, in the order they are passed. Reads like a table of contents; what a phase
// does is in the file named after it. Starting, beating and leaving are in control/worker-entry.ts.
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js'
import type { RouteTable } from './config/compile.js'
import type { Settings } from './config/settings.js'
import { Deadlines } from './deadlines.js'
import { accept, checkFraming } from './ingress/accept.js'
import { checkLength, Upload, WholeBody } from './ingress/body.js'
import { isTrusted, setAddresses } from './ingress/client-address.js'
import type { Exchange } from './ingress/exchange.js'
import { createMatcher } from './ingress/match.js'
import { type Peer, Peers } from './ingress/peers.js'
import { uWS } from './ingress/uws.js'
import { Rejection } from './outcome.js'
import { Authenticator } from './policy/authenticate.js'
import { authorize } from './policy/authorize.js'
import { DigestPool } from './policy/digest-pool.js'
import { createRateLimit } from './policy/rate-limit.js'
import { Breaker } from './proxy/breaker.js'
import { forward } from './proxy/forward.js'
import { answerFallback, refuse } from './proxy/respond.js'
import { Upstreams } from './proxy/upstreams.js'
import { BreakerTable } from './state/breaker-table.js'
import type { WorkerCounters } from './state/counters.js'
import { HealthTable } from './state/health-table.js'
import { RateTable } from './state/rate-table.js'
import type { Segment } from './state/segment.js'
import type { AccessLog } from './telemetry/access-log.js'
import type { Logger } from './telemetry/log.js'
import { newRid, validRid } from './telemetry/trace.js'

const noRoute = new Rejection('no_route', 'no route')
const breakerOpen = new Rejection('breaker_open', 'breaker open')

export interface WorkerParts {
  readonly slot: number
  readonly table: RouteTable
  readonly settings: Settings
  readonly segment: Segment
  readonly counters: WorkerCounters
  readonly accessLog: AccessLog | null
  readonly log: Logger
}

export interface Worker {
  readonly peers: Peers
  /** Answers from now on say that the connection ends with them. Resolves when nothing is in flight. */
  drain(): Promise<void>
  close(): void
}

export function createWorker({ slot, table, settings, segment, counters, accessLog, log }: WorkerParts): Worker {
  const nowUs = (): number => segment.nowUs()
  const deadlines = new Deadlines(nowUs)
  const match = createMatcher(table)
  const digestPool = new DigestPool(table.consumers, settings.hmacThreads)
  const authenticator = new Authenticator(table, digestPool, settings.hmacOffloadBytes)
  const rateLimit = createRateLimit(new RateTable(segment, slot), segment)
  const breakerTable = new BreakerTable(segment)
  const breakers = table.services.map((service) => {
    if (service.breaker === null) return null
    const breaker = new Breaker(breakerTable, service, slot)
    breaker.onChange = (change) => log.warn({ service: service.name, ...change }, 'breaker changed state')
    return breaker
  })
  const health = new HealthTable(segment, table.endpoints.length)
  const upstreams = new Upstreams(table, health, settings.upstreamConnections, slot)
  const context = { upstreams, deadlines, breakers, nowUs, conclude, refuse: reject }

  const bodyRules = { deadlines, nowUs, minBytesPerSecond: settings.minBodyBytesPerSecond }

  let inFlight = 0
  let drained: (() => void) | null = null

  // The request's way.

  function begin(res: HttpResponse, req: HttpRequest, peer: Peer): void {
    const exchange = accept(res, req, nowUs())
    inFlight++
    counters.begin()
    if (peer.relayed) exchange.isHttp10 = true
    setAddresses(exchange, peer, table.trustedProxies)
    const refused = checkFraming(exchange) ?? findRoute(exchange)
    setRequestId(exchange)
    if (drained !== null) exchange.closeRequested = true
    if (refused !== null) return reject(exchange, refused)
    const unwelcome = authenticator.identify(exchange) ?? checkLength(exchange)
    if (unwelcome !== null) return reject(exchange, unwelcome)
    if (exchange.contentLength !== 0) watch(exchange)
    if (authenticator.needsBody(exchange)) new WholeBody(exchange, bodyRules, authenticate)
    else {
      if (exchange.contentLength !== 0) exchange.upload = new Upload(exchange, bodyRules)
      authenticate(exchange, null)
    }
  }

  function findRoute(exchange: Exchange): Rejection | null {
    const found = match(exchange.host, exchange.path, exchange.method, exchange)
    if (found === null) return noRoute
    exchange.route = found
    exchange.service = found.service
    return null
  }

  function setRequestId(exchange: Exchange): void {
    const own = exchange.route?.trustRid === true ? exchange.header('x-rid') : ''
    exchange.rid = validRid(own) ? own : newRid()
  }

  /** Once the body is here, where the signature covers it. */
  function authenticate(exchange: Exchange, unreadable: Rejection | null): void {
    if (unreadable !== null) return reject(exchange, unreadable)
    if (authenticator.isOffloaded(exchange)) {
      watch(exchange)
      authenticator.verifyOffloaded(exchange, admit)
    } else admit(exchange, authenticator.verify(exchange))
  }

  function admit(exchange: Exchange, forged: Rejection | null): void {
    const refused = forged ?? authorize(exchange) ?? rateLimit(exchange)
    if (refused !== null) reject(exchange, refused)
    else call(exchange)
  }

  /** The exchange's service: the route's own, or the one that stands in for it. */
  function call(exchange: Exchange): void {
    exchange.upstreamStartUs = nowUs()
    const refused = upstreams.pick(exchange) ?? askBreaker(exchange)
    if (refused !== null) return reject(exchange, refused)
    watch(exchange)
    forward(context, exchange)
  }

  /** Before anything is waited for: uWS wants to be told what happens when the client leaves. A refusal on the spot is spared the call. */
  function watch(exchange: Exchange): void {
    if (exchange.watched) return
    exchange.watched = true
    exchange.res?.onAborted(() => clientLeft(exchange))
  }

  function askBreaker(exchange: Exchange): Rejection | null {
    const breaker = breakers[exchange.service!.index]
    if (breaker === null || breaker === undefined) return null
    exchange.breakerPermit = breaker.admit(exchange.upstreamStartUs)
    return exchange.breakerPermit < 0 ? breakerOpen : null
  }

  // Every exit passes conclude, exactly once.

  function reject(exchange: Exchange, rejection: Rejection): void {
    if (mayFallBack(exchange, rejection)) return fallBack(exchange, rejection)
    exchange.upload?.drop()
    refuse(exchange, rejection, retryAfterSeconds(exchange, rejection))
    conclude(exchange)
  }

  /** Once, and only for what the service is to blame for. */
  function mayFallBack(exchange: Exchange, rejection: Rejection): boolean {
    const fallback = exchange.route?.fallback ?? null
    if (fallback === null || exchange.fallback !== '' || rejection.status < 502) return false
    // What is gone of a streamed body, the other service could not have.
    return exchange.res !== null && (fallback.service === null || !exchange.upload?.taken)
  }

  function fallBack(exchange: Exchange, rejection: Rejection): void {
    const fallback = exchange.route!.fallback!
    exchange.fallback = rejection.code
    if (fallback.service !== null) {
      exchange.service = fallback.service
      exchange.endpoint = null
      return call(exchange)
    }
    exchange.upload?.drop()
    answerFallback(exchange, fallback, rejection)
    conclude(exchange)
  }

  function clientLeft(exchange: Exchange): void {
    exchange.res = null
    if (exchange.concluded) return
    exchange.code = 'client_closed'
    exchange.reason = 'client left'
    if (exchange.bytesOut === 0) exchange.status = 499
    exchange.holder?.clientLeft()
    conclude(exchange)
  }

  function conclude(exchange: Exchange): void {
    if (exchange.concluded) return
    exchange.concluded = true
    const endUs = exchange.endUs > 0 ? exchange.endUs : nowUs()
    counters.count(exchange, endUs - exchange.startUs)
    accessLog?.write(exchange, endUs)
    inFlight--
    if (inFlight === 0) drained?.()
  }

  function retryAfterSeconds(exchange: Exchange, rejection: Rejection): number {
    if (rejection.code === 'rate_limited') return exchange.limitRetrySeconds
    if (rejection.status !== 503) return 0
    const breaker = rejection.code === 'breaker_open' ? breakers[exchange.service!.index] : null
    return breaker?.retryAfterSeconds(nowUs()) ?? 1
  }

  const peers = new Peers(serve, (address) => isTrusted(address, table.trustedProxies))

  function serve(peer: Peer): TemplatedApp {
    const app = uWS.App()
    app.any('/*', (res, req) => begin(res, req, peer))
    // The relay's connections are its own: the acceptor counts those of its clients.
    if (peer.relayed) return app
    app.filter((_, change) => {
      if (Number(change) > 0) {
        counters.connectionOpened()
        peers.opened(peer)
      } else {
        counters.connectionClosed()
        peers.closed(peer)
      }
    })
    return app
  }

  return {
    peers,
    drain: () =>
      new Promise((resolve) => {
        drained = resolve
        if (inFlight === 0) resolve()
      }),
    close(): void {
      deadlines.close()
      peers.close()
      void upstreams.close()
      void digestPool.close()
    },
  }
}
