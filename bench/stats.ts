// What the figures of a few rounds say, and whether two of them differ. Pure.
//
// Rounds are interleaved, so the two sides of a comparison are paired: what slows the machine for a while slows both.
// The ratio is the median of the per-round ratios, and its uncertainty is bootstrapped over rounds.

export interface Figure {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Ratio {
  readonly value: number
  /** Half of the 95 % interval, relative. */
  readonly spread: number
}

export type Verdict = 'less' | 'more' | 'no difference'

/**
 * Never claimed to be smaller: restarts of one binary on a quiet machine differ by this much through memory layout
 * alone.
 */
export const SMALLEST_FLOOR = 0.015

const RESAMPLES = 2000

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export function figure(values: readonly number[]): Figure {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

/** Round by round: `of[i] / to[i]`. Both lists are of the same rounds. */
export function ratio(of: readonly number[], to: readonly number[]): Ratio {
  const logs = of.map((value, i) => Math.log(value / to[i]!))
  const value = median(logs)
  const random = generator(logs.length)
  const deviations: number[] = []
  for (let i = 0; i < RESAMPLES; i++) {
    const sample = logs.map(() => logs[Math.floor(random() * logs.length)]!)
    deviations.push(Math.abs(median(sample) - value))
  }
  deviations.sort((a, b) => a - b)
  return { value: Math.exp(value), spread: Math.expm1(deviations[Math.floor(RESAMPLES * 0.95)]!) }
}

/** How far apart two processes of one build appear: what any other difference has to exceed. */
export function noiseFloor(sameAgainstItself: Ratio): number {
  return Math.max(SMALLEST_FLOOR, Math.expm1(Math.abs(Math.log(sameAgainstItself.value))), sameAgainstItself.spread)
}

/** `within` is what the difference had to exceed: the floor, or the pair's own spread where that is wider. */
export function verdict(pair: Ratio, floor: number): { verdict: Verdict; within: number } {
  const within = Math.max(floor, pair.spread)
  // As far below as above: a third of it is as far from it as three times.
  if (Math.abs(Math.log(pair.value)) <= Math.log1p(within)) return { verdict: 'no difference', within }
  return { verdict: pair.value < 1 ? 'less' : 'more', within }
}

/** mulberry32: the same rounds give the same interval each time they are read. */
export function generator(seed: number): () => number {
  let state = (seed + 0x9e3779b9) | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Least squares through [minute, value]. */
export function slopePerMinute(points: readonly (readonly [minute: number, value: number])[]): number {
  const n = points.length
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / n
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / n
  const along = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0)
  const spread = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0)
  return spread === 0 ? 0 : along / spread
}
