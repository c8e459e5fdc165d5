import { beforeEach, describe, expect, it } from 'vitest'
import { compileOutliers, type OutlierConfig } from '../../../src/config/outliers.js'
import { EndpointTable, OUT } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { Outliers } from '../../../src/upstream/cluster/outliers.js'

const WORKERS = 2
const TICK_US = 100_000
const DEFAULTS: OutlierConfig = {
  failures: 5,
  ratio: 0.1,
  slow: 5,
  window: 10_000,
  ejectFor: 3000,
  maxEjectFor: 12_000,
  maxShare: 0.5,
}

let table: EndpointTable
let nowUs: number
let outliers: Outliers
/** `a ejected failures 3000`, with the letter of the endpoint. */
let changes: string[]
let seed: number

function begin(count: number, config: Partial<OutlierConfig> = {}): void {
  const spec = { workers: WORKERS, rateLimitKeys: 15, services: 1, endpoints: count, routes: 1 }
  const segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
  table = new EndpointTable(segment, { endpoints: count, workers: WORKERS })
  nowUs = Date.UTC(2026, 5, 1) * 1000
  changes = []
  seed = 1
  outliers = new Outliers(table, compileOutliers({ ...DEFAULTS, ...config })!, true)
  outliers.endpoints = Array.from({ length: count }, (_, slot) => ({
    origin: 'abcdefgh'[slot]!,
    authority: '',
    serverName: '',
    socketPath: null,
    slot,
    weight: 1,
    zone: '',
  }))
  outliers.onChange = ({ endpoint, to, reason, forMs }) => {
    changes.push(`${endpoint.origin} ${to} ${reason}${to === 'ejected' ? ` ${forMs}` : ''}`)
  }
}

beforeEach(() => begin(4))

/** The same in each run. */
function random(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return seed / 2 ** 32
}

interface Response {
  readonly fails?: boolean
  readonly latencyUs?: number
}

let turn = 0
/** One attempt at the endpoint, by one worker after the other. */
function attempt(slot: number, { fails = false, latencyUs = 2000 }: Response = {}): void {
  const worker = turn++ % WORKERS
  table.begin(worker, slot, true)
  table.answered(worker, slot, latencyUs, latencyUs > table.slowUs(slot))
  table.end(worker, slot, fails, false, false)
  if (fails) outliers.failed(slot, nowUs, nowUs)
}

function tick(): void {
  nowUs += TICK_US
  outliers.judge(nowUs)
}

/** @param perSecond to each endpoint that gets requests; on probation one for each tick */
function run(seconds: number, perSecond: number, respond: (slot: number) => Response): void {
  for (let ms = 0; ms < seconds * 1000; ms += 100) {
    for (let i = 0; i < perSecond / 10; i++) {
      for (let slot = 0; slot < table.endpoints; slot++) {
        const out = table.out(slot)
        if (out === 0 || (out === OUT.probation && outliers.admitsOne(slot) && i === 0)) attempt(slot, respond(slot))
      }
    }
    tick()
  }
}

const well = (): Response => ({})
const share =
  (sick: readonly number[], of: number) =>
  (slot: number): Response => ({ fails: sick.includes(slot) && random() < of })

describe('failures in a row', () => {
  it('eject at once, over all workers, and a success between them does not', () => {
    run(1, 100, well)
    for (let i = 0; i < 4; i++) attempt(1, { fails: true })
    attempt(1)
    for (let i = 0; i < 4; i++) attempt(1, { fails: true })
    expect(table.out(1)).toBe(0)
    attempt(1, { fails: true })
    expect(table.out(1)).toBe(OUT.ejected)
    expect(changes).toEqual(['b ejected failures 3000'])
    attempt(1, { fails: true })
    tick()
    expect(changes).toHaveLength(1)
  })

  it('eject nobody where the peers fail as well', () => {
    run(30, 100, () => ({ fails: true }))
    expect(changes).toEqual([])
  })
})

describe('a share of failures', () => {
  it('ejects the one endpoint that fails to a fifth, in less than a second, however long it was well', () => {
    for (const seconds of [0, 60]) {
      begin(4)
      run(seconds, 100, well)
      const before = table.totals(2).failures
      run(1, 100, share([2], 0.2))
      expect(changes).toEqual(['c ejected ratio 3000'])
      expect(table.totals(2).failures - before).toBeLessThanOrEqual(14)
    }
  })

  it('ejects none for a small share', () => {
    run(40, 100, share([2], 0.02))
    expect(changes).toEqual([])
  })

  it('ejects none where all fail to a fifth', () => {
    for (seed = 1; seed <= 5; seed++) {
      const before = seed
      begin(4)
      seed = before
      run(40, 100, share([0, 1, 2, 3], 0.2))
      expect(changes).toEqual([])
      seed = before
    }
  })
})

describe('latency', () => {
  it.each([2, 4])('ejects an endpoint ten times as slow as its peers within two seconds: of %i', (count) => {
    begin(count)
    run(1, 100, well)
    run(2, 100, (slot) => ({ latencyUs: slot === 1 ? 20_000 : 2000 }))
    expect(changes).toEqual(['b ejected slow 3000'])
  })

  it('ejects none for one long pause, nor where some requests take long everywhere', () => {
    run(1, 100, well)
    for (let i = 0; i < 100; i++) attempt(1, { latencyUs: 500_000 })
    run(10, 100, () => ({ latencyUs: random() < 0.05 ? 1e6 : 2000 }))
    expect(changes).toEqual([])
  })

  it('is not compared with slow: none', () => {
    begin(2, { slow: 'none' })
    run(4, 100, (slot) => ({ latencyUs: slot === 1 ? 200_000 : 2000 }))
    expect(changes).toEqual([])
  })
})

describe('an endpoint that hangs', () => {
  it('is ejected once its peers have answered and it has not, for a second', () => {
    run(1, 100, well)
    table.begin(0, 3, true)
    const others = (seconds: number): void => {
      for (let ms = 0; ms < seconds * 1000; ms += 100) {
        for (const slot of [0, 1, 2]) attempt(slot)
        tick()
      }
    }
    others(0.9)
    expect(changes).toEqual([])
    others(0.4)
    expect(changes).toEqual(['d ejected hanging 3000'])
    // What waits for ever ejects it no more, once it has answered another request.
    run(30, 100, well)
    expect(changes).toEqual(['d ejected hanging 3000', 'd returned hanging'])
    expect(table.out(3)).toBe(0)
  })

  it('is not taken for one where a response streams, or an upload waits for its client', () => {
    table.begin(0, 3, true)
    table.answered(0, 3, 2000, false)
    table.begin(1, 3, false)
    for (let i = 0; i < 50; i++) {
      for (const slot of [0, 1, 2]) attempt(slot)
      tick()
    }
    expect(changes).toEqual([])
  })
})

describe('an ejection', () => {
  const fail = (slot: number) => (asked: number) => ({ fails: asked === slot })

  it('doubles up to its bound while the endpoint fails, and each return costs one request', () => {
    run(1, 100, well)
    const before = table.totals(1).failures
    run(30, 100, fail(1))
    expect(changes.filter((change) => change.includes('ejected'))).toEqual([
      'b ejected failures 3000',
      'b ejected failures 6000',
      'b ejected failures 12000',
      'b ejected failures 12000',
    ])
    expect(table.totals(1).failures - before).toBe(5 + 3)
  })

  it('is followed by probation, with one request at a time', () => {
    run(1, 100, well)
    run(0.1, 100, fail(1))
    expect(table.out(1)).toBe(OUT.ejected)
    table.begin(0, 1, true)
    while (table.out(1) === OUT.ejected) run(0.1, 100, well)
    expect(table.out(1)).toBe(OUT.probation)
    expect(outliers.admitsOne(1)).toBe(true)
    table.begin(1, 1, true)
    expect(outliers.admitsOne(1)).toBe(false)
    table.end(1, 1, false, true, false)
    // The one from before has ended: that lets no other in.
    table.end(0, 1, false, true, false)
    tick()
    expect(outliers.admitsOne(1)).toBe(true)
    table.begin(1, 1, true)
    expect(outliers.admitsOne(1)).toBe(false)
    table.end(1, 1, false, true, false)
    run(1, 100, well)
    expect(table.out(1)).toBe(0)
    expect(table.returnedUs(1)).toBeGreaterThan(0)
  })

  it('does not wait for the end of streams and uploads on probation', () => {
    run(1, 100, well)
    run(0.1, 100, fail(1))
    while (table.out(1) !== OUT.probation) run(0.1, 100, (slot) => ({ fails: slot === 1 }))
    table.begin(0, 1, false)
    expect(outliers.admitsOne(1)).toBe(false)
    for (let i = 0; i < 11; i++) tick()
    expect(outliers.admitsOne(1)).toBe(true)
    for (let streams = 1; streams <= 5; streams++) {
      expect(table.out(1)).toBe(OUT.probation)
      table.begin(1, 1, true)
      expect(outliers.admitsOne(1)).toBe(false)
      table.answered(1, 1, 2000, false)
      for (let i = 0; i < 11; i++) tick()
      expect(outliers.admitsOne(1)).toBe(true)
      if (streams === 5) for (let i = 0; i < 50 && table.out(1) !== 0; i++) run(0.1, 100, well)
    }
    expect(table.out(1)).toBe(0)
    expect(table.totals(1).inFlight).toBe(6)
  })

  it('is forgotten with time: the next one is short again', () => {
    run(1, 100, well)
    run(12, 100, fail(1))
    run(60, 100, well)
    expect(table.out(1)).toBe(0)
    changes = []
    run(0.1, 100, fail(1))
    expect(changes).toEqual(['b ejected failures 3000'])
  })

  it('is not caused by what began before the last one and fails after it', () => {
    run(1, 100, well)
    const startUs = nowUs
    run(0.1, 100, fail(1))
    run(5, 100, well)
    expect(table.out(1)).toBe(0)
    for (let i = 0; i < 50; i++) {
      table.begin(0, 1, true)
      table.end(0, 1, true, true, false)
      outliers.failed(1, startUs, nowUs)
    }
    run(1, 100, well)
    expect(changes.filter((change) => change.startsWith('b ejected'))).toHaveLength(1)
  })
})

describe('never too many', () => {
  const from = (first: number) => (slot: number) => ({ fails: slot >= first })

  it.each([
    [2, 1],
    [3, 1],
    [4, 2],
  ])('of %i endpoints at most %i', (count, most) => {
    begin(count)
    run(1, 100, well)
    run(2.5, 100, from(1))
    expect(outliers.endpoints.filter(({ slot }) => (table.out(slot) & OUT.ejected) !== 0)).toHaveLength(most)
  })

  it('counts those that are down, and not those that are drained', () => {
    table.setHealth(0, 'down')
    table.setOut(1, OUT.drained, true)
    run(1, 100, well)
    run(2, 100, from(3))
    expect(changes).toEqual([])
    table.setHealth(0, 'up')
    run(2, 100, from(3))
    expect(changes).toEqual(['d ejected failures 3000'])
  })

  it('one endpoint alone is never ejected', () => {
    begin(1)
    run(3, 100, () => ({ fails: true }))
    expect(changes).toEqual([])
  })

  it('brings back those that are out as soon as all that are left fail', () => {
    begin(2)
    run(1, 100, well)
    run(0.1, 100, (slot) => ({ fails: slot === 1 }))
    run(0.1, 100, (slot) => ({ fails: slot === 0 }))
    run(1, 100, (slot) => ({ fails: slot === 0 }))
    expect(changes).toEqual(['b ejected failures 3000', 'b returned failures', 'a ejected failures 3000'])
    expect([table.out(0), table.out(1)]).toEqual([OUT.ejected, 0])
  })
})

describe('workers', () => {
  it('judge one at a time, and one that dies while it judges does not keep the others from it', () => {
    expect(table.beginJudgement(nowUs, 50)).toBe(true)
    expect(table.beginJudgement(nowUs, 0)).toBe(false)
    table.endJudgement()
    expect(table.beginJudgement(nowUs + 10_000, 50)).toBe(false)
    expect(table.beginJudgement(nowUs + 60_000, 50)).toBe(true)
    expect(table.beginJudgement(nowUs + 900_000, 50)).toBe(false)
    expect(table.beginJudgement(nowUs + 1_100_000, 50)).toBe(true)
  })
})
