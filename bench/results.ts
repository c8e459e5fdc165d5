// From samples to what is printed, drawn and written: one Result per contender and case, and how they compare. Pure.
import { encode, merged, percentileMs } from './histogram.js'
import type { Machine } from './machine.js'
import type { CaseRun, Sample } from './rounds.js'
import { type Case, type Contender, title } from './scenarios.js'
import { type Figure, figure, median, noiseFloor, ratio, SMALLEST_FLOOR, type Verdict, verdict } from './stats.js'

/**
 * min and max over rounds. For latencies `median` is the percentile of all rounds' answers together, not of the rounds.
 */
export interface Result {
  readonly scenario: string
  readonly variant: string
  readonly target: string
  readonly cpuUsPerRequest: Figure
  /** Round by round, as it was paired: rounds of one case have the same position in all its results. */
  readonly cpuUsPerRequestByRound: readonly number[]
  readonly rps: Figure
  readonly p50Ms: Figure
  readonly p90Ms: Figure
  readonly p99Ms: Figure
  readonly p999Ms: Figure
  readonly maxMs: Figure
  readonly rounds: number
  readonly requests: number
  readonly errors: number
  readonly non2xx: number
  /** Answers with another status than the case is about. */
  readonly unexpected: number
  readonly bytesPerCpuSecond: Figure
  /** Of the largest process of the target. */
  readonly rssMiB: number
  /** Share of a core that the target, the load generator and the origin used. */
  readonly busy: { readonly target: number; readonly load: number; readonly origin: number }
  readonly marks: readonly string[]
  /** Lines of its own access log about what went wrong. */
  readonly evidence: readonly string[]
  /** HDR, µs, compressed base64: to merge with other runs. */
  readonly histogram: string
  /** CPU per request of `subject` (tidegate, where it takes part) divided by this target's. */
  readonly against: {
    readonly subject: string
    readonly ratio: number
    readonly within: number
    readonly verdict: Verdict
  } | null
}

export interface CaseResult {
  readonly spec: Case
  readonly title: string
  readonly requestsPerSecond: number | null
  readonly results: readonly Result[]
  readonly refused: readonly { readonly target: string; readonly why: string }[]
  readonly noiseFloor: number
  readonly noiseMeasured: boolean
  /** Share of the machine that processes used which have no part in this; the median of all turns. */
  readonly othersShare: number
}

export interface Report {
  readonly startedAt: string
  readonly tookSeconds: number
  readonly command: string
  readonly load: string
  readonly machine: Machine & { readonly stolenPercent: number; readonly loadAverageAtEnd: number }
  readonly versions: Readonly<Record<string, string>>
  readonly skipped: readonly { readonly target: string; readonly missing: string; readonly install: string }[]
  readonly noiseFloor: Readonly<Record<string, number>>
  readonly cases: readonly CaseResult[]
}

/** `borrowedFloor`: of a case before, for one that does not measure its own. */
export function summarise(run: CaseRun, loadCores: number, borrowedFloor: number): CaseResult {
  const cpu = new Map(
    [...run.samples].map(([contender, samples]) => [contender, samples.map((one) => one.cpuUsPerRequest)]),
  )
  const contenders = [...run.samples.keys()]
  const again = contenders.find((one) => one.again)
  const original = contenders.find((one) => !one.again && one.target === again?.target && one.slowedBy === 0)
  const measured = again !== undefined && original !== undefined
  const floor = measured
    ? noiseFloor(ratio(cpu.get(again)!, cpu.get(original)!))
    : Math.max(borrowedFloor, SMALLEST_FLOOR)
  const subject = contenders.find((one) => one.target.startsWith('tidegate')) ?? contenders[0]
  const results = contenders.map((contender) => {
    const samples = run.samples.get(contender)!
    const compared = contender === subject ? null : ratio(cpu.get(subject!)!, cpu.get(contender)!)
    const against = compared && { subject: subject!.label, ratio: compared.value, ...verdict(compared, floor) }
    return result(run, contender, samples, loadCores, against)
  })
  return {
    spec: run.spec,
    title: title(run.spec),
    requestsPerSecond: run.requestsPerSecond,
    results,
    refused: [...run.refused].map(([contender, why]) => ({ target: contender.label, why })),
    noiseFloor: floor,
    noiseMeasured: measured,
    othersShare: median([...run.samples.values()].flat().map((one) => one.othersShare)),
  }
}

function result(
  { spec, requestsPerSecond }: CaseRun,
  contender: Contender,
  samples: readonly Sample[],
  loadCores: number,
  against: Result['against'],
): Result {
  const all = merged(samples.map((one) => one.result.latencyUs))
  const percentile = (percent: number): Figure => ({
    ...figure(samples.map((one) => percentileMs(one.result.latencyUs, percent))),
    median: percentileMs(all, percent),
  })
  const sum = (of: (sample: Sample) => number) => samples.reduce((total, one) => total + of(one), 0)
  const requests = sum((one) => one.result.requests)
  const non2xx = sum((one) => one.result.non2xx)
  const durationUs = sum((one) => one.result.durationMs) * 1000
  const busy = {
    target: sum((one) => one.targetCpuUs) / durationUs,
    load: sum((one) => one.loadCpuUs) / durationUs,
    origin: sum((one) => one.originCpuUs) / durationUs,
  }
  const partial = {
    errors: sum((one) => one.result.errors),
    unexpected:
      spec.expect === 200 ? non2xx : Math.max(0, requests - non2xx - admitted(spec, samples.length, durationUs)),
  }
  const rps = figure(samples.map((one) => (one.result.requests / one.result.durationMs) * 1000))
  return {
    scenario: spec.scenario,
    variant: spec.variant,
    target: contender.label,
    cpuUsPerRequest: figure(samples.map((one) => one.cpuUsPerRequest)),
    cpuUsPerRequestByRound: samples.map((one) => one.cpuUsPerRequest),
    rps,
    p50Ms: percentile(50),
    p90Ms: percentile(90),
    p99Ms: percentile(99),
    p999Ms: percentile(99.9),
    maxMs: percentile(100),
    rounds: samples.length,
    requests,
    ...partial,
    non2xx,
    bytesPerCpuSecond: figure(samples.map((one) => ((spec.answerBytes + spec.bodyBytes) * 1e6) / one.cpuUsPerRequest)),
    rssMiB: Math.round(Math.max(...samples.map((one) => one.rssMiB)) * 10) / 10,
    busy,
    marks: marks(partial, busy, loadCores, rps.median, requestsPerSecond, samples),
    evidence: samples.flatMap((one) => one.evidence).slice(0, 5),
    histogram: encode(all),
    against,
  }
}

/** What a limit of 10/s with a burst of 10 lets through, and a little more for the gate and the time between rounds. */
function admitted(spec: Case, rounds: number, durationUs: number): number {
  return spec.expect === 429 ? 10 * (rounds + 1) + (durationUs / 1e6) * 10 * 12 : 0
}

function marks(
  bad: { errors: number; unexpected: number },
  busy: Result['busy'],
  loadCores: number,
  rps: number,
  requestsPerSecond: number | null,
  samples: readonly Sample[],
): string[] {
  const found: string[] = []
  if (bad.errors > 0) found.push(`${bad.errors} errors`)
  if (bad.unexpected > 0) found.push(`${bad.unexpected} wrong statuses`)
  // The one thread of the generator, or its cores together with the origin's share of them.
  const full = busy.load >= 0.93 || busy.load + busy.origin >= 0.93 * loadCores
  if (requestsPerSecond === null && full && busy.target < 0.93)
    found.push('limited by the load generator or the origin')
  if (requestsPerSecond !== null && rps < 0.98 * requestsPerSecond) found.push('did not keep up with the rate')
  const lags = samples.flatMap((one) => (one.generatorLagUs === null ? [] : [one.generatorLagUs]))
  if (lags.length > 0) {
    const lagMs = percentileMs(merged(lags), 99.9)
    if (lagMs > 2) found.push(`the generator itself was up to ${lagMs.toFixed(1)} ms late (p99.9)`)
  }
  return found
}
