// One request on its way through the pool, and the controller its handler holds: one object for both. Data and the
// three calls of a controller; where it goes is the pool's and the connection's business.
import type { IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { errors } from '../undici.js'
import type { ResponseHead } from './response-head.js'

/** What has the request: the queue in which it waits, or its connection. */
export interface Carrier {
  /** The handler has been told that it is over. */
  drop(request: LeanRequest): void
  pause(request: LeanRequest): void
  resume(request: LeanRequest): void
}

export class LeanRequest implements Dispatcher.DispatchController {
  readonly handler: Dispatcher.DispatchHandler
  /** As it is written, with the body where that is short. */
  readonly head: string
  /** What is written after the head: a long body, or one that streams. */
  readonly body: Buffer | Readable | null
  readonly bodyLength: number
  /** No body must follow the response's head. */
  readonly isHead: boolean
  /** May be sent again (RFC 9110, 9.2.2), as far as its body is still here. */
  readonly repeatable: boolean
  /** Others may be in flight on the same connection. False once it was sent again. */
  shareable: boolean
  /** The connection ends with it. */
  readonly close: boolean
  /** It has been sent a second time; there is no third. */
  resent = false
  /** It has ended, or failed. */
  done = false
  paused = false
  reason: Error | null = null
  carrier: Carrier | null = null
  /** Where it waits in the queue. */
  next: LeanRequest | null = null
  previous: LeanRequest | null = null
  /** When its head was written, where requests share connections. */
  sentMs = 0

  constructor(
    handler: Dispatcher.DispatchHandler,
    head: string,
    body: Buffer | Readable | null,
    bodyLength: number,
    isHead: boolean,
    repeatable: boolean,
    shareable: boolean,
    close: boolean,
  ) {
    this.handler = handler
    this.head = head
    this.body = body
    this.bodyLength = bodyLength
    this.isHead = isHead
    this.repeatable = repeatable
    this.shareable = shareable
    this.close = close
  }

  get aborted(): boolean {
    return this.reason !== null
  }

  abort(reason: Error): void {
    if (this.done) return
    this.reason = reason ?? new errors.RequestAbortedError()
    const carrier = this.carrier
    this.fail(this.reason)
    carrier?.drop(this)
  }

  pause(): void {
    if (this.done || this.paused) return
    this.paused = true
    this.carrier?.pause(this)
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.carrier?.resume(this)
  }

  respond(head: ResponseHead): void {
    this.handler.onResponseStart?.(this, head.status, head.headers, head.phrase)
  }

  end(trailers: IncomingHttpHeaders): void {
    this.done = true
    this.carrier = null
    this.handler.onResponseEnd?.(this, trailers)
  }

  fail(error: Error): void {
    if (this.done) return
    this.done = true
    this.carrier = null
    this.handler.onResponseError?.(this, error)
  }
}

/** Requests that wait for a connection, first come first served; any of them may leave. */
export class RequestQueue implements Carrier {
  length = 0
  first: LeanRequest | null = null
  private last: LeanRequest | null = null

  push(request: LeanRequest): void {
    request.carrier = this
    request.previous = this.last
    if (this.last === null) this.first = request
    else this.last.next = request
    this.last = request
    this.length++
  }

  shift(): LeanRequest | null {
    const request = this.first
    if (request !== null) this.drop(request)
    return request
  }

  drop(request: LeanRequest): void {
    const { next, previous } = request
    if (previous === null) this.first = next
    else previous.next = next
    if (next === null) this.last = previous
    else next.previous = previous
    request.next = null
    request.previous = null
    request.carrier = null
    this.length--
  }

  pause(): void {}
  resume(): void {}
}
