// How many of something all workers have together, and never more than a bound. Runs per request. Each worker writes
// its own count and no other, so what a dead worker had is given back by one write of 0.
//
//   a row   Int32 × workers, contiguous and padded to 64 bytes
//
// A worker adds to its own count first and then adds up the row. Of two that do so at once, the later one finds the
// other's count in its sum: so no more are ever admitted than the bound. Both may find too many. Each then takes its
// one back and adds up again, and the last to do so finds the free place.

const ROW_ALIGN = 16
/** Workers that go on disturbing each other: one that has tried so often takes it for full. */
const MOST_TRIES = 64

/** Length of a row, in Int32. */
export function rowLength(workers: number): number {
  return Math.ceil(workers / ROW_ALIGN) * ROW_ALIGN
}

export class SharedCount {
  private readonly row: Int32Array
  private readonly worker: number

  /** @param row of all workers @param worker whose count this object changes */
  constructor(row: Int32Array, worker: number) {
    this.row = row
    this.worker = worker
  }

  /** One more, unless there are `most` already. Each true is followed by one give(). */
  take(most: number): boolean {
    const { row, worker } = this
    if (this.total >= most) return false
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      Atomics.add(row, worker, 1)
      if (this.total <= most) return true
      Atomics.sub(row, worker, 1)
      if (this.total >= most) return false
    }
    return false
  }

  give(): void {
    Atomics.sub(this.row, this.worker, 1)
  }

  get total(): number {
    return sumOf(this.row)
  }
}

export function sumOf(row: Int32Array): number {
  let sum = 0
  for (let i = 0; i < row.length; i++) sum += Atomics.load(row, i)
  return sum
}
