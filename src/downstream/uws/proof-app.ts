// What the proofs of proofs.ts use: a client's end of a connection, and an app of uWebSockets.js that keeps the
// requests it gets. Leaves nothing behind once it is closed, but for the memory of an app, which uWebSockets.js never
// frees.
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js'
import { closeSync, readSync, writeSync } from 'node:fs'
import type { Gate, Native } from '../../../native/index.js'
import { answered, type GuardedBody, takeConnection } from './gate.js'
import { uWS } from './load.js'

/** Both ends of a connection are in this process: what comes comes within a few turns of the loop. */
const MOST_TURNS = 64
const QUIET_TURNS = 3

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** @throws Error `what`, where it does not come */
export async function until(done: () => boolean, what: string): Promise<void> {
  for (let n = 0; !done(); n++) {
    if (n === MOST_TURNS) throw new Error(what)
    await turn()
  }
}

/** For what must not come, and for what uSockets puts off: it frees what is closed with the turn after. */
export async function quiet(): Promise<void> {
  for (let n = 0; n < QUIET_TURNS; n++) await turn()
}

/** The client's end of a connection. */
export class Client {
  private readonly fd: number
  private readonly buffer = Buffer.alloc(4096)
  private received = ''
  private open = true
  private ended = false

  constructor(fd: number) {
    this.fd = fd
  }

  send(text: string): void {
    writeSync(this.fd, text, null, 'latin1')
  }

  get text(): string {
    this.read()
    return this.received
  }

  get isEnded(): boolean {
    this.read()
    return this.ended
  }

  /** Forgets what has come. */
  forget(): void {
    this.received = ''
  }

  close(): void {
    if (this.open) closeSync(this.fd)
    this.open = false
  }

  private read(): void {
    if (!this.open || this.ended) return
    try {
      const bytes = readSync(this.fd, this.buffer)
      this.received += this.buffer.latin1Slice(0, bytes)
      this.ended = bytes === 0
    } catch (error) {
      this.ended = (error as NodeJS.ErrnoException).code !== 'EAGAIN'
    }
  }
}

/** A request as its handler got it. */
export interface Received extends GuardedBody {
  readonly res: HttpResponse
  readonly method: string
  readonly path: string
  /** The client's, where a PROXY header named it. */
  readonly address: string
  /** As the gate has it; null where it did not pass a gate. */
  readonly head: string | null
  /** Its connection, as the gate knows it. */
  readonly connection: number
  body: string
  isWhole: boolean
  /** The gate has told that its body is malformed. */
  isBad: boolean
}

export class ProofApp {
  readonly app: TemplatedApp
  readonly requests: Received[] = []
  private readonly clients: Client[] = []
  private readonly native: Native
  private readonly gate: Gate | null

  /** `gate`: null, where the app's connections do not pass one. `relayed`: they are the acceptor's relay's. */
  constructor(native: Native, gate: Gate | null, relayed: boolean) {
    this.native = native
    this.gate = gate
    this.app = uWS.App()
    gate?.guard(this.app.getDescriptor(), false, relayed)
    this.app.any('/*', (res, req) => this.receive(res, req))
  }

  /** A new connection: its client's end, and the descriptor of the other one. */
  connect(): { client: Client; fd: number } {
    const [fd, mine] = this.native.socketPair()
    const client = new Client(mine)
    this.clients.push(client)
    this.app.adoptSocket(fd)
    return { client, fd }
  }

  /** Answers the request that came last, in one write or in chunks. */
  answer(chunks: readonly string[] = []): void {
    const { res, connection } = this.requests.at(-1)!
    res.cork(() => {
      for (const chunk of chunks) res.write(chunk)
      res.end(chunks.length === 0 ? 'answer' : undefined)
    })
    answered(connection, false)
  }

  close(): void {
    for (const client of this.clients) client.close()
    this.app.close()
  }

  private receive(res: HttpResponse, req: HttpRequest): void {
    const head = this.gate?.readHead() ?? null
    const received: Received = {
      res,
      method: req.getCaseSensitiveMethod(),
      path: req.getUrl(),
      address: Buffer.from(res.getProxiedRemoteAddressAsText()).toString('latin1'),
      head,
      connection: takeConnection(),
      body: '',
      isWhole: false,
      isBad: false,
      onBadBody() {
        received.isBad = true
      },
    }
    this.requests.push(received)
    if (head !== null) {
      const length = /\r\ncontent-length: (\d+)/.exec(head)
      if (head.includes('transfer-encoding: chunked')) this.gate!.expectBody(-1, received)
      else if (length !== null) this.gate!.expectBody(Number(length[1]), received)
    }
    res.onAborted(() => {})
    res.onData((chunk, isLast) => {
      received.body += Buffer.from(chunk).latin1Slice()
      received.isWhole = isLast
    })
  }
}
