// Upstream connections over node:net: as the native transport has them, for where there is no addon. Runs per read and
// write.
import { connect, type NetConnectOpts, type Socket } from 'node:net'
import { BACKLOG_FULL, backlogPauseMs } from '../unix-socket.js'
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
  private socket: Socket
  private readonly listener: Listener
  private paused = false
  private closed = false
  /** Refused so far because a backlog was full. */
  private refused = 0
  private retry: NodeJS.Timeout | undefined

  constructor(to: NetConnectOpts, listener: Listener) {
    this.listener = listener
    this.socket = this.open(to)
  }

  private open(to: NetConnectOpts): Socket {
    const { listener } = this
    const onread = { buffer: readBuffer, callback: (bytes: number) => this.read(bytes) }
    const socket = connect({ ...to, onread })
    socket.on('connect', () => listener.onConnect())
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (this.closed) return
      if (error.code !== BACKLOG_FULL || error.syscall !== 'connect') return listener.onError(error)
      this.retry = setTimeout(
        () => {
          this.socket = this.open(to)
        },
        backlogPauseMs(++this.refused),
      )
    })
    socket.on('end', () => listener.onEof())
    socket.on('drain', () => listener.onDrain())
    return socket
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
    clearTimeout(this.retry)
    this.socket.destroy()
  }
}

export class NodeTransport implements Transport {
  connect(host: string, port: number, listener: Listener): Wire {
    const keepAlive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
    return new NodeWire({ host, port, noDelay: true, ...keepAlive }, listener)
  }

  connectUnix(path: string, listener: Listener): Wire {
    return new NodeWire({ path }, listener)
  }
}
