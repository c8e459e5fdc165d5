// Which endpoints of a service are ejected: get no requests for a while, because they fail where their peers do not.
// Told of each failed attempt, and asked every 100 ms (upstreams.ts). Pure rules over shared records
// (state/endpoint-record.ts): whatever worker judges, all see the same, and one at a time does. It knows no request.
//
//                 it fails, hangs or is slow             its time is over               five successes
//   gets requests ─────────────────────────▶ ejected ─────────────────────▶ probation ───────────────▶ gets requests
//                                               ▲  one failure, or slow or hanging again │
//                                               └────────────────────────────────────────┘
//
// Each judgement compares: what happens to an endpoint must be very unlikely if it were as well as its peers. So a
// service whose endpoints all fail alike ejects none.
import type { Endpoint } from '../../config/compile.js'
import type { OutlierRules } from '../../config/outliers.js'
import { type EjectionReason, type EndpointRecord, FIELD } from '../../state/endpoint-record.js'
import { type EndpointTable, type EndpointTotals, OUT } from '../../state/endpoint-table.js'

/** It happens once in a million times that an endpoint as well as its peers fails so often in a row. */
const UNLIKELY = 1e-6
/** Failures lie this many standard deviations above what its peers let expect. */
const DEVIATIONS = 5
/** Fewest failures, or slow responses, that say something of a share. */
const FEWEST = 5
/** What part of the window its last part is: one in … */
const LATE = 10
/** A share of failures at which nobody can say that the endpoint on probation is worse than its peers. */
const PEERS_FAIL = 0.2
/** On probation: successes, or responses that have begun lately, until it is over. */
const PROBATION = 5
/** A slow response takes at least so much longer than those of its peers. */
const SLOW_BY_US = 3000
/** Responses in the window that tell what an endpoint takes. */
const FEWEST_LATENCIES = 10
/** A look at latencies is over after … and so many responses. */
const LOOK_US = 190_000
const LOOK_LATENCIES = 2
/** Looks in a row that must find it slow; the first number is for probation. */
const SLOW_LOOKS = [2, 3] as const
/** An endpoint hangs that answers nothing for a second, or this many times what its peers take, … */
const SILENT_US = 1e6
const SILENT_TIMES = 10
/** … while they answer so many requests. */
const SILENT_PEERS = 10

const BLOCKED = OUT.down | OUT.drained | OUT.ejected

export interface OutlierChange {
  readonly endpoint: Endpoint
  readonly to: 'ejected' | 'returned'
  readonly reason: EjectionReason
  /** How long it is ejected; 0 where it has returned. */
  readonly forMs: number
}

/** An endpoint in one judgement. */
interface Candidate {
  readonly endpoint: Endpoint
  readonly record: EndpointRecord
  readonly totals: EndpointTotals
  readonly succeeded: number
  /** OUT bits. */
  out: number
}

export class Outliers {
  /** Told by the worker that made the change, once; the log line is its. */
  onChange: ((change: OutlierChange) => void) | null = null
  /** Of the service, now. */
  endpoints: readonly Endpoint[] = []
  readonly rules: OutlierRules
  private readonly table: EndpointTable
  private readonly comparesLatency: boolean

  /** @param comparesLatency false where endpoints get different requests, as those of a hash do */
  constructor(table: EndpointTable, rules: OutlierRules, comparesLatency: boolean) {
    this.table = table
    this.rules = rules
    this.comparesLatency = comparesLatency && Number.isFinite(rules.slow)
  }

  /** An attempt at it has failed that began at `startUs`. */
  failed(slot: number, startUs: number, nowUs: number): void {
    if (this.endpoints.length < 2) return
    const { table } = this
    const record = table.record(slot)
    const out = table.out(slot)
    if ((out & OUT.ejected) !== 0 || startUs < record.get(FIELD.sinceUs)) {
      // It says nothing of the endpoint as it is now. So the window takes it for seen.
      record.set(FIELD.seenFailures, record.get(FIELD.seenFailures) + 1)
      return
    }
    const inRow = record.countFailure(table.succeeded(slot))
    // Beyond that number the next judgement is soon enough.
    if (inRow !== this.rules.failures && (out & OUT.probation) === 0) return
    if (!table.beginJudgement(nowUs, 0)) return
    try {
      this.judge(nowUs)
    } finally {
      table.endJudgement()
    }
  }

  /** On probation it gets one request at a time. What it had before its ejection may still be in flight. */
  admitsOne(slot: number): boolean {
    return this.table.inFlight(slot) <= this.table.record(slot).get(FIELD.returnedInFlight)
  }

  /** Between beginJudgement and endJudgement. */
  judge(nowUs: number): void {
    const all = this.endpoints.map((endpoint) => this.look(endpoint, nowUs))
    for (const one of all) if ((one.out & OUT.ejected) !== 0) this.mayReturn(one, nowUs)
    for (const one of all) {
      if ((one.out & BLOCKED) !== 0) continue
      const peers = peersOf(one, all)
      const reason = this.faultOf(one, peers, nowUs)
      if (reason !== null && this.mayEject(all)) this.eject(one, reason, nowUs)
      else this.spendsTimeWell(one, nowUs)
    }
    this.endInNeed(all, nowUs)
    for (const one of all) one.record.set(FIELD.slowUs, this.slowUs(peersOf(one, all)))
  }

  /** Brings its window up to date. */
  private look(endpoint: Endpoint, nowUs: number): Candidate {
    const { table, rules } = this
    const { slot } = endpoint
    const record = table.record(slot)
    const totals = table.totals(slot)
    const judgedUs = record.get(FIELD.judgedUs)
    const secondBegins = Math.floor(judgedUs / 1e6) !== Math.floor(nowUs / 1e6)
    const windows = (judgedUs - nowUs) / rules.windowUs
    const kept = Math.exp(windows)
    const keptLate = Math.exp(windows * LATE)
    const late = (field: LateField, seen: SeenField, total: number): void => {
      record.set(field, record.get(field) * keptLate + Math.max(0, total - record.get(seen)))
    }
    late(FIELD.lateAttempts, FIELD.seenAttempts, totals.attempts)
    late(FIELD.lateFailures, FIELD.seenFailures, totals.failures)
    const take = (field: WindowField, seen: SeenField, total: number): void => {
      record.set(field, record.get(field) * kept + Math.max(0, total - record.get(seen)))
      record.set(seen, total)
    }
    take(FIELD.attempts, FIELD.seenAttempts, totals.attempts)
    take(FIELD.failures, FIELD.seenFailures, totals.failures)
    take(FIELD.latencyUs, FIELD.seenLatencyUs, totals.latencyUs)
    take(FIELD.latencies, FIELD.seenLatencies, totals.latencies)
    take(FIELD.slow, FIELD.seenSlow, totals.slow)
    record.set(FIELD.judgedUs, nowUs)
    const out = table.out(slot)
    const inFlight = Math.max(0, totals.inFlight)
    // On probation, a long stream or upload must not keep others away until it ends: each second lets in another one.
    const letsIn = (out & OUT.probation) !== 0 && totals.waiting <= 0 && secondBegins
    if (letsIn || inFlight < record.get(FIELD.returnedInFlight)) record.set(FIELD.returnedInFlight, inFlight)
    return { endpoint, record, totals, succeeded: totals.attempts - totals.failures, out }
  }

  /** From where on a response is slow: a multiple of the median of its peers'. 0: not known. */
  private slowUs(peers: readonly Candidate[]): number {
    if (!this.comparesLatency) return 0
    const known = peers.filter(({ record }) => record.get(FIELD.latencies) >= FEWEST_LATENCIES)
    if (known.length === 0) return 0
    const medians = known.map(({ endpoint }) => this.table.medianUs(endpoint.slot)).sort((a, b) => a - b)
    const medianUs = medians[(medians.length - 1) >> 1] as number
    return Math.max(medianUs * this.rules.slow, medianUs + SLOW_BY_US)
  }

  // What is wrong with it.

  private faultOf(one: Candidate, peers: readonly Candidate[], nowUs: number): EjectionReason | null {
    const records = peers.map(({ record }) => record)
    const isSilent = this.isSilent(one, peers, nowUs)
    const isSlow = this.isSlow(one, records, nowUs)
    if (this.failsInRow(one, records)) return 'failures'
    if (this.failsOften(one, records)) return 'ratio'
    if (isSilent) return 'hanging'
    return isSlow ? 'slow' : null
  }

  private failsInRow({ record, succeeded, out }: Candidate, peers: readonly EndpointRecord[]): boolean {
    const inRow = record.failuresInRow(succeeded)
    if (inRow === 0) return false
    const expected = shareOf(peers, FIELD.failures, FIELD.attempts)
    if ((out & OUT.probation) !== 0 && expected < PEERS_FAIL) return true
    return inRow >= this.rules.failures && expected ** inRow <= UNLIKELY
  }

  /** The whole window shows that it is no chance, and the last part of it how often it fails by now. */
  private failsOften({ record }: Candidate, peers: readonly EndpointRecord[]): boolean {
    const expected = shareOf(peers, FIELD.failures, FIELD.attempts)
    const share = record.get(FIELD.lateFailures) / record.get(FIELD.lateAttempts)
    if (!(share - expected >= this.rules.ratio)) return false
    return isUnlikely(record.get(FIELD.failures), record.get(FIELD.attempts), expected)
  }

  private isSlow({ record, totals, out }: Candidate, peers: readonly EndpointRecord[], nowUs: number): boolean {
    const slow = totals.slow - record.get(FIELD.lookSlow)
    // Requests that were given up after too long a wait are slow and have no latency.
    const responses = Math.max(slow, totals.latencies - record.get(FIELD.lookLatencies))
    if (responses >= LOOK_LATENCIES && nowUs - record.get(FIELD.lookUs) >= LOOK_US) {
      record.set(FIELD.slowLooks, slow * 2 >= responses ? record.get(FIELD.slowLooks) + 1 : 0)
      this.beginLook(record, totals, nowUs)
    }
    const onProbation = (out & OUT.probation) !== 0
    if (!this.comparesLatency || record.get(FIELD.slowLooks) < SLOW_LOOKS[onProbation ? 0 : 1]) return false
    const expected = shareOf(peers, FIELD.slow, FIELD.latencies)
    if (onProbation && expected < PEERS_FAIL) return true
    const all = Math.max(record.get(FIELD.slow), record.get(FIELD.latencies))
    return isUnlikely(record.get(FIELD.slow), all, expected)
  }

  private beginLook(record: EndpointRecord, totals: EndpointTotals, nowUs: number): void {
    record.set(FIELD.lookUs, nowUs)
    record.set(FIELD.lookSlow, totals.slow)
    record.set(FIELD.lookLatencies, totals.latencies)
  }

  private isSilent({ record, totals }: Candidate, peers: readonly Candidate[], nowUs: number): boolean {
    const answered = peers.reduce((sum, peer) => sum + peer.totals.latencies, 0)
    const waits = totals.waiting > 0 && totals.inFlight > record.get(FIELD.returnedInFlight)
    const sinceUs = record.get(FIELD.silentSinceUs)
    const hasAnswered = totals.latencies !== record.get(FIELD.silentLatencies)
    if (!waits || hasAnswered || sinceUs === 0) {
      record.set(FIELD.silentSinceUs, waits ? nowUs : 0)
      record.set(FIELD.silentLatencies, totals.latencies)
      record.set(FIELD.peersAnswered, answered)
      return false
    }
    const limitUs = Math.max(SILENT_US, SILENT_TIMES * meanUs(peers.map((peer) => peer.record)))
    return nowUs - sinceUs >= limitUs && answered - record.get(FIELD.peersAnswered) >= SILENT_PEERS
  }

  // What becomes of it.

  /** An operator's drains leave the others to share the requests: they do not count. */
  private mayEject(all: readonly Candidate[]): boolean {
    const considered = all.filter(({ out }) => (out & OUT.drained) === 0)
    const left = considered.filter(({ out }) => (out & BLOCKED) === 0).length
    const most = Math.max(1, Math.floor(considered.length * this.rules.maxShare))
    return left > 1 && considered.length - left < most
  }

  private eject(one: Candidate, reason: EjectionReason, nowUs: number): void {
    const { record, endpoint } = one
    const { ejectForUs, maxEjectForUs } = this.rules
    const streak = record.get(FIELD.streak)
    const forUs = Math.min(ejectForUs * 2 ** streak, maxEjectForUs)
    if (forUs < maxEjectForUs) record.set(FIELD.streak, streak + 1)
    record.set(FIELD.ejectedUntilUs, nowUs + forUs)
    record.set(FIELD.sinceUs, nowUs)
    record.noteEjection(reason)
    this.table.setOut(endpoint.slot, OUT.ejected, true)
    this.table.setOut(endpoint.slot, OUT.probation, false)
    one.out = this.table.out(endpoint.slot)
    this.onChange?.({ endpoint, to: 'ejected', reason, forMs: Math.round(forUs / 1000) })
  }

  private mayReturn(one: Candidate, nowUs: number): void {
    const leftUs = one.record.get(FIELD.ejectedUntilUs) - nowUs
    if (leftUs <= 0 || leftUs > this.rules.maxEjectForUs) this.return(one, true, nowUs)
  }

  private return(one: Candidate, onProbation: boolean, nowUs: number): void {
    const { record, totals, succeeded, endpoint } = one
    for (const field of [...WINDOW, FIELD.lateAttempts, FIELD.lateFailures]) record.set(field, 0)
    record.forgetFailures()
    record.set(FIELD.slowLooks, 0)
    record.set(FIELD.silentSinceUs, 0)
    record.set(FIELD.sinceUs, nowUs)
    record.set(FIELD.returnedSucceeded, succeeded)
    record.set(FIELD.returnedInFlight, Math.max(0, totals.inFlight))
    this.beginLook(record, totals, nowUs)
    if (onProbation) this.table.setOut(endpoint.slot, OUT.probation, true)
    this.table.setOut(endpoint.slot, OUT.ejected, false)
    one.out = this.table.out(endpoint.slot)
    this.onChange?.({ endpoint, to: 'returned', reason: record.reason, forMs: 0 })
  }

  private spendsTimeWell(one: Candidate, nowUs: number): void {
    const { record, endpoint } = one
    if ((one.out & OUT.probation) !== 0) {
      const isLooking = record.get(FIELD.lookUs) === record.get(FIELD.sinceUs)
      const hasLatencies = one.totals.latencies > record.get(FIELD.lookLatencies)
      // Streams may go on for hours: that their heads have come is enough.
      const good = Math.max(one.succeeded - record.get(FIELD.returnedSucceeded), record.get(FIELD.latencies))
      if (good < PROBATION) return
      if ((isLooking && hasLatencies) || record.get(FIELD.slowLooks) > 0) return
      this.table.setOut(endpoint.slot, OUT.probation, false)
      one.out = this.table.out(endpoint.slot)
      record.set(FIELD.returnedInFlight, 0)
      return
    }
    const streak = record.get(FIELD.streak)
    if (streak === 0 || nowUs - record.get(FIELD.sinceUs) < this.rules.maxEjectForUs) return
    record.set(FIELD.streak, streak - 1)
    record.set(FIELD.sinceUs, nowUs)
  }

  /** Where all that are left fail too, those that are ejected may be the better ones by now: they come back at once. */
  private endInNeed(all: readonly Candidate[], nowUs: number): void {
    const left = all.filter(({ out }) => (out & BLOCKED) === 0)
    const { failures } = this.rules
    if (!left.every(({ record, succeeded }) => record.failuresInRow(succeeded) >= failures)) return
    for (const one of all) if ((one.out & OUT.ejected) !== 0) this.return(one, false, nowUs)
  }
}

/** The others that get requests. */
function peersOf(one: Candidate, all: readonly Candidate[]): Candidate[] {
  return all.filter((other) => other !== one && (other.out & BLOCKED) === 0)
}

type WindowField = (typeof WINDOW)[number]
type LateField = typeof FIELD.lateAttempts | typeof FIELD.lateFailures
type SeenField =
  | typeof FIELD.seenAttempts
  | typeof FIELD.seenFailures
  | typeof FIELD.seenLatencyUs
  | typeof FIELD.seenLatencies
  | typeof FIELD.seenSlow

const WINDOW = [FIELD.attempts, FIELD.failures, FIELD.latencyUs, FIELD.latencies, FIELD.slow] as const

function sum(records: readonly EndpointRecord[], field: WindowField): number {
  let total = 0
  for (const record of records) total += record.get(field)
  return total
}

function meanUs(records: readonly EndpointRecord[]): number {
  return sum(records, FIELD.latencyUs) / Math.max(1, sum(records, FIELD.latencies))
}

/** What a share is taken for (Jeffreys' estimate): a half where nothing was counted. Never 0 or 1. */
function shareOf(records: readonly EndpointRecord[], field: WindowField, of: WindowField): number {
  const counted = sum(records, field)
  return (counted + 0.5) / (Math.max(counted, sum(records, of)) + 1)
}

/** `count` of `all` is far more than `expected`, the share of its peers, lets expect. */
function isUnlikely(count: number, all: number, expected: number): boolean {
  const variance = all * expected * (1 - expected)
  return count >= FEWEST && count - all * expected > DEVIATIONS * Math.sqrt(variance)
}
