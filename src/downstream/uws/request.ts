// The request's side of an exchange over HTTP/1.1, as uWebSockets.js has it: whether its client is there, its body, and
// whether its connection carries another request. The response's side is downstream.ts. Runs per request.
import type { HttpResponse } from 'uWebSockets.js'
import type { BodyListener, DownstreamOwner } from '../../exchange/downstream.js'
import type { Fields } from '../../exchange/fields.js'
import { answered, answeredLast, continueRequest, expectBody, type GuardedBody, takeConnection } from './gate.js'

/** The worker drains: each connection ends with its next response, also if the request began before the drain. */
let leaving = false

export function endConnections(): void {
  leaving = true
}

export class UwsRequest implements GuardedBody {
  /** Null once the response is complete or the client is gone: uWS frees it then. */
  protected res: HttpResponse | null
  protected readonly isHead: boolean
  private readonly fields: Fields
  /** Set by whoever makes the exchange. */
  owner: DownstreamOwner | null = null
  readonly connection: number
  watched = false
  begun = false
  awaitsContinue = false
  closes = false
  private bodyListener: BodyListener | null = null

  /** From within the request's handler. */
  constructor(res: HttpResponse, method: string, fields: Fields) {
    this.res = res
    this.isHead = method === 'HEAD'
    this.fields = fields
    this.connection = takeConnection()
  }

  get open(): boolean {
    return this.res !== null
  }

  watch(): void {
    if (this.watched) return
    this.watched = true
    this.res?.onAborted(() => {
      this.res = null
      this.owner!.clientLeft()
    })
  }

  cut(): void {
    const { res } = this
    if (res === null) return
    this.res = null
    res.close()
  }

  /** uWS drops a body that nobody listens to by the end of the request's handler. */
  listen(listener: BodyListener): void {
    this.bodyListener = listener
    this.res?.onData((chunk, isLast) => {
      try {
        listener.onBody(chunk, isLast)
      } catch (error) {
        this.owner!.crash(error)
      }
    })
  }

  /**
   * uSockets reads on all the same from a client that does not take its response (us_socket_write watches for both).
   */
  pauseBody(): void {
    this.res?.pause()
  }

  resumeBody(): void {
    this.res?.resume()
  }

  continueBody(): void {
    if (!this.awaitsContinue || this.begun) return
    this.awaitsContinue = false
    continueRequest(this.connection)
  }

  /**
   * uWS by itself renews its timeout only with every 160 KiB, and so cuts a client that sends less than 16 KiB a
   * second. Pausing and resuming renews it, too.
   */
  renewTimeout(): void {
    this.res?.pause()
    this.res?.resume()
  }

  /** From within the request's handler; -1: the body is chunked. False: no gate reads the body, only uWS does. */
  expectBody(length: number): boolean {
    return expectBody(length, this)
  }

  /** From the gate, which ends the connection afterwards. */
  onBadBody(): void {
    try {
      this.bodyListener?.onMalformed()
    } catch (error) {
      this.owner!.crash(error)
    }
  }

  /** Before the first of a response is written. */
  protected begin(): void {
    // A client that waits to hear whether to send its body may do so or not: where its next request begins would be a
    // guess.
    if (leaving || this.awaitsContinue) this.closes = true
    this.begun = true
  }

  /**
   * RFC 9112, 9.6. uWS writes this field itself where it is told to close, unless the client has asked for that as far
   * as uWS saw: its first Connection field has the length of `close`.
   */
  protected writeClose(res: HttpResponse): void {
    if (this.closes && this.fields.get('connection').length === 5) res.writeHeader('connection', 'close')
  }

  /** The last of the response was written, and uWS was told whether the connection ends. */
  protected complete(): void {
    this.res = null
    answered(this.connection, this.closes)
  }

  /** Like complete(), where uWS could not be told that the connection ends: the gate ends it. */
  protected completeUntold(): void {
    this.res = null
    if (this.closes) answeredLast(this.connection)
    else answered(this.connection, false)
  }
}
