// Request bodies: read whole where a signature covers them, streamed everywhere else. Runs per request with a body. uWS takes a chunk
// back when its handler returns, so each is copied once.

import type { HttpResponse } from 'uWebSockets.js'
import { Readable } from 'node:stream'
import type { Deadline, Deadlines } from '../deadlines.js'
import { Rejection } from '../outcome.js'
import type { Exchange, Holder } from './exchange.js'

const tooLarge = new Rejection('body_too_large', 'body over the limit', true)
const tooSlow = new Rejection('request_timeout', 'body not received in time', true)
const malformed = new Rejection('bad_request', 'bad chunk', true)

/** A declared length over the limit is refused before a byte of it is read. */
export function checkLength(exchange: Exchange): Rejection | null {
  return exchange.contentLength > exchange.route!.maxBodyBytes ? tooLarge : null
}

/** The gate has found a chunked body malformed. */
export function refuseBody(exchange: Exchange): void {
  if (exchange.concluded) return
  try {
    if (exchange.upload !== null) exchange.upload.refuse(malformed)
    else if (exchange.holder instanceof WholeBody) exchange.holder.finish(malformed)
  } catch (error) {
    exchange.crash(error)
  }
}

/** A body that is read whole must arrive within a minute of its head, … */
const WHOLE_BODY_US = 60e6
/**
 * … and none may fall silent for this long. uWS cuts a connection 8 to 12 s after it last set its clock (its timeout of 10 s, in ticks
 * of 4): whoever is to be told why must be told before.
 */
export const CLIENT_SILENCE_MS = 7_000

/** What every reader of bodies needs. */
export interface BodyRules {
  readonly deadlines: Deadlines
  readonly nowUs: () => number
  /** Over the time since the head, but for the first seconds and what the client was held back; 0: any. */
  readonly minBytesPerSecond: number
}

const PACE_US = 1e6
const GRACE_US = 5e6

/**
 * Whether a body comes fast enough. uWS by itself sets its clock only with every 160 KiB, and so cuts whoever sends less than 16 KiB a second.
 * Pausing and resuming sets it, too: once a second, so that silence is noticed here first.
 */
class Pace {
  private readonly rules: BodyRules
  private readonly startUs: number
  private setUs: number
  private heldSinceUs = 0
  private heldUs = 0

  constructor(startUs: number, rules: BodyRules) {
    this.rules = rules
    this.startUs = startUs
    this.setUs = startUs
  }

  /** With each chunk, while the client is not held back. False: `bytes` so far are too few. */
  holds(res: HttpResponse, bytes: number): boolean {
    const nowUs = this.rules.nowUs()
    if (nowUs - this.setUs < PACE_US) return true
    this.setUs = nowUs
    res.pause()
    res.resume()
    return bytes >= ((nowUs - this.startUs - this.heldUs - GRACE_US) / 1e6) * this.rules.minBytesPerSecond
  }

  pause(): void {
    this.heldSinceUs = this.rules.nowUs()
  }

  resume(): void {
    this.setUs = this.rules.nowUs()
    this.heldUs += this.setUs - this.heldSinceUs
  }
}

/** Reads the body into exchange.body, then calls done, with a rejection when it is too long or too slow. Never called when the client leaves. */
export class WholeBody implements Holder, Deadline {
  deadlineUs: number
  slot = -1
  readonly exchange: Exchange
  private readonly rules: BodyRules
  private readonly pace: Pace
  private readonly done: (exchange: Exchange, rejection: Rejection | null) => void
  private chunks: Buffer[] = []
  /** A declared length gets one buffer of its own, not a slice of Node's pool: the digest pool can take it over without a copy. */
  private whole: Buffer | null
  private bytes = 0

  constructor(exchange: Exchange, rules: BodyRules, done: (exchange: Exchange, rejection: Rejection | null) => void) {
    this.exchange = exchange
    this.rules = rules
    this.pace = new Pace(exchange.startUs, rules)
    this.done = done
    this.whole = exchange.contentLength > 0 ? Buffer.allocUnsafeSlow(exchange.contentLength) : null
    this.deadlineUs = exchange.startUs + CLIENT_SILENCE_MS * 1000
    rules.deadlines.add(this)
    exchange.holder = this
    ;(exchange.res as HttpResponse).onData((chunk, isLast) => {
      try {
        this.receive(chunk, isLast)
      } catch (error) {
        exchange.crash(error)
      }
    })
  }

  abandon(): void {
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
    if (!isLast) {
      this.deadlineUs = Math.min(exchange.startUs + WHOLE_BODY_US, this.rules.nowUs() + CLIENT_SILENCE_MS * 1000)
      if (!this.pace.holds(exchange.res as HttpResponse, this.bytes)) this.finish(tooSlow)
      return
    }
    exchange.body = this.whole ?? Buffer.concat(this.chunks)
    this.finish(null)
  }

  finish(rejection: Rejection | null): void {
    this.release()
    this.done(this.exchange, rejection)
  }

  private release(): void {
    this.rules.deadlines.remove(this)
    this.exchange.holder = null
    this.chunks = []
    this.whole = null
  }
}

/** What is held of a body for an upstream that does not take it yet, and that undici's stream holds besides. */
const HELD_BYTES = 65_536

/** Told what becomes of an upload, by whoever forwards it. */
export interface UploadEvents {
  /** More than the route allows, too slow, or malformed: it has been dropped. */
  onRefused(rejection: Rejection): void
  /** Some of it came from the client, or the last of it did, or the client is waited for again. */
  onProgress(): void
}

/**
 * A body on its way through: what the upstream does not take stops the client. It is listened to from the request's head on, for uWS
 * drops what nobody listens to; undici reads it through a stream of its own per attempt (`open`), which dies with its connection.
 */
export class Upload {
  /** All of it is here. */
  complete = false
  /** The client is held back: its silence is ours. */
  paused = false
  /** Some was handed to an upstream: another one could not have the whole any more. */
  taken = false
  private readonly exchange: Exchange
  private held: Buffer[] = []
  private heldBytes = 0
  private dropped = false
  private refusal: Rejection | null = null
  private readonly pace: Pace
  private events: UploadEvents | null = null
  private stream: UploadStream | null = null

  constructor(exchange: Exchange, rules: BodyRules) {
    this.exchange = exchange
    this.pace = new Pace(exchange.startUs, rules)
    ;(exchange.res as HttpResponse).onData((chunk, isLast) => {
      try {
        this.receive(chunk, isLast)
      } catch (error) {
        exchange.crash(error)
      }
    })
  }

  /** Events from before are told at once. */
  listen(events: UploadEvents): void {
    this.events = events
    if (this.refusal !== null) events.onRefused(this.refusal)
  }

  /** For one attempt. Only while nothing was taken. */
  open(): Readable {
    this.stream = new UploadStream(this)
    return this.stream
  }

  /** Nobody wants the rest (the service failed, answered early, or was never asked): it is let through to nowhere. */
  drop(): void {
    this.dropped = true
    this.held = []
    this.resume()
  }

  refuse(rejection: Rejection): void {
    this.refusal = rejection
    this.drop()
    this.events?.onRefused(rejection)
  }

  /** The exchange is over early: a body that is cut short must not look complete to the upstream. */
  cutShort(reason: Error): void {
    if (!this.complete) this.stream?.destroy(reason)
    this.drop()
  }

  /** To the stream, as far as it has room. */
  deliver(stream: UploadStream): void {
    if (stream !== this.stream || stream.destroyed) return
    while (this.held.length > 0 && stream.hasRoom) {
      const chunk = this.held.shift() as Buffer
      this.heldBytes -= chunk.length
      this.taken = true
      stream.hasRoom = stream.push(chunk)
    }
    if (this.held.length > 0) return
    if (this.complete) stream.push(null)
    // The last of it may come while the client is held back, and its next request is behind it.
    this.resume()
  }

  private receive(chunk: ArrayBuffer, isLast: boolean): void {
    const exchange = this.exchange
    if (this.dropped || exchange.concluded) return
    exchange.bytesIn += chunk.byteLength
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.refuse(tooLarge)
    if (!isLast && !this.paused && !this.pace.holds(exchange.res as HttpResponse, exchange.bytesIn)) {
      return this.refuse(tooSlow)
    }
    if (chunk.byteLength > 0) {
      this.held.push(Buffer.from(new Uint8Array(chunk)))
      this.heldBytes += chunk.byteLength
    }
    this.complete = isLast
    if (this.stream !== null) this.deliver(this.stream)
    if (this.heldBytes >= HELD_BYTES && !isLast) this.pause()
    this.events?.onProgress()
  }

  /** Also while it is paused: uSockets reads on from a client that does not take the answer (us_socket_write watches for both). */
  private pause(): void {
    if (!this.paused) this.pace.pause()
    this.paused = true
    this.exchange.res?.pause()
  }

  private resume(): void {
    if (!this.paused) return
    this.paused = false
    this.pace.resume()
    this.exchange.res?.resume()
    this.events?.onProgress()
  }
}

class UploadStream extends Readable {
  hasRoom = false
  private readonly upload: Upload

  constructor(upload: Upload) {
    super({ highWaterMark: HELD_BYTES })
    this.upload = upload
  }

  override _read(): void {
    this.hasRoom = true
    this.upload.deliver(this)
  }
}
