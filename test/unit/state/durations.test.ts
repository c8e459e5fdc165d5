import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bucketOf, bucketStartUs, countUpTo, DURATION_BUCKETS, MAX_DURATION_US } from '../../../src/state/durations.js'
import { toHdr } from '../../../src/telemetry/quantiles.js'

describe('duration buckets', () => {
  it('lie side by side from 0 to 2^32 µs, none wider than a sixteenth of where it begins', () => {
    expect(bucketStartUs(0)).toBe(0)
    expect(bucketStartUs(DURATION_BUCKETS)).toBe(2 ** 32)
    for (let bucket = 0; bucket < DURATION_BUCKETS; bucket++) {
      const start = bucketStartUs(bucket)
      const end = bucketStartUs(bucket + 1)
      expect(bucketOf(start)).toBe(bucket)
      expect(bucketOf(end - 1)).toBe(bucket)
      expect(end - start).toBeLessThanOrEqual(Math.max(1, start / 16))
    }
  })

  it('hold every duration between their own ends', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: MAX_DURATION_US }), (us) => {
        const bucket = bucketOf(us)
        expect(bucketStartUs(bucket)).toBeLessThanOrEqual(us)
        expect(bucketStartUs(bucket + 1)).toBeGreaterThan(us)
      }),
    )
  })

  it('are counted up to any time to within the bucket it lies in, never falling as time or counts grow', () => {
    const times = fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(times, fc.integer({ min: 1, max: 120_000 }), (all, limit) => {
        const counts = new Float64Array(DURATION_BUCKETS)
        let before = 0
        for (const us of all) {
          counts[bucketOf(us)]!++
          const now = countUpTo(counts, limit)
          expect(now).toBeGreaterThanOrEqual(before)
          before = now
        }
        const bucket = bucketOf(limit)
        expect(before).toBeGreaterThanOrEqual(all.filter((us) => us < bucketStartUs(bucket)).length)
        expect(before).toBeLessThanOrEqual(all.filter((us) => us < bucketStartUs(bucket + 1)).length)
        expect(countUpTo(counts, limit + 1)).toBeGreaterThanOrEqual(before)
      }),
    )
  })

  it('give quantiles within 4 % as an HDR histogram', () => {
    const counts = new Float64Array(DURATION_BUCKETS)
    for (let us = 1; us <= 100_000; us++) counts[bucketOf(us)]!++
    const histogram = toHdr(counts)
    expect(histogram.totalCount).toBe(100_000)
    for (const percent of [1, 50, 90, 99, 99.9]) {
      const error = histogram.getValueAtPercentile(percent) / (percent * 1000) - 1
      expect(Math.abs(error)).toBeLessThan(0.04)
    }
  })

  it('survive as many requests as a long life brings, and an HDR histogram used again starts empty', () => {
    const counts = new Float64Array(DURATION_BUCKETS)
    counts[bucketOf(100)] = 6e9
    counts[bucketOf(MAX_DURATION_US)] = 6e9
    const histogram = toHdr(counts)
    expect(histogram.totalCount).toBe(12e9)
    expect(histogram.getValueAtPercentile(99)).toBeGreaterThan(0.96 * 2 ** 32)
    counts.fill(0)
    counts[bucketOf(7)] = 1
    expect(toHdr(counts, histogram).getValueAtPercentile(99)).toBe(7)
  })
})
