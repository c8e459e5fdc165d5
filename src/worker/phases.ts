// The phases of a request, wired once for each generation of the configuration, in the order they are passed. Reads
// like a table of contents; what a phase does is in the file named after it. Which generation a request gets is in
// generations.ts; starting, beating and leaving are in worker/entry.ts.
import type { RouteTable } from '../config/compile.js'
import { createMatcher } from '../config/match.js'
import type { Settings } from '../config/settings.js'
import { answerFallback, refuse } from '../downstream/answer.js'
import { checkLength } from '../downstream/body.js'
import type { BodyMemory } from '../downstream/body-memory.js'
import { ClientCertificates } from '../downstream/client-certificate.js'
import type { Receiver } from '../downstream/receiver.js'
import { ClientUpload } from '../downstream/upload.js'
import { WholeBody } from '../downstream/whole-body.js'
import type { Deadlines } from '../exchange/deadlines.js'
import type { Exchange, ExchangeEnds } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { HandlerContext } from '../handlers/handler.js'
import { Proxies } from '../handlers/proxy/proxy.js'
import { createAddressCheck } from '../policy/addresses.js'
import { Authenticator } from '../policy/authenticate.js'
import { authorize } from '../policy/authorize.js'
import type { DigestPool } from '../policy/digest-pool.js'
import { createGuessLimit, createRateLimit } from '../policy/rate-limit.js'
import { createReplayGuard } from '../policy/replay.js'
import type { WorkerCounters } from '../state/counters.js'
import type { RateTable } from '../state/rate-table.js'
import type { ReplayTable } from '../state/replay-table.js'
import type { Segment } from '../state/segment.js'
import type { AccessLog } from '../telemetry/access-log.js'
import type { Logger } from '../telemetry/log.js'
import { newRid, validRid } from '../telemetry/trace.js'
import type { Upstreams } from '../upstream/upstreams.js'
import { createCrash } from './crash.js'

const noRoute = new Rejection('no_route', 'no route')
const noTrace = new Rejection('not_implemented', 'TRACE is served by routes that name it')
const CLEARTEXT = { clientAuth: 'none', clientName: 'cn' } as const

/** What a worker has whatever its configuration is. */
export interface Shared {
  /** Of claims and permits in the kept tables (state/owners.ts). */
  readonly owner: number
  readonly settings: Settings
  readonly segment: Segment
  readonly counters: WorkerCounters
  readonly accessLog: AccessLog | null
  readonly log: Logger
  readonly deadlines: Deadlines
  readonly rates: RateTable
  readonly replays: ReplayTable
  readonly upstreams: Upstreams
  readonly bodyMemory: BodyMemory
}

export interface Phases extends Receiver {
  readonly inFlight: number
  /** Told each time that the last request in flight has ended. */
  onIdle: (() => void) | null
  /** Nothing is in flight, and nothing begins any more. */
  close(): void
}

export function createPhases(shared: Shared, table: RouteTable, digestPool: DigestPool): Phases {
  const { settings, segment, counters, accessLog, log, deadlines } = shared
  const nowUs = (): number => segment.nowUs()
  const guessLimit = createGuessLimit(shared.rates, segment, table.routes)
  const match = createMatcher(table)
  const authenticator = new Authenticator(
    table,
    digestPool,
    settings.hmacOffloadBytes,
    deadlines,
    guessLimit,
    (of, reason) => {
      if (reason === '') log.info(of, 'keys of an issuer can be fetched again')
      else log.warn({ ...of, reason }, 'keys of an issuer cannot be fetched')
    },
  )
  const { clientAuth, clientName } = table.tls ?? CLEARTEXT
  const certificates = clientAuth === 'none' ? null : new ClientCertificates(clientName, clientAuth === 'require')
  const checkAddress = createAddressCheck(table)
  const replays = createReplayGuard(shared.replays, segment, table.routes)
  const rateLimit = createRateLimit(shared.rates, segment, table.routes)
  const context: HandlerContext = { deadlines, nowUs, watch, fail: reject, conclude }
  const proxies = new Proxies(context, shared, table)
  const handlers = table.services.map((service) => proxies.handlerOf(service))
  const crash = createCrash({ log, conclude })

  const ends: ExchangeEnds = { crash, clientLeft }

  const { bodyMemory } = shared
  const bodyRules = { deadlines, nowUs, minBytesPerSecond: settings.minBodyBytesPerSecond, memory: bodyMemory }

  let inFlight = 0
  let onIdle: (() => void) | null = null

  // The request's way.

  function begin(exchange: Exchange): void {
    exchange.ends = ends
    inFlight++
    counters.begin()
  }

  function pass(exchange: Exchange, malformed: Rejection | null): void {
    const refused = malformed ?? findRoute(exchange)
    setRequestId(exchange)
    if (refused !== null) return reject(exchange, refused)
    const unwelcome = checkAddress(exchange) ?? authenticator.identify(exchange) ?? checkLength(exchange)
    if (unwelcome !== null) return reject(exchange, unwelcome)
    if (exchange.contentLength !== 0) watch(exchange)
    if (authenticator.needsBody(exchange)) {
      new WholeBody(exchange, bodyRules, authenticate)
      exchange.downstream.continueBody()
    } else {
      if (exchange.contentLength !== 0) exchange.upload = new ClientUpload(exchange, bodyRules)
      authenticate(exchange, null)
    }
  }

  function findRoute(exchange: Exchange): Rejection | null {
    const found = match(exchange.host, exchange.canonicalPath, exchange.method, exchange)
    if (found === null) return noRoute
    exchange.route = found
    exchange.service = found.service
    // It shows a request's fields, credentials among them, to whoever can have it sent (RFC 9110, 9.3.8).
    return exchange.method === 'TRACE' && found.match.methods === null ? noTrace : null
  }

  function setRequestId(exchange: Exchange): void {
    const own = exchange.route?.trustRid === true ? exchange.header('x-rid') : ''
    exchange.rid = validRid(own) ? own : newRid()
  }

  /** Once the body is here, where the credentials cover it. */
  function authenticate(exchange: Exchange, unreadable: Rejection | null): void {
    if (unreadable !== null) return reject(exchange, unreadable)
    if (authenticator.takesTime(exchange)) {
      watch(exchange)
      authenticator.verifyLater(exchange, nowUs(), admit)
    } else admit(exchange, authenticator.verify(exchange))
  }

  function admit(exchange: Exchange, forged: Rejection | null): void {
    const refused =
      forged ?? replays.refuse(exchange) ?? authorize(exchange) ?? rateLimit(exchange) ?? replays.remember(exchange)
    if (refused !== null) reject(exchange, refused)
    else handlers[exchange.route!.service.index]!.handle(exchange)
  }

  /** Before anything is waited for. A refusal on the spot is spared the call. */
  function watch(exchange: Exchange): void {
    exchange.downstream.watch()
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
    // Who was not let in is not let in elsewhere.
    if (exchange.upstreamStartUs === 0) return false
    // The body is not read any further: nobody else could have it.
    if (rejection.closesConnection) return false
    // What is gone of a streamed body, the other service could not have.
    return exchange.downstream.open && (fallback.service === null || !exchange.upload?.taken)
  }

  function fallBack(exchange: Exchange, rejection: Rejection): void {
    const fallback = exchange.route!.fallback!
    exchange.fallback = rejection.code
    if (fallback.service !== null) {
      // Its body may be waited for, and then it has not ended yet.
      exchange.endUs = 0
      return handlers[fallback.service.index]!.handle(exchange)
    }
    exchange.upload?.drop()
    answerFallback(exchange, fallback, rejection)
    conclude(exchange)
  }

  function clientLeft(exchange: Exchange): void {
    if (exchange.concluded) return
    exchange.code = 'client_closed'
    exchange.reason = 'client left'
    if (exchange.bytesOut === 0) exchange.status = 499
    try {
      exchange.holder?.abandon()
    } catch (error) {
      return crash(exchange, error)
    }
    conclude(exchange)
  }

  function conclude(exchange: Exchange): void {
    if (exchange.concluded) return
    exchange.concluded = true
    inFlight--
    const endUs = exchange.endUs > 0 ? exchange.endUs : nowUs()
    try {
      bodyMemory.hold(exchange, 0)
      counters.count(exchange, endUs - exchange.startUs)
      accessLog?.write(exchange, endUs)
    } catch (error) {
      crash(exchange, error)
    }
    if (inFlight === 0 && onIdle !== null) onIdle()
  }

  function retryAfterSeconds(exchange: Exchange, rejection: Rejection): number {
    if (rejection.code === 'rate_limited') return exchange.limitRetrySeconds
    if (rejection.status !== 503) return 0
    return rejection.code === 'breaker_open' ? exchange.retryAfterSeconds : 1
  }

  return {
    heads: { table, certificates },
    begin,
    pass,
    get inFlight() {
      return inFlight
    },
    get onIdle() {
      return onIdle
    },
    set onIdle(listener) {
      onIdle = listener
    },
    close: () => proxies.close(),
  }
}
