// One run from start to end: finds out what is here, starts the origin, measures case after case, ends everything.
// `run` and `compare` differ in their targets and in what they make of the report.
import { loadavg } from 'node:os'
import { machineTicks } from './cpu.js'
import { Instances, Origin } from './instances.js'
import { autocannon } from './load/autocannon.js'
import { CONSTANT_RATE } from './load/constant-rate.js'
import type { LoadGenerator } from './load/load.js'
import { wrk } from './load/wrk.js'
import { cores, machine } from './machine.js'
import type { Planned } from './plan.js'
import { caseTable, head } from './report-table.js'
import { type CaseResult, type Report, summarise } from './results.js'
import { type Bench, runCase } from './rounds.js'
import { type Case, CEILING_TARGETS } from './scenarios.js'
import { median } from './stats.js'
import type { Target } from './targets/target.js'

const CEILING_ROUNDS = 3

export interface Inventory {
  readonly targets: ReadonlyMap<string, Target>
  readonly versions: Record<string, string>
  readonly skipped: { target: string; missing: string; install: string }[]
  readonly generator: LoadGenerator
}

export async function inventory(all: readonly Target[]): Promise<Inventory> {
  const targets = new Map<string, Target>()
  const versions: Inventory['versions'] = {}
  const skipped: Inventory['skipped'] = []
  for (const target of all) {
    const found = await target.available()
    if ('version' in found) {
      targets.set(target.name, target)
      versions[target.name] = found.version
    } else skipped.push({ target: target.name, ...found })
  }
  const fast = await wrk()
  if (fast === null)
    skipped.push({
      target: 'wrk',
      missing: 'autocannon is used instead, which limits most targets',
      install: 'apt-get install wrk',
    })
  const generator = fast ?? autocannon()
  if (generator === null)
    throw new Error('no load generator: npm install brings autocannon, apt-get install wrk the faster one')
  return { targets, versions, skipped, generator }
}

export async function measure(found: Inventory, planned: readonly Planned[]): Promise<Report> {
  const startedAt = new Date()
  const shared = await cores()
  const about = machine(shared)
  const ticksAtStart = machineTicks()
  const origin = await Origin.start(shared.load)
  const instances = new Instances(found.targets, shared, origin)
  const progress = new Progress(planned.length)
  const bench: Bench = {
    instances,
    origin,
    generator: found.generator,
    cores: shared,
    progress: (text) => progress.show(text),
  }
  const usesRate = planned.some(({ spec }) => spec.ratePercent !== undefined)
  const load = `${found.generator.name}${usesRate ? `, ${CONSTANT_RATE} for rate` : ''}`
  console.log(`${head({ machine: { ...about, stolenPercent: 0, loadAverageAtEnd: 0 }, load, ...found })}\n`)
  const results: CaseResult[] = []
  let ceiling: number | null = null
  for (const { spec, contenders } of planned) {
    progress.next(spec)
    if (spec.ratePercent !== undefined) {
      ceiling ??= known(results) ?? (await closedLoop(bench, spec, contenders))
      if (ceiling === null) continue // nothing that could be measured: the cases before have said why
    }
    const result = summarise(await runCase(bench, spec, contenders, ceiling), shared.loadCount, borrowedFloor(results))
    results.push(result)
    progress.clear()
    console.log(`${caseTable(result)}\n`)
  }
  await Promise.all([instances.stopAll(), origin.stop()])
  const ticks = machineTicks()
  return {
    startedAt: startedAt.toISOString(),
    tookSeconds: Math.round((Date.now() - startedAt.getTime()) / 100) / 10,
    command: process.argv.slice(2).join(' '),
    load,
    machine: {
      ...about,
      stolenPercent:
        Math.round((1000 * (ticks.stolen - ticksAtStart.stolen)) / Math.max(1, ticks.total - ticksAtStart.total)) / 10,
      loadAverageAtEnd: Math.round(loadavg()[0]! * 100) / 100,
    },
    versions: found.versions,
    skipped: found.skipped,
    noiseFloor: Object.fromEntries(
      results.filter((one) => one.noiseMeasured).map((one) => [one.title, one.noiseFloor]),
    ),
    cases: results,
  }
}

/**
 * For cases that have no second process of one build: the floor of the same job under full load, or the widest there
 * is.
 */
function borrowedFloor(results: readonly CaseResult[]): number {
  const measured = results.filter((one) => one.noiseMeasured)
  const wholeJob = measured.find((one) => one.spec.scenario === 'whole-job')
  return wholeJob?.noiseFloor ?? Math.max(0, ...measured.map((one) => one.noiseFloor))
}

/**
 * The ceiling rates are percentages of: what the first of these targets reached with the whole job, one worker, all it
 * could.
 */
function known(results: readonly CaseResult[]): number | null {
  const whole = results.find((one) => one.spec.scenario === 'whole-job')
  for (const name of CEILING_TARGETS) {
    const rps = whole?.results.find((one) => one.target === name)?.rps.median
    if (rps !== undefined) return rps
  }
  return null
}

async function closedLoop(bench: Bench, spec: Case, contenders: Planned['contenders']): Promise<number | null> {
  const { ratePercent: _, ...closed } = spec
  for (const name of CEILING_TARGETS) {
    const contender = contenders.find((one) => one.target === name)
    if (contender === undefined) continue
    const run = await runCase(bench, { ...closed, rounds: CEILING_ROUNDS }, [contender], null)
    const samples = run.samples.get(contender)
    if (samples !== undefined) return median(samples.map((one) => (one.result.requests / one.result.durationMs) * 1000))
  }
  return null
}

/** On a terminal one line that is written over; nothing otherwise, since the tables come as they are done. */
class Progress {
  private at = 0
  private label = ''
  constructor(private readonly total: number) {}

  next(spec: Case): void {
    this.at++
    this.label = `${spec.scenario} ${spec.variant}`.trim()
    if (!process.stderr.isTTY) process.stderr.write(`[${this.at}/${this.total}] ${this.label}\n`)
  }

  show(text: string): void {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K[${this.at}/${this.total}] ${this.label}: ${text}`)
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  }
}
