// What bounds the requests that one service has in flight, as the workers read it. Types and compilation; the options
// are in schema/bulkhead.ts.

/** The upper bound of an adaptive limit where maxInFlight sets none. */
const MOST_ADAPTIVE = 10_000

export interface AdaptiveRules {
  /** The limit before anything was measured. */
  readonly start: number
  readonly least: number
  /** How many times its unloaded latency the service may take. */
  readonly tolerance: number
}

export interface BulkheadRules {
  /** Requests in flight, over all workers. */
  readonly most: number
  /** Requests that wait, over all workers; 0: none does. */
  readonly queueSize: number
  readonly waitMs: number
  /** Null where the limit is `most`; else `most` is its upper bound. */
  readonly adaptive: AdaptiveRules | null
}

/** As schema/bulkhead.ts reads it. */
interface BulkheadConfig {
  maxInFlight?: number | { most: number; queue?: { size: number; wait: number } | undefined } | undefined
  concurrency?: AdaptiveRules | undefined
}

/** Null where the service has no bound of its own. */
export function compileBulkhead({ maxInFlight, concurrency }: BulkheadConfig): BulkheadRules | null {
  if (maxInFlight === undefined && concurrency === undefined) return null
  const { most, queue } = typeof maxInFlight === 'object' ? maxInFlight : { most: maxInFlight, queue: undefined }
  return {
    most: most ?? MOST_ADAPTIVE,
    queueSize: queue?.size ?? 0,
    waitMs: queue?.wait ?? 0,
    adaptive: concurrency ?? null,
  }
}
