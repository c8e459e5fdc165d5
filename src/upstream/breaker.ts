// Whether a service is called at all: asked before each attempt, told how it ended. Runs per request. Pure rules over
// the shared record (state/breaker-table.ts); it knows neither endpoints nor requests, and all workers see the same
// state.
//
//              enough failed or slow                    open time over                 all probes passed
//   closed ──────────────────────────▶ open ──────────────────────────▶ half_open ──────────────────────────▶ ramp
//     ▲                                 ▲  a probe failed, or too many were slow │                              │ │
//     │                                 └────────────────────────────────────────┘                              │ │
//     │                                 └─ enough failed or slow ───────────────────────────────────────────────┘ │
//     └────────────────────────────────────────────────────────────────────────────── ramp over ──────────────────┘
//
// Each change raises the generation, and a permit carries the one it was given in: a call that ends in another says
// nothing about it. Open time doubles with each opening that no ramp's end came between.
import type { BreakerRules, Service } from '../config/compile.js'
import {
  type BreakerChange,
  type BreakerReason,
  type BreakerRecord,
  type BreakerSnapshot,
  type BreakerState,
  HOLD,
  MAX_PROBES,
  MAX_STREAK,
  STATE,
  STATE_NAMES,
} from '../state/breaker-record.js'
import type { BreakerTable } from '../state/breaker-table.js'

export const OUTCOME = { ok: 0, failed: 1, slow: 2, ignored: 3 } as const

const WINDOW_BUCKETS = 10
/** A ramp begins with this share of the traffic. */
const RAMP_START = 0.1
/**
 * What a probe may take longer than the service's total timeout before another goes in its place; with no timeout, or a
 * long one, …
 */
const LEASE_GRACE_MS = 5000
/** … no more than this: a stream that is open for hours must not keep the breaker half open. */
const LONGEST_LEASE_MS = 60_000
const REFUSED = -1
/** A permit: the probe's place + 1, 0 for other calls, in 6 bits; the generation in 22; the probe's lease in 3. */
const LEASE_SHIFT = 28
/** For a service without rules: closed for ever. */
const NEVER: BreakerRules = {
  windowMs: 10_000,
  minRequests: Number.POSITIVE_INFINITY,
  failureRatio: 1,
  slowCallMs: Number.MAX_SAFE_INTEGER,
  slowRatio: 1,
  openForMs: 1000,
  maxOpenForMs: 1000,
  probes: 1,
  rampMs: 0,
  failureStatuses: new Set(),
}

export class Breaker {
  /** Told by the worker that made the change, once; the log line is its. */
  onChange: ((change: BreakerChange) => void) | null = null
  private readonly record: BreakerRecord
  private readonly rules: BreakerRules
  private readonly probes: number
  private readonly bucketMs: number
  private readonly leaseMs: number

  /** @param workerIndex whose permits releaseWorker() gives back when it dies, 0 to 255 */
  constructor(
    table: BreakerTable,
    service: Pick<Service, 'name' | 'breaker' | 'totalTimeoutMs'>,
    private readonly workerIndex: number,
  ) {
    this.record = table.record(service.name)
    this.rules = service.breaker ?? NEVER
    this.probes = Math.min(this.rules.probes, MAX_PROBES)
    this.bucketMs = Math.max(1, Math.ceil(this.rules.windowMs / WINDOW_BUCKETS))
    const timeoutMs = service.totalTimeoutMs > 0 ? service.totalTimeoutMs : LONGEST_LEASE_MS
    this.leaseMs = Math.min(timeoutMs, LONGEST_LEASE_MS) + LEASE_GRACE_MS
  }

  /** A permit for report(), or −1: not now. Each permit must come back, or a probe's is out until its lease ends. */
  admit(nowUs: number): number {
    const low = this.record.state()
    // Closed and not held: the rest of the lower half is the streak, 0 then, and the generation.
    if ((low & 0x3ff) === 0) return (low >>> 10) << 6
    return this.admitUnclosed(low, Math.floor(nowUs / 1000), nowUs)
  }

  /** Every call is refused for now: nobody need wait for its body. */
  isShut(nowUs: number): boolean {
    const low = this.record.state()
    const hold = (low >> 3) & 3
    if (hold !== HOLD.none) return hold === HOLD.open
    if ((low & 7) !== STATE.open) return false
    const leftMs = this.record.untilDeadlineMs(low, Math.floor(nowUs / 1000))
    return leftMs > 0 && leftMs <= this.rules.maxOpenForMs
  }

  /** An operator has it refuse every call. */
  get isHeldOpen(): boolean {
    return ((this.record.state() >> 3) & 3) === HOLD.open
  }

  /** What a call that ended with this status says of the service. @param spentUs how long the service took for it */
  outcomeOf(status: number, spentUs: number): number {
    if (this.rules.failureStatuses.has(status)) return OUTCOME.failed
    return spentUs > this.rules.slowCallMs * 1000 ? OUTCOME.slow : OUTCOME.ok
  }

  /** How the call ended. Once per permit. */
  report(permit: number, outcome: number, nowUs: number): void {
    const low = this.record.state()
    if (low >>> 10 !== generationOf(permit)) return
    const slot = (permit & 63) - 1
    const nowMs = Math.floor(nowUs / 1000)
    if (slot >= 0) this.reportProbe(low, slot, permit >>> LEASE_SHIFT, outcome, nowMs, nowUs)
    else if (outcome !== OUTCOME.ignored) this.reportCall(low, outcome, nowMs, nowUs)
  }

  private reportCall(low: number, outcome: number, nowMs: number, nowUs: number): void {
    this.record.count(outcome, nowMs, this.bucketMs)
    const failed = this.record.counted(OUTCOME.failed)
    const slow = this.record.counted(OUTCOME.slow)
    if (failed === 0 && slow === 0) return
    const { rules } = this
    const calls = failed + slow + this.record.counted(OUTCOME.ok)
    if (calls < rules.minRequests || ((low >> 3) & 3) !== HOLD.none) return
    if (failed >= rules.failureRatio * calls) this.open(low, 'failures', nowMs, nowUs)
    else if (slow >= rules.slowRatio * calls) this.open(low, 'slow_calls', nowMs, nowUs)
  }

  private admitUnclosed(first: number, nowMs: number, nowUs: number): number {
    const { record, rules } = this
    for (let low = first; ; low = record.state()) {
      const state = low & 7
      const hold = (low >> 3) & 3
      const permit = (low >>> 10) << 6
      if (hold === HOLD.closed) return permit
      if (hold === HOLD.open) break
      if (state === STATE.closed) return permit
      if (state === STATE.open) {
        const leftMs = record.untilDeadlineMs(low, nowMs)
        if (Number.isNaN(leftMs)) continue
        // One further off than it can be has wrapped: the gateway was off for weeks.
        if (leftMs > 0 && leftMs <= rules.maxOpenForMs) break
        this.change(low, STATE.halfOpen, 'open_time_over', nowMs, nowUs)
      } else if (state === STATE.halfOpen) {
        const slot = record.takeProbe(low >>> 10, this.probes, this.workerIndex, nowMs, this.leaseMs)
        if (slot < 0) break
        if (record.state() === low) return permit | (slot + 1) | (record.lease(slot) << LEASE_SHIFT)
      } else {
        const leftMs = record.untilDeadlineMs(low, nowMs)
        if (Number.isNaN(leftMs)) continue
        if (leftMs > 0 && leftMs <= rules.rampMs) {
          if (record.takeShare(1 - ((1 - RAMP_START) * leftMs) / rules.rampMs)) return permit
          break
        }
        this.change(low, STATE.closed, 'ramp_over', nowMs, nowUs)
      }
    }
    record.noteRefusal()
    return REFUSED
  }

  private reportProbe(low: number, slot: number, lease: number, outcome: number, nowMs: number, nowUs: number): void {
    const generation = low >>> 10
    // Its permit goes with the generation: given back before, it would let another probe through.
    if (outcome === OUTCOME.failed) return this.open(low, 'probe_failed', nowMs, nowUs)
    // It took too long, and this worker has sent another in its place, which alone may give the permit back.
    if (this.record.lease(slot) !== lease) return
    const to = outcome === OUTCOME.ok ? 'ok' : outcome === OUTCOME.slow ? 'slow' : 'free'
    if (!this.record.endProbe(generation, slot, this.workerIndex, to) || to === 'free') return
    const slow = this.record.slowProbes(generation, this.probes)
    if (slow < 0) return
    if (slow > 0 && slow >= this.rules.slowRatio * this.probes) {
      this.open(low, 'probes_slow', nowMs, nowUs)
      return
    }
    this.record.restart(nowMs, this.bucketMs)
    this.change(low, this.rules.rampMs > 0 ? STATE.ramp : STATE.closed, 'probes_passed', nowMs, nowUs)
  }

  private open(low: number, reason: BreakerReason, nowMs: number, nowUs: number): void {
    this.change(low, STATE.open, reason, nowMs, nowUs)
  }

  private change(low: number, to: number, reason: BreakerReason, nowMs: number, nowUs: number): void {
    const { rules } = this
    let streak = (low >> 5) & MAX_STREAK
    let deadlineMs = nowMs
    if (to === STATE.open) {
      streak = Math.min(streak + 1, MAX_STREAK)
      deadlineMs += Math.min(rules.openForMs * 2 ** (streak - 1), rules.maxOpenForMs)
    } else if (to === STATE.ramp) deadlineMs += rules.rampMs
    else if (to === STATE.closed) streak = 0
    if (!this.record.change(low, to, HOLD.none, streak, deadlineMs)) return
    this.record.noteChange(to, reason, nowUs)
    this.onChange?.({ from: STATE_NAMES[low & 7]!, to: STATE_NAMES[to]!, reason })
  }

  /** For Retry-After, at least 1: until the first probe, where that is known. */
  retryAfterSeconds(nowUs: number): number {
    const low = this.record.state()
    const leftMs = (low & 7) === STATE.open ? this.record.untilDeadlineMs(low, Math.floor(nowUs / 1000)) : 0
    return leftMs > 0 && leftMs <= this.rules.maxOpenForMs ? Math.max(1, Math.ceil(leftMs / 1000)) : 1
  }

  /** What it would be if nobody held it. */
  get state(): BreakerState {
    return STATE_NAMES[this.record.state() & 7] ?? 'closed'
  }

  snapshot(nowUs?: number): BreakerSnapshot {
    return this.record.snapshot(nowUs)
  }
}

export function generationOf(permit: number): number {
  return (permit >>> 6) & 0x3fffff
}
