// Request bodies: read whole where a signature covers them, streamed everywhere else. Runs per request with a body. uWS takes a chunk
// back when its handler returns, so each is copied once.
import { Readable } from 'node:stream'
import type { HttpResponse } from 'uWebSockets.js'
import type { Deadline, Deadlines } from '../deadlines.js'
import { Rejection } from '../outcome.js'
import type { Exchange, Holder } from './exchange.js'

const tooLarge = new Rejection('body_too_large', 'body over the limit', true)
const tooSlow = new Rejection('request_timeout', 'body not received in time', true)

/** A declared length over the limit is refused before a byte of it is read. */
export function checkLength(exchange: Exchange): Rejection | null {
  return exchange.contentLength > exchange.route!.maxBodyBytes ? tooLarge : null
}

/** A whole body must arrive within a minute of its head, as nginx's client_body_timeout allows between two reads. */
const WHOLE_BODY_US = 60e6

/** Reads the body into exchange.body, then calls done, with a rejection when it is too long or too slow. Never called when the client leaves. */
export class WholeBody implements Holder, Deadline {
  deadlineUs: number
  slot = -1
  private readonly exchange: Exchange
  private readonly deadlines: Deadlines
  private readonly done: (exchange: Exchange, rejection: Rejection | null) => void
  private chunks: Buffer[] = []
  /** A declared length gets one buffer of its own, not a slice of Node's pool: the digest pool can take it over without a copy. */
  private whole: Buffer | null
  private bytes = 0

  constructor(
    exchange: Exchange,
    deadlines: Deadlines,
    done: (exchange: Exchange, rejection: Rejection | null) => void,
  ) {
    this.exchange = exchange
    this.deadlines = deadlines
    this.done = done
    this.whole = exchange.contentLength > 0 ? Buffer.allocUnsafeSlow(exchange.contentLength) : null
    this.deadlineUs = exchange.startUs + WHOLE_BODY_US
    deadlines.add(this)
    exchange.holder = this
    ;(exchange.res as HttpResponse).onData((chunk, isLast) => this.receive(chunk, isLast))
  }

  clientLeft(): void {
    this.release()
  }

  expire(): void {
    this.finish(tooSlow)
  }

  private receive(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.slot < 0) return
    const exchange = this.exchange
    const offset = this.bytes
    this.bytes += chunk.byteLength
    exchange.bytesIn = this.bytes
    if (this.bytes > exchange.route!.maxBodyBytes) return this.finish(tooLarge)
    if (this.whole !== null) this.whole.set(new Uint8Array(chunk), offset)
    else if (chunk.byteLength > 0) this.chunks.push(Buffer.from(new Uint8Array(chunk)))
    if (!isLast) return
    exchange.body = this.whole ?? Buffer.concat(this.chunks)
    this.finish(null)
  }

  private finish(rejection: Rejection | null): void {
    this.release()
    this.done(this.exchange, rejection)
  }

  private release(): void {
    this.deadlines.remove(this)
    this.exchange.holder = null
    this.chunks = []
    this.whole = null
  }
}

/** A body on its way through: what the upstream does not take stops the client. */
export class StreamedBody extends Readable {
  private readonly exchange: Exchange
  private paused = false
  private complete = false
  private readonly onTooLarge: (rejection: Rejection) => void

  constructor(exchange: Exchange, onTooLarge: (rejection: Rejection) => void) {
    super({ highWaterMark: 65536 })
    this.exchange = exchange
    this.onTooLarge = onTooLarge
    ;(exchange.res as HttpResponse).onData((chunk, isLast) => this.receive(chunk, isLast))
  }

  override _read(): void {
    if (!this.paused) return
    this.paused = false
    this.exchange.res?.resume()
  }

  /** The upstream wants no more of it (it failed, or it answered early): what still comes is let through to nowhere. */
  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this._read()
    callback(error)
  }

  /** The client left: a body that is cut short must not look complete to the upstream. */
  cutShort(): void {
    if (!this.complete) this.destroy(new Error('client left'))
  }

  private receive(chunk: ArrayBuffer, isLast: boolean): void {
    const exchange = this.exchange
    exchange.bytesIn += chunk.byteLength
    if (this.destroyed) return
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.onTooLarge(tooLarge)
    if (chunk.byteLength > 0 && !this.push(Buffer.from(new Uint8Array(chunk))) && !isLast) {
      this.paused = true
      exchange.res?.pause()
    }
    if (isLast) {
      this.complete = true
      this.push(null)
    }
  }
}
