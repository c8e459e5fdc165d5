// One service under a configuration: its breaker, its retries and their budget, asked and told as the gateway does it,
// with the responses that the log has. Off the request's way.
import type { Service } from '../config/compile.js'
import type { BreakerChange } from '../state/breaker-record.js'
import type { BreakerTable } from '../state/breaker-table.js'
import { Breaker, OUTCOME } from '../upstream/breaker.js'
import { whither } from '../upstream/retries.js'
import { RetryBudget } from '../upstream/retry-budget.js'
import type { Entry } from './entry.js'
import type { LoggedAnswer } from './logged-answer.js'
import { type LoggedFailure, lastFailure, retriedFailure } from './logged-failure.js'

/** The list of a breaker's openings ends here; the count goes on. */
const MOST_OPENINGS = 1000
/** So long an endpoint is believed to answer as it did last. */
const RECENT_US = 10e6
/** Of endpoints in the log. */
const MOST_ENDPOINTS = 1000

export interface Opening {
  readonly atUs: number
  readonly reason: string
  /** When the breaker was closed again; null: not before the log's end. */
  closedUs: number | null
  refused: number
}

/** What came of a request at the service. */
export interface Replayed {
  readonly answer: LoggedAnswer
  readonly retries: number
  readonly retriesRefused: number
}

/** How an endpoint has answered lately. */
interface Lately {
  readonly answer: LoggedAnswer
  readonly atUs: number
}

/** An attempt that the log has a retry of: its own response is not in the log. */
const FIRST_FAILED: LoggedAnswer = { kind: 'failed', status: 502, code: 'upstream_error' }
const FIRST_LATE: LoggedAnswer = { kind: 'failed', status: 504, code: 'upstream_timeout' }

export class ServiceReplay {
  readonly openings: Opening[] = []
  openingsTotal = 0
  private readonly breaker: Breaker | null
  private readonly budget: RetryBudget
  private readonly lately = new Map<string, Lately>()
  private nowUs: number

  constructor(
    readonly service: Service,
    breakers: BreakerTable,
    firstUs: number,
  ) {
    this.nowUs = firstUs
    this.budget = new RetryBudget(service.retries.budget, firstUs)
    this.breaker = service.breaker === null ? null : new Breaker(breakers, service, 0)
    if (this.breaker !== null) this.breaker.onChange = (change) => this.note(change)
  }

  /** A permit for ended(), 0 or more; −1: the breaker refuses. */
  admit(nowUs: number): number {
    if (this.breaker === null) return 0
    this.nowUs = nowUs
    const permit = this.breaker.admit(nowUs)
    const last = this.openings.at(-1)
    if (permit < 0 && last !== undefined && this.openings.length === this.openingsTotal) last.refused++
    return permit
  }

  /**
   * What the service answers, with the retries of this configuration. Nobody knows what another endpoint would have
   * answered: this takes what one has answered last, if that was lately and no failure; else what the log has.
   */
  replay(entry: Entry, logged: LoggedAnswer, nowUs: number): Replayed {
    this.budget.deposit(nowUs)
    const then = retriedFailure(entry)
    const failure = then ?? lastFailure(logged, entry, this.service.retries)
    if (failure.reason === null) return { answer: logged, retries: 0, retriesRefused: 0 }
    const first = then === null ? logged : failure.reason === 'timeout' ? FIRST_LATE : FIRST_FAILED
    // The log has what the retry has led to.
    const other = then === null ? this.otherAnswer(entry.endpoint, nowUs) : logged
    return this.retry(entry, failure, first, other, nowUs)
  }

  /** @param other what the next endpoint answers; null: it fails in the same way */
  private retry(
    { method, bytesIn }: Entry,
    failure: LoggedFailure,
    first: LoggedAnswer,
    other: LoggedAnswer | null,
    nowUs: number,
  ): Replayed {
    const { retries: rules, endpoints } = this.service
    for (let attempts = 1; ; attempts++) {
      const ended = { answer: first, retries: attempts - 1, retriesRefused: 0 }
      const facts = { method, responseStarted: false, bodyTaken: false, bodyBytes: bytesIn, attempts }
      const where = whither(rules, failure.reason, failure.sent, facts)
      if (where === 'nowhere' || (where === 'elsewhere' && endpoints.length < 2)) return ended
      if (this.breaker?.isShut(nowUs)) return ended
      // One that could not be reached has had no work of it.
      if (failure.sent?.written !== false && !this.budget.take(nowUs)) return { ...ended, retriesRefused: 1 }
      if (other !== null) return { answer: other, retries: attempts, retriesRefused: 0 }
    }
  }

  private otherAnswer(than: string, nowUs: number): LoggedAnswer | null {
    for (const { origin } of this.service.endpoints) {
      const lately = origin === than ? undefined : this.lately.get(origin)
      if (lately !== undefined && nowUs - lately.atUs < RECENT_US && this.isWell(lately.answer)) return lately.answer
    }
    return null
  }

  private isWell({ kind, status }: LoggedAnswer): boolean {
    return kind === 'answered' && status < 500 && !this.service.retries.statuses.has(status)
  }

  /** @param logged what the endpoint of the log answered; `answer` may be that of another one */
  ended(permit: number, answer: LoggedAnswer, logged: LoggedAnswer, entry: Entry, nowUs: number): void {
    if (entry.endpoint !== '' && (logged.kind === 'answered' || logged.kind === 'failed'))
      this.remember(entry, logged, nowUs)
    if (this.breaker === null) return
    this.nowUs = nowUs
    let outcome: number = OUTCOME.ignored
    if (answer.kind === 'answered') outcome = this.breaker.outcomeOf(answer.status, entry.upstreamUs)
    else if (answer.kind === 'failed') outcome = OUTCOME.failed
    this.breaker.report(permit, outcome, nowUs)
  }

  private remember({ endpoint }: Entry, answer: LoggedAnswer, atUs: number): void {
    if (this.lately.size >= MOST_ENDPOINTS && !this.lately.has(endpoint)) return
    this.lately.set(endpoint, { answer, atUs })
  }

  private note({ to, reason }: BreakerChange): void {
    const last = this.openings.at(-1)
    if (to === 'closed' || to === 'ramp') {
      if (last !== undefined && this.openings.length === this.openingsTotal) last.closedUs ??= this.nowUs
    } else if (to === 'open' && (last === undefined || last.closedUs !== null)) {
      // A probe that fails opens the breaker again: that is the same outage.
      this.openingsTotal++
      if (this.openings.length < MOST_OPENINGS)
        this.openings.push({ atUs: this.nowUs, reason, closedUs: null, refused: 0 })
    }
  }
}
