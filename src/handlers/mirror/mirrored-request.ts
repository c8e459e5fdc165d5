// One copy of a request on its way to the mirror's service: waits for the response and throws it away, under the
// service's own timeouts. Runs per copy. It knows no exchange: whatever happens here, no client hears of it.
import type { Service } from '../../config/compile.js'
import type { Deadline } from '../../exchange/deadlines.js'
import type { Attempt, AttemptSink } from '../../upstream/attempt.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import { DeadlineError } from '../../upstream/failure.js'
import type { UpstreamRequest } from '../../upstream/upstream-request.js'
import type { HandlerContext } from '../handler.js'

/** A response that goes on for longer than this is given up: a stream, say, whose client may have left long ago. */
const LONGEST_RESPONSE_US = 60e6

/** What has sent the copy (mirrored-handler.ts). */
export interface MirrorOwner {
  readonly context: Pick<HandlerContext, 'deadlines' | 'nowUs'>
  readonly service: Service
  /** The copy is over, once. @param failed no response, or one with a status of 500 or above */
  ended(failed: boolean): void
  /** Throws nothing. */
  crashed(error: unknown): void
}

const longResponse = new Error('the response to a mirrored request goes on for too long')

export class MirroredRequest implements AttemptSink, Deadline {
  readonly exchange = null
  deadlineUs: number
  slot = -1
  private readonly mirror: MirrorOwner
  private readonly attempt: Attempt
  private readonly startUs: number
  private status = 0
  private responseUntilUs = Number.POSITIVE_INFINITY
  private over = false

  constructor(mirror: MirrorOwner, attempt: Attempt, startUs: number) {
    this.mirror = mirror
    this.attempt = attempt
    this.startUs = startUs
    this.deadlineUs = this.deadlineAfter(startUs, mirror.service.firstByteTimeoutMs)
  }

  start(request: UpstreamRequest, endpoint: EndpointState): void {
    this.mirror.context.deadlines.add(this)
    try {
      this.attempt.start(request, endpoint, this)
    } catch (error) {
      this.onException(error)
    }
  }

  private deadlineAfter(nowUs: number, waitMs: number): number {
    const { totalTimeoutMs } = this.mirror.service
    return Math.min(nowUs + waitMs * 1000, this.startUs + totalTimeoutMs * 1000)
  }

  private end(failed: boolean): void {
    if (this.over) return
    this.over = true
    this.mirror.context.deadlines.remove(this)
    this.mirror.ended(failed)
  }

  // From the clock.

  expire(): void {
    try {
      const isLong = this.mirror.context.nowUs() >= this.responseUntilUs
      this.end(!isLong || this.status >= 500)
      this.attempt.abort(isLong ? longResponse : new DeadlineError('no response to a mirrored request in time'))
    } catch (error) {
      this.mirror.crashed(error)
    }
  }

  // From the attempt.

  onSentAgain(): void {}

  onHead(status: number): void {
    this.status = status
    this.responseUntilUs = this.mirror.context.nowUs() + LONGEST_RESPONSE_US
    this.onData()
  }

  /** What came is dropped; the next has its time again. */
  onData(): void {
    const { context, service } = this.mirror
    this.deadlineUs = Math.min(this.responseUntilUs, this.deadlineAfter(context.nowUs(), service.idleTimeoutMs))
  }

  onEnd(): void {
    const nowUs = this.mirror.context.nowUs()
    this.end(this.status >= 500)
    this.attempt.complete(nowUs - this.startUs, nowUs)
  }

  retryAt(): null {
    return null
  }

  onFailure(): void {
    this.end(true)
  }

  onException(error: unknown): void {
    this.end(true)
    this.attempt.abort(error instanceof Error ? error : new Error(String(error)))
    this.mirror.crashed(error)
  }
}
