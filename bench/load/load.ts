// What every load generator is asked and what it answers. wrk when it is on the machine, autocannon otherwise;
// constant-rate for `rate`.
import type { Histogram } from '../histogram.js'

export interface Load {
  readonly port: number
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly bodyFile: string | null
  readonly bodyBytes: number
  readonly connections: number
  readonly keepAlive: boolean
  readonly durationMs: number
  /** The CPU list it is held to, or null. */
  readonly cpus: string | null
  readonly threads: number
}

export interface LoadResult {
  readonly requests: number
  readonly durationMs: number
  /** Connections refused or reset, answers cut short, timeouts. */
  readonly errors: number
  /** Answers with another status than 2xx, whether that was wanted or not. */
  readonly non2xx: number
  readonly latencyUs: Histogram
}

export interface LoadGenerator {
  readonly name: string
  run(load: Load): Promise<LoadResult>
}
