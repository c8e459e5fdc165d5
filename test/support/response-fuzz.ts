// Asks a gateway for mutated responses (response-mutants.ts) over many connections at once, and is the upstream that
// sends them. Each client is owed a whole response that is its own, or an end, within its deadline.
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { type AnswerHead, AnswerStream } from './answer-stream.js'
import { askedFor, markedNumber, STRAY, upstreamResponse } from './response-mutants.js'

const AT_ONCE = 96
/** Addresses of the upstream: connections to each have their own ports, of which some are used up for a minute. */
const ENDPOINTS = 32
/** Of the services that are fuzzed: what the gateway may take for one request. */
export const TIMEOUTS = { connect: '2s', firstByte: '300ms', idle: '300ms', total: '600ms' }
const TOTAL_MS = 600
/** The machine may stand still: nobody here does it on purpose. */
const SLACK_MS = 10_000
const LOOK_MS = 50
const MOST_FAULTS = 20

/** Sends what upstreamResponse() says to whoever asks for a number. */
export class MutatingOrigin {
  private readonly servers: Server[] = []
  private readonly sockets = new Set<Socket>()
  port = 0

  get endpoints(): string[] {
    return this.servers.map((_, i) => `http://127.0.2.${i + 1}:${this.port}`)
  }

  async listen(): Promise<void> {
    for (let i = 0; i < ENDPOINTS; i++) {
      const server = createServer({ noDelay: true }, (socket) => this.serve(socket))
      server.listen({ port: this.port, host: `127.0.2.${i + 1}`, backlog: 4096 })
      await once(server, 'listening')
      this.port = (server.address() as { port: number }).port
      this.servers.push(server)
    }
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
    for (const server of this.servers) server.close()
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket)
    socket.on('error', () => {}).once('close', () => this.sockets.delete(socket))
    let text = ''
    let responding = false
    const look = (): void => {
      const end = responding ? -1 : text.indexOf('\r\n\r\n')
      if (end < 0) return
      const head = text.slice(0, end + 2)
      const number = Number(/^[A-Z]+ \/(\d+) /.exec(head)?.[1])
      const response = upstreamResponse(number)
      const bodyEnd = endOfBody(head, text, end + 4)
      if (bodyEnd < 0 && !response.early) return
      responding = true
      send(socket, response, () => {
        // In the middle of a request that was answered early the connection is of no use.
        if (bodyEnd < 0) return
        responding = false
        text = text.slice(bodyEnd)
        look()
      })
    }
    socket.on('data', (bytes) => {
      text += bytes.latin1Slice()
      look()
    })
  }
}

/** Where the body behind a head ends, as the gateway sends them; -1: some is missing. */
function endOfBody(head: string, text: string, from: number): number {
  if (head.includes('\r\ntransfer-encoding: chunked\r\n')) {
    const last = text.indexOf('0\r\n\r\n', from)
    return last < 0 ? -1 : last + 5
  }
  const to = from + Number(/\r\ncontent-length: (\d+)\r\n/.exec(head)?.[1] ?? 0)
  return text.length < to ? -1 : to
}

/** Each part in a turn of the loop of its own. */
function send(socket: Socket, { bytes, cuts, ending }: ReturnType<typeof upstreamResponse>, done: () => void): void {
  let part = 0
  const next = (): void => {
    if (socket.destroyed) return
    const from = part === 0 ? 0 : cuts[part - 1]!
    socket.write(bytes.subarray(from, cuts[part] ?? bytes.length))
    if (part++ < cuts.length) return void setImmediate(next)
    if (ending === 'keep') done()
    else if (ending === 'end') socket.end()
    else if (ending === 'reset') socket.resetAndDestroy()
  }
  next()
}

export interface ResponseFuzzRun {
  asked: number
  /** Whole responses. */
  answered: number
  /** Responses that were cut short, once they had begun. */
  cut: number
  /**
   * Responses that nobody asked for: what is left of a damaged one, or taken for the next one, as they came when that
   * had been asked for on their connection. No client of HTTP/1.1 can tell.
   */
  strays: number
  /** Clients that did not wait. */
  left: number
  readonly statuses: Map<number, number>
  slowestMs: number
  readonly faults: string[]
}

/** Of the numbers from `from` on; `over` is asked before each. */
export async function fuzzResponses(
  port: number,
  prefix: string,
  from: number,
  over: (asked: number) => boolean,
): Promise<ResponseFuzzRun> {
  const run: ResponseFuzzRun = {
    asked: 0,
    answered: 0,
    cut: 0,
    strays: 0,
    left: 0,
    statuses: new Map(),
    slowestMs: 0,
    faults: [],
  }
  const numberOf = (): number => (run.faults.length >= MOST_FAULTS || over(run.asked) ? -1 : from + run.asked++)
  const callers = Array.from({ length: AT_ONCE }, () => new Caller(port, prefix, run, numberOf))
  const clock = setInterval(() => {
    for (const caller of callers) caller.look(performance.now())
  }, LOOK_MS)
  await Promise.all(callers.map((caller) => caller.done))
  clearInterval(clock)
  return run
}

/** One request after the other, over one connection as long as it lasts. */
class Caller {
  readonly done: Promise<void>
  private finish!: () => void
  private socket: Socket | null = null
  private number = -1
  /** Asked for before, if on the same connection. */
  private before = -1
  private sentMs = 0
  private heard = false
  private head: AnswerHead | null = null
  private stream!: AnswerStream

  constructor(
    private readonly port: number,
    private readonly prefix: string,
    private readonly run: ResponseFuzzRun,
    private readonly numberOf: () => number,
  ) {
    this.done = new Promise((resolve) => {
      this.finish = resolve
    })
    this.next()
  }

  look(nowMs: number): void {
    if (this.number < 0 || nowMs - this.sentMs < TOTAL_MS + SLACK_MS) return
    this.fault('neither an answer nor an end')
    this.socket!.destroy()
  }

  private next(): void {
    this.before = this.number
    this.number = this.numberOf()
    if (this.number < 0) {
      this.socket?.destroy()
      return this.finish()
    }
    const { method, bodyBytes, chunked, leaves } = askedFor(this.number)
    this.heard = false
    this.head = null
    this.stream = new AnswerStream(
      () => method,
      (head) => this.judge(head),
      (what) => this.fault(what),
    )
    this.socket ??= this.open()
    this.sentMs = performance.now()
    this.socket.write(requestText(this.prefix, this.number, method, bodyBytes, chunked))
    if (leaves) setImmediate(() => this.socket?.destroy())
  }

  private open(): Socket {
    const socket = connect({ port: this.port, host: '127.0.0.1', noDelay: true })
    socket.on('error', () => {})
    socket.on('data', (bytes) => this.hear(bytes.latin1Slice()))
    socket.once('close', () => this.ended())
    return socket
  }

  private hear(text: string): void {
    if (this.number < 0) return
    this.heard = true
    this.stream.feed(text)
    const { head } = this
    if (head === null || !this.stream.complete) return
    this.run.answered++
    this.run.statuses.set(head.status, (this.run.statuses.get(head.status) ?? 0) + 1)
    this.note()
    if (this.stream.answers > 1) this.fault('answered twice')
    // What is behind it comes with the close.
    if (head.closes) this.number = -1
    else this.next()
    if (head.closes) this.socket!.destroy()
  }

  private ended(): void {
    this.socket = null
    const { number } = this
    if (this.number >= 0) {
      if (askedFor(this.number).leaves) this.run.left++
      else if (!this.heard) this.fault('ended without a word')
      else this.run.cut++
      this.note()
    }
    this.next()
    if (number >= 0) this.before = -1
  }

  private note(): void {
    this.run.slowestMs = Math.max(this.run.slowestMs, performance.now() - this.sentMs)
  }

  private judge(head: AnswerHead): void {
    this.head = head
    if (head.seen === STRAY) this.run.strays++
    const owner = head.seen === null ? null : markedNumber(head.seen)
    if (owner !== null && owner !== this.number) this.fault(`got the answer to ${owner}`)
    const fault = faultOf(head)
    if (fault !== '') this.fault(`${fault}: ${JSON.stringify(head.text)}`)
  }

  private fault(what: string): void {
    this.run.faults.push(`${this.prefix}/${this.number}, behind ${this.before}: ${what}`)
  }
}

const FIELD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*$/

function faultOf({ text, status }: AnswerHead): string {
  const lines = text.slice(0, -2).split('\r\n').slice(1)
  const names = lines.map((line) => line.slice(0, line.indexOf(':')).toLowerCase())
  const times = (name: string): number => names.filter((one) => one === name).length
  const odd = lines.find((line) => !FIELD.test(line))
  if (odd !== undefined) return `a line that is no field, ${JSON.stringify(odd)}`
  for (const name of ['content-length', 'transfer-encoding', 'connection', 'date']) {
    if (times(name) > 1) return `${name} twice`
  }
  if (times('x-rid') !== 1 || names.includes('x-evil')) return 'a field that the upstream must not set'
  if (status === 204 && (names.includes('content-length') || names.includes('transfer-encoding')))
    return 'a 204 with a body'
  return ''
}

function requestText(prefix: string, number: number, method: string, bodyBytes: number, chunked: boolean): string {
  const head = `${method} ${prefix}/${number} HTTP/1.1\r\nHost: a.test\r\n`
  if (method === 'GET' || method === 'HEAD') return `${head}\r\n`
  const body = 'b'.repeat(bodyBytes)
  if (!chunked) return `${head}Content-Length: ${bodyBytes}\r\n\r\n${body}`
  const chunk = bodyBytes === 0 ? '' : `${bodyBytes.toString(16)}\r\n${body}\r\n`
  return `${head}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`
}
