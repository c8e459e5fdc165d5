// Computes quantiles of counted durations, on demand. The only user of hdr-histogram-js, which takes 3 MiB and is never
// loaded by a worker.
import * as hdr from 'hdr-histogram-js'
import { bucketStartUs, DURATION_BUCKETS, MAX_DURATION_US } from '../state/durations.js'

/** 64-bit counts: the default of 32 wraps after a day of traffic. */
function newHdr(): hdr.Histogram {
  return hdr.build({ bitBucketSize: 64, numberOfSignificantValueDigits: 2, highestTrackableValue: MAX_DURATION_US })
}

/**
 * Turns the counts into an HDR histogram of microseconds. Each bucket enters at its middle, so that a quantile is
 * within 4 % of the true one. `into` is reset and returned; without it a new one is made.
 */
export function toHdr(durations: Float64Array, into: hdr.Histogram = newHdr()): hdr.Histogram {
  into.reset()
  for (let bucket = 0; bucket < DURATION_BUCKETS; bucket++) {
    const count = durations[bucket] as number
    if (count > 0) into.recordValueWithCount(Math.floor((bucketStartUs(bucket) + bucketStartUs(bucket + 1)) / 2), count)
  }
  return into
}
