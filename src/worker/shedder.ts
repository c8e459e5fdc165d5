// Measures how long requests wait for this worker, and refuses requests while overload.ts says so: the timer, the
// refusals, the log lines. One for all generations of a worker. refuse() runs per request that is refused.
//
// Two waits are measured, and none of them costs a request anything:
//   the event loop   Each turn takes what every connection has sent, one request at most of each. So a request waits
//                    for about one turn before it is read, and its response for one more. A timer is late by a turn.
//   connections      How many requests wait for a connection to a service, by how many get one in a second. Only
//                    while the worker is never idle: then it is the worker that has no time for the responses that
//                    would free the connections. Otherwise requests wait for a service, whose limits are its own.
//
// A refusal is held back for a second, where it can be. A client that is answered at once asks again at once: refusals
// are cheap, but thousands of clients that do nothing else would take the time of those that are served. A held
// request costs some memory, and its connection carries no other meanwhile.
import { performance } from 'node:perf_hooks'
import { IMPORTANCES } from '../config/shedding.js'
import type { Deadline, Deadlines } from '../exchange/deadlines.js'
import type { Exchange, Holder } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { WorkerCounters } from '../state/counters.js'
import type { Logger } from '../telemetry/log.js'
import type { Upstreams } from '../upstream/upstreams.js'
import { Overload } from './overload.js'

const TICK_MS = 50
/** Of a worker that is never idle: looking for work costs time as well. */
const BUSY = 0.9
const HOLD_US = 1e6
/** Of refusals held back at a time. Further ones are sent at once. */
const MOST_HELD = 4096

const shed = new Rejection('overloaded', 'the worker is overloaded')

export type Reject = (exchange: Exchange, rejection: Rejection) => void

interface ShedderParts {
  readonly counters: WorkerCounters
  readonly upstreams: Pick<Upstreams, 'queued'>
  readonly deadlines: Deadlines
  readonly log: Logger
  readonly nowUs: () => number
}

export class Shedder {
  readonly overload = new Overload()
  readonly deadlines: Deadlines
  held = 0
  private readonly parts: ShedderParts
  private readonly timer: NodeJS.Timeout
  private lastUs: number
  private activeUs = 0
  private forwarded = 0
  /** Forwarded requests that are finished in a microsecond: an average that moves by a quarter with each tick. */
  private rate = 0
  private use = performance.eventLoopUtilization()
  /** How much of its time the worker is not idle: an average as well. */
  private busy = 0

  constructor(parts: ShedderParts) {
    this.parts = parts
    this.deadlines = parts.deadlines
    this.lastUs = parts.nowUs()
    this.overload.onChange = () => this.tell()
    // Begins anew when it fires: one long turn makes it late once.
    this.timer = setInterval(() => this.tick(), TICK_MS).unref()
  }

  /** Instead of all other phases, before credentials are checked: these cost more than the refusal. */
  refuse(exchange: Exchange, reject: Reject): void {
    this.parts.counters.shed(exchange)
    // A body that nobody reads must end with its request; a client with a deadline is gone before the second is over.
    const mustGo = exchange.contentLength !== 0 || exchange.deadline !== null || this.held >= MOST_HELD
    if (mustGo) reject(exchange, shed)
    else new HeldRefusal(this, exchange, reject, this.parts.nowUs() + HOLD_US)
  }

  close(): void {
    clearInterval(this.timer)
  }

  private tick(): void {
    const { counters, nowUs } = this.parts
    const now = nowUs()
    const passedUs = Math.max(1, now - this.lastUs)
    this.lastUs = now
    const lateUs = Math.max(0, passedUs - TICK_MS * 1000)
    this.overload.look(now, lateUs + this.queuedUs(passedUs), counters.requests)
    if (this.overload.isActive) counters.overloaded(this.overload.share, this.overload.waitUs)
  }

  /** How long requests wait for connections because the worker has no time. */
  private queuedUs(passedUs: number): number {
    const { counters, upstreams } = this.parts
    const { forwarded } = counters
    this.rate += ((forwarded - this.forwarded) / passedUs - this.rate) / 4
    this.forwarded = forwarded
    const use = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(use, this.use)
    this.use = use
    this.busy += (utilization - this.busy) / 4
    return this.busy < BUSY || this.rate === 0 ? 0 : upstreams.queued / this.rate
  }

  private tell(): void {
    const { counters, log, nowUs } = this.parts
    const { isActive, waitUs, refused } = this.overload
    const waitMs = Math.round(waitUs / 1000)
    if (isActive) {
      this.activeUs = nowUs()
      log.warn({ waitMs }, 'overloaded: requests wait too long for this worker, and some are refused, by importance')
      return
    }
    counters.notOverloaded()
    const byImportance = Object.fromEntries(IMPORTANCES.map((name, i) => [name, refused[i]]))
    const seconds = Math.round((nowUs() - this.activeUs) / 1e6)
    log.warn({ waitMs, seconds, refused: byImportance }, 'no longer overloaded')
  }
}

/** Holds one exchange until its client is told, or leaves. */
class HeldRefusal implements Deadline, Holder {
  slot = -1
  readonly deadlineUs: number
  readonly exchange: Exchange
  private readonly shedder: Shedder
  private readonly reject: Reject

  constructor(shedder: Shedder, exchange: Exchange, reject: Reject, deadlineUs: number) {
    this.shedder = shedder
    this.exchange = exchange
    this.reject = reject
    this.deadlineUs = deadlineUs
    shedder.held++
    exchange.downstream.watch()
    exchange.holder = this
    shedder.deadlines.add(this)
  }

  expire(): void {
    this.abandon()
    this.reject(this.exchange, shed)
  }

  abandon(): void {
    this.shedder.held--
    this.shedder.deadlines.remove(this)
    this.exchange.holder = null
  }
}
