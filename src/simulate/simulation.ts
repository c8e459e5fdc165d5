// A configuration that answers the requests of a log: which route takes each, whether its limits admit it, whether the
// breaker lets it through. The gateway's own code makes every decision, over tables of the simulation. Here is the
// order of the steps, which is that of worker/phases.ts, and what the log says in place of a service. Off the request's
// way.
import { type Consumer, compile, type Route, type RouteTable, type Service } from '../config/compile.js'
import type { Loaded } from '../config/load.js'
import type { SplitRules, StaticRules } from '../config/route-table.js'
import { MemoryDownstream } from '../downstream/memory.js'
import { Exchange } from '../exchange/exchange.js'
import { Fields } from '../exchange/fields.js'
import { OUTCOMES, type OutcomeCode } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'
import { addressCheck } from '../policy/addresses.js'
import { consumerCheck } from '../policy/authorize.js'
import { createRateLimit } from '../policy/rate-limit.js'
import { BreakerTable } from '../state/breaker-table.js'
import { RateTable } from '../state/rate-table.js'
import { blindLimits, blindSpots, judgedRoute } from './blind-spots.js'
import { type Decision, loggedDecision, UNKNOWN } from './decision.js'
import { type Entry, refusingLimit } from './entry.js'
import { answerOf, answerOfFallback, foundNoRoom, type LoggedAnswer } from './logged-answer.js'
import { openPrivateState, SteppedClock } from './private-state.js'
import { BAD_PATH, RouteFinder } from './route-finder.js'
import { type Replayed, ServiceReplay } from './service-replay.js'
import { SplitReplay } from './split-replay.js'
import { TimeQueue } from './time-queue.js'

/** Nothing is written to it. */
const NOBODY = new MemoryDownstream()
const NO_FIELDS = Fields.of([])
/** Consumers who are not in the configuration, but in tokens: remembered so far. */
const MOST_UNLISTED = 10_000

/** The checks of one route, in the order in which they are asked. */
interface RouteChecks {
  readonly address: Check | null
  readonly consumer: Check | null
  readonly limits: Check | null
}

/** A request that a service has. */
interface Call {
  readonly replay: ServiceReplay
  readonly permit: number
  readonly answer: LoggedAnswer
  readonly logged: LoggedAnswer
  readonly entry: Entry
}

/** How often the log did not say enough, and what was assumed. */
export interface Assumptions {
  /** Host or headers decide between several routes: the one that the log names was taken. */
  routeOfLog: number
  /** … and the log names none of them: left as logged. */
  routeOpen: number
  /** Routes that ask for credentials, for requests that had none: left as logged. */
  noCredentials: number
  /** Forwarded, and the log has no response. */
  unanswered: number
}

export class Simulation {
  readonly table: RouteTable
  readonly services: readonly ServiceReplay[]
  readonly assumptions: Assumptions = { routeOfLog: 0, routeOpen: 0, noCredentials: 0, unanswered: 0 }
  private readonly finder: RouteFinder
  private readonly clock: SteppedClock
  private readonly checks: readonly RouteChecks[]
  /** By Route.index; null for a route without one. */
  private readonly splits: readonly (SplitReplay | null)[]
  private readonly blind: ReadonlySet<string>
  private readonly admitsUnlisted: boolean
  private readonly unlisted = new Map<string, Consumer>()
  private readonly calls = new TimeQueue<Call>()

  /** @param firstUs the time of the first request: limits and breakers begin empty then */
  constructor(
    readonly loaded: Loaded,
    firstUs: number,
  ) {
    const { config, settings } = loaded
    const table = compile(config, settings)
    const clock = new SteppedClock(firstUs)
    const segment = openPrivateState(table.services.length, settings.rateLimitKeys, clock)
    const breakers = new BreakerTable(segment)
    const judged = table.routes.map(judgedRoute)
    const wallMs = (): number => Math.floor(clock.wallUs() / 1000)
    const limits = createRateLimit(new RateTable(segment, 0), segment, judged, wallMs)
    this.table = table
    this.clock = clock
    this.finder = new RouteFinder(table)
    this.services = table.services.map((service) => new ServiceReplay(service, breakers, firstUs))
    this.splits = table.routes.map((route) =>
      route.handler.kind === 'split' ? new SplitReplay(route.handler as SplitRules, route) : null,
    )
    this.blind = blindLimits(table.routes)
    this.admitsUnlisted = table.issuers.some((issuer) => issuer.admitsUnlisted)
    this.checks = judged.map((route) => ({
      address: addressCheck(route),
      consumer: consumerCheck(route),
      limits: limits(route),
    }))
  }

  /** What the log cannot tell of this configuration. */
  get blindSpots(): string[] {
    return blindSpots(this.table)
  }

  /** @param nowUs when the request began; not before that of the call before */
  decide(entry: Entry, nowUs: number): Decision {
    this.endCalls(nowUs)
    this.clock.step(nowUs)
    const { code } = entry
    // Refused by the head alone, before any route was asked.
    if (entry.route === '' && code !== 'no_route' && code !== '') return loggedDecision(entry)
    const found = this.finder.find(entry)
    if (found === BAD_PATH) return refused('', 'bad_request')
    if (found.by === 'open') {
      this.assumptions.routeOpen++
      return loggedDecision(entry)
    }
    if (found.by === 'log') this.assumptions.routeOfLog++
    if (found.route === null) return refused('', 'no_route')
    return this.onRoute(found.route, entry, nowUs)
  }

  /** The log has ended. */
  finish(): void {
    this.endCalls(Number.POSITIVE_INFINITY)
  }

  private onRoute(route: Route, entry: Entry, nowUs: number): Decision {
    const { code, reason } = entry
    const checks = this.checks[route.index] as RouteChecks
    const exchange = new Exchange(NOBODY, nowUs, entry.method, entry.path, undefined, NO_FIELDS)
    exchange.route = route
    exchange.clientAddress = entry.client
    if (checks.address?.(exchange)) return refused(route.name, 'forbidden')
    const asLogged = (): Decision => ({ ...loggedDecision(entry), route: route.name })
    // Of load that is not replayed: the worker shed it, or could not check its credentials.
    if (code === 'overloaded' && entry.attempts === 0 && !foundNoRoom(entry)) return asLogged()
    if (this.blind.has(refusingLimit(entry))) return asLogged()
    if (route.auth.length > 0) {
      if (code === 'unauthorized' || code === 'keys_unavailable') return asLogged()
      // The certificate of the client: the other two kinds of this code are judged here.
      if (code === 'forbidden' && !reason.endsWith('not allowed on this route')) return asLogged()
      if (endsBeforeLimits(route, entry)) return asLogged()
      if (entry.consumer === '') {
        this.assumptions.noCredentials++
        return asLogged()
      }
      exchange.consumer = this.consumerOf(entry.consumer)
      if (exchange.consumer === null) return refused(route.name, 'unauthorized')
    }
    if (checks.consumer?.(exchange)) return refused(route.name, 'forbidden')
    if (checks.limits !== null) {
      const refusal = checks.limits(exchange)
      if (refusal !== null) return refused(route.name, refusal.code, exchange.limit?.name ?? '', exchange.limitReported)
    }
    // The body came too late or was too large, or the client left, before a service was asked.
    if (endsEarly(entry)) return { ...asLogged(), limitReported: exchange.limitReported }
    return { ...this.handle(route, exchange, entry, nowUs), limitReported: exchange.limitReported }
  }

  private handle(route: Route, exchange: Exchange, entry: Entry, nowUs: number): Decision {
    const { handler } = route
    if (handler.kind === 'static') return answered(route.name, '', (handler as StaticRules).status)
    const logged = entry.fallback === '' ? entry.service : ''
    const service = this.splits[route.index]?.serviceFor(exchange, logged) ?? handler.service
    if (service === null) return { ...loggedDecision(entry), route: route.name }
    const answer = answerOf(entry)
    if (foundNoRoom(entry) || WITHOUT_ATTEMPT.has(entry.fallback))
      return this.fail(route, answer.code as OutcomeCode, '', entry, nowUs)
    const replayed = this.call(service, answer, entry, nowUs)
    if (replayed === null) return this.fail(route, 'breaker_open', service.name, entry, nowUs)
    if (answer.kind === 'unknown') this.assumptions.unanswered++
    const { retries, retriesRefused } = replayed
    const { kind, status, code } = replayed.answer
    const ended =
      kind === 'failed'
        ? this.fail(route, code as OutcomeCode, '', entry, nowUs)
        : { ...answered(route.name, '', status), code }
    return { ...ended, service: service.name, retries, retriesRefused }
  }

  /** Null: the breaker refuses. */
  private call(service: Service, logged: LoggedAnswer, entry: Entry, nowUs: number): Replayed | null {
    const replay = this.services[service.index] as ServiceReplay
    const permit = replay.admit(nowUs)
    if (permit < 0) return null
    const replayed = replay.replay(entry, logged, nowUs)
    this.calls.add(nowUs + entry.totalUs, { replay, permit, answer: replayed.answer, logged, entry })
    return replayed
  }

  /** The route's handler has failed: its fallback answers, where it has one. */
  private fail(route: Route, code: OutcomeCode, by: string, entry: Entry, nowUs: number): Decision {
    const failed = refused(route.name, code, by)
    const { fallback } = route
    if (fallback === null || failed.status < 502) return failed
    const instead = { ...failed, fallback: code }
    if (fallback.kind === 'static') return { ...instead, status: (fallback as StaticRules).status }
    if (fallback.service === null) return failed
    const answer = answerOfFallback(entry)
    const replayed = this.call(fallback.service, answer, entry, nowUs)
    if (replayed === null) return failed
    if (answer.kind === 'unknown') this.assumptions.unanswered++
    return { ...instead, status: replayed.answer.status, code: replayed.answer.code }
  }

  private endCalls(nowUs: number): void {
    const { calls } = this
    while (calls.length > 0 && calls.nextUs <= nowUs) {
      const endUs = calls.nextUs
      const { replay, permit, answer, logged, entry } = calls.take()
      replay.ended(permit, answer, logged, entry, endUs)
    }
  }

  /** Null: the configuration has no consumer of that name. */
  private consumerOf(name: string): Consumer | null {
    const known = this.table.consumersByName.get(name) ?? this.unlisted.get(name)
    if (known !== undefined) return known
    if (!this.admitsUnlisted) return null
    const consumer: Consumer = {
      name,
      index: -1,
      secrets: [],
      algorithm: 'sha256',
      signs: 'request',
      apiKeys: [],
      password: null,
      groups: [],
      httpSignatureKeys: [],
      certificateNames: [],
    }
    if (this.unlisted.size >= MOST_UNLISTED) this.unlisted.clear()
    this.unlisted.set(name, consumer)
    return consumer
  }
}

/** A body that the signature covers is read before the limits are asked. */
function endsBeforeLimits({ signBody, httpSignature }: Route, entry: Entry): boolean {
  return (signBody || httpSignature !== null) && endsEarly(entry)
}

const EARLY: ReadonlySet<string> = new Set<OutcomeCode>([
  'bad_request',
  'request_timeout',
  'body_too_large',
  'expectation_failed',
  'client_closed',
  'deadline_exceeded',
  'internal_error',
  'not_implemented',
])

/** A fallback stood in for these before any endpoint had the request. */
const WITHOUT_ATTEMPT: ReadonlySet<string> = new Set<OutcomeCode>(['no_endpoint', 'overloaded'])

function endsEarly({ code, attempts, fallback }: Entry): boolean {
  return attempts === 0 && fallback === '' && EARLY.has(code)
}

function refused(route: string, code: OutcomeCode, by = '', limitReported = false): Decision {
  return { ...answered(route, '', OUTCOMES[code].status), code, by, limitReported }
}

function answered(route: string, service: string, status: number): Decision {
  return {
    route,
    service,
    status: status === 0 ? UNKNOWN : status,
    code: '',
    by: '',
    fallback: '',
    limitReported: false,
    retries: 0,
    retriesRefused: 0,
  }
}
