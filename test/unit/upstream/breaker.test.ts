import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import type { BreakerRules } from '../../../src/config/compile.js'
import type { BreakerChange } from '../../../src/state/breaker-record.js'
import { BreakerTable } from '../../../src/state/breaker-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'
import { Breaker, generationOf, OUTCOME } from '../../../src/upstream/breaker.js'

const { ok, failed, slow, ignored } = OUTCOME
const RULES: BreakerRules = {
  windowMs: 10_000,
  minRequests: 10,
  failureRatio: 0.5,
  slowCallMs: 1000,
  slowRatio: 0.8,
  openForMs: 5000,
  maxOpenForMs: 30_000,
  probes: 3,
  rampMs: 10_000,
  failureStatuses: new Set(),
}

let segment: Segment
let table: BreakerTable
let nowUs: number
let changes: BreakerChange[]

beforeEach(begin)

function begin(): void {
  segment = openSegment(
    SECTIONS,
    { workers: 2, rateLimitKeys: 15, services: 4, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  table = new BreakerTable(segment)
  nowUs = Date.UTC(2026, 5, 1) * 1000
  changes = []
}

function breakerOf(worker = 0, rules: Partial<BreakerRules> = {}, name = 'demo'): Breaker {
  const breaker = new Breaker(table, { name, totalTimeoutMs: 20_000, breaker: { ...RULES, ...rules } }, worker)
  breaker.onChange = (change) => changes.push(change)
  return breaker
}

function hold(as: 'open' | 'closed' | null): void {
  table.record('demo').hold(as, nowUs)
}

function pass(ms: number): void {
  nowUs += ms * 1000
}

function call(breaker: Breaker, outcome: number, times = 1): void {
  for (let i = 0; i < times; i++) {
    const permit = breaker.admit(nowUs)
    expect(permit).toBeGreaterThanOrEqual(0)
    breaker.report(permit, outcome, nowUs)
  }
}

function admits(breaker: Breaker, times: number): number[] {
  return Array.from({ length: times }, () => breaker.admit(nowUs)).filter((permit) => permit >= 0)
}

describe('shut', () => {
  it('from the opening until the first probe may go', () => {
    const breaker = breakerOf()
    expect(breaker.isShut(nowUs)).toBe(false)
    call(breaker, failed, 10)
    expect(breaker.isShut(nowUs)).toBe(true)
    pass(RULES.openForMs - 1)
    expect(breaker.isShut(nowUs)).toBe(true)
    pass(1)
    expect(breaker.isShut(nowUs)).toBe(false)
    expect(admits(breaker, 1)).toHaveLength(1)
  })

  it('while held open, and not while held closed', () => {
    const breaker = breakerOf()
    hold('open')
    expect(breaker.isShut(nowUs)).toBe(true)
    hold('closed')
    expect(breaker.isShut(nowUs)).toBe(false)
  })
})

describe('closed', () => {
  it('opens with the call that makes the failures enough of enough calls', () => {
    const breaker = breakerOf()
    call(breaker, ok, 5)
    call(breaker, failed, 4)
    expect(breaker.state).toBe('closed')
    call(breaker, failed)
    expect(breaker.state).toBe('open')
    expect(changes).toEqual([{ from: 'closed', to: 'open', reason: 'failures' }])
    expect(breaker.admit(nowUs)).toBe(-1)
  })

  it('does not open below the minimum, and does with the good call that reaches it', () => {
    const breaker = breakerOf()
    call(breaker, failed, 9)
    expect(breaker.state).toBe('closed')
    call(breaker, ok)
    expect(breaker.state).toBe('open')
  })

  it('opens for slow calls at their own ratio', () => {
    const breaker = breakerOf()
    call(breaker, slow, 7)
    call(breaker, ok, 3)
    expect(breaker.state).toBe('closed')
    call(breaker, slow, 5)
    expect(changes).toEqual([{ from: 'closed', to: 'open', reason: 'slow_calls' }])
  })

  it('does not count calls that say nothing about the service', () => {
    const breaker = breakerOf()
    call(breaker, ignored, 100)
    call(breaker, failed, 9)
    expect(breaker.state).toBe('closed')
    expect(breaker.snapshot().window).toEqual({ ok: 0, failed: 9, slow: 0 })
  })

  it('forgets calls that ended before the window', () => {
    const breaker = breakerOf()
    call(breaker, failed, 9)
    pass(10_000)
    call(breaker, ok, 9)
    call(breaker, failed, 8)
    expect(breaker.state).toBe('closed')
    expect(breaker.snapshot().window).toEqual({ ok: 9, failed: 8, slow: 0 })
  })

  it('has a window that slides: what is younger than nine tenths of it always counts', () => {
    const breaker = breakerOf(0, { failureRatio: 1 })
    for (let second = 0; second < 30; second++) {
      call(breaker, ok, 1)
      pass(1000)
      expect(breaker.snapshot().window.ok).toBeGreaterThanOrEqual(Math.min(second + 1, 9))
      expect(breaker.snapshot().window.ok).toBeLessThanOrEqual(10)
    }
  })

  it('keeps the window when a worker reports that was not run for a while', () => {
    const breaker = breakerOf()
    call(breaker, failed, 4)
    pass(5000)
    call(breaker, failed, 4)
    const permit = breaker.admit(nowUs)
    breaker.report(permit, failed, nowUs - 3_000_000)
    expect(breaker.snapshot().window).toEqual({ ok: 0, failed: 9, slow: 0 })
  })

  it('shows a window that empties also when nothing is called any more', () => {
    const breaker = breakerOf()
    call(breaker, failed, 3)
    pass(5000)
    call(breaker, ok, 2)
    expect(breaker.snapshot(nowUs).window).toEqual({ ok: 2, failed: 3, slow: 0 })
    pass(6000)
    expect(breaker.snapshot(nowUs).window).toEqual({ ok: 2, failed: 0, slow: 0 })
    pass(6000)
    expect(breaker.snapshot(nowUs).window).toEqual({ ok: 0, failed: 0, slow: 0 })
  })

  it('starts its window anew after a silence of weeks, and when its length is configured anew', () => {
    const breaker = breakerOf()
    call(breaker, failed, 9)
    pass(90 * 86_400_000)
    call(breaker, failed, 9)
    expect(breaker.snapshot().window.failed).toBe(9)
    call(breakerOf(0, { windowMs: 20_000 }), failed, 9)
    expect(breaker.snapshot().window.failed).toBe(9)
  })

  it('never opens without rules', () => {
    const breaker = new Breaker(table, { name: 'bare', totalTimeoutMs: 0, breaker: null }, 0)
    call(breaker, failed, 1000)
    expect(breaker.state).toBe('closed')
  })
})

describe('open', () => {
  it('is open for all workers, and says when to come back', () => {
    const [one, two] = [breakerOf(0), breakerOf(1)]
    call(one, failed, 10)
    expect(two.admit(nowUs)).toBe(-1)
    expect(two.retryAfterSeconds(nowUs)).toBe(5)
    pass(4999)
    expect(two.admit(nowUs)).toBe(-1)
    expect(two.retryAfterSeconds(nowUs)).toBe(1)
    expect(two.snapshot()).toMatchObject({ state: 'open', reason: 'failures', refused: 2, streak: 1 })
  })

  it('stays so for twice as long each time, up to the cap, until a ramp has ended well', () => {
    const breaker = breakerOf(0, { rampMs: 0 })
    call(breaker, failed, 10)
    for (const openForMs of [5000, 10_000, 20_000, 30_000, 30_000]) {
      pass(openForMs - 1)
      expect(breaker.admit(nowUs)).toBe(-1)
      pass(1)
      call(breaker, failed)
      expect(breaker.state).toBe('open')
    }
    pass(30_000)
    call(breaker, ok, 3)
    expect(breaker.state).toBe('closed')
    call(breaker, failed, 10)
    pass(4999)
    expect(breaker.admit(nowUs)).toBe(-1)
    pass(1)
    expect(breaker.admit(nowUs)).toBeGreaterThanOrEqual(0)
  })

  it('hears nothing of calls that began before', () => {
    const breaker = breakerOf(0, { rampMs: 0 })
    const [early] = admits(breaker, 1) as [number]
    call(breaker, failed, 10)
    pass(5000)
    const probes = admits(breaker, 3)
    breaker.report(early, failed, nowUs)
    expect(breaker.state).toBe('half_open')
    for (const probe of probes) breaker.report(probe, ok, nowUs)
    breaker.report(early, failed, nowUs)
    expect(breaker.snapshot()).toMatchObject({ state: 'closed', window: { ok: 0, failed: 0, slow: 0 } })
  })

  it('is not kept open by a deadline that wrapped while the gateway was off', () => {
    const breaker = breakerOf()
    call(breaker, failed, 10)
    pass(30 * 86_400_000)
    expect(breaker.admit(nowUs)).toBeGreaterThanOrEqual(0)
  })
})

describe('half open', () => {
  let one: Breaker
  let two: Breaker
  beforeEach(() => {
    one = breakerOf(0)
    two = breakerOf(1)
    call(one, failed, 10)
    pass(5000)
    changes = []
  })

  it('lets exactly the probes through, whoever asks, and ramps when all came back', () => {
    const permits = [...admits(one, 2), ...admits(two, 10), ...admits(one, 10)]
    expect(permits).toHaveLength(3)
    two.report(permits[2] as number, ok, nowUs)
    one.report(permits[0] as number, ok, nowUs)
    expect(admits(one, 5)).toEqual([])
    one.report(permits[1] as number, ok, nowUs)
    expect(changes).toEqual([
      { from: 'open', to: 'half_open', reason: 'open_time_over' },
      { from: 'half_open', to: 'ramp', reason: 'probes_passed' },
    ])
  })

  it('opens again with the first probe that fails', () => {
    const [first, second] = admits(one, 3) as [number, number]
    one.report(second, failed, nowUs)
    expect(one.state).toBe('open')
    one.report(first, ok, nowUs)
    expect(one.state).toBe('open')
    expect(changes.at(-1)).toEqual({ from: 'half_open', to: 'open', reason: 'probe_failed' })
  })

  it('sends no other in place of one that failed, whenever somebody asks', () => {
    const [first] = admits(one, 3) as [number]
    const swap = Atomics.compareExchange
    let through = 0
    Atomics.compareExchange = ((...step: Parameters<typeof swap>) => {
      const was = swap(...step)
      Atomics.compareExchange = swap
      through += admits(two, 1).length
      return was
    }) as typeof swap
    one.report(first, failed, nowUs)
    Atomics.compareExchange = swap
    expect(through).toBe(0)
    expect(one.state).toBe('open')
  })

  it('opens again when too many probes were slow', () => {
    const lenient = breakerOf(0, { slowRatio: 0.5 })
    for (const [i, probe] of admits(lenient, 3).entries()) lenient.report(probe, i === 0 ? ok : slow, nowUs)
    expect(changes.at(-1)).toEqual({ from: 'half_open', to: 'open', reason: 'probes_slow' })
  })

  it('sends another probe for one that said nothing', () => {
    const [first] = admits(one, 3) as [number]
    expect(admits(two, 1)).toEqual([])
    one.report(first, ignored, nowUs)
    expect(admits(two, 5)).toHaveLength(1)
  })

  it('sends another for one whose worker died, and none for the others', () => {
    admits(one, 2)
    admits(two, 1)
    table.releaseWorker(0)
    expect(admits(two, 5)).toHaveLength(2)
  })

  it('sends another when a probe does not come back in time', () => {
    const [lost] = admits(one, 3) as [number]
    pass(24_999)
    expect(admits(two, 1)).toEqual([])
    pass(1)
    expect(admits(two, 5)).toHaveLength(3)
    one.report(lost, ok, nowUs)
    expect(one.state).toBe('half_open')
  })

  it('does not take a probe that comes back too late for the one in its place, of the same worker either', () => {
    const [late] = admits(one, 3) as [number]
    pass(25_000)
    expect(admits(one, 5)).toHaveLength(3)
    one.report(late, ignored, nowUs)
    expect(admits(one, 5)).toEqual([])
    one.report(late, ok, nowUs)
    expect(one.state).toBe('half_open')
  })

  it('takes a probe that is reported twice for one', () => {
    const [first] = admits(one, 3) as [number]
    for (let i = 0; i < 5; i++) one.report(first, ok, nowUs)
    expect(one.state).toBe('half_open')
  })
})

describe('ramp', () => {
  function recovered(rules: Partial<BreakerRules> = {}): Breaker {
    const breaker = breakerOf(0, rules)
    call(breaker, failed, 10)
    pass(5000)
    call(breaker, ok, 3)
    expect(breaker.state).toBe('ramp')
    return breaker
  }

  it('lets 10 % through at first and then in proportion to the time', () => {
    const breaker = recovered()
    for (const share of [0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91]) {
      expect(Math.abs(admits(breaker, 1000).length - share * 1000)).toBeLessThanOrEqual(1)
      pass(1000)
    }
    expect(admits(breaker, 1000)).toHaveLength(1000)
    expect(breaker.state).toBe('closed')
    expect(changes.at(-1)).toEqual({ from: 'ramp', to: 'closed', reason: 'ramp_over' })
  })

  it('is shared: half the calls each, the same share together', () => {
    const one = recovered()
    const two = breakerOf(1)
    pass(5000)
    let through = 0
    for (let i = 0; i < 500; i++) for (const breaker of [one, two]) if (breaker.admit(nowUs) >= 0) through++
    expect(Math.abs(through - 550)).toBeLessThanOrEqual(1)
  })

  it('opens for longer when the service fails again', () => {
    const breaker = recovered()
    pass(5000)
    while (breaker.state === 'ramp') for (const permit of admits(breaker, 1)) breaker.report(permit, failed, nowUs)
    expect(breaker.snapshot().window.failed).toBe(10)
    expect(changes.at(-1)).toEqual({ from: 'ramp', to: 'open', reason: 'failures' })
    pass(9999)
    expect(breaker.admit(nowUs)).toBe(-1)
    pass(1)
    expect(breaker.admit(nowUs)).toBeGreaterThanOrEqual(0)
  })
})

describe('held by an operator', () => {
  it('refuses or lets through whatever happens, in all workers, and goes on where it was when released', () => {
    const two = breakerOf(1)
    hold('open')
    expect(two.admit(nowUs)).toBe(-1)
    expect(two.snapshot()).toMatchObject({ state: 'closed', held: 'open', reason: 'held' })
    hold('closed')
    call(two, failed, 50)
    expect(two.state).toBe('closed')
    hold(null)
    expect(two.snapshot()).toMatchObject({ state: 'closed', held: null, reason: 'released' })
    call(two, failed)
    expect(two.state).toBe('open')
    hold('closed')
    call(two, ok, 10)
    hold(null)
    expect(two.admit(nowUs)).toBe(-1)
    expect(two.retryAfterSeconds(nowUs)).toBe(5)
  })
})

describe('the table', () => {
  it('keeps breakers apart by name, also long and strange ones', () => {
    const names = ['a', 'b', 'ä', 'x'.repeat(400), `${'x'.repeat(300)}y`, '']
    call(breakerOf(0, {}, names[3]), failed, 10)
    expect(names.map((name) => breakerOf(0, {}, name).state)).toEqual([
      'closed',
      'closed',
      'closed',
      'open',
      'closed',
      'closed',
    ])
    expect([...table.records().keys()]).toContain('ä')
  })

  it('counts each change once', () => {
    const breaker = breakerOf(0, { rampMs: 0 })
    call(breaker, failed, 10)
    pass(5000)
    call(breaker, failed)
    pass(10_000)
    call(breaker, ok, 3)
    expect(breaker.snapshot().transitions).toEqual({ closed: 1, open: 2, half_open: 2, ramp: 0 })
  })

  it('drops a damaged record at start, and finds those that lie behind it', () => {
    for (let i = 0; i < 40; i++) call(breakerOf(0, {}, `service-${i}`), failed, 10)
    const { offset, bytes } = segment.section('breakers')
    const words = new BigInt64Array(segment.buffer, offset, bytes / 8)
    const at = [...words.keys()].find((word) => word % 128 === 1 && words[word] !== 0n) as number
    words[at]! ^= 1n
    // Somewhere in front of another: a gap that ends the search for that.
    for (const word of [...words.keys()].slice(at + 1)) {
      if (word % 128 !== 1 || words[word] === 0n) continue
      words[word] = 0n
      break
    }
    expect(table.adopt(table, () => false, nowUs)).toBe('38 breakers (2 damaged ones dropped)')
    const states = Array.from({ length: 40 }, (_, i) => breakerOf(0, {}, `service-${i}`).state)
    expect(states.filter((state) => state === 'open')).toHaveLength(38)
    expect(table.records().size).toBe(40)
  })

  it.each([1, 20, 30, 45, 100])('keeps the records of a gateway that was off for %i days', (days) => {
    call(breakerOf(0, {}, 'open'), failed, 10)
    call(breakerOf(0, {}, 'held'), failed, 10)
    table.record('held').hold('open', nowUs)
    nowUs += days * 86_400e6
    expect(table.adopt(table, () => false, nowUs)).toBe('2 breakers')
    expect(breakerOf(0, {}, 'open').admit(nowUs)).toBeGreaterThanOrEqual(0)
    expect(breakerOf(0, {}, 'held').admit(nowUs)).toBe(-1)
  })

  it('has a name also where its maker died before it came to that', () => {
    const { index } = table.record('demo')
    const { offset } = segment.section('breakers')
    new Uint8Array(segment.buffer, offset + index * 1024 + 704, 4).fill(0)
    expect([...table.records().keys()]).toEqual([''])
    table.record('demo')
    expect([...table.records().keys()]).toEqual(['demo'])
  })

  it('makes room by forgetting services that are no longer configured, and those alone', () => {
    for (let i = 0; i < table.capacity; i++) breakerOf(0, {}, `old-${i}`)
    call(breakerOf(0, {}, 'old-7'), failed, 10)
    expect(() => breakerOf(0, {}, 'new')).toThrow(/no room for the breaker of new/)
    const held = breakerOf(0, {}, 'old-9')
    const all = new Set([...table.records().keys()])
    expect(table.provide(['old-7', 'old-8', 'new'], all)).toBe(false)
    expect(table.provide(['old-7', 'old-8', 'new'], null)).toBe(false)
    expect(table.records().size).toBe(table.capacity)
    const unused = new Set([...all].filter((name) => name !== 'old-3'))
    expect(table.provide(['old-7', 'old-8', 'new'], unused)).toBe(true)
    expect([...table.records().keys()].filter((name) => !all.has(name))).toEqual(['new'])
    expect(table.records().has('old-3')).toBe(false)
    expect(breakerOf(0, {}, 'old-7').state).toBe('open')
    expect(breakerOf(0, {}, 'new').state).toBe('closed')
    // What a worker has in its hands stays where it is, whoever comes and goes beside it.
    call(held, failed, 10)
    expect(breakerOf(0, {}, 'old-9').state).toBe('open')
  })
})

it('never lets a call through while open, nor more than its probes while half open, whatever comes when', () => {
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('admit' as const), worker: fc.nat({ max: 2 }) }) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('report' as const),
        which: fc.nat(),
        outcome: fc.constantFrom(ok, failed, slow, ignored),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 6000 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('die' as const), worker: fc.nat({ max: 2 }) }) },
  )
  const LEASE_US = 25_000_000
  let refused = 0
  let probed = 0
  fc.assert(
    fc.property(fc.array(step, { minLength: 300, maxLength: 300, size: 'max' }), (steps) => {
      begin()
      const breakers = [0, 1, 2].map((worker) => breakerOf(worker, { minRequests: 3, rampMs: 2000 }))
      const first = breakers[0] as Breaker
      /** What was admitted and neither reported nor lost with its worker. */
      let out: { worker: number; permit: number; atUs: number }[] = []
      /** By place: the last probe there. What one says that another has replaced does not count. */
      const last = new Map<number, object>()
      /** Probes of the generation that came back with something to say. */
      let told = { generation: -1, count: 0 }
      const isProbe = (permit: number, generation: number): boolean =>
        generationOf(permit) === generation && (permit & 63) > 0

      for (const next of steps) {
        const before = first.snapshot()
        if (next.do === 'pass') pass(next.ms)
        if (next.do === 'die') {
          out = out.filter(({ worker }) => worker !== next.worker)
          table.releaseWorker(next.worker)
        }
        if (next.do === 'report' && out.length > 0) {
          const call = out.splice(next.which % out.length, 1)[0]!
          const { worker, permit } = call
          breakers[worker]!.report(permit, next.outcome, nowUs)
          // Late: the state it was given in is over.
          if (generationOf(permit) !== before.generation) expect(first.snapshot()).toEqual(before)
          const counts = next.outcome !== ignored && last.get(permit & 63) === call
          if (counts && isProbe(permit, told.generation)) told.count++
        }
        if (next.do === 'admit') {
          const permit = breakers[next.worker]!.admit(nowUs)
          const after = first.snapshot()
          if (after.state === 'closed') expect(permit).toBeGreaterThanOrEqual(0)
          if (after.state === 'open') expect(permit).toBe(-1)
          if (permit < 0) {
            refused++
            continue
          }
          expect(generationOf(permit)).toBe(after.generation)
          const call = { worker: next.worker, permit, atUs: nowUs }
          out.push(call)
          last.set(permit & 63, call)
          if (after.state !== 'half_open') continue
          if (told.generation !== after.generation) told = { generation: after.generation, count: 0 }
          const underWay = out.filter(
            ({ permit, atUs }) => isProbe(permit, after.generation) && nowUs - atUs < LEASE_US,
          )
          expect(told.count + underWay.length).toBeLessThanOrEqual(3)
          probed++
        }
      }
    }),
    { numRuns: 200, endOnFailure: true },
  )
  expect(refused).toBeGreaterThan(1000)
  expect(probed).toBeGreaterThan(100)
})
