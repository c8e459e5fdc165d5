// One connection to an upstream: what is written, what is in flight, what comes back. Runs per request. It decides
// nothing about other connections: what it cannot finish it gives back to the pool.
//
//   inFlight:  │ answered next │ waits behind it │ … │ not written yet │
//   oldest first; more than one only where requests share
//                                                    └─ the last `unwritten` of them
import type { IncomingHttpHeaders } from 'node:http'
import { mayResend, type SendFacts } from '../retries.js'
import { errors } from '../undici.js'
import type { Carrier, LeanRequest } from './request.js'
import type { HeadMemo, ResponseHead } from './response-head.js'
import { ResponseParser, type ResponseSink } from './response-parser.js'
import type { Listener, Transport, Wire } from './transport.js'
import { Upload } from './upload.js'

/** What a connection needs of the pool that owns it. */
export interface ConnectionOwner {
  readonly transport: Transport
  readonly host: string
  readonly port: number
  /** Null: by host and port. */
  readonly socketPath: string | null
  readonly connectTimeoutMs: number
  readonly maxHeaderBytes: number
  readonly memo: HeadMemo
  /** Requests share connections: the owner wants to know when they are sent and answered. */
  readonly shares: boolean
  /** There is room for another request. */
  released(connection: LeanConnection): void
  sent(connection: LeanConnection): void
  answered(connection: LeanConnection, request: LeanRequest): void
  /** The connection is gone. What was in flight on it comes back next, by sendAgain. */
  lost(connection: LeanConnection): void
  /** All that was in flight on the lost connection has come back. */
  refill(): void
  /** The request goes to another connection. @param written it was written before, so this is the second time */
  sendAgain(request: LeanRequest, written: boolean): void
}

const nothing = Buffer.alloc(0)

/** The chunks that it gives to onResponseData are valid until that returns: they are the transport's memory. */
export class LeanConnection implements ResponseSink, Carrier, Listener {
  readonly inFlight: LeanRequest[] = []
  unwritten = 0
  /** Takes no more: it closes once what is in flight is answered. */
  closing = false
  closed = false
  connected = false
  /** Milliseconds it may idle, where the upstream said so; -1 where it did not. */
  keepAliveMs = -1
  /** The pool's tick at which it went idle. */
  idleSince = 0
  /** Since when the oldest in flight is next in line, where requests share. */
  headSinceMs = 0
  /** Not -1: its next response is late, and it takes no more requests. So many had come in the pool by then. */
  lateAtAnswers = -1
  /** Requests taken off it since. */
  moved = 0

  private readonly owner: ConnectionOwner
  private readonly wire: Wire
  private readonly parser: ResponseParser
  private connectTimer: NodeJS.Timeout | null
  private upload: Upload | null = null
  private responses = 0
  private persistent = true
  private parsing = false
  /** What was read and not parsed when the handler paused. */
  private rest: Buffer | null = null

  constructor(owner: ConnectionOwner) {
    this.owner = owner
    this.parser = new ResponseParser(this, owner.memo, owner.maxHeaderBytes)
    const { transport, host, port, socketPath } = owner
    this.wire = socketPath === null ? transport.connect(host, port, this) : transport.connectUnix(socketPath, this)
    this.connectTimer = setTimeout(() => this.lose(new errors.ConnectTimeoutError()), owner.connectTimeoutMs)
  }

  get load(): number {
    return this.inFlight.length
  }

  // Towards the upstream.

  send(request: LeanRequest): void {
    request.carrier = this
    this.inFlight.push(request)
    if (request.close) this.closing = true
    if (++this.unwritten === 1 && this.connected) this.wire.flushLater()
  }

  flush(): void {
    if (this.unwritten === 0 || this.closed) return
    try {
      this.writeAll()
    } catch (error) {
      this.lose(error as Error)
    }
  }

  private writeAll(): void {
    const { unwritten } = this
    const from = this.inFlight.length - unwritten
    const first = this.inFlight[from]!
    this.unwritten = 0
    if (this.owner.shares) this.owner.sent(this)
    if (first.body !== null) return this.writeWithBody(first)
    let out = first.head
    for (let i = from + 1; i < this.inFlight.length; i++) out += this.inFlight[i]!.head
    this.wire.send(out)
  }

  private writeWithBody(request: LeanRequest): void {
    if (request.body instanceof Uint8Array) return void this.wire.write(request.head, request.body, '')
    const upload = new Upload(this.wire, request)
    if (request.done) upload.stop()
    else this.upload = upload
  }

  onDrain(): void {
    this.upload?.goOn()
  }

  onConnect(): void {
    clearTimeout(this.connectTimer!)
    this.connectTimer = null
    this.connected = true
    if (this.inFlight.length > 0) this.wire.flushLater()
    else this.owner.released(this)
  }

  // From the upstream.

  onBytes(bytes: Buffer, at: number, end: number, mark: number): void {
    this.parse(bytes, at, end, mark, false)
    if (this.parser.stopped && !this.closed) this.wire.pause()
  }

  private parse(bytes: Buffer, from: number, end: number, mark: number, owned: boolean): void {
    this.parsing = true
    try {
      const at = this.parser.execute(bytes, from, end, mark)
      if (at < end && !this.closed) this.rest = owned ? bytes.subarray(at) : Buffer.from(bytes.subarray(at, end))
    } catch (error) {
      this.lose(error as Error)
    }
    this.parsing = false
  }

  onError(error: Error): void {
    this.lose(error)
  }

  onEof(): void {
    try {
      if (this.parser.eof()) return
      this.lose(new errors.SocketError('other side closed'))
    } catch (error) {
      this.lose(error as Error)
    }
  }

  onRepeated(text: string): number {
    return this.wire.remember(text)
  }

  expects(): boolean {
    return this.inFlight.length > this.unwritten
  }

  onHead(head: ResponseHead): boolean {
    const request = this.inFlight[0]!
    if (head.status < 200) {
      if (head.status === 101) throw new errors.SocketError('bad upgrade')
      // RFC 9110, 15.2: any number of them may come before the answer, asked for or not.
      if (head.status !== 100 && !request.done) request.respond(head)
      return false
    }
    const delimited = head.length >= 0 || head.chunked || request.isHead || head.status === 204 || head.status === 304
    this.persistent = head.persistent && delimited
    if (head.keepAliveMs >= 0) {
      this.keepAliveMs = head.keepAliveMs
      if (head.keepAliveMs === 0) this.persistent = false
    }
    if (!request.done) request.respond(head)
    return request.isHead
  }

  onData(chunk: Buffer): void {
    const request = this.inFlight[0]!
    if (!request.done) request.handler.onResponseData?.(request, chunk)
  }

  onEnd(trailers: IncomingHttpHeaders): void {
    const request = this.inFlight.shift()!
    this.responses++
    if (this.owner.shares) this.owner.answered(this, request)
    // An answer that did not wait for the end of the request leaves the connection in the middle of it (RFC 9112, 9.3).
    const early = this.upload !== null && !this.upload.complete
    this.upload?.stop()
    this.upload = null
    const spent = !this.persistent || early || (this.closing && this.inFlight.length === 0)
    if (spent) this.lose(new errors.SocketError('closed'))
    if (!request.done) request.end(trailers)
    if (!spent && !this.closed) this.owner.released(this)
  }

  // From the request in flight.

  pause(request: LeanRequest): void {
    if (request !== this.inFlight[0]) return
    this.parser.stopped = true
    if (!this.parsing) this.wire.pause()
  }

  resume(request: LeanRequest): void {
    if (request !== this.inFlight[0] || this.closed) return
    this.parser.stopped = false
    if (this.parsing) return
    const rest = this.rest ?? nothing
    this.rest = null
    // Also without a rest: the end of the response may be what was held back.
    this.parse(rest, 0, rest.length, 0, true)
    if (!this.parser.stopped) this.wire.resume()
  }

  drop(request: LeanRequest): void {
    const at = this.inFlight.indexOf(request)
    if (at >= this.inFlight.length - this.unwritten) {
      this.inFlight.splice(at, 1)
      this.unwritten--
      if (this.inFlight.length === 0 && this.connected) this.owner.released(this)
    } else if (at === 0) this.lose(new errors.SocketError('aborted'))
    // Behind others: its response is read and goes nowhere.
  }

  /** Closes it now; what is in flight is given back to the pool or fails with `error`. */
  lose(error: Error): void {
    if (this.closed) return
    this.closed = true
    this.parser.stopped = true
    if (this.connectTimer !== null) clearTimeout(this.connectTimer)
    this.upload?.stop()
    this.wire.close()
    this.owner.lost(this)
    const requests = this.inFlight.splice(0)
    const written = this.connected ? requests.length - this.unwritten : 0
    for (let i = 0; i < requests.length; i++) {
      const request = requests[i]!
      if (request.done) continue
      request.carrier = null
      const facts = this.factsOf(request, i, i < written)
      if (!this.connected) request.fail(error)
      else if (mayResend(facts, request.repeatable)) this.owner.sendAgain(request, facts.written)
      else request.fail(Object.assign(error, facts))
    }
    this.owner.refill()
  }

  /**
   * Sends the request that is answered last elsewhere, if it may be; its response must not be read. False: it may not.
   */
  moveLast(): boolean {
    const at = this.inFlight.length - 1
    const request = this.inFlight[at]!
    const written = this.unwritten === 0
    if (!request.done && !mayResend(this.factsOf(request, at, written), request.repeatable)) return false
    this.inFlight.pop()
    if (!written) this.unwritten--
    request.carrier = null
    if (!request.done) this.owner.sendAgain(request, written)
    return true
  }

  private factsOf({ resent }: LeanRequest, at: number, written: boolean): SendFacts {
    const behindOthers = at > 0
    const responseStarted = !behindOthers && !this.parser.idle
    return { written, responseStarted, reusedConnection: this.responses > 0, behindOthers, resent }
  }
}
