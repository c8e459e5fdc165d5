// Measures one case: contenders take turns, in another order each round, and each turn is one sample.
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { cpuOf, endedChildrenUs, machineTicks, othersShare, spentUs } from './cpu.js'
import { badSignature, HOST, refusal, requestBody } from './gate.js'
import type { Histogram } from './histogram.js'
import type { Instance, Instances, Origin } from './instances.js'
import { constantRate } from './load/constant-rate.js'
import type { Load, LoadGenerator, LoadResult } from './load/load.js'
import type { Cores } from './machine.js'
import { workFolder } from './processes.js'
import type { Case, Contender } from './scenarios.js'
import { sign } from './signature.js'
import { generator } from './stats.js'

/**
 * Long enough for a target to notice that its connections were closed, so that this is counted with the round it
 * belongs to.
 */
const SETTLE_MS = 25
const WARM_UP_REQUESTS = 10_000
const WARM_UP_STEP_MS = 200
const WARM_UP_LONGEST_MS = 3000
/** A step that costs no less than this share of the cheapest before it brought nothing more. */
const SETTLED = 0.96
const WARM_UP_CONNECTIONS = 64

export interface Sample {
  readonly cpuUsPerRequest: number
  readonly result: LoadResult
  readonly targetCpuUs: number
  readonly loadCpuUs: number
  readonly originCpuUs: number
  /** Of the machine, what processes used that have no part in this. */
  readonly othersShare: number
  readonly rssMiB: number
  readonly generatorLagUs: Histogram | null
  /** Where something went wrong: what the target's own log says of it. */
  readonly evidence: readonly string[]
}

export interface CaseRun {
  readonly spec: Case
  readonly samples: ReadonlyMap<Contender, readonly Sample[]>
  /** Left out, and why. */
  readonly refused: ReadonlyMap<Contender, string>
  readonly requestsPerSecond: number | null
}

export interface Bench {
  readonly instances: Instances
  readonly origin: Origin
  readonly generator: LoadGenerator
  readonly cores: Cores
  readonly progress: (text: string) => void
}

export async function runCase(
  bench: Bench,
  spec: Case,
  contenders: readonly Contender[],
  ceilingRps: number | null,
): Promise<CaseRun> {
  const samples = new Map<Contender, Sample[]>()
  const refused = new Map<Contender, string>()
  const instances: [Contender, Instance][] = []
  const requestsPerSecond =
    spec.ratePercent === undefined || ceilingRps === null ? null : (ceilingRps * spec.ratePercent) / 100
  const admissions = await Promise.all(contenders.map((contender) => admit(bench, spec, contender)))
  for (const [i, contender] of contenders.entries()) {
    const admitted = admissions[i]!
    if (typeof admitted === 'string') {
      refused.set(contender, admitted)
      continue
    }
    bench.progress(`warming ${contender.label}`)
    await warmUp(bench, spec, admitted)
    samples.set(contender, [])
    instances.push([contender, admitted])
  }
  for (let round = 0; round < spec.rounds; round++) {
    for (const [contender, instance] of shuffled(instances, round)) {
      bench.progress(`round ${round + 1}/${spec.rounds} ${contender.label}`)
      samples.get(contender)!.push(await turn(bench, spec, instance, requestsPerSecond))
    }
  }
  return { spec, samples, refused, requestsPerSecond }
}

/** Started and correct, or the reason why not. */
async function admit(bench: Bench, spec: Case, contender: Contender): Promise<Instance | string> {
  try {
    bench.progress(`starting ${contender.label}`)
    const instance = await bench.instances.of(contender, spec)
    return (await refusal(spec, instance.port, bench.origin.port)) ?? instance
  } catch (error) {
    return (error as Error).message
  }
}

/**
 * Until it no longer gets cheaper: what a compiler needs to have seen is requests, not time, and a busy machine brings
 * them slowly. Once for each way a request can go through an instance.
 */
async function warmUp(bench: Bench, spec: Case, instance: Instance): Promise<void> {
  const way = `${spec.method} ${spec.path} ${spec.signature} ${spec.keepAlive}`
  if (instance.warmFor.has(way)) return
  const connections = Math.min(WARM_UP_CONNECTIONS, Math.max(spec.connections, 16))
  const job = { ...load(bench, spec, instance), connections, durationMs: WARM_UP_STEP_MS }
  const deadlineMs = performance.now() + WARM_UP_LONGEST_MS
  let served = 0
  let cheapestUs = Number.POSITIVE_INFINITY
  let settled = 0
  while (performance.now() < deadlineMs && (served < WARM_UP_REQUESTS || settled < 2)) {
    const before = cpuOf(instance.pids)
    const { requests } = await bench.generator.run(job)
    const costUs = spentUs(before, cpuOf(instance.pids)) / requests
    served += requests
    settled = costUs > cheapestUs * SETTLED ? settled + 1 : 0
    cheapestUs = Math.min(cheapestUs, costUs)
  }
  instance.warmFor.add(way)
}

async function turn(bench: Bench, spec: Case, instance: Instance, requestsPerSecond: number | null): Promise<Sample> {
  instance.emptyLog()
  const forwardedBefore = await bench.origin.answered()
  const originBefore = cpuOf([bench.origin.pid])
  const loadBefore = endedChildrenUs()
  const before = cpuOf(instance.pids)
  const job = load(bench, spec, instance)
  const ticks = machineTicks()
  const own = process.cpuUsage()
  const result =
    requestsPerSecond === null ? await bench.generator.run(job) : await constantRate(job, requestsPerSecond)
  await wait(SETTLE_MS)
  const targetCpuUs = spentUs(before, cpuOf(instance.pids))
  // What was in flight when the load stopped was worked on but not reported: the origin knows of it.
  const served = Math.max(result.requests, (await bench.origin.answered()) - forwardedBefore)
  const loadCpuUs = endedChildrenUs() - loadBefore
  const originCpuUs = spentUs(originBefore, cpuOf([bench.origin.pid]))
  const harness = process.cpuUsage(own)
  const ownUs = targetCpuUs + loadCpuUs + originCpuUs + harness.user + harness.system
  const others = othersShare(ticks, machineTicks(), ownUs)
  const wrong = result.errors > 0 || (spec.expect === 200 && result.non2xx > 0)
  return {
    evidence: wrong ? await instance.loggedOtherThan(spec.expect) : [],
    cpuUsPerRequest: targetCpuUs / served,
    result,
    targetCpuUs,
    loadCpuUs,
    originCpuUs,
    othersShare: others,
    rssMiB: instance.rssMiB,
    generatorLagUs: 'generatorLagUs' in result ? (result.generatorLagUs as Histogram) : null,
  }
}

function load(bench: Bench, spec: Case, instance: Instance): Load {
  const body = requestBody(spec)
  const bodyFile = body.length > 0 ? path.join(workFolder(), `body-${body.length}`) : null
  if (bodyFile !== null) writeFileSync(bodyFile, body)
  // Signed anew for each round: x-time may be 300 s off.
  const signed = spec.signature === 'none' ? {} : sign(spec.method, spec.path, body)
  if (spec.signature === 'bad') signed['x-m'] = badSignature(signed['x-m']!)
  return {
    port: instance.port,
    method: spec.method,
    path: spec.path,
    headers: { Host: HOST, ...signed },
    bodyFile,
    bodyBytes: body.length,
    connections: spec.connections,
    keepAlive: spec.keepAlive,
    durationMs: spec.roundMs,
    cpus: spec.wholeMachine ? null : bench.cores.load,
    threads: Math.max(1, Math.min(4, spec.connections, bench.cores.loadCount - 1)),
  }
}

function shuffled<T>(list: readonly T[], round: number): T[] {
  const random = generator(round)
  const order = [...list]
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}
