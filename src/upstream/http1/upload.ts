// A request body that streams: from a Readable to the connection, no faster than the upstream takes it. Runs per
// request with such a body.
import type { Readable } from 'node:stream'
import { errors } from '../undici.js'
import type { LeanRequest } from './request.js'
import { CHUNKED } from './request-head.js'
import type { Wire } from './transport.js'

const nothing = Buffer.alloc(0)

export class Upload {
  /** All of it has been written. */
  complete = false
  private stopped = false
  private sentBytes = 0
  private readonly wire: Wire
  private readonly request: LeanRequest
  private readonly body: Readable
  private readonly onData = (chunk: Buffer): void => {
    try {
      this.send(chunk)
    } catch (error) {
      this.request.abort(error as Error)
    }
  }
  private readonly onEnd = (): void => this.end()
  private readonly onError = (error: Error): void => this.request.abort(error)
  private readonly onClose = (): void => this.request.abort(new errors.RequestAbortedError())

  /** Writes the head, and with it what of the body is there already. */
  constructor(wire: Wire, request: LeanRequest) {
    this.wire = wire
    this.request = request
    this.body = request.body as Readable
    const there: Buffer | null = this.body.read()
    if (there === null) wire.write(request.head, nothing, '')
    else this.send(there, request.head)
    if (request.done) return
    this.body.on('data', this.onData).on('end', this.onEnd).on('error', this.onError).on('close', this.onClose)
    if (this.body.readableEnded) this.end()
    else if (this.body.destroyed) this.request.abort(this.body.errored ?? new errors.RequestAbortedError())
  }

  /** No more of it is wanted: the exchange is over. The rest goes nowhere. */
  stop(): void {
    if (this.stopped) return
    this.stopped = true
    const body = this.body
    body.off('data', this.onData).off('end', this.onEnd).off('close', this.onClose)
    // The error listener stays: a stream may fail after it was let go, and nobody else listens.
    if (!this.complete) body.destroy()
  }

  /** What was written has left. */
  goOn(): void {
    if (!this.stopped) this.body.resume()
  }

  private send(chunk: Buffer, head = ''): void {
    const { bodyLength } = this.request
    const chunked = bodyLength === CHUNKED
    this.sentBytes += chunk.length
    if (chunk.length === 0) return
    if (!chunked && this.sentBytes > bodyLength)
      return this.request.abort(new errors.RequestContentLengthMismatchError())
    const before = chunked ? `${head}${chunk.length.toString(16)}\r\n` : head
    if (!this.wire.write(before, chunk, chunked ? '\r\n' : '')) this.body.pause()
  }

  private end(): void {
    if (this.stopped) return
    const { bodyLength } = this.request
    if (bodyLength === CHUNKED) this.wire.write('0\r\n\r\n', nothing, '')
    else if (this.sentBytes !== bodyLength) return this.request.abort(new errors.RequestContentLengthMismatchError())
    this.complete = true
    this.stop()
  }
}
