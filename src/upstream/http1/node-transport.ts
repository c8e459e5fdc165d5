// Upstream connections over node:net: as the native transport has them, for where there is no addon. Runs per read and write.
import { connect, type Socket } from 'node:net'
import type { Listener, Transport, Wire } from './transport.js'

/** A read is handled before the next one starts. */
const readBuffer = Buffer.allocUnsafeSlow(65536)
const KEEP_ALIVE_MS = 60_000

let waiting: Listener[] = []
let flushing: Listener[] = []
let scheduled = false

function flushAll(): void {
  scheduled = false
  const listeners = waiting
  waiting = flushing
  flushing = listeners
  for (let i = 0; i < listeners.length; i++) listeners[i]!.flush()
  listeners.length = 0
}

class NodeWire implements Wire {
  private readonly socket: Socket
  private readonly listener: Listener
  private paused = false
  private closed = false

  constructor(host: string, port: number, listener: Listener) {
    this.listener = listener
    const onread = { buffer: readBuffer, callback: (bytes: number) => this.read(bytes) }
    this.socket = connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, onread })
    this.socket.on('connect', () => listener.onConnect())
    this.socket.on('error', (error) => this.closed || listener.onError(error))
    this.socket.on('end', () => listener.onEof())
    this.socket.on('drain', () => listener.onDrain())
  }

  /** Returns whether to go on reading. */
  private read(bytes: number): boolean {
    this.listener.onBytes(readBuffer, 0, bytes, 0)
    return !this.paused
  }

  flushLater(): void {
    waiting.push(this.listener)
    if (scheduled) return
    scheduled = true
    setImmediate(flushAll)
  }

  send(text: string): void {
    this.socket.write(text, 'latin1')
  }

  write(before: string, body: Uint8Array, after: string): boolean {
    const { socket } = this
    socket.cork()
    let room = true
    if (before !== '') room = socket.write(before, 'latin1')
    if (body.length > 0) room = socket.write(body)
    if (after !== '') room = socket.write(after, 'latin1')
    socket.uncork()
    return room
  }

  remember(): number {
    return -1
  }

  pause(): void {
    this.paused = true
    this.socket.pause()
  }

  resume(): void {
    this.paused = false
    this.socket.resume()
  }

  close(): void {
    this.closed = true
    this.socket.destroy()
  }
}

export class NodeTransport implements Transport {
  connect(host: string, port: number, listener: Listener): Wire {
    return new NodeWire(host, port, listener)
  }
}
