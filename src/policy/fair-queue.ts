// Who is next where one check takes a thread for a fifth of a second: passwords. Whoever had least of that work lately goes first, by address
// and by name, so that guesses, however many connections they come over, do not keep out somebody who comes from another address or asks for
// another name. Those with the same of both are served in the order in which they came.
//
// What an address or a name has had is counted when a check begins, up to a bound, and halves every ten seconds. Waiting makes up for it, so that
// nobody is passed over for long. Where the queue is full, the one that would go last is dropped, be it the newcomer or one that waits; so is
// one that has waited for as long as a client waits.

export interface Check {
  readonly address: string
  readonly name: string
  /** Asked when its turn has come: false where nobody waits for it any more. */
  begins(): boolean
  /** It will not be done. */
  dropped(): void
}

const HALF_LIFE_MS = 10_000
/** What somebody guessed at a name must not keep its owner back for longer than others need to have had as much. */
const MOST_AMOUNT = 16
/** One check less is counted for each that long. */
const WAIT_MS_PER_CHECK = 250
/** A client waits no longer than this for an answer: it is told to come back. */
const MOST_WAIT_MS = 10_000
/** Addresses and names whose work is remembered. */
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
   * @param places checks at a time
   * @param most that wait
   */
  constructor(
    private readonly places: number,
    private readonly most: number,
    private readonly nowMs: () => number = () => performance.now(),
  ) {}

  /** Begins it now, or when others have had their turn. */
  add(check: Check): void {
    this.waiting.push({ check, sinceMs: this.nowMs() })
    this.startNext()
    if (this.waiting.length > this.most) this.take(this.last())?.check.dropped()
  }

  /** One that began is over. */
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

  /** Position of the one with least work; of several the oldest. */
  private first(): number {
    const loads = this.loads()
    return loads.indexOf(Math.min(...loads))
  }

  /** Position of the one with most work; of several the newest. */
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
    // Behind all others, so that the first is the one that has been quiet for longest.
    this.work.delete(key)
    this.work.set(key, { amount, atMs: nowMs })
    if (this.work.size <= MOST_COUNTED) return
    for (const oldest of this.work.keys()) {
      this.work.delete(oldest)
      break
    }
  }
}
