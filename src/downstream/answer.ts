// The last step of a request's way: the response that a phase or handler has decided on, given to the client's side of
// the exchange. Knows no protocol. Runs per request.
import type { IncomingHttpHeaders } from 'node:http'
import type { DrainListener } from '../exchange/downstream.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import { HeadLines, type StatusLine, statusLine } from '../exchange/response-head.js'
import { linesOf, ownLines } from './response-lines.js'

/** A body up to this length is worth gathering, to leave together with its head. */
export const MOST_WHOLE_BYTES = 10_000

const problemLines = new HeadLines('\r\ncontent-type: application/problem+json')

/** Sends a problem (RFC 9457) for what a phase refused. */
export function refuse(exchange: Exchange, rejection: Rejection, retryAfterSeconds: number): void {
  const { downstream } = exchange
  exchange.code = rejection.code
  exchange.status = rejection.status
  exchange.reason = rejection.reason
  if (!downstream.open) return
  const body = `${rejection.bodyHead}${exchange.rid}"}`
  exchange.bytesOut = exchange.method === 'HEAD' ? 0 : body.length
  const challenge = rejection.status === 401 ? exchange.route!.challenge : ''
  const retry = retryAfterSeconds > 0 ? `\r\nretry-after: ${retryAfterSeconds}` : ''
  if (rejection.closesConnection) downstream.closes = true
  downstream.respond(rejection.line, problemLines, challenge + retry + ownLines(exchange), body, body.length)
}

/** Sends a response that a handler has ready. It leaves without the body where the method or the status allows none. */
export function answerWith(exchange: Exchange, line: StatusLine, lines: HeadLines, body: Buffer): void {
  const { status } = line
  exchange.status = status
  if (!exchange.downstream.open) return
  const bodiless = exchange.method === 'HEAD' || status === 204 || status === 304
  exchange.bytesOut = bodiless ? 0 : body.length
  const length = status === 204 ? -1 : body.length
  exchange.downstream.respond(line, lines, ownLines(exchange), bodiless ? null : body, length)
}

/**
 * Head and the whole body, of MOST_WHOLE_BYTES or less, in one write. `declaredLength` is what a HEAD or 304 response
 * reports, -1 for nothing.
 */
export function answerWhole(
  exchange: Exchange,
  phrase: string,
  headers: IncomingHttpHeaders,
  body: Buffer | null,
  declaredLength: number,
): void {
  if (!exchange.downstream.open) return
  const lines = linesOf(headers)
  if (body !== null) exchange.bytesOut = body.length
  const line = statusLine(exchange.status, phrase)
  exchange.downstream.respond(line, lines, ownLines(exchange), body, declaredLength)
}

/**
 * A response that is passed on as it arrives: with a Content-Length where the upstream declared one.
 * `send` returns false when the client cannot take more; `onDrained` is then called once it can.
 */
export class StreamedAnswer implements DrainListener {
  private readonly exchange: Exchange
  private readonly onDrained: () => void
  /** The client must take what was written before more is sent. */
  waiting = false

  constructor(exchange: Exchange, phrase: string, headers: IncomingHttpHeaders, length: number, onDrained: () => void) {
    this.exchange = exchange
    this.onDrained = onDrained
    const line = statusLine(exchange.status, phrase)
    exchange.downstream.start(line, linesOf(headers), ownLines(exchange), length < 0 ? null : length, this)
  }

  /** Sends the head before there is a body. */
  flushHead(): void {
    this.exchange.downstream.flush()
  }

  send(chunk: Buffer): boolean {
    this.exchange.bytesOut += chunk.length
    const taken = this.exchange.downstream.write(chunk)
    if (!taken) this.waiting = true
    return taken
  }

  /** True when nothing waits here for the client: end() may be called. */
  get drained(): boolean {
    return this.exchange.downstream.drained
  }

  /** The upstream's body is complete. */
  end(): void {
    this.exchange.downstream.end(null)
  }

  onDrain(): void {
    this.waiting = false
    this.onDrained()
  }
}

/** Cuts the connection of a response that cannot be completed: the only way left to tell the client (RFC 9112, 8). */
export function cut(exchange: Exchange): void {
  exchange.downstream.cut()
}
