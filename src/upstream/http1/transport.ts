// What carries the bytes of upstream connections, as the lean client sees it: the interface that native-transport.ts
// and node-transport.ts implement. Knows nothing of HTTP. Both pass the same tests.

/** The owner of a connection. It is told nothing after close(), and nothing of what comes in during a pause. */
export interface Listener {
  onConnect(): void
  /**
   * bytes[at, end) has come in. It is there until this returns: all connections read into the same memory.
   * @param mark it begins with the text for which remember() has returned this mark; 0: nobody knows
   */
  onBytes(bytes: Buffer, at: number, end: number, mark: number): void
  /** The other side has closed its end. */
  onEof(): void
  /** As Node's own: with `code` and `syscall`. */
  onError(error: Error): void
  /** What waited when write() returned false has left. */
  onDrain(): void
  /** Asked for by flushLater(): what is to leave in this turn of the event loop, by way of send() or write(). */
  flush(): void
}

export interface Wire {
  /** Calls listener.flush() once, when the events of this turn have been handled. */
  flushLater(): void
  /** Only from within flush(). Each character is a byte. */
  send(text: string): void
  /**
   * At once, and together. The body must not change until it has left. False: some waits, and onDrain tells when it has
   * left.
   */
  write(before: string, body: Uint8Array, after: string): boolean
  /**
   * The text with which the next reads are likely to begin, in place of the one before. Returns its mark for onBytes;
   * -1: the transport does not compare.
   */
  remember(text: string): number
  pause(): void
  /** What was held back may come before this returns. */
  resume(): void
  close(): void
}

export interface Transport {
  /** By address or by name. The listener is told of a refusal after this has returned. */
  connect(host: string, port: number, listener: Listener): Wire
  /** To a Unix socket, by its absolute path. While the server's backlog is full it tries again, until close(). */
  connectUnix(path: string, listener: Listener): Wire
}
