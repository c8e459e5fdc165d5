// Passes the response of an attempt on to the client: in one write if all of it is here, else chunk by chunk and no
// faster than the client reads. Runs per request. Deadlines and attempts are the business of forwarding.ts.
import type { IncomingHttpHeaders } from 'node:http'
import { answerWhole, MOST_WHOLE_BYTES, StreamedAnswer } from '../../downstream/answer.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Attempt, AttemptSink } from '../../upstream/attempt.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import type { UpstreamFailure } from '../../upstream/failure.js'

/** What holds the exchange meanwhile (forwarding.ts). */
export interface ResponseHolder {
  readonly attempt: Attempt
  /** From now on the exchange may wait for the client in place of the service, or the other way round. */
  wait(): void
  /** The service has sent all of it. The client has not read all of it yet. */
  endService(): void
  /**
   * Gives back all that is held. Before the last write to the client, so that its next request meets the breaker in the
   * state that this one led to.
   */
  settle(): void
  conclude(): void
  /** True: the response is not to be passed on, and another one follows. */
  retryStatus(status: number, declaredBytes: number): boolean
  retryAt(failure: UpstreamFailure): EndpointState | null
  attemptFailed(failure: UpstreamFailure, next: EndpointState | null): void
}

const emptyBody = Buffer.alloc(0)

export class PassedResponse implements AttemptSink {
  readonly exchange: Exchange
  /** Null before the response has begun. The head waits for the first chunk, so that both leave in one write. */
  headers: IncomingHttpHeaders | null = null
  private readonly holder: ResponseHolder
  private phrase = ''
  private length = -1
  private answer: StreamedAnswer | null = null
  private complete = false

  constructor(exchange: Exchange, holder: ResponseHolder) {
    this.exchange = exchange
    this.holder = holder
  }

  /** Some of it was written to the client. */
  get isBegun(): boolean {
    return this.answer !== null
  }

  /** No more of it can be written until the client has read. */
  get isUnread(): boolean {
    return this.answer?.waiting ?? false
  }

  // From the attempt.

  onSentAgain(): void {
    this.exchange.attempts++
  }

  onHead(status: number, headers: IncomingHttpHeaders, phrase: string): void {
    const { exchange } = this
    const declared = headers['content-length']
    // Both clients refuse one that is no number, or differs from another.
    const length = declared === undefined ? -1 : Number(declared)
    if (status >= 400 && this.holder.retryStatus(status, length)) return
    exchange.status = status
    this.phrase = phrase
    this.headers = headers
    this.length = length
    if (hasBody(exchange) && this.length !== 0) scheduleHead(this)
  }

  onData(chunk: Buffer): void {
    const { exchange, holder } = this
    if (!exchange.downstream.open) return
    // Before the response is complete: uWS takes nothing back to reading after that.
    if (exchange.bytesOut + chunk.length === this.length) exchange.upload?.drop()
    if (this.answer === null && chunk.length === this.length && chunk.length <= MOST_WHOLE_BYTES) {
      // All of it is here: head and body leave in one write.
      return this.answerWhole(chunk, -1)
    }
    const taken = this.startAnswer().send(chunk)
    holder.wait()
    if (!taken) holder.attempt.pause()
  }

  onEnd(): void {
    this.complete = true
    const { exchange, answer, holder } = this
    exchange.upload?.drop()
    if (answer === null) {
      const empty = hasBody(exchange) && this.length <= 0 ? emptyBody : null
      return this.answerWhole(empty, exchange.status === 204 ? -1 : this.length)
    }
    if (answer.drained) this.end(answer)
    else holder.endService() // drained() goes on
  }

  retryAt(failure: UpstreamFailure): EndpointState | null {
    return this.holder.retryAt(failure)
  }

  onFailure(failure: UpstreamFailure, next: EndpointState | null): void {
    this.holder.attemptFailed(failure, next)
  }

  onException(error: unknown): void {
    this.exchange.crash(error)
  }

  // To the client.

  private answerWhole(body: Buffer | null, declaredLength: number): void {
    const { exchange, holder } = this
    holder.settle()
    answerWhole(exchange, this.phrase, this.headers!, body, declaredLength)
    holder.conclude()
  }

  private startAnswer(): StreamedAnswer {
    this.answer ??= new StreamedAnswer(this.exchange, this.phrase, this.headers!, this.length, () => this.drained())
    return this.answer
  }

  /** The client can take more. */
  private drained(): void {
    if (this.complete) return this.end(this.answer!)
    this.holder.wait()
    this.holder.attempt.resume()
  }

  private end(answer: StreamedAnswer): void {
    answer.end()
    this.holder.settle()
    this.holder.conclude()
  }

  /** No chunk has come in this turn of the loop: the head leaves alone (server-sent events, long polls). */
  flushHead(): void {
    if (!this.exchange.downstream.open || this.answer !== null) return
    this.holder.wait()
    this.startAnswer().flushHead()
  }
}

/** RFC 9112, 6.3: responses that end with their head. */
function hasBody({ method, status }: Exchange): boolean {
  return method !== 'HEAD' && status !== 204 && status !== 304
}

/** Responses whose head came without a chunk in the same read; most get theirs before the microtask runs. */
let waitingHeads: PassedResponse[] = []

function scheduleHead(response: PassedResponse): void {
  if (waitingHeads.push(response) === 1) queueMicrotask(flushHeads)
}

function flushHeads(): void {
  const heads = waitingHeads
  waitingHeads = []
  for (const response of heads) {
    try {
      response.flushHead()
    } catch (error) {
      response.exchange.crash(error)
    }
  }
}
