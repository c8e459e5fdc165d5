// The balancers by name. Runs when a generation begins, not per request.
import type { Service } from '../../config/compile.js'
import type { Balancer } from './balancer.js'
import { RoundRobin } from './round-robin.js'

/** @param first so that not all workers begin at the same endpoint */
export function balancerOf(_service: Service, first: number): Balancer {
  return new RoundRobin(first)
}
