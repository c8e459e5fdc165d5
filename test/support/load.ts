// Clients that ask again as soon as they are answered, each on a connection of its own: load of which every single
// answer is counted, as wrk's is not (it cuts what is in flight when its time is over). Strict as raw-client.ts is: a
// cut or garbled answer fails the test.
import type { Gateway } from './gateway.js'
import { Connection } from './raw-client.js'

/** Of no route: a connection that has asked for it is some worker's, and has touched no limit and no service. */
const NOWHERE = '/of-no-route'

/** The answers of one status. Times are performance.now()'s. */
export interface Tally {
  count: number
  /** When the first of these requests was sent … */
  firstSentMs: number
  /** … and the last of them was answered: all of them were decided in between. */
  lastAnsweredMs: number
  /** Stretches without one of them, added up, from the start of the load on. */
  quietMs: number
}

/**
 * What counts as one: shorter ones are the machine's other work, and the way from a decision to whoever notes its
 * answer.
 */
const QUIET_MS = 100

interface Wait {
  readonly status: number
  readonly count: number
  readonly resolve: () => void
}

export class Load {
  private readonly startedMs = performance.now()
  private readonly tallies = new Map<number, Tally>()
  private waits: Wait[] = []
  private stopping = false
  private readonly running: Promise<unknown>

  private constructor(
    private readonly connections: readonly Connection[],
    private readonly target: string,
  ) {
    this.running = Promise.all(connections.map((connection) => this.ask(connection)))
    // Told to whoever stops it.
    this.running.catch(() => {})
  }

  /** As many clients as asked for, or more: every worker has some. */
  static async start(gateway: Gateway, clients: number, target: string): Promise<Load> {
    const connections: Connection[] = []
    do {
      const more = await Promise.all(Array.from({ length: clients }, () => Connection.open(gateway.port)))
      for (const { status } of await Promise.all(more.map((one) => one.exchange({ target: NOWHERE }))))
        if (status !== 404) throw new Error(`${NOWHERE} has a route`)
      connections.push(...more)
    } while ((await gateway.status()).workers.some((worker) => worker.connections === 0))
    return new Load(connections, target)
  }

  get clients(): number {
    return this.connections.length
  }

  of(status: number): Tally {
    let tally = this.tallies.get(status)
    if (tally === undefined) {
      tally = { count: 0, firstSentMs: Number.POSITIVE_INFINITY, lastAnsweredMs: this.startedMs, quietMs: 0 }
      this.tallies.set(status, tally)
    }
    return tally
  }

  get statuses(): number[] {
    return [...this.tallies.keys()].sort()
  }

  /** Resolves with the `count`th next answer of this status. */
  more(count: number, status: number): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      this.waits.push({ status, count: this.of(status).count + count, resolve })
    })
    return Promise.race([reached, this.running.then(() => Promise.reject(new Error('the load has ended')))])
  }

  /** Lets every client have its last answer. */
  async stop(): Promise<void> {
    this.stopping = true
    await this.running.finally(() => {
      for (const connection of this.connections) connection.destroy()
    })
  }

  private async ask(connection: Connection): Promise<void> {
    while (!this.stopping) {
      const sentMs = performance.now()
      const { status } = await connection.exchange({ target: this.target })
      const tally = this.of(status)
      tally.count++
      tally.firstSentMs = Math.min(tally.firstSentMs, sentMs)
      const nowMs = performance.now()
      if (nowMs - tally.lastAnsweredMs > QUIET_MS) tally.quietMs += nowMs - tally.lastAnsweredMs
      tally.lastAnsweredMs = nowMs
      if (this.waits.length > 0) this.wake()
    }
  }

  private wake(): void {
    const due = ({ status, count }: Wait): boolean => this.of(status).count >= count
    for (const wait of this.waits.filter(due)) wait.resolve()
    this.waits = this.waits.filter((wait) => !due(wait))
  }
}
