// Orders password checks, each of which takes a thread for a fifth of a second. The check whose address and name had
// least of that work lately goes first, so that guesses, over however many connections, do not delay a client with
// another address or another name. Checks with equal shares run in the order of their arrival.
//
// The share of an address or name is counted when a check begins, up to a bound, and halves every ten seconds. Waiting
// lowers it, so that no check is passed over for long. If the queue is full, the check that would go last is dropped,
// whether it is new or waiting; so is a check that has waited as long as a client waits.

export interface Check {
  readonly address: string
  readonly name: string
  /** Called when the check's turn comes; false if no exchange waits for it any more. */
  begins(): boolean
  /** Called if the check is dropped. */
  dropped(): void
}

const HALF_LIFE_MS = 10_000
/** The most work counted for one name or address, so that guesses at a name do not delay its owner for long. */
const MOST_AMOUNT = 16
/** Waiting this long lowers the count by one check. */
const WAIT_MS_PER_CHECK = 250
/** A check that waits longer than this is dropped: the client gets 503 with Retry-After. */
const MOST_WAIT_MS = 10_000
/** Most addresses and names with a count. */
const MOST_COUNTED = 4096

interface Waiting {
  readonly check: Check
  readonly sinceMs: number
}

interface Work {
  readonly amount: number
  readonly atMs: number
}

export class FairQueue {
  private running = 0
  private waiting: Waiting[] = []
  private readonly work = new Map<string, Work>()

  /**
   * @param places checks that run at a time
   * @param most checks that wait
   */
  constructor(
    private readonly places: number,
    private readonly most: number,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /** Begins the check now, or when its turn comes. */
  add(check: Check): void {
    this.waiting.push({ check, sinceMs: this.nowMs() })
    this.startNext()
    if (this.waiting.length > this.most) this.take(this.last())?.check.dropped()
  }

  /** A running check has ended. */
  ended(): void {
    this.running--
    this.startNext()
  }

  private startNext(): void {
    const latest = this.nowMs() - MOST_WAIT_MS
    while (this.waiting[0] !== undefined && this.waiting[0].sinceMs < latest) this.take(0)?.check.dropped()
    while (this.running < this.places && this.waiting.length > 0) {
      const { check } = this.take(this.first()) as Waiting
      if (!check.begins()) continue
      this.running++
      this.count(`address ${check.address}`)
      this.count(`name ${check.name}`)
    }
  }

  private take(at: number): Waiting | undefined {
    return this.waiting.splice(at, 1)[0]
  }

  /** Position of the check with the lowest count; of several, the oldest. */
  private first(): number {
    const loads = this.loads()
    return loads.indexOf(Math.min(...loads))
  }

  /** Position of the check with the highest count; of several, the newest. */
  private last(): number {
    const loads = this.loads()
    return loads.lastIndexOf(Math.max(...loads))
  }

  private loads(): number[] {
    const now = this.nowMs()
    return this.waiting.map(({ check, sinceMs }) => {
      const had = this.amount(`address ${check.address}`, now) + this.amount(`name ${check.name}`, now)
      return had - (now - sinceMs) / WAIT_MS_PER_CHECK
    })
  }

  private amount(key: string, nowMs: number): number {
    const work = this.work.get(key)
    return work === undefined ? 0 : work.amount * 2 ** ((work.atMs - nowMs) / HALF_LIFE_MS)
  }

  private count(key: string): void {
    const nowMs = this.nowMs()
    const amount = Math.min(this.amount(key, nowMs) + 1, MOST_AMOUNT)
    // Moved to the end, so that the first entry is the one idle for longest.
    this.work.delete(key)
    this.work.set(key, { amount, atMs: nowMs })
    if (this.work.size <= MOST_COUNTED) return
    for (const oldest of this.work.keys()) {
      this.work.delete(oldest)
      break
    }
  }
}
