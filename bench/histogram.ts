// Latencies in µs as HDR histograms. Rounds are merged by adding counts; percentiles are never averaged.
import { build, decodeFromCompressedBase64, encodeIntoCompressedBase64, type Histogram } from 'hdr-histogram-js'

export type { Histogram }

const MAX_US = 120_000_000

export function histogram(): Histogram {
  return build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: MAX_US,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
    autoResize: false,
    useWebAssembly: false,
  })
}

export function record(into: Histogram, latencyUs: number, count = 1): void {
  into.recordValueWithCount(Math.min(MAX_US, Math.max(1, Math.round(latencyUs))), count)
}

export function merged(parts: readonly Histogram[]): Histogram {
  const whole = histogram()
  for (const part of parts) whole.add(part)
  return whole
}

export function percentileMs(of: Histogram, percentile: number): number {
  if (of.totalCount === 0) return Number.NaN
  return (percentile === 100 ? of.maxValue : of.getValueAtPercentile(percentile)) / 1000
}

export const encode = encodeIntoCompressedBase64
export const decode = (text: string): Histogram => decodeFromCompressedBase64(text, 64, false)
