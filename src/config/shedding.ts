// What an overloaded gateway refuses first, and when it counts as overloaded: what the schema (schema/shedding.ts)
// compiles to. worker/overload.ts goes by it. Start-up only.

/** Of routes. What comes first is refused first. */
export const IMPORTANCES = ['low', 'normal', 'high'] as const

export interface SheddingRules {
  /** How long requests may wait for a worker … */
  readonly targetUs: number
  /** … unless it is so for this long. */
  readonly intervalUs: number
}

/** Null: the gateway refuses nothing, however long requests wait. */
export function compileShedding(shedding: false | { target: number; interval: number }): SheddingRules | null {
  return shedding === false ? null : { targetUs: shedding.target * 1000, intervalUs: shedding.interval * 1000 }
}
