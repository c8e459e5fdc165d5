// What the workers count of each branch: the requests that a split has given to one of its services, or what came of
// the copies that a mirror has sent. A worker counts per request, in blocks that only it writes; the primary adds them
// up when somebody asks. It begins at zero with each start of the primary.
//
//   section `branches`
//     block    one for each worker slot and branch, by Branch.slot; 64 bytes of Float64:
//               0 picked    1 answered    2 failed    3 in flight    4 … dropped, by reason (MIRROR_DROPS)
//              Plain adds of one writer are exact, to 2^53.
import { MIRROR_DROPS, type MirrorDrop } from '../config/mirror.js'
import type { LiveSection, Segment } from './segment.js'

const BLOCK = 8
const PICKED = 0
const ANSWERED = 1
const FAILED = 2
const IN_FLIGHT = 3
const DROPPED_AT = 4

interface Spec {
  /** 0 where it is not given. */
  readonly branches?: number
  readonly workers: number
}

export const branchesSection: LiveSection<Spec> = {
  name: 'branches',
  kept: false,
  bytes: ({ branches = 0, workers }) => branches * workers * BLOCK * 8,
}

/** One branch, summed over the workers. A sum is no snapshot: workers count on meanwhile. */
export interface BranchTotals {
  readonly picked: number
  readonly answered: number
  readonly failed: number
  readonly inFlight: number
  readonly dropped: Readonly<Record<MirrorDrop, number>>
}

/** All of it, for the primary. */
export class BranchCounts {
  private readonly blocks: Float64Array
  private readonly workers: number
  private readonly branches: number

  constructor(segment: Segment, { branches = 0, workers }: Spec) {
    const { buffer, offset, bytes } = segment.section(branchesSection.name)
    const needed = branchesSection.bytes({ branches, workers })
    if (bytes < needed) throw new RangeError(`branches section of ${bytes} bytes cannot hold ${needed}`)
    this.blocks = new Float64Array(buffer, offset, needed / 8)
    this.workers = workers
    this.branches = branches
  }

  /** Another branch takes over the slot. Only while no worker counts there. */
  clear(slot: number): void {
    for (let worker = 0; worker < this.workers; worker++) {
      const at = (worker * this.branches + slot) * BLOCK
      this.blocks.fill(0, at, at + BLOCK)
    }
  }

  /** What a worker had in flight went with it. */
  forget(worker: number): void {
    for (let slot = 0; slot < this.branches; slot++) {
      this.blocks[(worker * this.branches + slot) * BLOCK + IN_FLIGHT] = 0
    }
  }

  totals(slot: number): BranchTotals {
    const sum = new Float64Array(BLOCK)
    for (let worker = 0; worker < this.workers; worker++) {
      const at = (worker * this.branches + slot) * BLOCK
      for (let i = 0; i < BLOCK; i++) sum[i]! += this.blocks[at + i] as number
    }
    const value = (i: number) => sum[i] as number
    const dropped = MIRROR_DROPS.map((reason, i) => [reason, value(DROPPED_AT + i)] as const)
    return {
      picked: value(PICKED),
      answered: value(ANSWERED),
      failed: value(FAILED),
      inFlight: value(IN_FLIGHT),
      dropped: Object.fromEntries(dropped) as Record<MirrorDrop, number>,
    }
  }

  /** The worker's end, on the request's way. */
  ofWorker(worker: number): WorkerBranchCounts {
    this.forget(worker)
    const at = worker * this.branches * BLOCK
    return new WorkerBranchCounts(this.blocks.subarray(at, at + this.branches * BLOCK))
  }
}

export class WorkerBranchCounts {
  private readonly blocks: Float64Array

  constructor(blocks: Float64Array) {
    this.blocks = blocks
  }

  picked(slot: number): void {
    this.blocks[slot * BLOCK + PICKED]!++
  }

  /** A copy was sent; ended() follows, once. */
  begun(slot: number): void {
    this.blocks[slot * BLOCK + IN_FLIGHT]!++
  }

  /** @param failed no response, or one with a status of 500 or above */
  ended(slot: number, failed: boolean): void {
    const at = slot * BLOCK
    this.blocks[at + IN_FLIGHT]!--
    this.blocks[at + (failed ? FAILED : ANSWERED)]!++
  }

  dropped(slot: number, reason: MirrorDrop): void {
    this.blocks[slot * BLOCK + DROPPED_AT + MIRROR_DROPS.indexOf(reason)]!++
  }
}
