// Which endpoint gets the next attempt: the interface of balancers. balancers.ts is the list of them. Runs per request.
// A balancer allocates nothing per pick, and need not know why an endpoint gets no requests (eligible.ts).
import type { Candidates } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'

export interface Balancer {
  /**
   * Null only where there are no candidates.
   * @param key of the request, for balancers that choose by a hash; 0: it has none
   * @param tried those that have failed the request: chosen only when there is no other
   */
  pick(candidates: Candidates, key: number, tried: readonly EndpointState[]): EndpointState | null
}

/** No endpoint has failed the request. */
export const NONE: readonly EndpointState[] = Object.freeze([])
