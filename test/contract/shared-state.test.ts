// One suite for both kinds of segment: mapped, between processes; and shared, between threads. What it says of one it
// says of the other.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../native/index.js'
import { BreakerTable } from '../../src/state/breaker-table.js'
import { openSegment } from '../../src/state/open-segment.js'
import { RateTable } from '../../src/state/rate-table.js'
import { ReplayTable } from '../../src/state/replay-table.js'
import { SECTIONS } from '../../src/state/sections.js'
import { type Segment, segmentHandle } from '../../src/state/segment.js'
import { OUTCOME } from '../../src/upstream/breaker.js'

const file = join(import.meta.dirname, 'shared-state-rival.mjs')
/** TIDEGATE_LONG_TESTS: as many decisions and seconds as the promise is made for. */
const long = process.env.TIDEGATE_LONG_TESTS === '1'
const DECISIONS = long ? 1_000_000 : 200_000
const KEYS = long ? 100_000 : 20_000
const SECONDS = long ? 10 : 1
/** Workers, and what a window admits. */
const WINDOWS = [
  [2, 20],
  [4, 1000],
  ...(long
    ? [
        [3, 36],
        [2, 5000],
      ]
    : []),
] as [number, number][]
/** Signatures. */
const REPLAYS = long ? 200_000 : 20_000
const START_US = Date.UTC(2026, 5, 1) * 1000
const service = {
  name: 'demo',
  totalTimeoutMs: 10_000,
  breaker: {
    windowMs: 10_000,
    minRequests: 20,
    failureRatio: 0.5,
    slowCallMs: 1000,
    slowRatio: 0.8,
    openForMs: 5000,
    maxOpenForMs: 60_000,
    probes: 3,
    rampMs: 1000,
    failureStatuses: new Set<number>(),
  },
}

interface Rival {
  // biome-ignore lint/suspicious/noExplicitAny: each task answers as it likes
  ask(task: string, input?: object): Promise<any>
  /** Puts the times that it tells of in `times`, for so long. */
  hear(times: number[], ms: number): Promise<void>
  /** Only a process can be killed at any moment. */
  kill(): Promise<void>
}

interface Kind {
  readonly name: string
  readonly skipped: string
  open(keys: number, replayKeys: number): Segment
  rival(segment: Segment, owner: number): Promise<Rival>
  close(segment: Segment): void
}

const spec = (keys: number, replayKeys: number) => ({
  workers: 4,
  rateLimitKeys: keys,
  replayKeys,
  services: 4,
  endpoints: 1,
  routes: 1,
})
const running: (ChildProcess | Worker)[] = []

async function answerOf(rival: ChildProcess | Worker): Promise<unknown> {
  const settled = new AbortController()
  const { signal } = settled
  try {
    return await Promise.race([
      once(rival, 'message', { signal }).then(([message]) => message),
      once(rival, 'exit', { signal }).then(([code]) => Promise.reject(new Error(`a rival exited with ${code}`))),
    ])
  } finally {
    settled.abort()
  }
}

async function hear(rival: ChildProcess | Worker, times: number[], ms: number): Promise<void> {
  // Also what arrives once it is dead.
  rival.on('message', ({ admitted }: { admitted?: number }) => admitted !== undefined && times.push(admitted))
  await pause(ms)
}

/** In microseconds of the segment's clock. */
type Span = readonly [from: number, to: number]

/** Where a span of each list overlaps. */
function overlap(some: readonly Span[], others: readonly Span[]): Span[] {
  return some
    .flatMap(([from, to]) => others.map((other): Span => [Math.max(from, other[0]), Math.min(to, other[1])]))
    .filter(([from, to]) => from < to)
}

const kinds: Kind[] = [
  {
    name: 'mapped, between processes',
    skipped: nativeProblem,
    open: (keys, replayKeys) => openSegment(SECTIONS, spec(keys, replayKeys), { path: null, isolation: 'process' }),
    async rival(segment, owner) {
      const child = fork(file, { stdio: ['ignore', 'inherit', 'inherit', 'ipc', segment.fd, segment.liveFd] })
      running.push(child)
      const ask: Rival['ask'] = async (task, input = {}) => {
        child.send({ task, ...input })
        return answerOf(child)
      }
      await ask('attach', {
        handle: segmentHandle(segment, { fd: 4, liveFd: 5 }),
        owner,
        service,
      })
      return {
        ask,
        hear: (times, ms) => hear(child, times, ms),
        async kill() {
          child.kill('SIGKILL')
          await once(child, 'exit')
        },
      }
    },
    close: (segment) => native?.closeFd(segment.fd),
  },
  {
    name: 'shared, between threads',
    skipped: '',
    open: (keys, replayKeys) => openSegment(SECTIONS, spec(keys, replayKeys), { path: null, isolation: 'thread' }),
    async rival(segment, owner) {
      const worker = new Worker(file)
      running.push(worker)
      const ask: Rival['ask'] = async (task, input = {}) => {
        worker.postMessage({ task, ...input })
        return answerOf(worker)
      }
      await ask('attach', { handle: segmentHandle(segment), owner, service })
      return {
        ask,
        hear: (times, ms) => hear(worker, times, ms),
        async kill() {
          await worker.terminate()
        },
      }
    },
    close: () => {},
  },
]

describe.each(kinds)('$name', ({ skipped, open, rival, close }) => {
  let segment: Segment
  const opened = (keys: number, replayKeys = REPLAYS): Segment => {
    segment = open(keys, replayKeys)
    return segment
  }

  beforeEach((context) => {
    if (skipped !== '') context.skip(skipped)
  })
  afterEach(async () => {
    for (const each of running.splice(0)) each instanceof Worker ? await each.terminate() : each.kill('SIGKILL')
    if (segment !== undefined) close(segment)
  })

  const rivals = (count: number): Promise<Rival[]> =>
    Promise.all(Array.from({ length: count }, (_, owner) => rival(segment, owner)))

  it('admits from one bucket what it holds, whoever asks', async () => {
    opened(1000)
    const burst = Math.floor(DECISIONS * 1.2)
    const answers = await Promise.all(
      (await rivals(2)).map((each) =>
        each.ask('frozen', { decisions: DECISIONS, keys: 1, rate: [1000, 1, burst], nowUs: START_US, stride: 1 }),
      ),
    )
    expect(answers[0].admitted[0] + answers[1].admitted[0]).toBe(burst)
    // Neither waited for the other to be done.
    expect(Math.min(answers[0].admitted[0], answers[1].admitted[0])).toBeGreaterThan(DECISIONS * 0.1)
  }, 60_000)

  it('loses no charge where all are admitted', async () => {
    opened(1000)
    const [one, two] = (await rivals(2)) as [Rival, Rival]
    const rate = [1000, 1, DECISIONS * 2 + 5]
    const half = { decisions: DECISIONS, keys: 1, rate, nowUs: START_US, stride: 1 }
    await Promise.all([one.ask('frozen', half), two.ask('frozen', half)])
    expect((await one.ask('frozen', { ...half, decisions: 100 })).admitted).toEqual([5])
  }, 60_000)

  it('keeps very many buckets exact, each made by whoever comes first', async () => {
    opened(KEYS * 2)
    const burst = Math.floor((DECISIONS / KEYS) * 1.2)
    const answers = await Promise.all(
      (await rivals(2)).map((each, i) =>
        each.ask('frozen', {
          decisions: DECISIONS,
          keys: KEYS,
          rate: [1, 60, burst],
          nowUs: START_US,
          stride: i === 0 ? 1 : KEYS - 1,
        }),
      ),
    )
    const wrong: number[] = []
    for (let key = 0; key < KEYS; key++) {
      const asked = answers[0].asked[key] + answers[1].asked[key]
      const admitted = answers[0].admitted[key] + answers[1].admitted[key]
      if (admitted !== Math.min(asked, burst)) wrong.push(key)
    }
    expect(wrong).toEqual([])
    expect(new RateTable(segment, 0).totals()).toMatchObject({ inserts: KEYS, full: 0, stuck: 0 })
  }, 60_000)

  it('charges all of several buckets or none', async () => {
    opened(1000)
    const both = Math.floor(DECISIONS / 5)
    const one = Math.floor(DECISIONS / 2)
    const answers = await Promise.all(
      (await rivals(2)).map((each, i) =>
        each.ask('several', {
          requests: DECISIONS,
          names: ['wide', ...(i === 0 ? ['narrow', 'third'] : ['third', 'narrow'])],
          rates: [
            [1000, 1, one],
            [1000, 1, both],
            [1000, 1, both * 2],
          ],
          nowUs: START_US,
        }),
      ),
    )
    const all = answers[0].all + answers[1].all
    expect(all).toBe(both)
    expect(all + answers[0].first + answers[1].first).toBe(one)
    const rest = await (await rival(segment, 2)).ask('several', {
      requests: both * 2,
      names: ['third'],
      rates: [[1000, 1, both * 2]],
      nowUs: START_US,
    })
    expect(rest.all + rest.first).toBe(both)
  }, 60_000)

  it.each([2, 4])(
    'admits rate × time + burst over %i workers that ask as fast as they can',
    async (workers) => {
      opened(1000)
      const each = await rivals(workers)
      const untilUs = segment.nowUs() + SECONDS * 1e6
      const answers = await Promise.all(each.map((one) => one.ask('clocked', { untilUs, rate: [500, 1, 100] })))
      const admitted = answers.reduce((sum, answer) => sum + answer.admitted, 0)
      const firstUs = Math.min(...answers.map((answer) => answer.firstUs))
      const lastUs = Math.max(...answers.map((answer) => answer.lastUs))
      expect(admitted).toBeLessThanOrEqual(Math.floor((lastUs - firstUs) * 0.0005) + 100)
      // While none of them had a core the bucket may have been full: what would have come on top is lost.
      const pauses = answers.map((answer) => [[firstUs, answer.firstUs], ...answer.pauses] as Span[])
      const quietUs = pauses.reduce(overlap).reduce((sum, [from, to]) => sum + to - from, 0)
      expect(admitted).toBeGreaterThanOrEqual(Math.floor((untilUs - firstUs - quietUs) * 0.0005))
    },
    60_000,
  )

  it('admits from one window what it holds, whoever asks', async () => {
    opened(1000)
    const quantity = Math.floor(DECISIONS * 1.2)
    const answers = await Promise.all(
      (await rivals(2)).map((each) =>
        each.ask('frozen', { decisions: DECISIONS, keys: 1, rate: [quantity, 60], nowUs: START_US, stride: 1 }),
      ),
    )
    const admitted = answers[0].admitted[0] + answers[1].admitted[0]
    // At one time all of a window is there or none: what it holds is exact, grouped or not.
    expect(admitted).toBe(quantity)
  }, 60_000)

  it('keeps very many windows exact, each made by whoever comes first', async () => {
    opened(KEYS * 2)
    const quantity = Math.floor((DECISIONS / KEYS) * 1.2)
    const answers = await Promise.all(
      (await rivals(2)).map((each, i) =>
        each.ask('frozen', {
          decisions: DECISIONS,
          keys: KEYS,
          rate: [quantity, 60],
          nowUs: START_US,
          stride: i === 0 ? 1 : KEYS - 1,
        }),
      ),
    )
    const wrong: number[] = []
    for (let key = 0; key < KEYS; key++) {
      const asked = answers[0].asked[key] + answers[1].asked[key]
      if (answers[0].admitted[key] + answers[1].admitted[key] !== Math.min(asked, quantity)) wrong.push(key)
    }
    expect(wrong).toEqual([])
  }, 60_000)

  it.each(WINDOWS)(
    'over %i workers that ask as fast as they can never admits more than %i in any second, and refuses nothing below 0.97 of it',
    async (workers, quantity) => {
      opened(1000)
      const each = await rivals(workers)
      const untilUs = segment.nowUs() + (SECONDS + 1.5) * 1e6
      const answers = await Promise.all(
        each.map((one) => one.ask('timed', { untilUs, key: 'hot', rate: [quantity, 1] })),
      )
      const admitted = Float64Array.from(answers.flatMap((answer) => answer.admitted)).sort()
      expect(mostInAnySecond(admitted)).toBe(quantity)
      const counted = Float64Array.from(answers.flatMap((answer) => answer.counted)).sort()
      // Of what two workers do within the same 100 µs nobody can say which came first.
      const fewest = answers
        .flatMap((answer) => answer.refused as number[])
        .reduce((least, us) => Math.min(least, inWindow(counted, us - 1e6 - 100, us + 100)), quantity)
      expect(fewest).toBeGreaterThanOrEqual(quantity * 0.97)
      expect(admitted.length).toBeGreaterThan(quantity * 1.5)
    },
    60_000,
  )

  it('never admits more in any second while its workers are killed and replaced', async (context) => {
    if (segment !== undefined && segment.kind === 'shared') context.skip('a thread tells what it did with a delay')
    opened(1000)
    const table = new RateTable(segment, 0)
    const times: number[] = []
    const untilUs = segment.nowUs() + 3e6
    const ENOUGH = 150
    const worker = async (owner: number): Promise<void> => {
      // On a machine with other work to do a worker may take a second to start.
      while (segment.nowUs() < untilUs || times.length <= ENOUGH) {
        const one = await rival(segment, owner)
        await one.ask('timedUntilKilled', { key: 'hot', rate: [90, 1] })
        await one.hear(times, 20 + Math.floor(Math.random() * 60))
        await one.kill()
        table.release(owner)
      }
    }
    await Promise.all([worker(0), worker(1)])
    const admitted = Float64Array.from(times).sort()
    expect(mostInAnySecond(admitted)).toBeLessThanOrEqual(90)
    expect(admitted.length).toBeGreaterThan(ENOUGH)
  }, 60_000)

  it('keeps buckets apart while their slots change hands', async () => {
    opened(100)
    const each = await rivals(2)
    const startUs = segment.nowUs()
    const untilUs = startUs + (long ? 10e6 : 1.5e6)
    const answers = await Promise.all(
      each.map((one) => one.ask('takeovers', { startUs, untilUs, groupUs: 60_000, keys: 40 })),
    )
    const times = new Map<number, number[]>()
    for (const { admitted } of answers) {
      for (let i = 0; i < admitted.length; i += 2) {
        const of = times.get(admitted[i])
        if (of === undefined) times.set(admitted[i], [admitted[i + 1]])
        else of.push(admitted[i + 1])
      }
    }
    const tooSoon = [...times.values()].flatMap((of) => {
      of.sort((a, b) => a - b)
      return of.filter((us, i) => i > 0 && us - (of[i - 1] as number) < 1000)
    })
    expect(tooSoon).toEqual([])
    expect(new RateTable(segment, 0).totals().evictions).toBeGreaterThan(50)
  }, 60_000)

  it('is left usable by workers that are killed in the middle of anything', async () => {
    opened(100)
    const table = new RateTable(segment, 0)
    let found = 0
    // Until some were killed while they held something: it takes a few rounds.
    for (let round = 0; round < 8 || (found === 0 && round < 60); round++) {
      const each = await rivals(2)
      const nowUs = START_US + round * 1e9
      await Promise.all(each.map((one, i) => one.ask('forever', { nowUs, salt: `${round}-${i}` })))
      await Promise.all(each.map((one) => one.kill()))
      running.splice(0)
      found += claimsIn(table)
      table.release(0)
      table.release(1)
      expect(claimsIn(table)).toBe(0)
    }
    expect(found).toBeGreaterThan(0)
  }, 60_000)

  it('lets each of very many signatures in exactly once, whoever brings it first', async () => {
    opened(100)
    const times = { untilSeconds: START_US / 1e6 + 300, nowSeconds: START_US / 1e6 }
    const answers = await Promise.all(
      (await rivals(4)).map((each, i) =>
        each.ask('once', { keys: REPLAYS, stride: i < 2 ? 1 : REPLAYS - 1, ...times }),
      ),
    )
    const passed = new Uint8Array(REPLAYS)
    for (const answer of answers) for (const key of answer.passed) passed[key]!++
    expect(passed.every((times) => times === 1)).toBe(true)
    // No one of them had it all.
    expect(Math.max(...answers.map((answer) => answer.passed.length))).toBeLessThan(REPLAYS)
    expect(new ReplayTable(segment, 0).totals()).toEqual({
      fresh: REPLAYS,
      repeated: 3 * REPLAYS,
      full: 0,
      stuck: 0,
      share: 0,
    })
  }, 60_000)

  it('lets each signature in exactly once while slots change hands', async () => {
    opened(100, 800)
    const each = await rivals(2)
    const [keys, secondUs, startUs] = [70, 100_000, segment.nowUs()]
    // A third of them is to spare: a machine with other work to do lets workers miss some.
    const seconds = long ? 100 : 50
    const answers = await Promise.all(
      each.map((one) =>
        one.ask('onceEach', {
          startUs,
          untilUs: startUs + seconds * secondUs,
          secondUs,
          keys,
          startSeconds: START_US / 1e6,
          lives: 2,
        }),
      ),
    )
    const passed = answers.flatMap((answer) => answer.passed)
    expect(new Set(passed).size).toBe(passed.length)
    // More than there are slots: they were taken over.
    const table = new ReplayTable(segment, 0)
    expect(passed.length).toBeGreaterThan(table.occupancy(0).slots)
    expect(table.totals()).toMatchObject({ fresh: passed.length, full: 0 })
  }, 60_000)

  it('remembers signatures on, whatever the workers that brought them died of', async () => {
    opened(100, 800)
    const table = new ReplayTable(segment, 0)
    const locks = () => replayLocks(segment, table.rows)
    let found = 0
    for (let round = 0; round < 8 || (found === 0 && round < 60); round++) {
      const each = await rivals(2)
      const nowSeconds = START_US / 1e6 + round * 1_000_000
      await Promise.all(each.map((one, i) => one.ask('onceForever', { nowSeconds, salt: `${round}-${i}` })))
      await Promise.all(each.map((one) => one.kill()))
      running.splice(0)
      found += locks()
      table.release(0)
      table.release(1)
      expect(locks()).toBe(0)
    }
    expect(found).toBeGreaterThan(0)
  }, 60_000)

  it('opens a breaker in all workers at once, and lets exactly the probes through', async () => {
    opened(100)
    const each = await rivals(3)
    const nowUs = START_US
    const [one] = each as [Rival]
    expect((await one.ask('admit', { nowUs, times: 20, outcome: OUTCOME.failed })).state).toBe('open')
    for (const other of each) expect((await other.ask('admit', { nowUs, times: 5 })).permits).toEqual([])
    const later = nowUs + 5_000_000
    const answers = await Promise.all(each.map((other) => other.ask('admit', { nowUs: later, times: 1000 })))
    expect(answers.flatMap(({ permits }) => permits)).toHaveLength(3)
    for (const [i, { permits }] of answers.entries())
      await each[i]!.ask('report', { permits, outcome: OUTCOME.ok, nowUs: later })
    expect((await one.ask('admit', { nowUs: later, times: 0 })).state).toBe('ramp')
  })

  it('frees the permits of a worker that was killed', async () => {
    opened(100)
    const [one, two] = (await rivals(2)) as [Rival, Rival]
    await one.ask('admit', { nowUs: START_US, times: 20, outcome: OUTCOME.failed })
    const nowUs = START_US + 5_000_000
    expect((await one.ask('admit', { nowUs, times: 2 })).permits).toHaveLength(2)
    expect((await two.ask('admit', { nowUs, times: 5 })).permits).toHaveLength(1)
    await one.kill()
    new BreakerTable(segment).releaseWorker(0)
    expect((await two.ask('admit', { nowUs, times: 5 })).permits).toHaveLength(2)
  })
})

/** Most times that lie within a second of each other. */
function mostInAnySecond(times: Float64Array): number {
  let most = 0
  for (let from = 0, to = 0; to < times.length; to++) {
    while ((times[to] as number) - (times[from] as number) >= 1e6) from++
    most = Math.max(most, to - from + 1)
  }
  return most
}

/** Times after the one and up to the other. */
function inWindow(times: Float64Array, afterUs: number, untilUs: number): number {
  const upTo = (us: number): number => {
    let [low, high] = [0, times.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((times[middle] as number) <= us) low = middle + 1
      else high = middle
    }
    return low
  }
  return upTo(untilUs) - upTo(afterUs)
}

/** Words that a worker holds: locks of rows and first words of slots. */
function claimsIn(table: RateTable): number {
  let claims = 0
  for (let at = 0; at < table.narrow.words.length; at += 8) if ((table.narrow.words[at] as bigint) < 0n) claims++
  return claims
}

/** Rows that somebody holds. */
function replayLocks(segment: Segment, rows: number): number {
  const { offset, bytes } = segment.section('replays')
  const words = new BigInt64Array(segment.buffer, offset + bytes - rows * 1024, rows * 128)
  let locks = 0
  for (let row = 0; row < rows; row++) if (words[row * 128] !== 0n) locks++
  return locks
}
