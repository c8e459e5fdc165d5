// One bucket that a request wants to take from, and what came of it: what policy/rate-limit.ts and the rate table say to each other. Data
// only. Used per request.
import type { KeyHash } from './key-hash.js'
import type { Rate } from './rate.js'

export const VERDICT = {
  admitted: 0,
  refused: 1,
  /** Neither: no slot is free in the key's rows, or a stopped worker holds it. The policy decides. */
  undecided: 2,
} as const

/** Made once per worker and policy, and filled in for each request. */
export class Charge {
  rate: Rate | null = null
  costTicks = 0n
  /** mode: report. Takes part as long as it admits, and never refuses. */
  reports = false
  /** What an undecided one means. */
  admitsUndecided = false
  a = 0
  b = 0
  c = 0
  d = 0

  // What came of it.
  verdict: number = VERDICT.admitted
  /** The bucket's time after the decision, or as it is when refused; a full bucket's is at most now. */
  tat = 0n
  // While deciding: where the bucket lies and what it held.
  line = -1
  seen = 0n

  set(rate: Rate, costTicks: bigint, hash: KeyHash): void {
    this.rate = rate
    this.costTicks = costTicks
    this.a = hash.a
    this.b = hash.b
    this.c = hash.c
    this.d = hash.d
    this.verdict = VERDICT.admitted
  }

  decided(verdict: number, tat: bigint): number {
    this.verdict = verdict
    this.tat = tat
    return verdict
  }
}
