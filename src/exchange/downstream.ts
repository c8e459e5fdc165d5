// The client's side of one exchange: what the phases and handlers ask of the client's protocol, and what they are told
// by it. The implementations are in downstream/: uws/ speaks HTTP/1.1, memory.ts stands in for a client in tests. It
// knows no exchange: an owner hears of its events. Where a protocol cannot do something, the method returns null or
// does nothing.
import type { HeadLines, StatusLine } from './response-head.js'

/** Hears of a downstream's events. The exchange is one. */
export interface DownstreamOwner {
  /** The client is gone. Once at most, and only after watch(). */
  clientLeft(): void
  /** Code that an event has called threw this. Throws nothing itself. */
  crash(error: unknown): void
}

/** Told of the request's body. */
export interface BodyListener {
  /** The chunk belongs to the downstream, which takes it back when this returns. */
  onBody(chunk: ArrayBuffer, isLast: boolean): void
  /**
   * The framing of the body is malformed: no more of it comes. Respond within this call, if at all: the connection ends
   * with it.
   */
  onMalformed(): void
}

/** Told when the client can take more of a response than it could. */
export interface DrainListener {
  onDrain(): void
}

export interface Downstream {
  /** The client is there, and its response is not complete. */
  readonly open: boolean
  /** watch() was called: the exchange has waited for something, or is going to. */
  readonly watched: boolean
  /** Some of the response was written: there cannot be another one. */
  readonly begun: boolean
  /** The client sends its body once it is told to continue, and has not been told yet. */
  readonly awaitsContinue: boolean
  /**
   * The connection ends with this response. Set it before the response begins. Has no meaning in a protocol that gives
   * each request a stream of its own.
   */
  closes: boolean
  /**
   * The client's connection, as the watch over connections numbers it (uws/gate.ts); 0 or less where nobody watches.
   */
  readonly connection: number

  /** The owner is told from now on when the client leaves. Call it before anything is waited for. */
  watch(): void

  // The response: respond(), or start(), write() … and end(). Nothing happens where the client has left.

  /**
   * A complete response. A request by HEAD gets no body.
   * @param own more lines of the head, of this response alone; as in HeadLines, in ASCII
   * @param body null for a response that ends with its head: to HEAD, or by its status
   * @param length the Content-Length of a response without a body, -1 for none
   */
  respond(line: StatusLine, lines: HeadLines, own: string, body: Buffer | string | null, length: number): void
  /**
   * A response whose body follows by write(). The head leaves with the first chunk, or with flush(). Not for a response
   * that must have no body (to HEAD, or by its status): respond() is.
   * @param length the Content-Length; null if it is not known
   */
  start(line: StatusLine, lines: HeadLines, own: string, length: number | null, listener: DrainListener): void
  /** The head leaves now, where the protocol can send it without a body. */
  flush(): void
  /**
   * False: wait for the listener's onDrain() before more is written. The chunk is the caller's again.
   * A body of declared length is complete with its last byte.
   */
  write(chunk: Buffer): boolean
  /** Nothing that was written waits here for the client: end() may be called. */
  readonly drained: boolean
  /** The body is complete. Trailers are dropped where the protocol cannot send any. */
  end(trailers: HeadLines | null): void
  /**
   * The response cannot be completed: the client sees it end early. The owner may be told within that the client is
   * gone.
   */
  cut(): void
  /** An interim response (RFC 9110, 15.2), before the response begins; dropped where the protocol cannot send any. */
  interim(line: StatusLine, lines: HeadLines): void

  // The request's body.

  /** Call it within the turn of the loop that brought the head: a body that nobody listens to is dropped. */
  listen(listener: BodyListener): void
  /** The client is held back as far as the protocol can: what is on its way still comes. */
  pauseBody(): void
  resumeBody(): void
  /**
   * The body is wanted now: a client that waits to hear so is told by 100 Continue (RFC 9110, 10.1.1). Else nothing
   * happens.
   */
  continueBody(): void
  /** The client is not idle: a limit that the protocol's implementation has on silence begins anew. */
  renewTimeout(): void

  /**
   * The response is 101, or what stands for it in the protocol, and bytes follow both ways. Null: this protocol or
   * connection cannot, and the client waits for a response.
   */
  upgrade(lines: HeadLines, own: string, listener: TunnelListener): Tunnel | null
}

/**
 * Bytes from and to the client, once its connection or stream carries another protocol. When it is gone its
 * downstream's owner is told.
 */
export interface Tunnel {
  /** False: wait for onDrain(). The chunk is the caller's again. */
  write(chunk: Buffer): boolean
  /** No more is written. */
  end(): void
  cut(): void
  pause(): void
  resume(): void
}

export interface TunnelListener extends DrainListener {
  /** The chunk belongs to the tunnel, which takes it back when this returns. */
  onData(chunk: ArrayBuffer): void
  /** The client sends no more. */
  onEnd(): void
}
