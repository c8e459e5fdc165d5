// The rules by which endpoints that fail are ejected, as the workers read them (upstream/cluster/outliers.ts). Pure.

export interface OutlierRules {
  /** Failures in a row that eject an endpoint, over all workers. */
  readonly failures: number
  /** By how much an endpoint's share of failures may exceed that of its peers. */
  readonly ratio: number
  /** How many times what its peers take makes a response slow; Infinity: none is. */
  readonly slow: number
  /** In which failures and latencies are counted. */
  readonly windowUs: number
  /** The first ejection; each that follows soon doubles it, up to the second. */
  readonly ejectForUs: number
  readonly maxEjectForUs: number
  /** Share of a service's endpoints that may be out. */
  readonly maxShare: number
  /** Null: 500 and above. */
  readonly statuses: ReadonlySet<number> | null
}

/** As the schema has it: durations in milliseconds. */
export interface OutlierConfig {
  readonly failures: number
  readonly ratio: number
  readonly slow: number | 'none'
  readonly window: number
  readonly ejectFor: number
  readonly maxEjectFor: number
  readonly maxShare: number
  readonly statuses?: readonly number[] | undefined
}

/** Null where a service wants none. */
export function compileOutliers(config: OutlierConfig | false): OutlierRules | null {
  if (config === false) return null
  const { failures, ratio, slow, window, ejectFor, maxEjectFor, maxShare, statuses } = config
  return {
    failures,
    ratio,
    slow: slow === 'none' ? Number.POSITIVE_INFINITY : slow,
    windowUs: window * 1000,
    ejectForUs: ejectFor * 1000,
    maxEjectForUs: maxEjectFor * 1000,
    maxShare,
    statuses: statuses === undefined ? null : new Set(statuses),
  }
}
