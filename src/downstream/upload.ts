// A request body that streams to whoever answers, with what is read ahead of it. Runs per request with such a body. A
// chunk is the downstream's again when its listener returns, so each is copied once.
import { Readable } from 'node:stream'
import type { BodyListener } from '../exchange/downstream.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { Upload, UploadEvents } from '../exchange/upload.js'
import { type BodyRules, malformed, Pace, tooLarge, uploadTooSlow } from './body.js'
import { type BodyMemory, memoryFull } from './body-memory.js'
import { GatheredBytes } from './gathered-bytes.js'

/** What is read ahead of a body that its service does not take yet. Then the client is stopped. */
const READ_AHEAD_BYTES = 65_536

/**
 * A body on its way through: what the upstream does not take stops the client. It is listened to from the request's
 * head on: what nobody listens to is dropped. An attempt gets all of it, if that is here by then, else a stream that
 * dies with the attempt's connection.
 */
export class ClientUpload implements Upload, BodyListener {
  /** All of it is here. */
  complete = false
  /**
   * The client is held back: its silence is ours. Never once the upload is complete or dropped: uWS then reads the next
   * request.
   */
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
    exchange.downstream.listen(this)
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

  onMalformed(): void {
    if (!this.exchange.concluded) this.refuse(malformed)
  }

  onBody(chunk: ArrayBuffer, isLast: boolean): void {
    const { exchange, stream } = this
    if (this.dropped || exchange.concluded) return
    exchange.bytesIn += chunk.byteLength
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.refuse(tooLarge)
    if (!isLast && !this.paused && !this.pace.holds(exchange.downstream, exchange.bytesIn)) {
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

  /** Also while it is paused: a downstream may read on from a client that does not take its response. */
  private pause(): void {
    if (!this.paused) this.pace.pause()
    this.paused = true
    this.exchange.downstream.pauseBody()
  }

  private resume(): void {
    if (!this.paused) return
    this.paused = false
    this.pace.resume()
    this.exchange.downstream.resumeBody()
    if (this.isComing) this.events?.onProgress()
  }
}

/** Whoever destroys a stream tells the forwarding as well. */
const ignore = (): void => {}

class UploadStream extends Readable {
  hasRoom = false
  private readonly upload: ClientUpload

  constructor(upload: ClientUpload) {
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
