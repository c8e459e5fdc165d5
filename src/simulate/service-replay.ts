// One service under a configuration: its breaker, asked and told as the gateway does it, with the responses that the
// log has. Off the request's way.
import type { Service } from '../config/compile.js'
import type { BreakerChange } from '../state/breaker-record.js'
import type { BreakerTable } from '../state/breaker-table.js'
import { Breaker, OUTCOME } from '../upstream/breaker.js'
import type { Entry } from './entry.js'
import type { LoggedAnswer } from './logged-answer.js'

/** The list of a breaker's openings ends here; the count goes on. */
export const MOST_OPENINGS = 1000

export interface Opening {
  readonly atUs: number
  readonly reason: string
  /** When the breaker was closed again; null: not before the log's end. */
  closedUs: number | null
  refused: number
}

export class ServiceReplay {
  readonly openings: Opening[] = []
  openingsTotal = 0
  private readonly breaker: Breaker | null
  private nowUs = 0

  constructor(
    readonly service: Service,
    breakers: BreakerTable,
  ) {
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

  ended(permit: number, { kind, status }: LoggedAnswer, { upstreamUs }: Entry, nowUs: number): void {
    if (this.breaker === null) return
    this.nowUs = nowUs
    let outcome: number = OUTCOME.ignored
    if (kind === 'answered') outcome = this.breaker.outcomeOf(status, upstreamUs)
    else if (kind === 'failed') outcome = OUTCOME.failed
    this.breaker.report(permit, outcome, nowUs)
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
