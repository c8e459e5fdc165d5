// The less busy of two endpoints that are drawn at random: nearly as good as the least busy of all, and requests that
// come at once do not all go to one (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"). Both are
// drawn by weight, and of two that are equally busy the first is chosen, so that idle endpoints share by weight. Runs
// per request.
import type { Balancer } from './balancer.js'
import { type Candidates, isFree, type Random } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'

export class PowerOfTwo implements Balancer {
  private readonly random: Random

  constructor(random: Random) {
    this.random = random
  }

  pick(candidates: Candidates, _key: number, tried: readonly EndpointState[]): EndpointState | null {
    const { states } = candidates
    if (states.length === 1) return states[0] as EndpointState
    if (states.length === 0) return null
    const first = candidates.draw(this.random())
    const second = candidates.drawOther(first, this.random())
    const isFirst = candidates.isNoBusier(first, second)
    const state = states[isFirst ? first : second] as EndpointState
    if (isFree(state, tried)) return state
    const other = states[isFirst ? second : first] as EndpointState
    return isFree(other, tried) ? other : candidates.spare(tried, this.random)
  }
}
