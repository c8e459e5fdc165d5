// The table of contents of a request's way: the phases that it passes, in order, wired once for each generation of
// the configuration. What a phase does is in the file that it comes from; how an exchange ends is in exits.ts. Which
// generation a request gets is in generations.ts.
import type { Route, RouteTable } from '../config/compile.js'
import { createMatcher } from '../config/match.js'
import type { RetryEvent } from '../config/retries.js'
import type { Settings } from '../config/settings.js'
import type { BodyMemory } from '../downstream/body-memory.js'
import { ClientCertificates } from '../downstream/client-certificate.js'
import type { Receiver } from '../downstream/receiver.js'
import type { Deadlines } from '../exchange/deadlines.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { LATER, type Phase } from '../exchange/phase.js'
import type { HandlerContext } from '../handlers/handler.js'
import { Handlers } from '../handlers/kinds.js'
import { addressCheck } from '../policy/addresses.js'
import { Authenticator } from '../policy/authenticate.js'
import { consumerCheck } from '../policy/authorize.js'
import type { DigestPool } from '../policy/digest-pool.js'
import { createInFlightLimit, createInFlightRelease } from '../policy/in-flight-limit.js'
import { createGuessLimit, createRateLimit } from '../policy/rate-limit.js'
import { createReplayGuard } from '../policy/replay.js'
import type { WorkerBranchCounts } from '../state/branch-counts.js'
import type { WorkerCounters } from '../state/counters.js'
import type { InFlightTable } from '../state/in-flight-table.js'
import type { RateTable } from '../state/rate-table.js'
import type { ReplayTable } from '../state/replay-table.js'
import type { Segment } from '../state/segment.js'
import type { AccessLog } from '../telemetry/access-log.js'
import type { Logger } from '../telemetry/log.js'
import { newRid, validRid } from '../telemetry/trace.js'
import type { Upstreams } from '../upstream/upstreams.js'
import { Exits } from './exits.js'
import { bodyPhase } from './request-body.js'
import type { Shedder } from './shedder.js'

const noRoute = new Rejection('no_route', 'no route')
const noTrace = new Rejection('not_implemented', 'TRACE is served by routes that name it')
const CLEARTEXT = { clientAuth: 'none', clientName: 'cn' } as const

/** What a worker has in all generations of its configuration. */
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
  readonly inFlight: InFlightTable
  readonly replays: ReplayTable
  readonly upstreams: Upstreams
  readonly branches: WorkerBranchCounts
  readonly bodyMemory: BodyMemory
  readonly shedder: Shedder
}

export interface Phases extends Receiver {
  readonly inFlight: number
  /** Called each time when the last exchange in flight has ended. */
  onIdle: (() => void) | null
  /** Call it when no exchange is in flight and none can begin any more. */
  close(): void
}

export function createPhases(shared: Shared, table: RouteTable, digestPool: DigestPool): Phases {
  const { settings, segment, log, deadlines } = shared
  const nowUs = (): number => segment.nowUs()
  const exits = new Exits(shared, nowUs, createInFlightRelease(shared.inFlight, table.routes))
  const { overload } = shared.shedder
  const match = createMatcher(table)
  const { clientAuth, clientName } = table.tls ?? CLEARTEXT
  const certificates = clientAuth === 'none' ? null : new ClientCertificates(clientName, clientAuth === 'require')
  const credentials = new Authenticator(
    table,
    digestPool,
    settings.hmacOffloadBytes,
    { deadlines, nowUs, resume },
    createGuessLimit(shared.rates, segment, table.routes),
    (of, reason) => {
      if (reason === '') log.info(of, 'keys of an issuer can be fetched again')
      else log.warn({ ...of, reason }, 'keys of an issuer cannot be fetched')
    },
  )
  const minBytesPerSecond = settings.minBodyBytesPerSecond
  const bodyRules = { deadlines, nowUs, minBytesPerSecond, memory: shared.bodyMemory }
  const replays = createReplayGuard(shared.replays, segment, table.routes)
  const inFlightLimit = createInFlightLimit(shared.inFlight, segment)
  const rateLimit = createRateLimit(shared.rates, segment, table.routes)

  /** The phases of a route, in order. Null: the route has nothing there, and nothing is called. */
  const phasesOf = (route: Route): readonly (Phase | null)[] => [
    addressCheck(route), // may the client's address use the route: 403
    credentials.identify(route), // who calls, as far as the head tells: 401
    bodyPhase(bodyRules, resume, credentials.needsBody(route)), // waits for the body if the credentials cover it: 413
    credentials.verify(route), // is that proved; may wait for a thread or the network: 401
    replays.refuse(route), // was this signature accepted before: 401
    consumerCheck(route), // may the consumer use the route: 403
    inFlightLimit(route), // does the caller wait for too many responses already: 429
    rateLimit(route), // are all limits met: 429
    replays.remember(route), // remembers the signature as accepted; another worker may have done so first: 401
  ]
  const phases = table.routes.map((route) => phasesOf(route).filter((phase) => phase !== null))

  const retried = (exchange: Exchange, event: RetryEvent): void => shared.counters.retried(exchange, event)
  const context: HandlerContext = { deadlines, nowUs, fail: exits.fail, conclude: exits.conclude, retried }
  const handlers = new Handlers(context, shared, table)
  exits.fallbacks = handlers.fallbacks

  // The request's way.

  function begin(exchange: Exchange): void {
    exchange.ends = exits
    exits.begin()
  }

  function pass(exchange: Exchange, malformed: Rejection | null): void {
    const refused = malformed ?? findRoute(exchange)
    setRequestId(exchange)
    if (refused !== null) exits.reject(exchange, refused)
    // While the worker is overloaded: 503, whatever the phases of the route would say.
    else if (overload.isActive && !overload.admits(exchange.route!.importance)) {
      shared.shedder.refuse(exchange, exits.reject)
    } else proceed(exchange)
  }

  function findRoute(exchange: Exchange): Rejection | null {
    const found = match(exchange.host, exchange.canonicalPath, exchange.method, exchange)
    if (found === null) return noRoute
    exchange.route = found
    exchange.service = found.handler.service
    // It shows a request's fields, credentials among them, to whoever can have it sent (RFC 9110, 9.3.8).
    return exchange.method === 'TRACE' && found.match.methods === null ? noTrace : null
  }

  function setRequestId(exchange: Exchange): void {
    const own = exchange.route?.trustRid === true ? exchange.header('x-rid') : ''
    exchange.rid = validRid(own) ? own : newRid()
  }

  /** Takes the exchange through the remaining phases of its route, and then to the handler. */
  function proceed(exchange: Exchange): void {
    const { index } = exchange.route!
    const ahead = phases[index]!
    while (exchange.phase < ahead.length) {
      // Counted first, because a phase that waits may call resume before it returns.
      const verdict = ahead[exchange.phase++]!(exchange)
      if (verdict === LATER) return
      if (verdict !== null) return exits.reject(exchange, verdict)
    }
    handlers.ofRoutes[index]!.handle(exchange)
  }

  /** A phase that had to wait is over. */
  function resume(exchange: Exchange, rejection: Rejection | null): void {
    if (rejection === null) proceed(exchange)
    else exits.reject(exchange, rejection)
  }

  return {
    heads: { table, certificates },
    begin,
    pass,
    get inFlight() {
      return exits.inFlight
    },
    get onIdle() {
      return exits.onIdle
    },
    set onIdle(listener) {
      exits.onIdle = listener
    },
    close: () => handlers.close(),
  }
}
