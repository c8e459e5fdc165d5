// The segment as the primary has it: its tables, and which worker owns which index in them. When a worker is gone, also
// one of an earlier primary (an orphan), it lets each table give back what that worker held. Sees no request.
import type { RouteTable } from '../config/compile.js'
import type { Settings } from '../config/settings.js'
import { makeStateDirectory } from '../config/state-path.js'
import { BranchCounts } from '../state/branch-counts.js'
import { BreakerTable } from '../state/breaker-table.js'
import { BulkheadTable } from '../state/bulkhead-table.js'
import { CountersReader } from '../state/counters.js'
import { DrainTable } from '../state/drain-table.js'
import { EndpointTable } from '../state/endpoint-table.js'
import { InFlightTable } from '../state/in-flight-table.js'
import { openSegment } from '../state/open-segment.js'
import { Owners } from '../state/owners.js'
import { RateTable } from '../state/rate-table.js'
import { ReplayTable } from '../state/replay-table.js'
import { SECTIONS, type SegmentSpec } from '../state/sections.js'
import type { Segment } from '../state/segment.js'
import { WorkerTable } from '../state/worker-table.js'
import type { Isolation } from './isolation.js'
import { StartError } from './start-error.js'

export class SharedState {
  readonly spec: SegmentSpec
  readonly segment: Segment
  readonly workers: WorkerTable
  readonly endpoints: EndpointTable
  readonly bulkheads: BulkheadTable
  readonly counters: CountersReader
  readonly branches: BranchCounts
  readonly breakers: BreakerTable
  readonly drains: DrainTable
  /** To read: the primary takes no charge and remembers no signature, so its owner index does not matter. */
  readonly rates: RateTable
  readonly replays: ReplayTable
  private readonly owners: Owners
  private orphans: readonly number[]

  /**
   * @param held the descriptor of the segment's file, from a gateway that is taken over
   * @throws StartError where it cannot be opened: another gateway has it, say
   */
  constructor(table: RouteTable, settings: Settings, isolation: Isolation, held: number | undefined) {
    const spec = specOf(table, settings)
    const segment = open(spec, settings, isolation, held)
    this.spec = spec
    this.segment = segment
    this.workers = new WorkerTable(segment, spec.workers)
    this.workers.reset(settings.workers)
    this.endpoints = new EndpointTable(segment, spec)
    this.bulkheads = new BulkheadTable(segment, spec)
    // For its head: workers have it from there.
    new InFlightTable(segment, 0, spec.workers)
    this.counters = new CountersReader(segment, spec.workers, spec.routes)
    this.branches = new BranchCounts(segment, spec)
    this.breakers = new BreakerTable(segment)
    this.drains = new DrainTable(segment)
    this.rates = new RateTable(segment, 0)
    this.replays = new ReplayTable(segment, 0)
    this.owners = new Owners(segment)
    this.orphans = this.owners.taken()
  }

  /**
   * Every second or so. False: somebody has cut the state file short or written to it, and what it held is lost at
   * least in part.
   */
  touch(): boolean {
    if (this.segment.touch()) return true
    this.owners.mend()
    this.breakers.mend()
    this.drains.write()
    return false
  }

  /** An index in the kept tables for a worker that was just started. -1: all are taken. */
  takeOwner(pid: number): number {
    return this.owners.take(pid)
  }

  /** One of ours is gone. */
  workerGone(owner: number, slot: number): void {
    this.release(false, slot)
    this.branches.forget(slot)
    this.giveBack(owner)
  }

  /** Workers of an earlier primary that had not left when last looked for. */
  get orphanCount(): number {
    return this.orphans.length
  }

  /** Looks now. */
  hasOrphans(): boolean {
    this.buryOrphans()
    return this.orphans.length > 0
  }

  /** What orphans held is given back once they are gone: they have no primary to do it. */
  buryOrphans(): void {
    this.orphans = this.orphans.filter((owner) => {
      if (this.owners.isAlive(owner)) return true
      this.giveBack(owner)
      return false
    })
  }

  private giveBack(owner: number): void {
    this.release(true, owner)
    this.owners.free(owner)
  }

  /** @param index of the dead worker: its owner index in what is kept, else its slot */
  private release(kept: boolean, index: number): void {
    for (const section of SECTIONS) if (section.kept === kept) section.release?.(this.segment, index)
  }
}

/** What a start makes room for beyond what it needs, so that reloads may add to it. */
function roomFor(count: number): number {
  return count * 2 + 64
}

function specOf(table: RouteTable, settings: Settings): SegmentSpec {
  return {
    // One more: a worker that leaves and the one that replaces it are there at the same time.
    workers: settings.workers + 1,
    rateLimitKeys: settings.rateLimitKeys,
    replayKeys: table.routes.some((route) => route.replayOnce) ? settings.replayKeys : 0,
    services: table.services.length,
    endpoints: roomFor(table.endpoints.length),
    routes: roomFor(table.routes.length),
    branches: roomFor(table.branches.length),
    countsAddresses: settings.maxConnectionsPerAddress > 0,
  }
}

function open(spec: SegmentSpec, settings: Settings, isolation: Isolation, held: number | undefined): Segment {
  try {
    if (settings.state !== 'none' && isolation.keepsState && held === undefined) makeStateDirectory(settings.state)
    return openSegment(SECTIONS, spec, {
      path: settings.state === 'none' ? null : settings.state,
      isolation: isolation.kind,
      held,
    })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const advice =
      code === 'ENOSPC'
        ? ': name another place, or make its tables smaller (TIDEGATE_RATE_LIMIT_KEYS, TIDEGATE_REPLAY_KEYS); new sizes need room for the old file and the new one'
        : ''
    throw new StartError(`TIDEGATE_STATE: ${message}${advice}`)
  }
}
