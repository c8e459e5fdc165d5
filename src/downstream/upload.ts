// A request body that streams to the handler, with what is read ahead of it. Runs per request with such a body. The
// downstream takes each chunk back when its listener returns, so a chunk is copied once.
import { Readable } from 'node:stream'
import type { BodyListener } from '../exchange/downstream.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { Upload, UploadEvents } from '../exchange/upload.js'
import { type BodyRules, malformed, Pace, tooLarge, uploadTooSlow } from './body.js'
import { type BodyMemory, memoryFull } from './body-memory.js'
import { GatheredBytes } from './gathered-bytes.js'

/** This much of a body is read while its service does not take it. Then the client is held back. */
const READ_AHEAD_BYTES = 65_536

/**
 * A streamed body. It holds the client back while the upstream takes nothing. It listens from the request's head on,
 * because the downstream drops a body without a listener. An attempt gets the whole body if all of it has arrived, else
 * a stream that dies with the attempt's connection.
 */
export class ClientUpload implements Upload, BodyListener {
  /** All of it has arrived. */
  complete = false
  /**
   * The client is held back, so its silence is the gateway's doing. Never once the upload is complete or dropped: the
   * next request must be read then.
   */
  paused = false
  /** An upstream was given some of it, so another one can no longer have all of it. */
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

  /** Nothing is left to wait for before the service is asked. */
  get isReadAhead(): boolean {
    return this.complete || this.paused
  }

  /** An earlier refusal is told at once. */
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

  /** The rest is not needed (the service failed, responded early, or was never asked): it is read and thrown away. */
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

  /** Gives the stream what is held, if it has room. */
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

  /** Holds a chunk until an attempt takes it. False: no memory is left for it. */
  private keep(chunk: ArrayBuffer): boolean {
    const { held, exchange } = this
    held.append(
      chunk,
      exchange.contentLength > 0 ? Math.min(exchange.contentLength, READ_AHEAD_BYTES) : READ_AHEAD_BYTES,
    )
    const fits = this.memory.hold(exchange, held.capacity)
    if ((held.length >= READ_AHEAD_BYTES || !fits) && !this.complete) this.pause()
    // An upload that an attempt has begun to read is not refused for lack of memory: its client is held back, and the
    // service takes what is held.
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

/** Code that destroys a stream also tells the attempt. */
const ignore = (): void => {}

class UploadStream extends Readable {
  hasRoom = false
  private readonly upload: ClientUpload

  constructor(upload: ClientUpload) {
    // One chunk at a time: what waits is gathered in the upload, where it is bounded.
    super({ highWaterMark: 1 })
    this.upload = upload
    // A stream may be destroyed before a connection reads it, and an error without a listener would end the worker.
    this.on('error', ignore)
  }

  override _read(): void {
    this.hasRoom = true
    this.upload.deliver(this)
  }
}
