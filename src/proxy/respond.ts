// The last step of a request's way: the only writer to the client. Runs per request. Every write happens inside one cork, so that head
// and body leave in one system call. Once an answer is complete, or the client is gone, exchange.res is null: uWS frees it then.

import type { HttpResponse } from 'uWebSockets.js'
import { type IncomingHttpHeaders, STATUS_CODES } from 'node:http'
import type { StaticAnswer } from '../config/compile.js'
import type { Exchange } from '../ingress/exchange.js'
import type { Rejection } from '../outcome.js'
import { rateLimitHeader, rateLimitPolicyHeader } from '../policy/rate-limit.js'
import { isHopByHop } from './headers.js'

const reasonPhrases = new Map<number, string>()

/** `200 OK`. RFC 9112, 4: the phrase has no meaning, so the upstream's own is passed on and an empty one stays empty. */
function statusLine(status: number, phrase: string): string {
  const known = reasonPhrases.get(status)
  if (known !== undefined && known.length === phrase.length + 4 && known.endsWith(phrase)) return known
  const line = `${status} ${phrase}`
  if (reasonPhrases.size < 600) reasonPhrases.set(status, line)
  return line
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: the whole of ASCII is meant
const NOT_ASCII = /[^\x00-\x7f]/

function writeLimitHeaders(exchange: Exchange, res: HttpResponse): void {
  const limit = exchange.limit
  if (limit === null || (!limit.headers && exchange.code !== 'rate_limited')) return
  res.writeHeader('ratelimit-policy', rateLimitPolicyHeader(limit))
  res.writeHeader('ratelimit', rateLimitHeader(exchange))
}

/** Sends a problem (RFC 9457) for what a phase refused. */
export function refuse(exchange: Exchange, rejection: Rejection, retryAfterSeconds: number): void {
  exchange.code = rejection.code
  exchange.status = rejection.status
  exchange.reason = rejection.reason
  const res = exchange.res
  if (res === null) return
  exchange.res = null
  const body = `${rejection.bodyHead}${exchange.rid}"}`
  const head = exchange.method === 'HEAD'
  exchange.bytesOut = head ? 0 : body.length
  res.cork(() => {
    res.writeStatus(rejection.statusLine)
    res.writeHeader('x-rid', exchange.rid + rejection.fields)
    if (retryAfterSeconds > 0) res.writeHeader('retry-after', String(retryAfterSeconds))
    writeLimitHeaders(exchange, res)
    if (rejection.closesConnection) exchange.closeRequested = true
    writeClose(exchange, res)
    if (!head) res.end(body, exchange.closeRequested)
    // To be told to close, uWS wants a length, and can be told of none but 0.
    else if (exchange.closeRequested) res.endWithoutBody(0, true)
    else endWithLength(res, body.length)
  })
}

/** A route's own answer in place of a service that fails. */
export function answerFallback(exchange: Exchange, answer: StaticAnswer, rejection: Rejection): void {
  const { status, headers, body } = answer
  const phrase = STATUS_CODES[status] ?? ''
  exchange.status = status
  exchange.reason = rejection.reason
  const res = exchange.res
  if (res === null) return
  exchange.res = null
  const bodiless = exchange.method === 'HEAD' || status === 204 || status === 304
  exchange.bytesOut = bodiless ? 0 : body.length
  res.cork(() => {
    res.writeStatus(statusLine(status, phrase))
    for (let i = 0; i < headers.length; i += 2) res.writeHeader(headers[i] as string, headers[i + 1] as string)
    res.writeHeader('x-rid', exchange.rid)
    res.writeHeader('x-tidegate-fallback', exchange.fallback)
    writeLimitHeaders(exchange, res)
    if (bodiless) {
      if (exchange.closeRequested) res.writeHeader('connection', 'close')
      endWithLength(res, status === 204 ? -1 : body.length)
    } else {
      writeClose(exchange, res)
      res.end(body, exchange.closeRequested)
    }
  })
}

/**
 * RFC 9112, 9.6. uWS says it by itself where it was told to close, unless it saw that the client had asked for it: by the length of the
 * first Connection field, that of `close`.
 */
function writeClose(exchange: Exchange, res: HttpResponse): void {
  if (exchange.closeRequested && exchange.header('connection').length === 5) res.writeHeader('connection', 'close')
}

/**
 * Only the head, with the length of a body that is not sent; -1 for none. uWS's own endWithoutBody(length) waits for that body for ever:
 * the connection's next request is cut off.
 */
function endWithLength(res: HttpResponse, length: number): void {
  if (length >= 0) res.writeHeader('content-length', String(length))
  res.endWithoutBody()
}

/** Where the lines of an answer's head are kept once they are made: the lean client gives equal heads as one object (lean/response-head.ts). */
const LINES = Symbol('lines')
const WIDE = Symbol('wide')
type Headers = IncomingHttpHeaders & { [LINES]?: string; [WIDE]?: boolean }

/** Written by uWS itself, or by us. */
const rewritten = new Set(['content-length', 'date', 'x-rid', 'x-tidegate-fallback'])

/** The upstream's header fields without this hop's own, each behind a CRLF. No value has a CR or LF: both clients refuse those. */
function linesOf(headers: Headers): string {
  let lines = headers[LINES]
  if (lines !== undefined) return lines
  lines = ''
  const connection = headers.connection
  for (const name in headers) {
    if (rewritten.has(name) || isHopByHop(name, connection)) continue
    const value = headers[name]
    if (typeof value === 'string') lines += `\r\n${name}: ${value}`
    else if (value !== undefined) for (const one of value) lines += `\r\n${name}: ${one}`
  }
  headers[LINES] = lines
  headers[WIDE] = NOT_ASCII.test(lines)
  return lines
}

/**
 * Status line and header fields of the upstream's answer. Call inside a cork. The fields go to uWS as one: it writes a value as it is,
 * and a call costs more than the bytes do.
 */
function writeHead(exchange: Exchange, res: HttpResponse, phrase: string, headers: IncomingHttpHeaders): void {
  res.writeStatus(statusLine(exchange.status, phrase))
  const value = exchange.rid + linesOf(headers)
  // uWS encodes strings as UTF-8 while header values are bytes: clients hand them over as latin1, and they must leave as they came.
  res.writeHeader('x-rid', (headers as Headers)[WIDE] ? Buffer.from(value, 'latin1') : value)
  if (exchange.fallback !== '') res.writeHeader('x-tidegate-fallback', exchange.fallback)
  if (exchange.limit !== null) writeLimitHeaders(exchange, res)
}

/** Head and the whole body in one write. `declaredLength` is what a HEAD or 304 answer reports, -1 for nothing. */
export function answerWhole(
  exchange: Exchange,
  phrase: string,
  headers: IncomingHttpHeaders,
  body: Buffer | null,
  declaredLength: number,
): void {
  const res = exchange.res
  if (res === null) return
  exchange.res = null
  res.cork(() => {
    writeHead(exchange, res, phrase, headers)
    if (body !== null) {
      exchange.bytesOut = body.length
      writeClose(exchange, res)
      res.end(body, exchange.closeRequested)
    } else {
      if (exchange.closeRequested) res.writeHeader('connection', 'close')
      endWithLength(res, declaredLength)
    }
  })
}

/**
 * An answer that is passed on as it arrives: with a Content-Length where the upstream declared one, else chunked.
 * `send` returns false when the client cannot take more; `onDrain` is then called once it can.
 */
export class StreamedAnswer {
  private readonly exchange: Exchange
  private readonly length: number
  private readonly onDrain: () => void
  /** The part of the last chunk that uWS did not take (only with a declared length; chunked writes are buffered by uWS itself). */
  private pending: Buffer | null = null
  private pendingOffset = 0
  private waiting = false

  constructor(exchange: Exchange, phrase: string, headers: IncomingHttpHeaders, length: number, onDrain: () => void) {
    this.exchange = exchange
    this.length = length
    this.onDrain = onDrain
    const res = exchange.res as HttpResponse
    res.onWritable((offset) => this.drain(offset))
    writeHead(exchange, res, phrase, headers)
    // Here uWS cannot be told to close; it does by itself where it saw the client's wish (writeClose), else the client does.
    if (exchange.closeRequested) res.writeHeader('connection', 'close')
  }

  /** Sends the head before there is a body. uWS before 20.60 cannot do this for a chunked answer: its head leaves with the first chunk. */
  flushHead(): void {
    const res = this.exchange.res as HttpResponse
    if (this.length >= 0) res.tryEnd('', this.length)
    else res.beginWrite?.()
  }

  /** Call inside a cork. */
  send(chunk: Buffer): boolean {
    const res = this.exchange.res as HttpResponse
    this.exchange.bytesOut += chunk.length
    if (this.length < 0) {
      const ok = res.write(chunk)
      this.waiting = !ok
      return ok
    }
    const offset = res.getWriteOffset()
    const [ok, done] = res.tryEnd(chunk, this.length)
    if (done) this.exchange.res = null
    else if (!ok) {
      // The chunk is its owner's again when this returns: what uWS did not take is copied.
      this.pendingOffset = res.getWriteOffset()
      this.pending = Buffer.from(chunk.subarray(this.pendingOffset - offset))
      this.waiting = true
      return false
    }
    return true
  }

  /** True when nothing is left to hand to uWS. */
  get drained(): boolean {
    return this.pending === null
  }

  /** The upstream's body is complete. With a declared length uWS has ended the answer with its last byte. */
  end(): void {
    const res = this.exchange.res
    if (res === null || this.length >= 0) return
    this.exchange.res = null
    res.cork(() => {
      res.end()
    })
  }

  private drain(offset: number): boolean {
    const res = this.exchange.res
    if (res === null || !this.waiting) return true
    if (this.pending !== null) {
      const [ok, done] = res.tryEnd(this.pending.subarray(offset - this.pendingOffset), this.length)
      if (done) this.exchange.res = null
      else if (!ok) return false
      this.pending = null
    }
    this.waiting = false
    this.onDrain()
    return true
  }
}

/** Cuts the connection of an answer that cannot be completed: the only way left to tell the client (RFC 9112, 8). */
export function cut(exchange: Exchange): void {
  const res = exchange.res
  if (res === null) return
  exchange.res = null
  res.close()
}
