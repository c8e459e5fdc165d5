// Most requests that one service has in flight, over all workers, and the queue of those of this worker that wait for a
// place. Runs per request, and only for services that set maxInFlight or concurrency. Knows no exchange. Generations of
// the configuration share it; the newest one's rules apply.
//
// Each worker serves its own queue, in order. It looks for a free place when it gives one back itself, and every two
// milliseconds while something waits. A worker that has places would serve its own queue first for ever, so it leaves a
// free place to a worker whose oldest request has waited clearly longer: for five milliseconds, once per such request,
// because that worker may hang.
import type { BulkheadRules } from '../config/bulkhead.js'
import { Rejection } from '../exchange/outcome.js'
import { type BulkheadPart, type BulkheadTable, limitInForce } from '../state/bulkhead-table.js'
import type { EndpointTable } from '../state/endpoint-table.js'
import type { Cluster } from './cluster/cluster.js'
import { Gradient } from './gradient.js'

const POLL_MS = 2
/** How often each worker looks whether an adaptive limit is due; one of them then works it out. */
const ADAPT_MS = 25
/** Requests of other workers go first where they have waited longer than ours by this. */
const FAIR_US = 10_000
const LEFT_FREE_US = 5000

/** A request in the queue. */
export interface Waiting {
  /** When it joined the queue, on the segment's clock. */
  readonly sinceUs: number
  /** It has a place from now on, and is in the queue no more. Throws nothing. */
  onPlace(): void
}

export class Bulkhead {
  private current: BulkheadRules
  /** Of the newest generation: its endpoints tell the latency. */
  private cluster: Cluster
  /** Generations of the configuration that use it (Bulkheads). */
  users = 0
  /** Refusals, prepared: no room in the queue, and waited too long in it. */
  readonly full: Rejection
  readonly late: Rejection
  private readonly part: BulkheadPart
  private readonly nowUs: () => number
  /** In order of arrival. */
  private readonly queue = new Set<Waiting>()
  private timer: NodeJS.Timeout | null = null
  private adapting: NodeJS.Timeout | null = null
  private readonly gradient: Gradient
  private readonly endpoints: EndpointTable
  private isServing = false
  // The oldest request of another worker, since when a place is left free for it, and the last for which that was in
  // vain.
  private leftToUs = 0
  private leftFreeSinceUs = 0
  private inVainUs = 0

  constructor(cluster: Cluster, rules: BulkheadRules, { bulkheads, endpoints, worker, nowUs }: BulkheadParts) {
    const { name, slot } = cluster.service
    this.cluster = cluster
    this.current = rules
    this.part = bulkheads.part(slot, worker)
    this.gradient = new Gradient(this.part.record)
    this.endpoints = endpoints
    this.nowUs = nowUs
    this.full = new Rejection('overloaded', `bulkhead ${name}: too many requests in flight`)
    this.late = new Rejection('overloaded', `bulkhead ${name}: waited too long for a place`)
  }

  get rules(): BulkheadRules {
    return this.current
  }

  /** From now on these are the rules, for requests of older generations too. */
  use(cluster: Cluster, rules: BulkheadRules): void {
    this.cluster = cluster
    this.current = rules
    if (rules.adaptive === null) this.stopAdapting()
    else this.adapting ??= setInterval(() => this.adapt(), ADAPT_MS).unref()
  }

  /** No generation uses it any more. */
  close(): void {
    this.stopAdapting()
  }

  /** Requests in flight at most, now. */
  private get most(): number {
    return limitInForce(this.rules, this.part.record[0] as number)
  }

  /** A request that comes now is refused: nobody need wait for its body. */
  get isFull(): boolean {
    const { part, rules } = this
    return part.held.total >= this.most && part.waiting.total >= rules.queueSize
  }

  /** A place for a request that has not waited. Each place that was taken, here or by onPlace, ends with leave(). */
  take(): boolean {
    const { part, rules } = this
    if (rules.queueSize === 0) return part.held.take(this.most)
    return this.queue.size === 0 && this.takeInTurn(this.nowUs())
  }

  /** False: the queue is full. It ends with onPlace, or with quit(). */
  join(waiting: Waiting): boolean {
    if (!this.part.waiting.take(this.rules.queueSize)) return false
    this.queue.add(waiting)
    if (this.queue.size === 1) this.part.noteOldest(waiting.sinceUs)
    this.timer ??= setInterval(() => this.serve(), POLL_MS)
    return true
  }

  /** It waits no more: its client has left, or it is late. */
  quit(waiting: Waiting): void {
    if (!this.queue.delete(waiting)) return
    this.part.waiting.give()
    this.noteFirst()
  }

  leave(): void {
    this.part.held.give()
    if (this.queue.size === 0 || this.isServing) return
    this.isServing = true
    // Once the caller has ended what had the place.
    queueMicrotask(() => {
      this.isServing = false
      this.serve()
    })
  }

  noteRefusal(late: boolean): void {
    this.part.noteRefusal(late)
  }

  /** The adaptive limit, if it is due, and no other worker is working it out. */
  private adapt(): void {
    const { gradient, part, rules, cluster } = this
    const nowUs = this.nowUs()
    const { turns } = part
    if (rules.adaptive === null || !gradient.isDue(nowUs) || !part.takeTurn(turns)) return
    let latencyUs = 0
    let latencies = 0
    for (const { endpoint } of cluster.endpoints) {
      const totals = this.endpoints.totals(endpoint.slot)
      latencyUs += totals.latencyUs
      latencies += totals.latencies
    }
    gradient.look(nowUs, latencyUs, latencies, part.held.total, rules.adaptive, rules.most)
  }

  private stopAdapting(): void {
    if (this.adapting !== null) clearInterval(this.adapting)
    this.adapting = null
  }

  private serve(): void {
    for (const waiting of this.queue) {
      if (!this.takeInTurn(waiting.sinceUs)) return
      this.quit(waiting)
      this.part.noteWait()
      waiting.onPlace()
    }
  }

  private noteFirst(): void {
    for (const { sinceUs } of this.queue) return this.part.noteOldest(sinceUs)
    this.part.noteOldest(0)
    if (this.timer !== null) clearInterval(this.timer)
    this.timer = null
  }

  /** A place for a request that waits since then, unless it is another worker's turn. */
  private takeInTurn(sinceUs: number): boolean {
    const { part } = this
    const { most } = this
    const othersUs = part.oldestElsewhere
    if (othersUs + FAIR_US < sinceUs && othersUs !== this.inVainUs && part.held.total < most) {
      const nowUs = this.nowUs()
      if (othersUs !== this.leftToUs) {
        this.leftToUs = othersUs
        this.leftFreeSinceUs = nowUs
      }
      if (nowUs - this.leftFreeSinceUs < LEFT_FREE_US) return false
      this.inVainUs = othersUs
    }
    return part.held.take(most)
  }
}

export interface BulkheadParts {
  readonly bulkheads: BulkheadTable
  readonly endpoints: EndpointTable
  /** The worker's slot. */
  readonly worker: number
  readonly nowUs: () => number
}

/** Of all services in one worker. */
export class Bulkheads {
  /** By Service.slot. */
  private readonly bySlot = new Map<number, Bulkhead>()
  private readonly parts: BulkheadParts

  constructor(parts: BulkheadParts) {
    this.parts = parts
  }

  /** For one generation, which calls release() when it has no more requests. Null where the service has no bound. */
  hold(cluster: Cluster): Bulkhead | null {
    const { slot, bulkhead: rules } = cluster.service
    if (rules === null) return null
    let bulkhead = this.bySlot.get(slot)
    if (bulkhead === undefined) {
      bulkhead = new Bulkhead(cluster, rules, this.parts)
      this.bySlot.set(slot, bulkhead)
    }
    bulkhead.use(cluster, rules)
    bulkhead.users++
    return bulkhead
  }

  release({ service: { slot, bulkhead: rules } }: Cluster): void {
    if (rules === null) return
    const bulkhead = this.bySlot.get(slot)
    if (bulkhead === undefined || --bulkhead.users > 0) return
    this.bySlot.delete(slot)
    bulkhead.close()
  }
}
