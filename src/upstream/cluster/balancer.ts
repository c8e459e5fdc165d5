// Which endpoint gets the next attempt: the interface of balancers. balancers.ts is the list of them. Runs per request.
import type { EndpointState } from './endpoint-state.js'

export interface Balancer {
  /**
   * Null: none gets requests.
   * @param key of balancers that choose by a hash; 0 for others
   * @param tried those that have failed the request: chosen only when there is no other
   */
  pick(endpoints: readonly EndpointState[], key: number, tried: readonly EndpointState[]): EndpointState | null
}

/** No endpoint has failed the request. */
export const NONE: readonly EndpointState[] = Object.freeze([])
