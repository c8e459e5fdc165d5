// The tunnel of an exchange in memory: what is written to it is kept to be looked at, and what its client does is
// called. For tests; memory.ts opens it.
import type { Downstream, Tunnel, TunnelListener } from '../exchange/downstream.js'

/** Both ends of a tunnel: the exchange has it as a Tunnel, a test as its client. */
export class MemoryTunnel implements Tunnel {
  readonly chunks: Buffer[] = []
  paused = false
  ended = false
  private readonly downstream: Downstream
  private readonly listener: TunnelListener
  private stalled = false

  constructor(downstream: Downstream, listener: TunnelListener) {
    this.downstream = downstream
    this.listener = listener
  }

  // What the client does.

  send(chunk: string | Buffer): void {
    this.listener.onData(new Uint8Array(Buffer.from(chunk)).buffer)
  }

  /** It sends no more. */
  sendEnd(): void {
    this.listener.onEnd()
  }

  stall(): void {
    this.stalled = true
  }

  drain(): void {
    if (!this.stalled) return
    this.stalled = false
    this.listener.onDrain()
  }

  // What the exchange does.

  write(chunk: Buffer): boolean {
    this.chunks.push(Buffer.from(chunk))
    return !this.stalled
  }

  end(): void {
    this.ended = true
  }

  cut(): void {
    this.downstream.cut()
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }
}
