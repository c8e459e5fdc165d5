// Events of a simulation in the order of their times. Most come nearly in order, so a sorted array is enough: a new
// event's place is found from its time, and it is mostly at the end. Pure.

export class TimeQueue<T> {
  private times: number[] = []
  private items: T[] = []
  /** Those before it were taken. */
  private head = 0

  get length(): number {
    return this.times.length - this.head
  }

  /** Of the first event; Infinity where there is none. */
  get nextUs(): number {
    return this.times[this.head] ?? Number.POSITIVE_INFINITY
  }

  /**
   * Adds an event that took place at `us` or up to `slackUs` later. It comes after those that may have preceded it, at
   * the time of the last of them: so events that time cannot tell apart keep the order in which they were added.
   */
  add(us: number, item: T, slackUs = 0): void {
    const { times } = this
    let low = this.head
    let high = times.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((times[middle] as number) <= us + slackUs) low = middle + 1
      else high = middle
    }
    const before = low > this.head ? (times[low - 1] as number) : us
    const at = Math.max(us, before)
    if (low === times.length) {
      times.push(at)
      this.items.push(item)
    } else {
      times.splice(low, 0, at)
      this.items.splice(low, 0, item)
    }
  }

  /** Call it only where there is one. */
  take(): T {
    const item = this.items[this.head] as T
    this.head++
    if (this.head > 4096 && this.head * 2 > this.times.length) {
      this.times = this.times.slice(this.head)
      this.items = this.items.slice(this.head)
      this.head = 0
    }
    return item
  }
}
