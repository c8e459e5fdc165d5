// The lean upstream client: HTTP/1.1 over cleartext sockets, for one origin. Speaks undici's Dispatcher with v2
// handlers, so that attempt.ts knows one interface. Which connection takes a request is decided here; whether it is
// sent again, in retries.ts.
//
// A chunk given to onResponseData is valid until the handler returns. Headers given to onResponseStart are shared: read
// only.
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { idempotent } from '../retries.js'
import { Dispatcher as DispatcherBase, errors } from '../undici.js'
import { transport } from './choose-transport.js'
import { type ConnectionOwner, LeanConnection } from './connection.js'
import { Lateness } from './lateness.js'
import { LeanRequest, RequestQueue } from './request.js'
import { renderHead } from './request-head.js'
import { HeadMemo } from './response-head.js'
import type { Transport } from './transport.js'

export interface LeanPoolOptions {
  /** Connections open at once, at most. Further requests wait, first come first served. */
  readonly connections: number
  /** Requests in flight on one connection, at most; above 1 only those without a body that may be repeated share. */
  readonly pipelining?: number
  readonly connectTimeoutMs?: number
  /** Of a response's status line and fields together, and of its trailers. */
  readonly maxHeaderBytes?: number
  /**
   * Idle connections are closed after it, or a second before the upstream's own Keep-Alive hint runs out. Keep it below
   * the upstream's.
   */
  readonly keepAliveMs?: number
  /** The addon's where there is one. */
  readonly transport?: Transport
  /** The Unix socket that the origin is reached by, in place of its host and port. */
  readonly socketPath?: string | null
}

const TICK_MS = 500
const LATENESS_TICK_MS = 10
/** Bodies up to this leave in one write with their head. */
const INLINE_BODY_BYTES = 8192

export class LeanPool extends DispatcherBase implements ConnectionOwner {
  readonly transport: Transport
  readonly host: string
  readonly port: number
  readonly socketPath: string | null
  readonly connectTimeoutMs: number
  readonly maxHeaderBytes: number
  readonly memo = new HeadMemo()
  readonly shares: boolean
  private readonly hostLine: string
  private readonly limit: number
  private readonly depth: number
  private readonly keepAliveMs: number
  private readonly lateness = new Lateness()
  private readonly connections: LeanConnection[] = []
  /** The one that went idle last is at the end, and is taken first: the others get a chance to close. */
  private readonly idle: LeanConnection[] = []
  private readonly queue = new RequestQueue()
  private tick = 0
  private tickTimer: NodeJS.Timeout | null = null
  private latenessTimer: NodeJS.Timeout | null = null
  private nowMs = 0
  /** No new requests; resolves what close() promised once the last connection is gone. */
  private ending = false
  private destroyed: Error | null = null
  private onEnded: (() => void)[] = []

  constructor(origin: string | URL, options: LeanPoolOptions) {
    super()
    const url = new URL(origin)
    if (url.protocol !== 'http:')
      throw new errors.InvalidArgumentError('the lean client speaks cleartext HTTP/1.1 only')
    this.host = url.hostname.replace(/^\[|\]$/g, '')
    this.port = Number(url.port || 80)
    this.socketPath = options.socketPath ?? null
    this.hostLine = `host: ${url.host}\r\n`
    this.limit = options.connections
    this.depth = options.pipelining ?? 1
    this.shares = this.depth > 1
    this.connectTimeoutMs = options.connectTimeoutMs ?? 10_000
    this.maxHeaderBytes = options.maxHeaderBytes ?? 16_384
    this.keepAliveMs = options.keepAliveMs ?? 4000
    this.transport = options.transport ?? transport
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const request = this.create(options, handler)
    if (request === null) return false
    handler.onRequestStart?.(request, {})
    if (!request.done) this.place(request)
    return this.queue.length === 0
  }

  private create(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): LeanRequest | null {
    const { method } = options
    try {
      if (this.destroyed !== null) throw new errors.ClientDestroyedError()
      if (this.ending) throw new errors.ClientClosedError()
      const body = acceptBody(options.body)
      const streams = body instanceof Readable
      const head = renderHead(options, this.hostLine, body === null ? 0 : streams ? -1 : body.length)
      const inline = body !== null && !streams && body.length <= INLINE_BODY_BYTES
      const text = inline ? head.text + body.latin1Slice() : head.text
      const repeatable = !streams && (options.idempotent ?? idempotent.has(method))
      const shareable = this.shares && repeatable && body === null && !head.close
      const rest = inline ? null : body
      return new LeanRequest(handler, text, rest, head.bodyLength, method === 'HEAD', repeatable, shareable, head.close)
    } catch (error) {
      handler.onResponseError?.(null as unknown as Dispatcher.DispatchController, error as Error)
      return null
    }
  }

  // Where a request goes.

  private place(request: LeanRequest): void {
    const connection = (request.shareable ? this.findShared() : null) ?? this.idle.pop() ?? this.open()
    if (connection === null) this.queue.push(request)
    else connection.send(request)
  }

  /** The one with the most in flight that still has room: fewer connections, and more requests in each write. */
  private findShared(): LeanConnection | null {
    let best: LeanConnection | null = null
    for (const connection of this.connections) {
      if (!this.hasRoom(connection)) continue
      if (best === null || connection.load > best.load) best = connection
    }
    return best
  }

  /** For one more that shares. Either all that is in flight on a connection shares or nothing does: the last tells. */
  private hasRoom(connection: LeanConnection): boolean {
    const { load } = connection
    if (load === 0 || load >= this.depth || connection.closing || connection.lateAtAnswers >= 0) return false
    return connection.inFlight[load - 1]!.shareable
  }

  private open(): LeanConnection | null {
    if (this.connections.length >= this.limit) return null
    const connection = new LeanConnection(this)
    this.connections.push(connection)
    this.tickTimer ??= setInterval(() => this.closeIdle(), TICK_MS).unref()
    return connection
  }

  // From the connections.

  released(connection: LeanConnection): void {
    if (connection.closing && connection.load === 0) connection.lose(new errors.InformationalError('closing'))
    if (connection.closed || connection.closing) return
    const next = this.queue.first
    if (next !== null) {
      if (connection.load === 0 || (next.shareable && this.hasRoom(connection))) connection.send(this.queue.shift()!)
    } else if (connection.load === 0) {
      if (this.ending) return connection.lose(new errors.ClientClosedError())
      connection.idleSince = this.tick
      this.idle.push(connection)
    }
  }

  lost(connection: LeanConnection): void {
    remove(this.connections, connection)
    remove(this.idle, connection)
  }

  refill(): void {
    while (this.queue.length > 0 && this.connections.length < this.limit) this.open()!.send(this.queue.shift()!)
    if (this.connections.length === 0) this.rest()
  }

  /** retries.ts has said that it may be. */
  sendAgain(request: LeanRequest, written: boolean): void {
    if (this.destroyed !== null) request.fail(this.destroyed)
    else if (written) this.resend(request)
    else this.place(request)
  }

  /** On a fresh connection if there may be one: the idle ones may be as stale as the one that was lost. */
  private resend(request: LeanRequest): void {
    request.resent = true
    request.shareable = false
    request.sentMs = 0
    // As undici tells each time that it writes a request.
    request.handler.onRequestStart?.(request, {})
    if (request.done) return
    const connection = this.open()
    if (connection === null) this.queue.push(request)
    else connection.send(request)
  }

  private closeIdle(): void {
    this.tick++
    for (let i = this.idle.length - 1; i >= 0; i--) {
      const connection = this.idle[i]!
      const hintMs = connection.keepAliveMs
      const keepMs = hintMs < 0 ? this.keepAliveMs : Math.min(this.keepAliveMs, hintMs)
      // One tick may have been nearly over when it went idle: rather a little early than late.
      if ((this.tick - connection.idleSince) * TICK_MS >= keepMs) connection.lose(new errors.InformationalError('idle'))
    }
  }

  /** Closes the connections that carry nothing now. Requests go on, on the others and on new ones. */
  closeUnused(): void {
    for (const connection of [...this.idle]) connection.lose(new errors.InformationalError('idle'))
  }

  // Where requests share: whose response is late.

  sent(connection: LeanConnection): void {
    this.nowMs = performance.now()
    const { inFlight } = connection
    if (connection.headSinceMs === 0) connection.headSinceMs = this.nowMs
    for (let i = inFlight.length - 1; i >= 0 && inFlight[i]!.sentMs === 0; i--) inFlight[i]!.sentMs = this.nowMs
    this.latenessTimer ??= setInterval(() => this.relieve(), LATENESS_TICK_MS).unref()
  }

  answered(connection: LeanConnection, request: LeanRequest): void {
    const nowMs = performance.now()
    this.lateness.observe(nowMs - request.sentMs)
    connection.headSinceMs = connection.load === 0 ? 0 : nowMs
    connection.lateAtAnswers = -1
  }

  /**
   * A connection whose next response is late takes no more requests. One of those that wait behind it is sent again on
   * another connection, alone, and one more each time that as long has passed again. As soon as another connection has
   * a response, the upstream as a whole is not slow, and all of them are sent again. The upstream may so see a request
   * twice, but one that stalls does not get all of them twice at once.
   */
  private relieve(): void {
    const nowMs = performance.now()
    const { limitMs, answers } = this.lateness
    for (const connection of [...this.connections]) {
      const lateMs = connection.headSinceMs === 0 ? 0 : nowMs - connection.headSinceMs
      if (lateMs < limitMs) continue
      if (connection.lateAtAnswers < 0) connection.lateAtAnswers = answers
      if (connection.lateAtAnswers !== answers) this.move(connection, connection.load - 1)
      else if (lateMs >= limitMs * (1 + connection.moved)) this.move(connection, 1)
    }
  }

  /**
   * Moves the last `count` requests off a connection. Their responses on it must not be read: it closes once those
   * before them have come.
   */
  private move(connection: LeanConnection, count: number): void {
    for (let i = 0; i < count && connection.load > 1 && connection.moveLast(); i++) {
      connection.closing = true
      connection.moved++
    }
  }

  // The end.

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | void {
    this.ending = true
    for (const connection of [...this.idle]) connection.lose(new errors.ClientClosedError())
    return this.whenEnded(callback)
  }

  override destroy(): Promise<void>
  override destroy(error: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | void {
    const error = typeof first === 'function' ? null : first
    this.ending = true
    this.destroyed ??= error ?? new errors.ClientDestroyedError()
    for (let request = this.queue.shift(); request !== null; request = this.queue.shift()) request.fail(this.destroyed)
    for (const connection of [...this.connections]) connection.lose(this.destroyed)
    return this.whenEnded(typeof first === 'function' ? first : second)
  }

  private whenEnded(callback: (() => void) | undefined): Promise<void> | void {
    if (callback === undefined) return new Promise((resolve) => this.whenEnded(resolve))
    if (this.connections.length === 0) queueMicrotask(callback)
    else this.onEnded.push(callback)
  }

  /** No connection is left, and none is asked for. */
  private rest(): void {
    if (this.tickTimer !== null) clearInterval(this.tickTimer)
    if (this.latenessTimer !== null) clearInterval(this.latenessTimer)
    this.tickTimer = null
    this.latenessTimer = null
    for (const callback of this.onEnded.splice(0)) queueMicrotask(callback)
  }
}

function acceptBody(body: Dispatcher.DispatchOptions['body']): Buffer | Readable | null {
  if (body === null || body === undefined) return null
  if (body instanceof Readable) return body
  if (typeof body === 'string') return body === '' ? null : Buffer.from(body)
  if (!(body instanceof Uint8Array))
    throw new errors.InvalidArgumentError('body must be a Buffer, a string or a Readable')
  if (body.length === 0) return null
  return Buffer.isBuffer(body) ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
}

function remove(list: LeanConnection[], connection: LeanConnection): void {
  const at = list.lastIndexOf(connection)
  if (at >= 0) list.splice(at, 1)
}
