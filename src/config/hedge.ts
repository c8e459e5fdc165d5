// What a route's key `hedge` compiles to. The keys and their bounds are in schema/hedge.ts; how requests are hedged is
// in handlers/proxy/race.ts.
import { durationMs } from './quantities.js'
import type { HedgeConfig } from './schema/hedge.js'

export interface HedgeRules {
  /** A second attempt begins after so long; 0: after `percentile` of what responses took lately. */
  readonly afterMs: number
  /** 0 to 1. */
  readonly percentile: number
  /** Hedges for each request. */
  readonly budget: number
}

export function compileHedge(config: HedgeConfig | undefined): HedgeRules | null {
  if (config === undefined) return null
  const { after, budget } = config
  const isPercentile = after.startsWith('p')
  return {
    afterMs: isPercentile ? 0 : (durationMs(after) as number),
    percentile: isPercentile ? Number(after.slice(1)) / 100 : 0,
    budget,
  }
}
