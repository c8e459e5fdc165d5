// Holds an exchange while it waits for a place at its service (upstream/bulkhead.ts), no longer than the queue's wait,
// the service's total timeout or its client's deadline. Runs per request that waits.
import type { Deadline, Deadlines } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import type { Rejection } from '../../exchange/outcome.js'
import type { UploadEvents } from '../../exchange/upload.js'
import type { Bulkhead, Waiting } from '../../upstream/bulkhead.js'
import { tooLate } from './forwarding.js'

export interface WaitContext {
  readonly deadlines: Deadlines
  nowUs(): number
  /** It has a place, which the callee gives back. */
  begin(exchange: Exchange): void
  /** It has waited too long, or its upload cannot go on. */
  refuse(exchange: Exchange, rejection: Rejection): void
}

export class WaitingCall implements Waiting, Deadline, Holder, UploadEvents {
  deadlineUs: number
  slot = -1
  readonly sinceUs: number
  readonly exchange: Exchange
  private readonly context: WaitContext
  private readonly bulkhead: Bulkhead

  constructor(context: WaitContext, exchange: Exchange, bulkhead: Bulkhead) {
    const sinceUs = context.nowUs()
    this.context = context
    this.exchange = exchange
    this.bulkhead = bulkhead
    this.sinceUs = sinceUs
    const lateUs = sinceUs + Math.min(bulkhead.rules.waitMs, exchange.service!.totalTimeoutMs) * 1000
    this.deadlineUs = exchange.deadline === null ? lateUs : Math.min(lateUs, exchange.deadline.untilUs)
  }

  /** False: the queue has no room. */
  join(): boolean {
    const { exchange } = this
    if (!this.bulkhead.join(this)) return false
    exchange.downstream.watch()
    exchange.holder = this
    this.context.deadlines.add(this)
    exchange.upload?.listen(this)
    return true
  }

  onPlace(): void {
    this.end()
    try {
      this.context.begin(this.exchange)
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  expire(): void {
    this.end()
    this.bulkhead.noteRefusal(true)
    const { deadline } = this.exchange
    const isTooLate = deadline !== null && this.context.nowUs() >= deadline.untilUs
    this.context.refuse(this.exchange, isTooLate ? tooLate : this.bulkhead.late)
  }

  abandon(): void {
    this.end()
    this.exchange.upload?.drop()
  }

  onProgress(): void {}

  onRefused(rejection: Rejection): void {
    this.end()
    this.context.refuse(this.exchange, rejection)
  }

  private end(): void {
    this.bulkhead.quit(this)
    this.context.deadlines.remove(this)
    this.exchange.upload?.listen(null)
    this.exchange.holder = null
  }
}
