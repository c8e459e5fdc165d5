// Upstream connections over the addon's wire (native/src/wire.cc): one call into JavaScript and one back for all that
// connections read and write in a turn of the event loop. Runs per read and write; knows nothing of HTTP.
import { ADDRCONFIG, type LookupAddress, lookup } from 'node:dns'
import { isIP } from 'node:net'
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import type { Native, NativeWire } from '../../../native/index.js'
import { backlogPauseMs } from '../unix-socket.js'
import type { Listener, Transport, Wire } from './transport.js'

/** So much is read in one turn before JavaScript is called within the turn; one more read still fits. */
const ARENA_BYTES = 524_288
/** Where things are in the words behind the arena, and what they say: as in wire.cc. */
const WANTED = 0
const RECORDS = 1
const MOST_SENDS = 1024
const SENDS = RECORDS + 4 * 1024
const CONNECTED = -1
const DRAINED = -2
const ENDED = -3
const CONNECT_FAILED = -4
const READ_FAILED = -5
/** What a turn sends is gathered up to this length, and then sent at once: it is held in memory. */
const SEND_CHARACTERS = 65536
/** How long one of several addresses is tried: as long as in Node. */
const ATTEMPT_MS = 250
/** In place of a port: the host is the path of a Unix socket. */
const UNIX = -1

/** What came in while the connection was paused: bytes, its end or an error. */
type Held = Buffer | Error | null

export class NativeTransport implements Transport {
  private readonly addon: Native
  private wire: NativeWire | null = null
  private arena!: Buffer
  private words!: Int32Array
  private readonly connections: (Connection | undefined)[] = []
  private waiting: Listener[] = []
  private flushing: Listener[] = []
  private text = ''
  private sends = 0

  constructor(addon: Native) {
    this.addon = addon
  }

  connect(host: string, port: number, listener: Listener): Wire {
    this.wire ??= this.open()
    return new Connection(this, host, port, listener)
  }

  connectUnix(path: string, listener: Listener): Wire {
    this.wire ??= this.open()
    return new Connection(this, path, UNIX, listener)
  }

  private open(): NativeWire {
    const wire = this.addon.openWire(ARENA_BYTES, (records) => this.turn(records))
    this.arena = Buffer.from(wire.memory, 0, ARENA_BYTES)
    this.words = new Int32Array(wire.memory, ARENA_BYTES)
    return wire
  }

  private turn(records: number): void {
    const { words, connections } = this
    for (let i = 0, at = RECORDS; i < records; i++, at += 4) {
      // One that was closed meanwhile is gone from here.
      const connection = connections[words[at]!]
      if (connection === undefined) continue
      try {
        const what = words[at + 1]!
        if (what >= 0) connection.read(this.arena, what, what + words[at + 2]!, words[at + 3]!)
        else connection.happened(what, words[at + 2]!)
      } catch (error) {
        // As if each had come in a call of its own: the others are served.
        queueMicrotask(() => {
          throw error
        })
      }
    }
    if (words[WANTED] !== 0) this.flush()
  }

  private flush(): void {
    this.words[WANTED] = 0
    const listeners = this.waiting
    this.waiting = this.flushing
    this.flushing = listeners
    for (let i = 0; i < listeners.length; i++) listeners[i]!.flush()
    listeners.length = 0
    if (this.sends > 0) this.sendAll()
  }

  private sendAll(): void {
    const { text, sends } = this
    this.text = ''
    this.sends = 0
    this.wire!.send(text, sends)
  }

  // From the connections.

  add(connection: Connection, address: string, port: number): number {
    const id = port === UNIX ? this.wire!.connectUnix(address) : this.wire!.connect(address, port)
    this.connections[id] = connection
    return id
  }

  remove(id: number): void {
    this.connections[id] = undefined
    this.wire!.close(id)
  }

  flushLater(listener: Listener): void {
    this.words[WANTED] = 1
    this.waiting.push(listener)
  }

  send(id: number, text: string): void {
    const at = SENDS + 2 * this.sends++
    this.words[at] = id
    this.words[at + 1] = text.length
    this.text += text
    if (this.sends === MOST_SENDS || this.text.length > SEND_CHARACTERS) this.sendAll()
  }

  write(id: number, before: string, body: Uint8Array, after: string): boolean {
    return this.wire!.write(id, before, body, after)
  }

  remember(id: number, text: string): number {
    return this.wire!.remember(id, text)
  }

  pause(id: number): void {
    this.wire!.pause(id)
  }

  resume(id: number): void {
    this.wire!.resume(id)
  }
}

class Connection implements Wire {
  private readonly transport: NativeTransport
  private readonly listener: Listener
  private readonly host: string
  private readonly port: number
  private id = -1
  private closed = false
  private paused = false
  /** A turn may bring several things of a connection, and the first of them pause it. */
  private readonly held: Held[] = []
  /** Those not tried yet, where the host is a name. */
  private addresses: LookupAddress[] = []
  private firstError: Error | null = null
  /** Refused so far because the backlog of a Unix socket was full. */
  private refused = 0
  private attemptTimer: NodeJS.Timeout | undefined

  constructor(transport: NativeTransport, host: string, port: number, listener: Listener) {
    this.transport = transport
    this.listener = listener
    this.host = host
    this.port = port
    if (port === UNIX || isIP(host) !== 0) this.id = transport.add(this, host, port)
    else this.resolve()
  }

  private resolve(): void {
    lookup(this.host, { all: true, hints: ADDRCONFIG }, (error, addresses) => {
      if (this.closed) return
      if (error !== null) return this.listener.onError(error)
      this.addresses = alternating(addresses)
      this.attempt()
    })
  }

  /** One address after the other, as Node does it (RFC 8305, without its race). */
  private attempt(): void {
    const { address } = this.addresses.shift()!
    this.id = this.transport.add(this, address, this.port)
    if (this.addresses.length === 0) return
    this.attemptTimer = setTimeout(() => this.fail('connect', -constants.errno.ETIMEDOUT), ATTEMPT_MS)
  }

  read(bytes: Buffer, at: number, end: number, mark: number): void {
    if (this.paused) this.held.push(Buffer.from(bytes.subarray(at, end)))
    else this.listener.onBytes(bytes, at, end, mark)
  }

  happened(what: number, error: number): void {
    if (what === CONNECTED) {
      clearTimeout(this.attemptTimer)
      this.listener.onConnect()
    } else if (what === DRAINED) this.listener.onDrain()
    else if (what === ENDED) this.arrive(null)
    else if (what === READ_FAILED) this.arrive(systemError('read', error))
    else this.fail(what === CONNECT_FAILED ? 'connect' : 'write', error)
  }

  private arrive(what: Held): void {
    if (this.paused) this.held.push(what)
    else if (what === null) this.listener.onEof()
    else if (what instanceof Error) this.listener.onError(what)
    else this.listener.onBytes(what, 0, what.length, 0)
  }

  private fail(syscall: string, code: number): void {
    clearTimeout(this.attemptTimer)
    if (this.port === UNIX && syscall === 'connect' && code === -constants.errno.EAGAIN) return this.tryAgain()
    const error = systemError(syscall, code)
    this.firstError ??= error
    if (this.addresses.length === 0) return this.listener.onError(this.firstError)
    this.transport.remove(this.id)
    this.attempt()
  }

  private tryAgain(): void {
    this.transport.remove(this.id)
    this.id = -1
    this.attemptTimer = setTimeout(
      () => {
        this.id = this.transport.add(this, this.host, this.port)
      },
      backlogPauseMs(++this.refused),
    )
  }

  flushLater(): void {
    this.transport.flushLater(this.listener)
  }

  send(text: string): void {
    this.transport.send(this.id, text)
  }

  write(before: string, body: Uint8Array, after: string): boolean {
    return this.transport.write(this.id, before, body, after)
  }

  remember(text: string): number {
    return this.transport.remember(this.id, text)
  }

  pause(): void {
    this.paused = true
    this.transport.pause(this.id)
  }

  resume(): void {
    this.paused = false
    while (this.held.length > 0 && !this.paused && !this.closed) this.arrive(this.held.shift()!)
    if (!this.paused && !this.closed) this.transport.resume(this.id)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    clearTimeout(this.attemptTimer)
    if (this.id >= 0) this.transport.remove(this.id)
  }
}

/** Families in turn, the first one's first. */
function alternating(addresses: readonly LookupAddress[]): LookupAddress[] {
  const first = addresses.filter(({ family }) => family === addresses[0]!.family)
  const others = addresses.filter(({ family }) => family !== addresses[0]!.family)
  return Array.from({ length: Math.max(first.length, others.length) }, (_, i) =>
    [first[i], others[i]].filter((one) => one !== undefined),
  ).flat()
}

/** `error` is libuv's, which is below 0. */
function systemError(syscall: string, error: number): Error {
  const code = getSystemErrorName(error)
  return Object.assign(new Error(`${syscall} ${code}`), { errno: error, code, syscall })
}
