// The upload of an exchange that is to be mirrored: the upload itself, and a look at it when the service gets it. If
// all of it is in memory then, the copy shares that memory; else there is no copy. Runs per request with such a body.
// It may not change what the upload does.
import type { Readable } from 'node:stream'
import type { Exchange } from '../../exchange/exchange.js'
import type { Rejection } from '../../exchange/outcome.js'
import type { Upload, UploadEvents } from '../../exchange/upload.js'

interface Mirror {
  copy(exchange: Exchange, body: Buffer): void
  dropBody(): void
}

export class CopiedUpload implements Upload {
  private readonly upload: Upload
  private readonly exchange: Exchange
  /** Null once it was told. */
  private mirror: Mirror | null

  constructor(upload: Upload, exchange: Exchange, mirror: Mirror) {
    this.upload = upload
    this.exchange = exchange
    this.mirror = mirror
  }

  open(): Buffer | Readable {
    const body = this.upload.open()
    const { mirror } = this
    this.mirror = null
    if (mirror !== null) {
      if (Buffer.isBuffer(body)) mirror.copy(this.exchange, body)
      else mirror.dropBody()
    }
    return body
  }

  get paused(): boolean {
    return this.upload.paused
  }

  get taken(): boolean {
    return this.upload.taken
  }

  get isComing(): boolean {
    return this.upload.isComing
  }

  get isReadAhead(): boolean {
    return this.upload.isReadAhead
  }

  listen(events: UploadEvents | null): void {
    this.upload.listen(events)
  }

  drop(): void {
    this.upload.drop()
  }

  refuse(rejection: Rejection): void {
    this.upload.refuse(rejection)
  }

  cutShort(reason: Error): void {
    this.upload.cutShort(reason)
  }
}
