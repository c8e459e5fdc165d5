// Endpoints in turn. Runs per request.
import type { Balancer } from './balancer.js'
import type { EndpointState } from './endpoint-state.js'

export class RoundRobin implements Balancer {
  private next: number

  constructor(first: number) {
    this.next = first
  }

  pick(endpoints: readonly EndpointState[], _key: number, tried: readonly EndpointState[]): EndpointState | null {
    let last: EndpointState | null = null
    let at = this.next % Math.max(1, endpoints.length)
    for (let i = 0; i < endpoints.length; i++) {
      const state = endpoints[at] as EndpointState
      at = at + 1 === endpoints.length ? 0 : at + 1
      this.next = at
      if (state.isOut) continue
      if (!tried.includes(state)) return state
      last = state
    }
    return last
  }
}
