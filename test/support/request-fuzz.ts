// Sends mutants over many connections at once, and holds what comes back to what a strict reading of each connection's
// bytes can say (strict-reading.ts). A connection carries a row of numbers, one after the other, so that its first
// number is enough to have it again.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls'
import { type AnswerHead, AnswerStream } from './answer-stream.js'
import { numbers } from './mutations.js'
import { GOOD, mutant, PROXY_HEADERS, proxyHeader } from './request-mutants.js'
import { StrictReading, type StrictRequest } from './strict-reading.js'
import { turns } from './waiting.js'

const AT_ONCE = 64
/** Numbers of one connection. */
export const ROW = 8
/** Of what need not be answered: nobody draws a conclusion, a slow answer merely finds less sent behind it. */
const SILENCE_MS = 60
/** Of what must be answered, or closed; and then until the gateway has shown that it has had its turn (`probe`). */
const PATIENCE_MS = 10_000
/** Below what the gateway lets a connection idle, by any of its clocks. */
const BELOW_IDLE_MS = 6_000
/** No client is told earlier that it is slow. */
const LEAST_TO_408_MS = 3_000
/** Until a connection that says nothing is ended, by any of the gateway's clocks, many times over. */
const GONE_MS = 90_000
/** Some of those that need not be answered are left open, to see that they do not stay so. */
const MOST_LEFT_OPEN = 300

const MOST_FAULTS = 20

/** The only answers that are not to a request, or that say that nothing behind it is looked at. */
const REFUSALS = new Set([400, 408, 413, 414, 417, 431, 501, 505])
const EXPECTED = new Set([200, 401, 404, ...REFUSALS])

/**
 * Whose PROXY header is believed, and who has to send one; and who has not. Many: each has its own ports, of which some
 * are used up for a minute.
 */
export const TRUSTED = '127.0.1.0/24'
const trusted = (number: number) => `127.0.1.${1 + (number % 200)}`
const untrusted = (number: number) => `127.0.0.${1 + (number % 200)}`

/** A way into a gateway. */
export interface Door {
  readonly name: string
  readonly port: number
  readonly tls: TlsOptions | null
  /** It has an acceptor that reads HTTP/1.0. */
  readonly http10: boolean
  /** TRUSTED are to say for whom they speak. */
  readonly proxied: boolean
}

export interface FuzzRun {
  /** Numbers that were given out. */
  numbers: number
  sent: number
  /** Good requests that were owed an answer, and got it. */
  owed: number
  /** How often each status came. */
  readonly statuses: Map<number, number>
  readonly faults: string[]
  /** Connections on which nothing came, and perhaps nothing was to come: each is gone some time. */
  readonly leftOpen: Conversation[]
}

/** Sends what is to be served, alone, whole and byte by byte; then mutants from `from` until `until` says so. */
export async function fuzz(door: Door, from: number, until: (numbers: number) => boolean): Promise<FuzzRun> {
  const run: FuzzRun = { numbers: 0, sent: 0, owed: 0, statuses: new Map(), faults: [], leftOpen: [] }
  for (const [index, request] of GOOD.entries()) {
    if (/ HTTP\/1\.0\r\n/.test(request) && !door.http10) continue
    const bytes = Buffer.from(request, 'latin1')
    const header = door.proxied ? PROXY_HEADERS[index % PROXY_HEADERS.length]! : null
    for (const cuts of [[], Array.from({ length: bytes.length - 1 }, (_, i) => i + 1)]) {
      const conversation = new Conversation(door, run, index, header === null ? null : { text: header, good: true })
      await conversation.hold(async () => {
        await conversation.send(bytes, cuts)
        await conversation.settle()
      })
      if (conversation.answered !== 1) run.faults.push(`${door.name}: not served: ${JSON.stringify(request)}`)
    }
  }
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (!until(run.numbers)) {
        const first = from + run.numbers
        run.numbers += ROW
        await row(door, run, first)
      }
    }),
  )
  return run
}

async function row(door: Door, run: FuzzRun, first: number): Promise<void> {
  const next = numbers(first ^ 0x55555555)
  const header = door.proxied && next(4) !== 0 ? proxyHeader(first) : null
  const conversation = new Conversation(door, run, first, header)
  await conversation.hold(async () => {
    for (let number = first; number < first + ROW; number++) {
      const { bytes, cuts } = mutant(number)
      await conversation.send(bytes, cuts)
      // Now and then without waiting for what is owed already.
      if (next(6) === 0) continue
      await conversation.settle()
      if (conversation.ended) return
      if (conversation.isWaitedFor && next(3) === 0 && run.leftOpen.length < MOST_LEFT_OPEN) {
        run.leftOpen.push(conversation)
        conversation.isLeftOpen = true
        return
      }
    }
    await conversation.settle()
  })
}

class Conversation {
  /** Closed by the gateway, or given up. */
  ended = false
  isLeftOpen = false
  private readonly reading: StrictReading
  private readonly stream: AnswerStream
  private socket: Socket | null = null
  private raw: Socket | null = null
  private readonly openedMs = Date.now()
  private sentMs = Date.now()
  /** The longest that this side has said nothing, which a busy machine makes of it. */
  private silentMs = 0
  /** An answer, or all that was said, has it that nothing follows. */
  private last = false
  private wake: (() => void) | null = null
  private isOurs = false
  /** Reset, or a write has failed: what came before that may not have been read. */
  private broken = false
  private isFaulty = false
  private said = ''
  private heard = ''

  constructor(
    private readonly door: Door,
    private readonly run: FuzzRun,
    private readonly first: number,
    private readonly header: { readonly text: string; readonly good: boolean } | null,
  ) {
    this.reading = new StrictReading(door.tls !== null, door.http10)
    if (header !== null && !header.good) {
      // Where it ends is not known, nor whether a request begins in it.
      this.reading.doubt()
      this.reading.append(header.text)
    }
    this.stream = new AnswerStream(
      (index) => this.reading.requests[index]?.method,
      (answer) => this.judge(answer),
      (what) => this.fault(what),
    )
  }

  get answered(): number {
    return this.stream.answers
  }

  /** The gateway has, or may have, a part of a request, and says nothing. */
  get isWaitedFor(): boolean {
    return !this.last && (this.reading.behind === 'part' || this.reading.behind === 'doubt')
  }

  /** Opens it, and ends it after `talk` unless it is left open. */
  async hold(talk: () => Promise<void>): Promise<void> {
    try {
      await this.open()
      if (!this.ended) await talk()
    } finally {
      if (!this.isLeftOpen) this.destroy()
    }
  }

  destroy(): void {
    this.isOurs = true
    // A reset: otherwise the port would be used up for a minute.
    if (this.raw !== null && !this.raw.destroyed) this.raw.resetAndDestroy()
    this.socket?.destroy()
  }

  private async open(): Promise<void> {
    const { door, first } = this
    const localAddress = this.header === null ? untrusted(first) : trusted(first)
    const raw = connect({ port: door.port, host: '127.0.0.1', noDelay: true, localAddress })
    this.raw = raw
    raw.once('error', (error) => {
      // That is this machine's.
      if (raw.connecting || this.socket === null) this.fault(`no connection: ${error.message}`)
    })
    const gone = once(raw, 'close').catch(() => {})
    await Promise.race([once(raw, 'connect').catch(() => {}), gone])
    if (raw.destroyed) return this.end()
    if (this.header !== null) {
      const { text, good } = this.header
      const cut = first % (2 * text.length)
      raw.write(text.slice(0, cut), 'latin1')
      if (cut < text.length) await turns(1)
      raw.write(text.slice(cut), 'latin1')
      // Behind a header that is none a handshake may not end, nor need it.
      if (!good && door.tls !== null) {
        this.socket = raw
        raw.on('error', () => {})
        raw.once('close', () => this.end())
        raw.resume()
        return
      }
    }
    if (door.tls === null) this.listen(raw)
    else {
      const secure = connectTls({ ...door.tls, socket: raw })
      this.listen(secure)
      await Promise.race([once(secure, 'secureConnect').catch(() => {}), gone])
    }
  }

  private listen(socket: Socket): void {
    this.socket = socket
    socket.setEncoding('latin1')
    socket.on('error', () => {
      this.broken = true
    })
    socket.on('data', (text: string) => {
      this.heard += text
      this.stream.feed(text)
      if (this.stream.continues > this.reading.mostContinues) this.fault('100 to who does not expect it')
      this.tell()
    })
    socket.once('close', () => this.end())
  }

  async send(bytes: Buffer, cuts: readonly number[]): Promise<void> {
    this.run.sent++
    let from = 0
    for (const cut of [...cuts, bytes.length]) {
      if (this.ended || this.last) return
      if (cut > from && from > 0) await turns(1)
      const part = bytes.subarray(from, cut)
      from = cut
      if (part.length === 0) continue
      const text = part.toString('latin1')
      this.said += text
      this.reading.append(text)
      this.noteSilence()
      this.sentMs = Date.now()
      this.socket!.write(part)
    }
  }

  /**
   * What is owed has come; the connection is closed where it must; and what need not be answered is, or had a moment
   * for that.
   */
  async settle(): Promise<void> {
    const { reading } = this
    await this.patiently(() => this.last || this.answered >= reading.requests.length, 'an answer')
    if (this.ended) return
    this.last ||= reading.behind === 'over'
    if (this.last) return this.patiently(() => false, 'the end')
    await this.patiently(() => this.stream.complete, 'the rest of an answer')
    if (reading.behind === 'doubt') await this.change(SILENCE_MS)
    else if (reading.behind === 'part') await turns(1)
    if (this.last) await this.patiently(() => false, 'the end')
  }

  private async patiently(holds: () => boolean, what: string): Promise<void> {
    const endMs = Date.now() + PATIENCE_MS
    let probed = false
    while (!this.ended && !holds()) {
      const leftMs = endMs - Date.now()
      if (leftMs > 0) await this.change(leftMs)
      else if (!probed) {
        probed = await probe(this.door)
        if (!probed) return this.fault('the gateway does not answer anybody')
        await turns(1)
      } else return this.fault(`waited for ${what}, ${this.answered} of ${this.reading.requests.length} answered`)
    }
  }

  /** Resolves with whatever comes next, or then. */
  private change(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Resolves when it is gone, and says whether in time. */
  async gone(): Promise<void> {
    const endMs = Date.now() + GONE_MS
    while (!this.ended && Date.now() < endMs) await this.change(endMs - Date.now())
    if (!this.ended && (await probe(this.door)) && !this.ended) this.fault(`open for ${GONE_MS} ms`)
    this.destroy()
  }

  private judge(answer: AnswerHead): void {
    const { index, status, closes, seen } = answer
    const { run, reading } = this
    run.statuses.set(status, (run.statuses.get(status) ?? 0) + 1)
    if (!EXPECTED.has(status)) this.fault(`answered ${status}`)
    if (this.last) this.fault(`answered ${status} behind the last answer`)
    if (index >= reading.mostAnswers)
      this.fault(`answer ${index + 1}, ${status}, where there are ${reading.mostAnswers} requests`)
    const request = reading.requests[index]
    if (status === 408) {
      // Whatever it is to: many parts take their time on a busy machine.
      if (Date.now() - this.openedMs < LEAST_TO_408_MS) this.fault('answered 408 at once')
    } else if (request !== undefined) {
      run.owed++
      if (status !== (request.needsSignature ? 401 : 200)) this.fault(`answered ${status} to ${request.seen}`)
      else if (!closesRightly(request, answer)) this.fault(`${closes ? 'closes' : 'keeps'} after ${request.seen}`)
      if (status === 200 && seen !== request.seen) this.fault(`for ${request.seen} the service got ${seen}`)
    }
    if (REFUSALS.has(status) && !closes) this.fault(`refused with ${status}, and not said to be the end`)
    this.last ||= closes || REFUSALS.has(status)
  }

  private end(): void {
    if (this.ended) return
    this.ended = true
    if (!this.isOurs) this.judgeEnd()
    this.tell()
  }

  private judgeEnd(): void {
    const { reading, stream } = this
    this.noteSilence()
    // One that idled may be closed at any moment.
    if (this.silentMs > BELOW_IDLE_MS || this.header?.good === false) return
    if (this.last && stream.complete) return
    // Who goes on writing to somebody who has refused him and left hears of that before he has read why.
    if (this.broken && reading.behind !== 'nothing') return
    if (!stream.complete) this.fault('closed within an answer')
    else if (this.answered < reading.requests.length)
      this.fault(`closed before ${reading.requests[this.answered]!.seen}`)
    else if (reading.behind === 'nothing') this.fault('closed behind an answer that keeps it')
  }

  private noteSilence(): void {
    this.silentMs = Math.max(this.silentMs, Date.now() - this.sentMs)
  }

  private tell(): void {
    const { wake } = this
    this.wake = null
    wake?.()
  }

  private fault(what: string): void {
    const how = `TIDEGATE_FUZZ_FROM=${this.first} TIDEGATE_FUZZ_REQUESTS=1`
    const [said, heard] = [this.said, this.heard].map((text) =>
      JSON.stringify(text.replace(/(.)\1{50,}/g, (run, one) => `<${run.length} ${one}>`).slice(-1500)),
    )
    if (!this.isFaulty && this.run.faults.length < MOST_FAULTS) {
      this.isFaulty = true
      this.run.faults.push(`${this.door.name}: ${what} (${how})\n  said  ${said}\n  heard ${heard}`)
    }
    this.isOurs = true
    this.isLeftOpen = false
    this.destroy()
    this.ended = true
    this.tell()
  }
}

/** Whether a new request is answered: whoever is, the gateway has looked at all that was there before it. */
async function probe(door: Door): Promise<boolean> {
  const raw = connect({ port: door.port, host: '127.0.0.1', noDelay: true, localAddress: '127.0.0.250' })
  const socket = door.tls === null ? raw : connectTls({ ...door.tls, socket: raw })
  socket.on('error', () => {})
  socket.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  const deadline = setTimeout(() => raw.destroy(), 60_000)
  const answered = await Promise.race([once(socket, 'data').then(() => true), once(raw, 'close').then(() => false)])
  clearTimeout(deadline)
  raw.resetAndDestroy()
  return answered
}

function closesRightly({ old, hasBody, ends }: StrictRequest, { status, closes, toTheEnd }: AnswerHead): boolean {
  // A refusal may come before all of the body has: then the relay of HTTP/1.0 does not wait for the rest.
  if (old && hasBody && status === 401 && closes) return true
  return closes === (ends || (old && toTheEnd))
}
