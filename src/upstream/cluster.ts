// One service, as one generation of the configuration reaches it: its endpoints, taken in turn, and its breaker. Runs per request. The
// endpoints are shared with other generations (upstreams.ts), and their set may change while requests are in flight.
import type { Endpoint, Service } from '../config/compile.js'
import { Attempt } from './attempt.js'
import type { Breaker } from './breaker.js'
import type { EndpointState } from './endpoint-state.js'

/** Whoever has the endpoints of all services. */
export interface EndpointSource {
  /** Of this worker, from 0: its rounds begin elsewhere than those of the others. */
  readonly owner: number
  readonly nowUs: () => number
  /** The state of an endpoint that the cluster does not have yet. */
  hold(cluster: Cluster, endpoint: Endpoint): EndpointState
  release(cluster: Cluster, state: EndpointState): void
  /** No request is left that could ask the cluster for an endpoint. */
  forget(cluster: Cluster): void
}

export class Cluster {
  endpoints: readonly EndpointState[] = []
  readonly service: Service
  /** Null where the service has none. */
  readonly breaker: Breaker | null
  readonly generation: number
  private readonly source: EndpointSource
  private next: number

  constructor(service: Service, breaker: Breaker | null, generation: number, source: EndpointSource) {
    this.service = service
    this.breaker = breaker
    this.generation = generation
    this.source = source
    this.next = source.owner
    this.setEndpoints(service.endpoints)
  }

  /** The next endpoint that is up, or null. `avoid` (the one that just failed) is taken only when there is no other. */
  pick(avoid: EndpointState | null): EndpointState | null {
    const { endpoints } = this
    let last: EndpointState | null = null
    for (let i = 0; i < endpoints.length; i++) {
      const state = endpoints[this.next] as EndpointState
      this.next = this.next + 1 === endpoints.length ? 0 : this.next + 1
      if (!state.isUp) continue
      if (state !== avoid) return state
      last = state
    }
    return last
  }

  /** A try that the breaker lets through; null: it refuses. It ends with complete() or abort(), or fails. */
  attempt(nowUs: number): Attempt | null {
    const { breaker } = this
    const permit = breaker === null ? -1 : breaker.admit(nowUs)
    return breaker === null || permit >= 0 ? new Attempt(breaker, permit, this.source.nowUs) : null
  }

  /** Some endpoint has few uploads that are still coming. */
  get mayBeginEarly(): boolean {
    for (const state of this.endpoints) if (state.mayBeginEarly) return true
    return false
  }

  /**
   * From now on requests go to these. An endpoint that stays, by its origin, keeps its state and its connections; one that is gone finishes what
   * it has.
   */
  setEndpoints(endpoints: readonly Endpoint[]): void {
    const before = this.endpoints
    this.endpoints = endpoints.map((endpoint) => {
      const state = before.find((one) => one.endpoint.origin === endpoint.origin)
      if (state === undefined) return this.source.hold(this, endpoint)
      state.endpoint = endpoint
      return state
    })
    this.next = endpoints.length === 0 ? 0 : this.next % endpoints.length
    for (const state of before) if (!this.endpoints.includes(state)) this.source.release(this, state)
  }

  /** No request is left that could ask for an endpoint. */
  close(): void {
    this.source.forget(this)
    this.setEndpoints([])
  }
}
