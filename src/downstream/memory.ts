// A client's side of an exchange without a client: what is written to it is kept to be looked at, and what a client
// does is called. For tests of handlers and policies; no server makes one. It can do all that the interface knows of,
// and its client takes all it is given until it is told to stall.
import type {
  BodyListener,
  Downstream,
  DownstreamOwner,
  DrainListener,
  Tunnel,
  TunnelListener,
} from '../exchange/downstream.js'
import type { HeadLines, StatusLine } from '../exchange/response-head.js'
import { MemoryTunnel } from './memory-tunnel.js'

/** A head as the client reads it. */
export interface MemoryHead {
  readonly status: number
  /** `200 OK`. */
  readonly line: string
  /** name, value, name, value … in order, without Content-Length. */
  readonly fields: readonly string[]
}

/** Before anybody owns it. */
const NOBODY: DownstreamOwner = {
  clientLeft() {},
  crash(error) {
    throw error
  },
}

export class MemoryDownstream implements Downstream {
  /** Told when the client leaves, and of exceptions; set it where that matters. */
  owner: DownstreamOwner = NOBODY
  open = true
  watched = false
  begun = false
  closes = false
  awaitsContinue: boolean
  readonly connection = 0

  // What the client has seen.
  readonly interims: MemoryHead[] = []
  head: MemoryHead | null = null
  /** The declared length; null: there was none. */
  length: number | null = null
  readonly chunks: Buffer[] = []
  /** Of a response that is complete; null without any. */
  trailers: readonly string[] | null = null
  /** The response is complete. */
  ended = false
  /** The connection was cut. */
  wasCut = false
  tunnel: MemoryTunnel | null = null

  // What the client is to do.
  bodyPaused = false
  /** 100 Continue was sent. */
  continued = false
  /** How often the limit on silence was renewed. */
  renewals = 0

  private readonly isHead: boolean
  private readonly upgrades: boolean
  private stalled = false
  private held: Buffer | null = null
  private start_: { line: StatusLine; lines: HeadLines; own: string } | null = null
  private left = 0
  private bodyListener: BodyListener | null = null
  private drainListener: DrainListener | null = null

  /**
   * @param method of the request
   * @param expects the client waits for 100 Continue
   * @param upgrades the connection can carry another protocol
   */
  constructor(method = 'GET', { expects = false, upgrades = false } = {}) {
    this.isHead = method === 'HEAD'
    this.awaitsContinue = expects
    this.upgrades = upgrades
  }

  // What the client does.

  /** The next write, and those after it, are not taken until drain(). */
  stall(): void {
    this.stalled = true
  }

  drain(): void {
    this.stalled = false
    const { held } = this
    this.held = null
    if (held !== null) this.keep(held)
    const listener = this.drainListener
    if (listener !== null && this.isOpenOrDone()) this.call(() => listener.onDrain())
    this.tunnel?.drain()
  }

  /** A part of the request's body. */
  send(chunk: string | Buffer, isLast: boolean): void {
    const bytes = Buffer.from(chunk)
    const listener = this.bodyListener
    // A copy that is gone when the listener returns, as the interface allows.
    const memory = new Uint8Array(bytes).buffer
    if (listener !== null && this.open) this.call(() => listener.onBody(memory, isLast))
    if (memory.byteLength > 0) structuredClone(memory, { transfer: [memory] })
  }

  /** The framing of the rest of the body is malformed. */
  sendMalformed(): void {
    this.call(() => this.bodyListener?.onMalformed())
  }

  leave(): void {
    if (!this.open) return
    this.open = false
    if (this.watched) this.owner.clientLeft()
  }

  get body(): Buffer {
    return Buffer.concat(this.chunks)
  }

  /** First value of a field of the response, by its lower-case name; '' where it is missing. */
  field(name: string): string {
    const fields = this.head?.fields ?? []
    const at = fields.findIndex((one, i) => i % 2 === 0 && one.toLowerCase() === name)
    return at < 0 ? '' : fields[at + 1]!
  }

  // What the exchange does.

  watch(): void {
    this.watched = true
  }

  respond(line: StatusLine, lines: HeadLines, own: string, body: Buffer | string | null, length: number): void {
    if (!this.open) return
    this.begin(line, lines, own)
    const bytes = body === null ? null : Buffer.from(body)
    const declared = bytes?.length ?? length
    this.length = declared < 0 ? null : declared
    if (bytes !== null && !this.isHead) this.chunks.push(bytes)
    this.complete()
  }

  start(line: StatusLine, lines: HeadLines, own: string, length: number | null, listener: DrainListener): void {
    if (!this.open) return
    this.start_ = { line, lines, own }
    this.length = length
    this.left = length ?? Number.POSITIVE_INFINITY
    this.drainListener = listener
  }

  flush(): void {
    if (this.open) this.writeHead()
  }

  write(chunk: Buffer): boolean {
    if (!this.open) return true
    this.writeHead()
    const copy = Buffer.from(chunk)
    if (this.stalled) {
      this.held = this.held === null ? copy : Buffer.concat([this.held, copy])
      return false
    }
    this.keep(copy)
    return true
  }

  get drained(): boolean {
    return this.held === null
  }

  end(trailers: HeadLines | null): void {
    if (!this.open) return
    this.writeHead()
    if (trailers !== null && this.length === null) this.trailers = fieldsOf(trailers.text)
    this.complete()
  }

  cut(): void {
    if (!this.open) return
    this.open = false
    this.wasCut = true
    // As a socket does that is closed.
    if (this.watched) this.owner.clientLeft()
  }

  interim(line: StatusLine, lines: HeadLines): void {
    if (this.open && !this.begun) this.interims.push(headOf(line, lines, ''))
  }

  listen(listener: BodyListener): void {
    this.bodyListener = listener
  }

  pauseBody(): void {
    this.bodyPaused = true
  }

  resumeBody(): void {
    this.bodyPaused = false
  }

  continueBody(): void {
    if (!this.awaitsContinue || this.begun) return
    this.awaitsContinue = false
    this.continued = true
  }

  renewTimeout(): void {
    this.renewals++
  }

  upgrade(lines: HeadLines, own: string, listener: TunnelListener): Tunnel | null {
    if (!this.upgrades || !this.open || this.begun) return null
    this.begun = true
    this.head = { status: 101, line: '101 Switching Protocols', fields: fieldsOf(lines.text + own) }
    this.tunnel = new MemoryTunnel(this, listener)
    return this.tunnel
  }

  /** Also once the response is complete: its last part may have been held. */
  private isOpenOrDone(): boolean {
    return this.open || this.ended
  }

  private begin(line: StatusLine, lines: HeadLines, own: string): void {
    // Where its next request would begin, were it not told to continue, would be a guess.
    if (this.awaitsContinue) this.closes = true
    this.begun = true
    this.head = headOf(line, lines, own)
  }

  private writeHead(): void {
    const start = this.start_
    if (start === null) return
    this.start_ = null
    this.begin(start.line, start.lines, start.own)
  }

  private keep(chunk: Buffer): void {
    this.chunks.push(chunk)
    this.left -= chunk.length
    if (this.left < 0) throw new Error(`${-this.left} bytes more than the declared length`)
    if (this.left === 0) this.complete()
  }

  private complete(): void {
    this.ended = true
    this.open = false
  }

  private call(event: () => void): void {
    try {
      event()
    } catch (error) {
      this.owner.crash(error)
    }
  }
}

function headOf(line: StatusLine, lines: HeadLines, own: string): MemoryHead {
  return { status: line.status, line: line.text, fields: fieldsOf(lines.text + own) }
}

function fieldsOf(text: string): string[] {
  return text
    .split('\r\n')
    .slice(1)
    .flatMap((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)])
}
