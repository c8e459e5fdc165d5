// What carries the bytes of upstream connections, as the lean client sees it: the interface that native-transport.ts
// and node-transport.ts implement. Knows nothing of HTTP. Both pass the same tests.

/** Whoever has a connection. Told nothing after close(), and nothing of what comes in while it is paused. */
export interface Listener {
  onConnect(): void
  /**
   * What came is bytes[at, end), there until this returns: all connections read into the same memory. It begins with
   * what remember() has given this mark; 0: or not, that was not looked at.
   */
  onBytes(bytes: Buffer, at: number, end: number, mark: number): void
  /** The other side has closed its end. */
  onEof(): void
  /** As Node's own: with `code` and `syscall`. */
  onError(error: Error): void
  /** All has left of which write() has said that it has not. */
  onDrain(): void
  /** Asked for by flushLater(): what is to leave in this turn of the event loop, by way of send() or write(). */
  flush(): void
}

export interface Wire {
  /** Calls listener.flush() once, when the events of this turn have been handled. */
  flushLater(): void
  /** From within flush() alone: a character a byte. */
  send(text: string): void
  /**
   * At once, and together. The body must not change until it has left. False: some waits, and onDrain tells when it has
   * left.
   */
  write(before: string, body: Uint8Array, after: string): boolean
  /**
   * Text that what comes is likely to begin with, instead of the one before; returns its mark, -1 where that is not
   * looked at.
   */
  remember(text: string): number
  pause(): void
  /** What was held back may come before this returns. */
  resume(): void
  close(): void
}

export interface Transport {
  /** By address or by name. Refused connections are told of later. */
  connect(host: string, port: number, listener: Listener): Wire
  /** To a Unix socket, by its absolute path. While the server's backlog is full it tries again, until close(). */
  connectUnix(path: string, listener: Listener): Wire
}
