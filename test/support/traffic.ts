// A steady stream of requests, on kept and on fresh connections, of which every one is accounted for: answered by the
// origin, refused by policy, or failed for a reason that has a name. It never asks twice: what a client might cover up
// by a retry is counted here.
import { connect, type Socket } from 'node:net'

export interface TrafficOptions {
  /** Of all kinds together. */
  readonly perSecond: number
  /** Connections that are kept; the other requests have one of their own each. */
  readonly kept: number
  /** Of 1, those with a connection of their own. */
  readonly freshShare: number
  /** Asked for in turn. */
  readonly paths: readonly string[]
}

export interface Account {
  sent: number
  answered: number
  refused: number
  /** By reason. */
  readonly failed: Record<string, number>
  firstSentMs: number
  /** Of those that were answered. */
  lastAnsweredMs: number
  /** Stretches in which nobody was refused, added up: limited-run.ts. */
  quietMs: number
  lastRefusedMs: number
}

const TICK_MS = 5
const QUIET_MS = 100
/** Beyond any deadline of the gateway in these tests. */
const SILENCE_MS = 20_000
/** A connection is waited for no longer than that: a SYN that is dropped is sent again after 1, 3 and 7 s. */
const CONNECT_MS = 5000

interface Answer {
  readonly status: number
  readonly head: string
  readonly body: string
}

const CHUNKED = /\r\ntransfer-encoding: chunked\r\n/i
/** JSON has no bare CRLF. */
const CHUNK_HEADS = /(^|\r\n)[0-9a-f]+\r\n(\r\n$)?/gi

class Failure extends Error {}

/** One connection and the request on it, at most one at a time. */
class Client {
  private text = ''
  private settle: ((failure: Failure | null) => void) | null = null
  open = true

  private constructor(private readonly socket: Socket) {
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => {
      this.text += text
      if (this.settle !== null && this.complete()) this.settle(null)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => this.lose(`${error.code} while it waited`))
    socket.on('close', () => this.lose('closed without an answer'))
    socket.on('end', () => this.lose('closed without an answer'))
  }

  static dial(port: number): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true })
      const fail = (reason: string) => {
        clearTimeout(late)
        socket.destroy()
        reject(new Failure(reason))
      }
      const late = setTimeout(() => fail('not connected in time'), CONNECT_MS)
      socket.once('error', (error: NodeJS.ErrnoException) => fail(`${error.code} while connecting`))
      socket.once('connect', () => {
        clearTimeout(late)
        socket.removeAllListeners('error')
        resolve(new Client(socket))
      })
    })
  }

  ask(target: string, closes: boolean): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => this.lose('no answer in time'), SILENCE_MS)
      this.settle = (failure) => {
        clearTimeout(late)
        this.settle = null
        if (failure !== null) return reject(failure)
        const at = this.text.indexOf('\r\n\r\n') + 4
        const head = this.text.slice(0, at)
        const body = CHUNKED.test(head) ? this.text.slice(at).replace(CHUNK_HEADS, '') : this.text.slice(at)
        const answer = { status: Number(this.text.slice(9, 12)), head, body }
        this.text = ''
        resolve(answer)
      }
      const connection = closes ? 'Connection: close\r\n' : ''
      this.socket.write(`GET ${target} HTTP/1.1\r\nHost: demo.test\r\n${connection}\r\n`)
    })
  }

  close(): void {
    this.open = false
    this.socket.destroy()
  }

  /** More than the answer is a failure of its own: it ends nowhere. */
  private complete(): boolean {
    const at = this.text.indexOf('\r\n\r\n')
    if (at < 0) return false
    const head = this.text.slice(0, at + 2)
    if (CHUNKED.test(head)) return this.text.endsWith('\r\n0\r\n\r\n')
    const length = /\r\ncontent-length: (\d+)/i.exec(head)
    return length !== null && this.text.length >= at + 4 + Number(length[1])
  }

  private lose(reason: string): void {
    this.open = false
    this.socket.destroy()
    this.settle?.(new Failure(this.text === '' ? reason : 'cut in the middle of an answer'))
  }
}

export class Traffic {
  readonly accounts = new Map<string, Account>()
  /** Targets, by what became of them. */
  readonly answeredTargets: string[] = []
  readonly refusedTargets: string[] = []
  private readonly idle: Client[] = []
  private readonly pending = new Set<Promise<void>>()
  private readonly timer: NodeJS.Timeout
  private readonly startedMs = performance.now()
  private number = 0
  private keptOpen = 0

  constructor(
    /** Where to: may change while it runs. */
    public port: number,
    private readonly options: TrafficOptions,
  ) {
    this.timer = setInterval(() => this.tick(), TICK_MS)
  }

  /** All paths together. */
  get total(): Account {
    const total = account()
    for (const one of this.accounts.values()) {
      total.sent += one.sent
      total.answered += one.answered
      total.refused += one.refused
      for (const [reason, count] of Object.entries(one.failed))
        total.failed[reason] = (total.failed[reason] ?? 0) + count
    }
    return total
  }

  of(path: string): Account {
    let found = this.accounts.get(path)
    if (found === undefined) {
      found = account()
      this.accounts.set(path, found)
    }
    return found
  }

  /** Nothing new; resolves when what was sent has come to its end. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    await Promise.all(this.pending)
    for (const client of this.idle) client.close()
  }

  private tick(): void {
    const due = Math.floor(((performance.now() - this.startedMs) / 1000) * this.options.perSecond)
    // What a busy machine has kept us from is not made up for all at once.
    for (let burst = 0; this.number < due && burst < 20; burst++) this.begin()
    this.number = Math.max(this.number, due)
  }

  private begin(): void {
    const { freshShare, kept, paths } = this.options
    const number = this.number++
    const path = paths[number % paths.length] as string
    const isFresh = (number * 0.618034) % 1 < freshShare
    let client: Client | undefined
    if (!isFresh) {
      do {
        client = this.idle.shift()
        // The gateway may close what idles: nothing was asked on it.
        if (client !== undefined && !client.open) this.keptOpen--
      } while (client !== undefined && !client.open)
      if (client === undefined && this.keptOpen >= kept) return
    }
    const run = this.exchange(`${path}?n=${number}`, path, isFresh, client).finally(() => this.pending.delete(run))
    this.pending.add(run)
  }

  private async exchange(target: string, path: string, isFresh: boolean, kept: Client | undefined): Promise<void> {
    const to = this.of(path)
    const sentMs = performance.now()
    to.sent++
    to.firstSentMs = Math.min(to.firstSentMs, sentMs)
    let client = kept
    if (client === undefined && !isFresh) this.keptOpen++
    try {
      client ??= await Client.dial(this.port)
      const answer = await client.ask(target, isFresh)
      this.judge(to, target, answer)
      if (/\r\nconnection: close/i.test(answer.head)) client.close()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      to.failed[error.message] = (to.failed[error.message] ?? 0) + 1
      client?.close()
    }
    if (isFresh) client?.close()
    else if (client?.open) this.idle.push(client)
    else this.keptOpen--
  }

  private judge(to: Account, target: string, { status, body }: Answer): void {
    const nowMs = performance.now()
    const said = JSON.parse(body) as { url?: string; code?: string }
    if (status === 200 && said.url === target) {
      to.answered++
      to.lastAnsweredMs = nowMs
      this.answeredTargets.push(target)
    } else if (status === 429 && said.code === 'rate_limited') {
      to.refused++
      if (nowMs - to.lastRefusedMs > QUIET_MS) to.quietMs += nowMs - to.lastRefusedMs
      to.lastRefusedMs = nowMs
      this.refusedTargets.push(target)
    } else {
      const reason = status === 200 ? 'answer to another request' : `${status} ${said.code}`
      to.failed[reason] = (to.failed[reason] ?? 0) + 1
    }
  }
}

function account(): Account {
  const nowMs = performance.now()
  return {
    sent: 0,
    answered: 0,
    refused: 0,
    failed: {},
    firstSentMs: Number.POSITIVE_INFINITY,
    lastAnsweredMs: nowMs,
    quietMs: 0,
    lastRefusedMs: nowMs,
  }
}
