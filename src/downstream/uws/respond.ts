// The last step of a request's way: the only writer to the client. Runs per request. Every write happens inside one cork, so that head
// and body leave in one system call. Once an answer is complete, or the client is gone, exchange.res is null: uWS frees it then.
//
// uWS gathers a cork's writes in 16 KiB and flushes those before a write that does not fit. Where that flush meets a full socket, 20.51
// loses the write and tells nobody but tryEnd's caller (uWebSockets 6b7f354 mends it). So no cork is given more than it holds, but by tryEnd.

import type { HttpResponse } from 'uWebSockets.js'
import { type IncomingHttpHeaders, STATUS_CODES } from 'node:http'
import type { StaticAnswer } from '../../config/compile.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Rejection } from '../../exchange/outcome.js'
import { connectionOptions, isHopByHop } from '../../handlers/proxy/headers.js'
import { rateLimitHeader, rateLimitPolicyHeader } from '../../policy/rate-limit.js'
import { answered, answeredLast, isLastWrite } from './gate.js'

/** A head up to this long and a body up to the other fit one cork, with room for the fields that are added here. */
const MOST_HEAD_BYTES = 5000
export const MOST_WHOLE_BYTES = 10_000
/** A chunk and its framing, alone in a cork. */
const CORK_CHUNK_BYTES = 16_384 - 32

/** Status lines in ASCII. */
const statusLines = new Map<number, string>()

// biome-ignore lint/suspicious/noControlCharactersInRegex: the whole of ASCII is meant
const NOT_ASCII = /[^\x00-\x7f]/

/** `200 OK`. RFC 9112, 4: the phrase has no meaning, so the upstream's own is passed on and an empty one stays empty. */
function statusLine(status: number, phrase: string): string {
  const known = statusLines.get(status)
  if (known !== undefined && known.length === phrase.length + 4 && known.endsWith(phrase)) return known
  const line = `${status} ${phrase}`
  if (statusLines.size < 600 && !NOT_ASCII.test(line)) statusLines.set(status, line)
  return line
}

/** The worker leaves: each connection ends with its next answer, whenever its request has begun. */
let leaving = false

export function endConnections(): void {
  leaving = true
}

/** The gateway's own fields, each behind a CRLF. */
function ownLines(exchange: Exchange): string {
  const { limit, fallback } = exchange
  let lines = `\r\nx-rid: ${exchange.rid}`
  if (fallback !== '') lines += `\r\nx-tidegate-fallback: ${fallback}`
  if (limit !== null && (limit.headers || exchange.code === 'rate_limited'))
    lines += `\r\nratelimit-policy: ${rateLimitPolicyHeader(limit)}\r\nratelimit: ${rateLimitHeader(exchange)}`
  return lines
}

/** Sends a problem (RFC 9457) for what a phase refused. */
export function refuse(exchange: Exchange, rejection: Rejection, retryAfterSeconds: number): void {
  exchange.code = rejection.code
  exchange.status = rejection.status
  exchange.reason = rejection.reason
  const res = exchange.res
  if (res === null) return
  // Before it is watched an exchange is in uWS's own handler, which is a cork.
  if (exchange.watched) res.cork(() => writeProblem(exchange, res, rejection, retryAfterSeconds))
  else writeProblem(exchange, res, rejection, retryAfterSeconds)
  exchange.res = null
  answered(exchange.gated, exchange.closeRequested)
}

function writeProblem(exchange: Exchange, res: HttpResponse, rejection: Rejection, retryAfterSeconds: number): void {
  const body = `${rejection.bodyHead}${exchange.rid}"}`
  const head = exchange.method === 'HEAD'
  exchange.bytesOut = head ? 0 : body.length
  const challenge = rejection.status === 401 ? exchange.route!.challenge : ''
  const retry = retryAfterSeconds > 0 ? `\r\nretry-after: ${retryAfterSeconds}` : ''
  const lines = rejection.head + challenge + retry + ownLines(exchange)
  exchange.answering = true
  res.writeStatus(lines)
  // A client that waits to hear whether to send its body may do so or not: where its next request begins would be a guess.
  if (rejection.closesConnection || leaving || exchange.awaitsContinue) exchange.closeRequested = true
  writeClose(exchange, res)
  if (!head) res.end(body, exchange.closeRequested)
  // To be told to close, uWS wants a length, and can be told of none but 0.
  else if (exchange.closeRequested) res.endWithoutBody(0, true)
  else endWithLength(res, body.length)
}

/** A route's own answer in place of a service that fails. */
export function answerFallback(exchange: Exchange, answer: StaticAnswer, rejection: Rejection): void {
  const { status, headers, body } = answer
  const phrase = STATUS_CODES[status] ?? ''
  exchange.status = status
  exchange.reason = rejection.reason
  const res = exchange.res
  if (res === null) return
  if (leaving || exchange.awaitsContinue) exchange.closeRequested = true
  const bodiless = exchange.method === 'HEAD' || status === 204 || status === 304
  exchange.bytesOut = bodiless ? 0 : body.length
  const lines = statusLine(status, phrase) + ownLines(exchange)
  exchange.answering = true
  res.cork(() => {
    res.writeStatus(lines)
    for (let i = 0; i < headers.length; i += 2) res.writeHeader(headers[i] as string, headers[i + 1] as string)
    if (bodiless) {
      if (exchange.closeRequested) res.writeHeader('connection', 'close')
      endWithLength(res, status === 204 ? -1 : body.length)
    } else {
      writeClose(exchange, res)
      if (body.length > MOST_WHOLE_BYTES) return endInParts(exchange, res, body)
      res.end(body, exchange.closeRequested)
      exchange.res = null
      return answered(exchange.gated, exchange.closeRequested)
    }
    complete(exchange)
  })
}

function endInParts(exchange: Exchange, res: HttpResponse, body: Buffer): void {
  const [ok, done] = res.tryEnd(body, body.length)
  if (done) complete(exchange)
  if (ok) return
  res.onWritable((offset) => {
    try {
      const [ok, done] = res.tryEnd(body.subarray(offset), body.length)
      if (done) complete(exchange)
      return ok
    } catch (error) {
      exchange.crash(error)
      return true
    }
  })
}

/** An answer that left no room to tell uWS whether its connection ends. */
function complete(exchange: Exchange): void {
  exchange.res = null
  if (exchange.closeRequested) answeredLast(exchange.gated)
  else answered(exchange.gated, false)
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
  const options = connectionOptions(headers.connection)
  for (const name in headers) {
    if (rewritten.has(name) || isHopByHop(name, options)) continue
    const value = headers[name]
    if (typeof value === 'string') lines += `\r\n${name}: ${value}`
    else if (value !== undefined) for (const one of value) lines += `\r\n${name}: ${one}`
  }
  headers[LINES] = lines
  headers[WIDE] = NOT_ASCII.test(lines)
  return lines
}

/**
 * Status line and header fields of the upstream's answer, and then, in the same cork, what `write` writes. All of it goes to uWS as one
 * status: it writes that as it is, and a call costs more than the bytes do.
 */
function writeHead(
  exchange: Exchange,
  res: HttpResponse,
  phrase: string,
  headers: IncomingHttpHeaders,
  write: () => void,
): void {
  if (leaving) exchange.closeRequested = true
  const lines = linesOf(headers)
  const isLong = lines.length + phrase.length > MOST_HEAD_BYTES
  exchange.answering = true
  if (isLong) writeLongHead(exchange, res, phrase, lines)
  res.cork(() => {
    if (!isLong) {
      const line = statusLine(exchange.status, phrase)
      const head = line + lines + ownLines(exchange)
      const isWide = (headers as Headers)[WIDE] || statusLines.get(exchange.status) !== line
      // uWS encodes strings as UTF-8 while phrases and values are bytes: clients hand them over as latin1, and they
      // must leave as they came.
      res.writeStatus(isWide ? Buffer.from(head, 'latin1') : head)
    }
    write()
  })
}

/**
 * As many lines at a time as a cork has room for; neither client takes a head longer than that. A head may have thousands of lines, and a call for
 * each takes milliseconds.
 */
function writeLongHead(exchange: Exchange, res: HttpResponse, phrase: string, upstreamLines: string): void {
  const lines = upstreamLines + ownLines(exchange)
  res.cork(() => {
    res.writeStatus(Buffer.from(statusLine(exchange.status, phrase), 'latin1'))
  })
  for (let from = 2; from < lines.length; ) {
    // Whole lines that fit, or one line that does not.
    let end = lines.length
    if (end - from > MOST_HEAD_BYTES) end = lines.lastIndexOf('\r\n', from + MOST_HEAD_BYTES)
    if (end <= from) end = lines.indexOf('\r\n', from)
    if (end < 0) end = lines.length
    const colon = lines.indexOf(': ', from)
    const name = lines.substring(from, colon)
    const rest = Buffer.from(lines.substring(colon + 2, end), 'latin1')
    res.cork(() => {
      res.writeHeader(name, rest)
    })
    from = end + 2
  }
}

/** Head and the whole body, of MOST_WHOLE_BYTES or less, in one write. `declaredLength` is what a HEAD or 304 answer reports, -1 for nothing. */
export function answerWhole(
  exchange: Exchange,
  phrase: string,
  headers: IncomingHttpHeaders,
  body: Buffer | null,
  declaredLength: number,
): void {
  const res = exchange.res
  if (res === null) return
  try {
    writeHead(exchange, res, phrase, headers, () => {
      if (body !== null) {
        isLastWrite[0] = Number(exchange.closeRequested)
        exchange.bytesOut = body.length
        writeClose(exchange, res)
        res.end(body, exchange.closeRequested)
      } else {
        if (exchange.closeRequested) res.writeHeader('connection', 'close')
        endWithLength(res, declaredLength)
      }
    })
  } finally {
    isLastWrite[0] = 0
  }
  exchange.res = null
  if (body === null) complete(exchange)
  else answered(exchange.gated, exchange.closeRequested)
}

/**
 * An answer that is passed on as it arrives: with a Content-Length where the upstream declared one, else chunked.
 * `send` returns false when the client cannot take more; `onDrain` is then called once it can.
 */
export class StreamedAnswer {
  private readonly exchange: Exchange
  private readonly phrase: string
  private readonly headers: IncomingHttpHeaders
  private readonly length: number
  private readonly onDrain: () => void
  private headWritten = false
  /** The part of the last chunk that uWS did not take (only with a declared length; chunked writes are buffered by uWS itself). */
  private pending: Buffer | null = null
  private pendingOffset = 0
  /** For the client to take what uWS has. */
  waiting = false

  constructor(exchange: Exchange, phrase: string, headers: IncomingHttpHeaders, length: number, onDrain: () => void) {
    this.exchange = exchange
    this.phrase = phrase
    this.headers = headers
    this.length = length
    this.onDrain = onDrain
    const res = exchange.res as HttpResponse
    res.onWritable((offset) => {
      try {
        return this.drain(offset)
      } catch (error) {
        exchange.crash(error)
        return true
      }
    })
  }

  /**
   * Sends the head before there is a body; of a chunked answer all but what makes it chunked. Not with uWS 20.69: it takes a tryEnd of nothing
   * for the end of the answer, and after its beginWrite() the first chunk begins with a line too many. There the head leaves with the first byte.
   */
  flushHead(): void {
    if (this.exchange.res?.beginWrite !== undefined) return
    this.write((res) => {
      if (this.length >= 0) res.tryEnd('', this.length)
    })
  }

  send(chunk: Buffer): boolean {
    this.exchange.bytesOut += chunk.length
    if (this.length >= 0) return this.sendOfLength(chunk)
    let ok = true
    for (let from = 0; from < chunk.length; ) {
      const most = this.headWritten ? CORK_CHUNK_BYTES : MOST_WHOLE_BYTES
      const part = chunk.subarray(from, from + most)
      this.write((res) => {
        ok = res.write(part)
      })
      from += part.length
    }
    if (!ok) this.waiting = true
    return ok
  }

  private sendOfLength(chunk: Buffer): boolean {
    let taken = true
    this.write((res) => {
      const offset = res.getWriteOffset()
      const [ok, done] = res.tryEnd(chunk, this.length)
      if (done) this.complete()
      else if (!ok) {
        // The chunk is its owner's again when this returns: what uWS did not take is copied.
        this.pendingOffset = res.getWriteOffset()
        this.pending = Buffer.from(chunk.subarray(this.pendingOffset - offset))
        this.waiting = true
        taken = false
      }
    })
    return taken
  }

  /** In a cork, behind the head if that has not left yet. */
  private write(write: (res: HttpResponse) => void): void {
    const res = this.exchange.res as HttpResponse
    if (this.headWritten) {
      res.cork(() => write(res))
      return
    }
    this.headWritten = true
    writeHead(this.exchange, res, this.phrase, this.headers, () => {
      // Here uWS cannot be told to close; it does by itself where it saw the client's wish (writeClose), else the gate does.
      if (this.exchange.closeRequested) res.writeHeader('connection', 'close')
      write(res)
    })
  }

  /** True when nothing is left to hand to uWS. */
  get drained(): boolean {
    return this.pending === null
  }

  /** The upstream's body is complete. With a declared length uWS has ended the answer with its last byte. */
  end(): void {
    const res = this.exchange.res
    if (res === null || this.length >= 0) return
    this.write(() => res.end())
    this.complete()
  }

  private complete(): void {
    complete(this.exchange)
  }

  private drain(offset: number): boolean {
    const res = this.exchange.res
    if (res === null || !this.waiting) return true
    if (this.pending !== null) {
      const [ok, done] = res.tryEnd(this.pending.subarray(offset - this.pendingOffset), this.length)
      if (done) this.complete()
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
