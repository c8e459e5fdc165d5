// Holds an exchange while it waits for a place at its service (upstream/bulkhead.ts), no longer than the queue's wait
// or the service's total timeout. Runs per request that waits.
import type { Deadline, Deadlines } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import type { UploadEvents } from '../../exchange/upload.js'
import type { Bulkhead, Waiting } from '../../upstream/bulkhead.js'

const tooLate = new Rejection('deadline_exceeded', "the client's deadline passed before forwarding")

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
  /** The deadline is the one that the client has set. */
  private readonly isClients: boolean
  private readonly context: WaitContext
  private readonly bulkhead: Bulkhead

  constructor(context: WaitContext, exchange: Exchange, bulkhead: Bulkhead) {
    const sinceUs = context.nowUs()
    this.context = context
    this.exchange = exchange
    this.bulkhead = bulkhead
    this.sinceUs = sinceUs
    const waitUs = Math.min(bulkhead.rules.waitMs, exchange.service!.totalTimeoutMs) * 1000
    const { deadline } = exchange
    this.isClients = deadline !== null && deadline.untilUs < sinceUs + waitUs
    this.deadlineUs = this.isClients ? deadline!.untilUs : sinceUs + waitUs
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
    this.context.refuse(this.exchange, this.isClients ? tooLate : this.bulkhead.late)
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
