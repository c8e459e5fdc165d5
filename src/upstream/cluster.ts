// The endpoints of one service: round-robin over those that are healthy. Runs per request.
import type { Endpoint, Service } from '../config/compile.js'
import type { HealthTable } from '../state/health-table.js'

export class Cluster {
  private readonly endpoints: readonly Endpoint[]
  private readonly health: HealthTable
  private next: number

  /** `offset` keeps the workers from starting their rounds at the same endpoint. */
  constructor(service: Service, health: HealthTable, offset: number) {
    this.endpoints = service.endpoints
    this.health = health
    this.next = offset % service.endpoints.length
  }

  /** The next healthy endpoint, or null. `avoid` (the one that just failed) is taken only when there is no other. */
  pick(avoid: Endpoint | null): Endpoint | null {
    const endpoints = this.endpoints
    let last: Endpoint | null = null
    for (let i = 0; i < endpoints.length; i++) {
      const endpoint = endpoints[this.next] as Endpoint
      this.next = this.next + 1 === endpoints.length ? 0 : this.next + 1
      if (!this.health.isUp(endpoint.slot)) continue
      if (endpoint !== avoid) return endpoint
      last = endpoint
    }
    return last
  }
}
