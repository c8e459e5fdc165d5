// Request bodies: read whole where a signature covers them, streamed everywhere else. Runs per request with a body. uWS takes a chunk
// back when its handler returns, so each is copied once.

import type { HttpResponse } from 'uWebSockets.js'
import { Readable } from 'node:stream'
import type { Deadline, Deadlines } from '../exchange/deadlines.js'
import type { Exchange, Holder } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { type BodyMemory, memoryFull } from './body-memory.js'
import { GatheredBytes } from './gathered-bytes.js'

const tooLarge = new Rejection('body_too_large', 'body over the limit', true)
const tooLargeToHold = new Rejection(
  'body_too_large',
  'body over what one client may hold of TIDEGATE_BODY_MEMORY',
  true,
)
export const uploadTooSlow = new Rejection('request_timeout', 'body not received in time', true)
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
  readonly memory: BodyMemory
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
  private readonly gathered = new GatheredBytes()

  constructor(exchange: Exchange, rules: BodyRules, done: (exchange: Exchange, rejection: Rejection | null) => void) {
    this.exchange = exchange
    this.rules = rules
    this.pace = new Pace(exchange.startUs, rules)
    this.done = done
    this.deadlineUs = exchange.startUs + CLIENT_SILENCE_MS * 1000
    rules.deadlines.add(this)
    exchange.holder = this
    if (exchange.contentLength > rules.memory.mostPerAddress) {
      this.finish(tooLargeToHold)
      return
    }
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
    this.finish(uploadTooSlow)
  }

  private receive(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.slot < 0) return
    const { exchange, gathered } = this
    exchange.bytesIn += chunk.byteLength
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.finish(tooLarge)
    const { memory } = this.rules
    gathered.append(chunk, exchange.contentLength > 0 ? exchange.contentLength : memory.mostPerAddress)
    if (!memory.hold(exchange, gathered.capacity)) {
      return this.finish(gathered.length > memory.mostPerAddress ? tooLargeToHold : memoryFull)
    }
    if (!isLast) {
      this.deadlineUs = Math.min(exchange.startUs + WHOLE_BODY_US, this.rules.nowUs() + CLIENT_SILENCE_MS * 1000)
      if (!this.pace.holds(exchange.res as HttpResponse, exchange.bytesIn)) this.finish(uploadTooSlow)
      return
    }
    exchange.body = gathered.take()
    this.finish(null)
  }

  finish(rejection: Rejection | null): void {
    this.release()
    this.done(this.exchange, rejection)
  }

  private release(): void {
    this.rules.deadlines.remove(this)
    this.exchange.holder = null
    this.gathered.clear()
  }
}

/** What is read ahead of a body that its service does not take yet. Then the client is stopped. */
const READ_AHEAD_BYTES = 65_536

/** Told what becomes of an upload, by whoever waits for it or forwards it. */
export interface UploadEvents {
  /** More than the route or the worker's memory allows, too slow, or malformed: it has been dropped. */
  onRefused(rejection: Rejection): void
  /** Some of it came from the client, or the last of it did, or the client is waited for again. */
  onProgress(): void
}

/**
 * A body on its way through: what the upstream does not take stops the client. It is listened to from the request's head on, for uWS
 * drops what nobody listens to. An attempt gets all of it, if that is here by then, else a stream that dies with the attempt's connection.
 */
export class Upload {
  /** All of it is here. */
  complete = false
  /** The client is held back: its silence is ours. Never once the upload is complete or dropped: uWS then reads the next request. */
  paused = false
  /** Some was handed to an upstream: another one could not have the whole any more. */
  taken = false
  private readonly exchange: Exchange
  private readonly memory: BodyMemory
  private readonly held = new GatheredBytes()
  private dropped = false
  private refusal: Rejection | null = null
  private readonly pace: Pace
  private events: UploadEvents | null = null
  private stream: UploadStream | null = null

  constructor(exchange: Exchange, rules: BodyRules) {
    this.exchange = exchange
    this.memory = rules.memory
    this.pace = new Pace(exchange.startUs, rules)
    ;(exchange.res as HttpResponse).onData((chunk, isLast) => {
      try {
        this.receive(chunk, isLast)
      } catch (error) {
        exchange.crash(error)
      }
    })
  }

  get isComing(): boolean {
    return !this.complete && !this.dropped
  }

  /** There is no more of it to wait for before its service is asked. */
  get isReadAhead(): boolean {
    return this.complete || this.paused
  }

  /** A refusal from before is told at once. */
  listen(events: UploadEvents | null): void {
    this.events = events
    if (this.refusal !== null) events?.onRefused(this.refusal)
  }

  /** For one attempt. Only while nothing was taken. */
  open(): Buffer | Readable {
    this.stream = null
    if (this.complete) return this.held.bytes
    this.stream = new UploadStream(this)
    return this.stream
  }

  /** Nobody wants the rest (the service failed, answered early, or was never asked): it is let through to nowhere. */
  drop(): void {
    this.dropped = true
    this.held.clear()
    this.memory.hold(this.exchange, 0)
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

  /** What is held, to the stream, if that has room. */
  deliver(stream: UploadStream): void {
    if (stream !== this.stream || stream.destroyed || !stream.hasRoom) return
    if (this.held.length > 0) {
      this.push(stream, this.held.take())
      this.memory.hold(this.exchange, 0)
    }
    if (this.complete) stream.push(null)
    else if (stream.hasRoom) this.resume()
  }

  private push(stream: UploadStream, chunk: Buffer): void {
    this.taken = true
    stream.hasRoom = stream.push(chunk)
  }

  private receive(chunk: ArrayBuffer, isLast: boolean): void {
    const { exchange, stream } = this
    if (this.dropped || exchange.concluded) return
    exchange.bytesIn += chunk.byteLength
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.refuse(tooLarge)
    if (!isLast && !this.paused && !this.pace.holds(exchange.res as HttpResponse, exchange.bytesIn)) {
      return this.refuse(uploadTooSlow)
    }
    this.complete = isLast
    if (chunk.byteLength > 0) {
      if (stream?.hasRoom && this.held.length === 0 && !stream.destroyed) {
        this.push(stream, Buffer.from(new Uint8Array(chunk)))
      } else if (!this.keep(chunk)) return this.refuse(memoryFull)
    }
    if (stream !== null) this.deliver(stream)
    if (isLast) this.resume()
    this.events?.onProgress()
  }

  /** Until somebody takes it. False: no memory is left for it. */
  private keep(chunk: ArrayBuffer): boolean {
    const { held, exchange } = this
    held.append(
      chunk,
      exchange.contentLength > 0 ? Math.min(exchange.contentLength, READ_AHEAD_BYTES) : READ_AHEAD_BYTES,
    )
    const fits = this.memory.hold(exchange, held.capacity)
    if ((held.length >= READ_AHEAD_BYTES || !fits) && !this.complete) this.pause()
    // What is on its way is not refused for lack of memory: its client is stopped, and the service takes what is held.
    return fits || this.stream !== null
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
    if (this.isComing) this.events?.onProgress()
  }
}

/** Whoever destroys a stream tells the forwarding as well. */
const ignore = (): void => {}

class UploadStream extends Readable {
  hasRoom = false
  private readonly upload: Upload

  constructor(upload: Upload) {
    // One chunk at a time: what waits is gathered in the upload, where it is bounded.
    super({ highWaterMark: 1 })
    this.upload = upload
    // A stream may be destroyed before a connection reads it, and an error nobody listens to would end the worker.
    this.on('error', ignore)
  }

  override _read(): void {
    this.hasRoom = true
    this.upload.deliver(this)
  }
}
