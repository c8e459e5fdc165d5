// A request body that streams: from a Readable to the connection, no faster than the upstream takes it. Runs per request with such a body.
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { errors } from '../undici.js'
import type { LeanRequest } from './request.js'
import { CHUNKED } from './request-head.js'

export class Upload {
  /** All of it has been written. */
  complete = false
  private stopped = false
  private sentBytes = 0
  private readonly socket: Socket
  private readonly request: LeanRequest
  private readonly body: Readable
  private readonly onData = (chunk: Buffer): void => this.send(chunk)
  private readonly onEnd = (): void => this.end()
  private readonly onError = (error: Error): void => this.request.abort(error)
  private readonly onClose = (): void => this.request.abort(new errors.RequestAbortedError())
  private readonly onDrain = (): void => void this.body.resume()

  /** Writes the head, and with it what of the body is there already. */
  constructor(socket: Socket, request: LeanRequest, head: string) {
    this.socket = socket
    this.request = request
    this.body = request.body as Readable
    socket.cork()
    socket.write(head, 'latin1')
    const there: Buffer | null = this.body.read()
    if (there !== null) this.send(there)
    socket.uncork()
    if (request.done) return
    this.body.on('data', this.onData).on('end', this.onEnd).on('error', this.onError).on('close', this.onClose)
    socket.on('drain', this.onDrain)
    if (this.body.readableEnded) this.end()
    else if (this.body.destroyed) this.request.abort(this.body.errored ?? new errors.RequestAbortedError())
  }

  /** No more of it is wanted: the exchange is over. The rest goes nowhere. */
  stop(): void {
    if (this.stopped) return
    this.stopped = true
    const body = this.body
    body.off('data', this.onData).off('end', this.onEnd).off('close', this.onClose)
    this.socket.off('drain', this.onDrain)
    // The error listener stays: a stream may fail after it was let go, and nobody else listens.
    if (!this.complete) body.destroy()
  }

  private send(chunk: Buffer): void {
    const { bodyLength } = this.request
    this.sentBytes += chunk.length
    if (bodyLength === CHUNKED) {
      if (chunk.length === 0) return
      this.socket.cork()
      this.socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1')
      this.socket.write(chunk)
      const ok = this.socket.write('\r\n', 'latin1')
      this.socket.uncork()
      if (!ok) this.body.pause()
      return
    }
    if (this.sentBytes > bodyLength) return this.request.abort(new errors.RequestContentLengthMismatchError())
    if (!this.socket.write(chunk)) this.body.pause()
  }

  private end(): void {
    if (this.stopped) return
    const { bodyLength } = this.request
    if (bodyLength === CHUNKED) this.socket.write('0\r\n\r\n', 'latin1')
    else if (this.sentBytes !== bodyLength) return this.request.abort(new errors.RequestContentLengthMismatchError())
    this.complete = true
    this.stop()
  }
}
