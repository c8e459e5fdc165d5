// What decides about the ejection of one endpoint, in its record of the endpoint table. Workers count failures in a row
// as they happen; all else is written by the one worker that judges (EndpointTable.judge). No rules are here: those are
// in upstream/cluster/outliers.ts.
//
//   record, from byte 16 on
//      16 [Int32] failures in a row
//      20 [Int32] why it was ejected last, an index of EJECTION_REASONS
//      24 [Int32] × 4, ejections by reason
//      40 [Float64] the fields of FIELD, each at 8 times its number

export const EJECTION_REASONS = ['failures', 'ratio', 'slow', 'hanging'] as const
export type EjectionReason = (typeof EJECTION_REASONS)[number]

const FAILURES_32 = 4
const REASON_32 = 5
const EJECTIONS_32 = 6

export const FIELD = {
  /** Ejections in a row: each doubles the time, and time well spent takes one off. */
  streak: 5,
  ejectedUntilUs: 6,
  /** When it was ejected, came back, or had one ejection taken off. */
  sinceUs: 7,
  /** Attempts that had succeeded when one failed last: if there are more now, failures are in a row no longer. */
  succeeded: 8,
  /** Since when it has answered nothing though requests wait, and what its peers had answered then; 0: it answers. */
  silentSinceUs: 9,
  peersAnswered: 10,
  /** From where on a response is slow; 0: none is. */
  slowUs: 11,
  judgedUs: 12,
  // Counts of the window: older ones have faded.
  attempts: 13,
  failures: 14,
  latencyUs: 15,
  latencies: 16,
  slow: 17,
  // What the table had counted when the window was last brought up to date.
  seenAttempts: 18,
  seenFailures: 19,
  seenLatencyUs: 20,
  seenLatencies: 21,
  seenSlow: 22,
  // A look at its latencies: when it began, what the table had counted then, and how many in a row found it slow.
  lookUs: 23,
  lookLatencies: 24,
  lookSlow: 25,
  slowLooks: 26,
  // Probation: what had succeeded when it began, and what is still in flight from before.
  returnedSucceeded: 27,
  returnedInFlight: 28,
  /** Its responses when it was last seen to answer. */
  silentLatencies: 29,
  // Counts of the last tenth of the window.
  lateAttempts: 30,
  lateFailures: 31,
} as const

export type Field = (typeof FIELD)[keyof typeof FIELD]

export class EndpointRecord {
  private readonly ints: Int32Array
  private readonly floats: Float64Array

  /** Both are the record alone. */
  constructor(ints: Int32Array, floats: Float64Array) {
    this.ints = ints
    this.floats = floats
  }

  get(field: Field): number {
    return this.floats[field] as number
  }

  set(field: Field, value: number): void {
    this.floats[field] = value
  }

  /** Any worker. @param succeeded of all attempts, by now @returns failures in a row */
  countFailure(succeeded: number): number {
    if (this.floats[FIELD.succeeded] === succeeded) return Atomics.add(this.ints, FAILURES_32, 1) + 1
    this.floats[FIELD.succeeded] = succeeded
    Atomics.store(this.ints, FAILURES_32, 1)
    return 1
  }

  failuresInRow(succeeded: number): number {
    return this.floats[FIELD.succeeded] === succeeded ? Atomics.load(this.ints, FAILURES_32) : 0
  }

  forgetFailures(): void {
    Atomics.store(this.ints, FAILURES_32, 0)
  }

  get reason(): EjectionReason {
    return EJECTION_REASONS[Atomics.load(this.ints, REASON_32)] ?? 'failures'
  }

  noteEjection(reason: EjectionReason): void {
    const index = EJECTION_REASONS.indexOf(reason)
    Atomics.store(this.ints, REASON_32, index)
    Atomics.add(this.ints, EJECTIONS_32 + index, 1)
  }

  ejections(reason: EjectionReason): number {
    return Atomics.load(this.ints, EJECTIONS_32 + EJECTION_REASONS.indexOf(reason))
  }
}
