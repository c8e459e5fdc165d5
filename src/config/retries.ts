// What a service's key `retries` compiles to. The keys and their bounds are in schema/retries.ts; what the rules mean
// on a request's way is in upstream/retries.ts.
import { NO_TIMEOUT } from './quantities.js'
import type { RetriesConfig } from './schema/retries.js'

/**
 * Why another attempt follows: the first one failed in that way, or it waits at an endpoint that has been taken out
 * meanwhile, or for longer than the route's `hedge` says.
 */
export const RETRY_REASONS = ['connect', 'reset', 'timeout', 'status', 'out', 'hedge'] as const
export type RetryReason = (typeof RETRY_REASONS)[number]

/** What workers count by route, in the order of the counters (state/counters.ts): attempts, and those not made. */
export const RETRY_EVENTS = [...RETRY_REASONS, 'refused', 'hedge_refused'] as const
export type RetryEvent = (typeof RETRY_EVENTS)[number]

export interface RetryRules {
  /** Of one request, the first one included. 1: no other follows. */
  readonly attempts: number
  readonly reasons: ReadonlySet<RetryReason>
  /** Statuses that another endpoint is asked about. */
  readonly statuses: ReadonlySet<number>
  /** Upper bound of the first wait; the next ones double it. */
  readonly backoffMs: number
  /** Infinity where there is none. */
  readonly perTryMs: number
  /** Retries for each request. */
  readonly budget: number
  /** The longest body that is sent a second time. */
  readonly maxBodyBytes: number
}

const NONE: RetryRules = {
  attempts: 1,
  reasons: new Set(),
  statuses: new Set(),
  backoffMs: 0,
  perTryMs: Number.POSITIVE_INFINITY,
  budget: 0,
  maxBodyBytes: 0,
}

export function compileRetries(config: RetriesConfig): RetryRules {
  if (config === false) return NONE
  const statuses = new Set(config.on.filter((one) => typeof one === 'number'))
  const reasons = new Set<RetryReason>(config.on.filter((one) => typeof one === 'string'))
  if (statuses.size > 0) reasons.add('status')
  return {
    attempts: config.attempts,
    reasons,
    statuses,
    backoffMs: config.backoff,
    perTryMs: config.perTry === NO_TIMEOUT ? Number.POSITIVE_INFINITY : config.perTry,
    budget: config.budget,
    maxBodyBytes: config.maxBody,
  }
}
