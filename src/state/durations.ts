// The log-linear buckets in which durations are counted: one increment per request. Pure arithmetic; only `bucketOf`
// runs per request.
//
//   bucket     0 …  15   16 … 31   32 … 47   …   448 … 463
//   holds µs   0 …  15   16 … 31   32 … 63   …   2^31 … 2^32-1
//   each wide         1         1         2                2^27
const PER_OCTAVE = 16
/** 71 minutes; anything longer is counted as this. */
export const MAX_DURATION_US = 2 ** 32 - 1
export const DURATION_BUCKETS = (32 - 4 + 1) * PER_OCTAVE

/**
 * The leading bit picks the octave, the four bits after it the sixteenth of it, so a bucket is at most 1/16 of its
 * value wide.
 * @param us whole microseconds, 0 to MAX_DURATION_US
 */
export function bucketOf(us: number): number {
  if (us < PER_OCTAVE) return us
  const shift = 27 - Math.clz32(us)
  return (shift + 1) * PER_OCTAVE + ((us >>> shift) & (PER_OCTAVE - 1))
}

/** The first microsecond of a bucket; for DURATION_BUCKETS, where the last one ends. */
export function bucketStartUs(bucket: number): number {
  if (bucket < PER_OCTAVE) return bucket
  return (PER_OCTAVE + (bucket % PER_OCTAVE)) * 2 ** (Math.floor(bucket / PER_OCTAVE) - 1)
}

/**
 * How many of the counted durations were at most `us` long. A bucket that `us` lies in is taken to be filled evenly;
 * rounding down keeps the result from ever falling as the counts grow, which Prometheus relies on.
 */
export function countUpTo(durations: Float64Array, us: number): number {
  let total = 0
  for (let bucket = 0; bucket < DURATION_BUCKETS; bucket++) {
    const start = bucketStartUs(bucket)
    const end = bucketStartUs(bucket + 1)
    const count = durations[bucket] as number
    if (end > us) return start < us ? total + Math.floor((count * (us - start)) / (end - start)) : total
    total += count
  }
  return total
}
