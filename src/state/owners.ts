// Which worker has which owner index in the kept tables: for the journal of its claims (claims.ts) and for a breaker's
// permits. Workers that outlive their primary keep theirs until they leave, so the next primary gives out others. Only
// primaries write it, off the request's way.
//
//   in each owner's record of the section `rates` (rate-slots.ts), at 320
//     0 pid         Int32    0: free; -1: a primary is giving it out this moment
//     8 startTicks  Float64  when that process started, in ticks since the boot: the system gives a pid out again
import { readFileSync } from 'node:fs'
import { OWNERS } from './claims.js'
import { OWNER_BYTES } from './rate-slots.js'
import type { Segment } from './segment.js'

const IDENTITY_AT = 320
const NOBODY = 0
const BEING_TAKEN = -1
/** In place of startTicks: no descriptor was left to read them. */
const UNKNOWN = -2
/** As long as giving out one index may take: the primary reads one file meanwhile. */
const TAKING_MS = 20

export class Owners {
  private readonly pids: Int32Array
  private readonly startTicks: Float64Array
  /** What this object has given out or found, by index: damage may take it from the memory (segment.ts). */
  private readonly known = new Map<number, { readonly pid: number; readonly startTicks: number }>()

  constructor(segment: Segment) {
    const { buffer, offset } = segment.section('rates')
    this.pids = new Int32Array(buffer, offset, (OWNERS * OWNER_BYTES) / 4)
    this.startTicks = new Float64Array(buffer, offset, (OWNERS * OWNER_BYTES) / 8)
    for (const owner of this.taken()) this.note(owner)
  }

  /** Gives an index to a process that was just started. -1: all are taken. */
  take(pid: number): number {
    for (let owner = 0; owner < OWNERS; owner++) {
      if (this.known.has(owner)) continue
      // While one gateway takes over from another, two primaries give them out.
      if (Atomics.compareExchange(this.pids, this.at(owner) / 4, NOBODY, BEING_TAKEN) !== NOBODY) continue
      this.startTicks[this.at(owner) / 8 + 1] = startTicksOf(pid)
      Atomics.store(this.pids, this.at(owner) / 4, pid)
      this.note(owner)
      return owner
    }
    return -1
  }

  /** Once the process is gone and the tables have given back what it held. */
  free(owner: number): void {
    Atomics.store(this.pids, this.at(owner) / 4, NOBODY)
    this.known.delete(owner)
  }

  /** Where the memory was damaged: living workers have the indexes that they had. */
  mend(): void {
    for (const [owner, { pid, startTicks }] of this.known) {
      if (this.pidOf(owner) !== NOBODY) continue
      this.startTicks[this.at(owner) / 8 + 1] = startTicks
      Atomics.store(this.pids, this.at(owner) / 4, pid)
    }
  }

  /**
   * All indexes given out. At start: those of workers of an earlier run that have not left, or that nobody has freed.
   */
  taken(): number[] {
    return Array.from({ length: OWNERS }, (_, owner) => owner).filter((owner) => this.pidOf(owner) !== NOBODY)
  }

  /** @param owner any number: a damaged place may hold no index */
  isAlive(owner: number): boolean {
    if (!(Number.isInteger(owner) && owner >= 0 && owner < OWNERS)) return false
    const pid = this.pidOf(owner)
    if (pid === BEING_TAKEN || pid === NOBODY) return pid === BEING_TAKEN
    const now = pid > 0 ? startTicksOf(pid) : -1
    const then = this.startTicks[this.at(owner) / 8 + 1]
    // In doubt it lives: what it holds must not be given back while it may use it.
    return now === UNKNOWN || (now >= 0 && (then === UNKNOWN || now === then))
  }

  /**
   * At start: frees the indexes of dead workers, after `release` has ended their claims. If an index is being given out
   * for longer than an instant, the primary that did so has died, or it is damage.
   */
  freeDead(release: (owner: number) => void): void {
    const isBeingTaken = (owner: number): boolean => this.pidOf(owner) === BEING_TAKEN
    if (this.taken().some(isBeingTaken)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, TAKING_MS)
    for (let owner = 0; owner < OWNERS; owner++) {
      if (this.isAlive(owner) && !isBeingTaken(owner)) continue
      release(owner)
      this.free(owner)
    }
  }

  private note(owner: number): void {
    this.known.set(owner, { pid: this.pidOf(owner), startTicks: this.startTicks[this.at(owner) / 8 + 1] as number })
  }

  private pidOf(owner: number): number {
    return Atomics.load(this.pids, this.at(owner) / 4)
  }

  private at(owner: number): number {
    return owner * OWNER_BYTES + IDENTITY_AT
  }
}

/** proc(5): field 22 of stat, the 20th behind the name, which may hold any character. -1 where no such process runs. */
function startTicksOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    // A process that has ended and waits for its parent touches nothing any more.
    return fields[0] === 'Z' || fields[0] === 'X' ? -1 : Number(fields[19])
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'EMFILE' || code === 'ENFILE' ? UNKNOWN : -1
  }
}
