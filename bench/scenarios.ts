// What is measured: every scenario as a list of cases, each one request repeated against several contenders. Data only.
import type { Profile } from './targets/target.js'

export type ScenarioName = 'reference' | 'whole-job' | 'bare' | 'reject' | 'payload' | 'fan' | 'rate'

/** One target doing one job; `again` is a second process of the same build. */
export interface Contender {
  readonly target: string
  readonly label: string
  readonly again: boolean
  readonly slowedBy: number
  readonly offloadBytes?: number
}

export interface Case {
  readonly scenario: ScenarioName
  readonly variant: string
  readonly job: Profile['job']
  /** All cores and all workers, nothing pinned, as the reference was run. Otherwise one worker on one core. */
  readonly wholeMachine: boolean
  readonly targets: readonly string[]
  /** With a second process of the same build, to know the noise. */
  readonly again: boolean
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly bodyBytes: number
  /** Of the answer; for bytes per CPU second. */
  readonly answerBytes: number
  readonly signature: 'good' | 'bad' | 'none'
  readonly expect: 200 | 401 | 429
  readonly connections: number
  readonly keepAlive: boolean
  readonly roundMs: number
  readonly rounds: number
  /** Percent of the ceiling, for a constant rate. */
  readonly ratePercent?: number
  /** The same bodies hashed on the event loop and in the thread pool, instead of several targets. */
  readonly offload?: boolean
}

export const SCENARIOS: Readonly<Record<ScenarioName, string>> = {
  reference: '100 connections, no keep-alive, signed: as the run that gave 11,072.90 req/s',
  'whole-job': 'keep-alive; signature, limit, breaker, access log, metrics, request id',
  bare: 'keep-alive; forwarding alone',
  reject: 'bad signatures, and calls over their limit',
  payload: 'bodies of 1 KiB, 64 KiB, 1 MiB down; signed bodies up, hashed inline and in the thread pool',
  fan: 'the whole job over 1 to 1,000 connections',
  rate: 'the whole job at 25, 50, 60 and 75 % of the ceiling, latency from the intended send time',
}

export const CEILING_TARGETS = ['nginx+lua', 'tidegate', 'nginx']
export const LEAST_ROUNDS = 5
const WHOLE = ['tidegate', 'tidegate-pipelined', 'nginx+lua']
const FAN = ['tidegate', 'nginx+lua']
const BARE = ['tidegate', 'tidegate-pipelined', 'nginx', 'haproxy', 'fastify-http-proxy', 'httpxy']

const base: Case = {
  scenario: 'whole-job',
  variant: '',
  job: 'whole',
  wholeMachine: false,
  targets: WHOLE,
  again: true,
  method: 'GET',
  path: '/',
  bodyBytes: 0,
  answerBytes: 20,
  signature: 'good',
  expect: 200,
  connections: 64,
  keepAlive: true,
  roundMs: 700,
  rounds: 7,
}

const bare: Case = { ...base, scenario: 'bare', job: 'bare', targets: BARE, signature: 'none' }

export function cases(quick: boolean): Case[] {
  const time = (ms: number, quickMs: number) => (quick ? { roundMs: quickMs, rounds: LEAST_ROUNDS } : { roundMs: ms })
  // The slowest of each takes the longest to warm up, or says least that is new.
  const few = (names: readonly string[]) =>
    quick ? names.filter((name) => name !== 'httpxy' && name !== 'tidegate-pipelined') : names
  const all: Case[] = [
    {
      ...base,
      scenario: 'reference',
      wholeMachine: true,
      targets: ['tidegate', 'nginx+lua'],
      connections: 100,
      keepAlive: false,
      ...time(800, 300),
    },
    { ...base, targets: few(WHOLE), ...time(700, 300) },
    { ...bare, targets: few(BARE), ...time(400, 200) },
  ]
  if (quick) return all
  all.push({
    ...base,
    scenario: 'reject',
    variant: 'bad signature',
    targets: ['tidegate', 'nginx+lua'],
    signature: 'bad',
    expect: 401,
    roundMs: 400,
  })
  all.push({
    ...base,
    scenario: 'reject',
    variant: 'over the limit',
    targets: ['tidegate', 'nginx+lua'],
    path: '/limited',
    expect: 429,
    roundMs: 400,
  })
  for (const [variant, answerBytes, connections] of [
    ['1 KiB down', 1024, 64],
    ['64 KiB down', 65_536, 32],
    ['1 MiB down', 1_048_576, 16],
  ] as const) {
    const targets = ['tidegate', 'nginx', 'haproxy']
    all.push({
      ...bare,
      scenario: 'payload',
      variant,
      targets,
      path: `/bytes/${answerBytes}`,
      answerBytes,
      connections,
      roundMs: 300,
      rounds: LEAST_ROUNDS,
    })
  }
  const up: Case = {
    ...base,
    scenario: 'payload',
    method: 'POST',
    path: '/up',
    connections: 32,
    roundMs: 400,
    rounds: LEAST_ROUNDS,
  }
  all.push({ ...up, variant: '64 KiB signed up', bodyBytes: 65_536, targets: ['tidegate', 'nginx+lua'] })
  for (const kib of [16, 64, 256]) {
    const variant = `${kib} KiB up, inline or pool`
    all.push({
      ...up,
      variant,
      bodyBytes: kib * 1024,
      targets: ['tidegate'],
      offload: true,
      again: false,
      wholeMachine: true,
      roundMs: 250,
    })
  }
  for (const connections of [1, 10, 100, 1000]) {
    all.push({
      ...base,
      scenario: 'fan',
      variant: `${connections}`,
      targets: FAN,
      again: false,
      connections,
      roundMs: 300,
      rounds: LEAST_ROUNDS,
    })
  }
  for (const ratePercent of [25, 50, 60, 75]) {
    all.push({
      ...base,
      scenario: 'rate',
      variant: `${ratePercent} %`,
      again: false,
      ratePercent,
      roundMs: 500,
      rounds: LEAST_ROUNDS,
    })
  }
  return all
}

export function title(of: Case): string {
  return of.variant === '' ? of.scenario : `${of.scenario}: ${of.variant}`
}
