// The balancers by name. Runs when a generation begins, not per request.
import type { Service } from '../../config/compile.js'
import type { Balancer } from './balancer.js'
import type { Random } from './candidates.js'
import { PeakEwma } from './ewma.js'
import { HashBalancer } from './hash.js'
import { PowerOfTwo } from './p2c.js'
import { RoundRobin } from './round-robin.js'

export interface BalancerParts {
  /** So that not all workers begin at the same endpoint. */
  readonly first: number
  readonly random: Random
  /** Microseconds on the segment's clock. */
  readonly nowUs: () => number
}

export function balancerOf({ balance }: Pick<Service, 'balance'>, { first, random, nowUs }: BalancerParts): Balancer {
  switch (balance.kind) {
    case 'p2c':
      return new PowerOfTwo(random)
    case 'round-robin':
      return new RoundRobin(first, random)
    case 'ewma':
      return new PeakEwma(random, nowUs)
    case 'hash':
      return new HashBalancer(balance.bounded, random)
  }
}
