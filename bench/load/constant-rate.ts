// Requests at a rate that does not depend on the answers: latency counts from the moment a request was due, so a target
// that stalls pays for every request that should have been sent meanwhile (no coordinated omission). Works without wrk.
import { decode, type Histogram } from '../histogram.js'
import { runChild } from './child-load.js'
import type { Load, LoadResult } from './load.js'

export const CONSTANT_RATE = 'constant-rate'

export interface RateResult extends LoadResult {
  /** How late the generator itself was although a connection was free. */
  readonly generatorLagUs: Histogram
  /** Those of the errors that are requests which never left: no connection was free until the end. */
  readonly unsent: number
}

export async function constantRate(load: Load, requestsPerSecond: number): Promise<RateResult> {
  const { lagUs, unsent, ...result } = await runChild('./constant-rate-process.js', load, { requestsPerSecond })
  return { ...result, generatorLagUs: decode(lagUs!), unsent: unsent! }
}
