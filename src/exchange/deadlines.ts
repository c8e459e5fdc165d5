// One coarse timer for all deadlines of a worker. A timer per request would cost more than the request's own
// bookkeeping; the requests in flight are few enough to look at each of them with every tick.
import type { Exchange } from './exchange.js'

export interface Deadline {
  /** On the segment's clock; Infinity for none. May be moved at any time. */
  deadlineUs: number
  /** Position in the list, owned by Deadlines; -1 while it is not in it. */
  slot: number
  /**
   * The exchange that has the deadline. An exception in expire() ends it. Null: no exchange has it, and expire() throws
   * nothing.
   */
  readonly exchange: Exchange | null
  expire(): void
}

/** How late a deadline may fire. */
const TICK_MS = 25

export class Deadlines {
  private readonly entries: Deadline[] = []
  private readonly timer: NodeJS.Timeout

  constructor(nowUs: () => number) {
    this.timer = setInterval(() => this.sweep(nowUs()), TICK_MS)
    this.timer.unref()
  }

  add(entry: Deadline): void {
    entry.slot = this.entries.length
    this.entries.push(entry)
  }

  remove(entry: Deadline): void {
    if (entry.slot < 0) return
    const last = this.entries.pop() as Deadline
    if (last !== entry) {
      this.entries[entry.slot] = last
      last.slot = entry.slot
    }
    entry.slot = -1
  }

  /** Marks the connections whose requests have a deadline. */
  mark(connections: Uint8Array, value: number): void {
    for (const { exchange } of this.entries) {
      const connection = exchange?.downstream.connection ?? 0
      if (connection > 0) connections[connection] = value
    }
  }

  get size(): number {
    return this.entries.length
  }

  close(): void {
    clearInterval(this.timer)
  }

  private sweep(nowUs: number): void {
    // From the end: expiring an entry removes it and puts one that was already looked at in its place.
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const entry = this.entries[i]
      if (entry === undefined || entry.deadlineUs > nowUs) continue
      try {
        entry.expire()
      } catch (error) {
        this.remove(entry)
        entry.exchange?.crash(error)
      }
    }
  }
}
