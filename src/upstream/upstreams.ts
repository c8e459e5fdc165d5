// The endpoints of all services in one worker, kept from one generation of the configuration to the next: an endpoint
// that is still there, with the same settings, keeps its connections. Off the request's way: a request only meets its
// service's Cluster (cluster/cluster.ts).
import { type Endpoint, endpointOf, type Service } from '../config/compile.js'
import type { EndpointConfig } from '../config/endpoint.js'
import type { BreakerChange } from '../state/breaker-record.js'
import type { BreakerTable } from '../state/breaker-table.js'
import type { BulkheadTable } from '../state/bulkhead-table.js'
import type { EndpointTable } from '../state/endpoint-table.js'
import { Breaker } from './breaker.js'
import { Bulkheads } from './bulkhead.js'
import { clientKey, createClient } from './client.js'
import { Cluster, type EndpointSource } from './cluster/cluster.js'
import { EndpointState } from './cluster/endpoint-state.js'
import { type OutlierChange, Outliers } from './cluster/outliers.js'
import { RetryBudget } from './retry-budget.js'

export interface UpstreamParts {
  /** Of permits in the breaker table (state/owners.ts). */
  readonly owner: number
  readonly breakers: BreakerTable
  /** The worker's slot in the endpoint table. */
  readonly worker: number
  readonly endpoints: EndpointTable
  readonly bulkheads: BulkheadTable
  /** Most connections to one endpoint. */
  readonly connections: number
  /** The gateway's; '' where it has none. */
  readonly zone: string
  /** Microseconds on the segment's clock. */
  readonly nowUs: () => number
  onBreakerChange(service: string, change: BreakerChange): void
  onOutlierChange(service: string, change: OutlierChange): void
}

/** How often endpoints are judged, by whichever worker comes first, and how often each worker heeds it. */
const JUDGEMENT_MS = 100

export class Upstreams implements EndpointSource {
  /** By clientKey. Services of one generation that name the same endpoint have a state each. */
  private readonly states = new Map<string, EndpointState[]>()
  /** Of all generations that still have requests. */
  private readonly clusters = new Set<Cluster>()
  /** Of services that bound how many requests they have in flight. */
  readonly bulkheads: Bulkheads
  /** By service. */
  private readonly budgets = new Map<string, RetryBudget>()
  private readonly parts: UpstreamParts
  readonly nowUs: () => number
  readonly owner: number
  readonly zone: string
  private generations = 0
  /** Null as long as no service has endpoints that it could eject. */
  private judging: NodeJS.Timeout | null = null

  constructor(parts: UpstreamParts) {
    this.parts = parts
    this.nowUs = parts.nowUs
    this.owner = parts.owner
    this.zone = parts.zone
    this.bulkheads = new Bulkheads(parts)
  }

  /** The clusters of one generation, by Service.index. Close each of them when the generation ends. */
  clustersOf(services: readonly Service[]): Cluster[] {
    const generation = this.generations++
    return services.map((service) => {
      const cluster = new Cluster(service, this.breakerOf(service), this.outliersOf(service), generation, this)
      this.clusters.add(cluster)
      return cluster
    })
  }

  /**
   * From now on the service has these endpoints, in every generation: a request of an older one must not get an
   * endpoint that is gone either.
   * @param endpoints as the configuration spells them
   * @param slots their places in the endpoint table
   */
  setEndpoints(name: string, endpoints: readonly EndpointConfig[], slots: readonly number[]): void {
    for (const cluster of this.clusters) {
      const { service } = cluster
      if (service.name !== name) continue
      cluster.setEndpoints(endpoints.map((entry, at) => endpointOf(entry, service.tls.serverName, slots[at] as number)))
    }
  }

  private breakerOf(service: Service): Breaker | null {
    if (service.breaker === null) return null
    const { breakers, owner } = this.parts
    const breaker = new Breaker(breakers, service, owner)
    breaker.onChange = (change) => this.parts.onBreakerChange(service.name, change)
    return breaker
  }

  private outliersOf({ name, outliers: rules, balance }: Service): Outliers | null {
    if (rules === null) return null
    const outliers = new Outliers(this.parts.endpoints, rules, balance.kind !== 'hash')
    outliers.onChange = (change) => this.parts.onOutlierChange(name, change)
    return outliers
  }

  beginJudging(): void {
    this.judging ??= setInterval(() => this.judge(), JUDGEMENT_MS).unref()
  }

  private judge(): void {
    const { endpoints, nowUs } = this.parts
    const now = nowUs()
    // Some other worker may have judged just now.
    if (endpoints.beginJudgement(now, JUDGEMENT_MS / 2)) {
      try {
        // Of the newest generation: the clusters are in that order.
        const newest = new Map([...this.clusters].map(({ service, outliers }) => [service.name, outliers]))
        for (const outliers of newest.values()) outliers?.judge(now)
      } finally {
        endpoints.endJudgement()
      }
    }
    for (const { outliers, endpoints: states } of this.clusters)
      if (outliers !== null) for (const state of states) state.heedJudgement()
  }

  budgetOf({ name, retries }: Service): RetryBudget {
    let budget = this.budgets.get(name)
    if (budget === undefined) {
      budget = new RetryBudget(retries.budget, this.nowUs())
      this.budgets.set(name, budget)
    }
    budget.ratio = retries.budget
    return budget
  }

  hold({ service, generation, outliers }: Cluster, endpoint: Endpoint): EndpointState {
    const key = clientKey(service, endpoint)
    const states = this.states.get(key) ?? []
    let state = states.find(({ generations }) => !generations.has(generation))
    if (state === undefined) {
      const { connections } = this.parts
      state = new EndpointState(createClient(service, endpoint, connections), service, endpoint, this.parts)
      this.states.set(key, [...states, state])
    }
    state.use(endpoint, outliers)
    state.generations.add(generation)
    return state
  }

  release({ service, generation }: Cluster, state: EndpointState): void {
    state.generations.delete(generation)
    if (state.generations.size > 0) return
    const key = clientKey(service, state.endpoint)
    const left = this.states.get(key)!.filter((one) => one !== state)
    if (left.length > 0) this.states.set(key, left)
    else this.states.delete(key)
    state.retire()
  }

  /** Every few hundred milliseconds: connections to drained endpoints that carry nothing are closed. */
  closeUnusedOfDrained(): void {
    for (const states of this.states.values()) for (const state of states) state.closeUnusedIfDrained()
  }

  /** How many requests wait for a connection, to any endpoint. */
  get queued(): number {
    let queued = 0
    for (const states of this.states.values()) for (const state of states) queued += state.queued
    return queued
  }

  forget(cluster: Cluster): void {
    this.clusters.delete(cluster)
    const { name } = cluster.service
    if (![...this.clusters].some(({ service }) => service.name === name)) this.budgets.delete(name)
  }

  /** The worker ends. */
  async close(): Promise<void> {
    if (this.judging !== null) clearInterval(this.judging)
    await Promise.all([...this.states.values()].flat().map((state) => state.destroy()))
  }
}
