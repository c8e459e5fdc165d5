// One service in one generation of the configuration: its endpoints, what chooses one of them (balancer.ts), and its
// breaker. Runs per request. Generations share the states of endpoints (upstreams.ts). The set of endpoints may change
// while requests are in flight.
import type { Endpoint, Service } from '../../config/compile.js'
import { Attempt } from '../attempt.js'
import type { Breaker } from '../breaker.js'
import type { RetryBudget } from '../retry-budget.js'
import type { Balancer } from './balancer.js'
import { balancerOf } from './balancers.js'
import { Eligible } from './eligible.js'
import type { EndpointState } from './endpoint-state.js'
import type { Outliers } from './outliers.js'

/** What keeps the endpoints of all services (upstreams.ts). */
export interface EndpointSource {
  /** The worker's number, from 0: so that not all workers begin their rounds at the same endpoint. */
  readonly owner: number
  readonly nowUs: () => number
  /** The gateway's; '' where it has none. */
  readonly zone: string
  /** Shared by all generations of the service. */
  budgetOf(service: Service): RetryBudget
  /** The state of an endpoint that the cluster does not have yet. */
  hold(cluster: Cluster, endpoint: Endpoint): EndpointState
  release(cluster: Cluster, state: EndpointState): void
  /** The service has endpoints that it may eject. */
  beginJudging(): void
  /** No request is left that could ask the cluster for an endpoint. */
  forget(cluster: Cluster): void
}

export class Cluster {
  endpoints: readonly EndpointState[] = []
  readonly service: Service
  /** Null where the service has none. */
  readonly breaker: Breaker | null
  /** Null where it ejects no endpoints. */
  readonly outliers: Outliers | null
  readonly budget: RetryBudget
  readonly generation: number
  private readonly source: EndpointSource
  private readonly balancer: Balancer
  private readonly eligible: Eligible

  constructor(
    service: Service,
    breaker: Breaker | null,
    outliers: Outliers | null,
    generation: number,
    source: EndpointSource,
  ) {
    this.service = service
    this.breaker = breaker
    this.outliers = outliers
    this.generation = generation
    this.budget = source.budgetOf(service)
    this.source = source
    const { owner, zone, nowUs } = source
    this.balancer = balancerOf(service, { first: owner, random: Math.random, nowUs })
    this.eligible = new Eligible({ zone, slowStartMs: service.slowStartMs, nowUs, random: Math.random })
    this.setEndpoints(service.endpoints)
  }

  /**
   * The endpoint for the next attempt, or null where none gets requests.
   * @param key of the request, for services that balance by a hash; 0: it has none
   * @param tried those that have failed the request: chosen only when there is no other
   */
  pick(key: number, tried: readonly EndpointState[]): EndpointState | null {
    const { balancer, eligible } = this
    eligible.look()
    let state = balancer.pick(eligible.candidates, key, tried)
    if (state !== null && eligible.hasLeft(state)) state = balancer.pick(eligible.candidates, key, tried)
    return eligible.orFarther(state, tried)
  }

  /** For the log, where no endpoint gets requests. */
  get isDrained(): boolean {
    return this.endpoints.length > 0 && this.endpoints.every((state) => state.isDrained)
  }

  /** Null: the breaker refuses. */
  attempt(nowUs: number): Attempt | null {
    const { breaker } = this
    const permit = breaker === null ? -1 : breaker.admit(nowUs)
    return breaker === null || permit >= 0 ? new Attempt(breaker, permit, this.source.nowUs) : null
  }

  /** An upload may begin before its read-ahead is full, at one of the endpoints at least. */
  get mayBeginEarly(): boolean {
    for (const state of this.endpoints) if (state.mayBeginEarly) return true
    return false
  }

  /**
   * From now on requests go to these. An endpoint whose origin was in the set before keeps its state and its
   * connections. One that is gone finishes its requests (EndpointState.retire).
   */
  setEndpoints(endpoints: readonly Endpoint[]): void {
    const before = this.endpoints
    if (this.outliers !== null) {
      this.outliers.endpoints = endpoints
      if (endpoints.length > 1) this.source.beginJudging()
    }
    this.endpoints = endpoints.map((endpoint) => {
      const state = before.find((one) => one.endpoint.origin === endpoint.origin)
      if (state === undefined) return this.source.hold(this, endpoint)
      state.use(endpoint, this.outliers)
      return state
    })
    this.eligible.use(this.endpoints)
    for (const state of before) if (!this.endpoints.includes(state)) this.source.release(this, state)
  }

  /** No request is left that could ask for an endpoint. */
  close(): void {
    this.source.forget(this)
    this.setEndpoints([])
  }
}
