// Waits until an upload is worth a connection to its service: all of it is here, or as much as is read ahead. So
// uploads of slow clients cost memory (body-memory.ts) and no connections. Runs per request with a body that is not
// read whole.
import type { Service } from '../../config/compile.js'
import { CLIENT_SILENCE_MS, uploadTooSlow } from '../../downstream/body.js'
import type { Deadline, Deadlines } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import type { Rejection } from '../../exchange/outcome.js'
import type { Upload, UploadEvents } from '../../exchange/upload.js'

/**
 * A client may send a part of its body and wait for the response's head (RFC 9112, 9.3, allows it): after this time an
 * upload may begin with what is there, if few others that are not complete hold connections. As often as this it is
 * asked again.
 */
const EARLY_US = 100_000

export interface ReadAheadContext {
  readonly deadlines: Deadlines
  nowUs(): number
  /** At least one endpoint of the service has few uploads that are not complete. */
  mayBeginEarly(service: Service): boolean
  /** It is time. */
  begin(exchange: Exchange): void
  refuse(exchange: Exchange, rejection: Rejection): void
}

/** Ends in context.begin, maybe at once, or in context.refuse. Where the client leaves it calls neither. */
export function readAhead(context: ReadAheadContext, exchange: Exchange): void {
  if (exchange.upload!.isReadAhead) context.begin(exchange)
  else new ReadingAhead(context, exchange).listen()
}

class ReadingAhead implements Deadline, Holder, UploadEvents {
  deadlineUs: number
  slot = -1
  private silentUntilUs: number
  private readonly context: ReadAheadContext
  readonly exchange: Exchange
  private readonly upload: Upload

  constructor(context: ReadAheadContext, exchange: Exchange) {
    this.context = context
    this.exchange = exchange
    this.upload = exchange.upload!
    const nowUs = context.nowUs()
    this.silentUntilUs = nowUs + CLIENT_SILENCE_MS * 1000
    this.deadlineUs = nowUs + EARLY_US
    exchange.holder = this
    context.deadlines.add(this)
  }

  listen(): void {
    this.upload.listen(this)
  }

  onProgress(): void {
    if (this.upload.isReadAhead) return this.begin()
    this.silentUntilUs = this.context.nowUs() + CLIENT_SILENCE_MS * 1000
  }

  onRefused(rejection: Rejection): void {
    this.end()
    this.context.refuse(this.exchange, rejection)
  }

  abandon(): void {
    this.end()
    this.upload.drop()
  }

  expire(): void {
    const nowUs = this.context.nowUs()
    if (nowUs >= this.silentUntilUs) return this.upload.refuse(uploadTooSlow)
    if (this.context.mayBeginEarly(this.exchange.service!)) return this.begin()
    this.deadlineUs = Math.min(this.silentUntilUs, nowUs + EARLY_US)
  }

  private begin(): void {
    this.end()
    this.context.begin(this.exchange)
  }

  private end(): void {
    this.context.deadlines.remove(this)
    this.upload.listen(null)
    this.exchange.holder = null
  }
}
