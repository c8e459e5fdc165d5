// How many of the connections to one endpoint uploads may hold while they are still coming. Uploads whose clients are
// slow would else hold all of them, and every other request would wait. Runs per upload that its client has not sent
// whole when it begins. Knows no exchange.

/** An upload that waits for its turn. */
export interface PlaceWaiter {
  /** How long its client took for what has been read ahead: the fastest goes first. */
  readonly readAheadUs: number
  /** It has a place from now on. */
  onPlace(): void
}

/** Unfinished uploads may hold this share of the connections to an endpoint. */
const SHARE = 1 / 2
/**
 * While they hold less than this share, another one may begin before its read-ahead is full: there are clients that
 * wait for the response in the middle of their body.
 */
const EARLY_SHARE = 1 / 8

export class UploadPlaces {
  private readonly most: number
  private readonly mostEarly: number
  private taken = 0
  private readonly waiting: PlaceWaiter[] = []

  constructor(connections: number) {
    this.most = Math.max(1, Math.floor(connections * SHARE))
    this.mostEarly = Math.max(1, Math.floor(connections * EARLY_SHARE))
  }

  /** Whether an upload may begin before its read-ahead is full. */
  get mayBeginEarly(): boolean {
    return this.taken < this.mostEarly
  }

  get anyWaits(): boolean {
    return this.waiting.length > 0
  }

  /** False: all are taken, and the waiter is told when it has one. Each place ends with leave(). */
  take(waiter: PlaceWaiter): boolean {
    if (this.taken >= this.most) {
      this.waiting.push(waiter)
      return false
    }
    this.taken++
    return true
  }

  leave(): void {
    this.taken--
    if (this.waiting.length === 0) return
    let next = this.waiting[0]!
    for (const waiter of this.waiting) if (waiter.readAheadUs < next.readAheadUs) next = waiter
    this.stopWaiting(next)
    this.taken++
    next.onPlace()
  }

  stopWaiting(waiter: PlaceWaiter): void {
    const at = this.waiting.indexOf(waiter)
    if (at >= 0) this.waiting.splice(at, 1)
  }
}
