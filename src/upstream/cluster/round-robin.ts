// Endpoints in turn. Where their weights differ, each gains its weight in credit per request, the one with the most
// credit gets the request, and pays for it what all have gained: nginx calls it smooth, since a heavy endpoint's turns
// do not come in a row. Runs per request.
import type { Balancer } from './balancer.js'
import { type Candidates, isFree, type Random } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'

export class RoundRobin implements Balancer {
  private readonly random: Random
  private next: number
  private known: Candidates | null = null
  /** By position among the known candidates. */
  private credits = new Float64Array(0)

  /** @param first so that not all workers begin at the same endpoint */
  constructor(first: number, random: Random) {
    this.next = first
    this.random = random
  }

  pick(candidates: Candidates, _key: number, tried: readonly EndpointState[]): EndpointState | null {
    const picked = candidates.isEven ? this.inTurn(candidates, tried) : this.byCredit(candidates, tried)
    return picked ?? candidates.spare(tried, this.random)
  }

  private inTurn({ states }: Candidates, tried: readonly EndpointState[]): EndpointState | null {
    const count = states.length
    let at = this.next % Math.max(1, count)
    for (let i = 0; i < count; i++) {
      const state = states[at] as EndpointState
      at = at + 1 === count ? 0 : at + 1
      this.next = at
      if (isFree(state, tried)) return state
    }
    return null
  }

  private byCredit(candidates: Candidates, tried: readonly EndpointState[]): EndpointState | null {
    if (candidates !== this.known) this.adopt(candidates)
    const { states, weights } = candidates
    const { credits } = this
    let best = -1
    let gained = 0
    for (let at = 0; at < states.length; at++) {
      if (!isFree(states[at] as EndpointState, tried)) continue
      const weight = weights[at] as number
      gained += weight
      credits[at]! += weight
      if (best < 0 || (credits[at] as number) > (credits[best] as number)) best = at
    }
    if (best < 0) return null
    credits[best]! -= gained
    return states[best] as EndpointState
  }

  /** Endpoints that were candidates before keep their credit. Not every worker begins with the heaviest. */
  private adopt(candidates: Candidates): void {
    const { known, credits } = this
    const before = known?.states ?? []
    this.credits = Float64Array.from(candidates.states, (state, at) => {
      const then = before.indexOf(state)
      return then >= 0 ? (credits[then] as number) : -this.random() * (candidates.weights[at] as number)
    })
    this.known = candidates
  }
}
