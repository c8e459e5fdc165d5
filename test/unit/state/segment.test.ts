import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { gunzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../../native/index.js'
import { BreakerTable } from '../../../src/state/breaker-table.js'
import { Bucket } from '../../../src/state/bucket.js'
import { type Meter, VERDICT } from '../../../src/state/charge.js'
import type { ClockSource } from '../../../src/state/clock.js'
import { countersBytesPerWorker } from '../../../src/state/counters.js'
import { LAYOUT } from '../../../src/state/header.js'
import { type OpenOptions, openSegment } from '../../../src/state/open-segment.js'
import { Owners } from '../../../src/state/owners.js'
import { Quota } from '../../../src/state/quota.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { REPLAY, ReplayTable } from '../../../src/state/replay-table.js'
import { SECTIONS, type SegmentSpec } from '../../../src/state/sections.js'
import {
  attachSegment,
  type KeptSection,
  type LiveSection,
  type Segment,
  segmentHandle,
} from '../../../src/state/segment.js'
import { Window } from '../../../src/state/window.js'
import { Breaker, OUTCOME } from '../../../src/upstream/breaker.js'
import { chargeFor } from '../../support/charges.js'

const NOON_US = Date.UTC(2026, 5, 1, 12) * 1000
const MINUTE_US = 60e6
const HOUR_US = 3600e6
const DAILY = new Bucket(1000, 86_400, 1000)
const THREE = [new Bucket(3, 86_400, 3), new Window(3, 86_400)] as const
const SPEC: SegmentSpec = {
  workers: 2,
  rateLimitKeys: 1000,
  services: 2,
  endpoints: 3,
  routes: 4,
}
const SERVICE = {
  name: 'demo',
  totalTimeoutMs: 0,
  breaker: {
    windowMs: 10_000,
    minRequests: 5,
    failureRatio: 0.5,
    slowCallMs: 1000,
    slowRatio: 0.8,
    openForMs: 3_600_000,
    maxOpenForMs: 3_600_000,
    probes: 3,
    rampMs: 0,
    failureStatuses: new Set<number>(),
  },
}

/** A machine: its clocks move as the test says. */
class Machine implements ClockSource {
  wall = NOON_US
  monotonic = 5_000_000
  slept = 0
  boot = 'boot 1'

  wallUs = () => this.wall
  monotonicUs = () => this.monotonic
  uptimeUs = () => this.monotonic + this.slept
  bootId = () => this.boot

  pass(us: number): void {
    this.wall += us
    this.monotonic += us
  }

  suspend(us: number): void {
    this.wall += us
    this.slept += us
  }

  reboot(offUs: number): void {
    this.wall += offUs
    this.monotonic = 1_000_000
    this.slept = 0
    this.boot = `${this.boot}'`
  }
}

/** How many of `times` requests the bucket admits. */
function admitted(segment: Segment, times: number, key = 'daily'): number {
  const table = new RateTable(segment, 0)
  const charge = chargeFor(segment, key, DAILY)
  let passed = 0
  for (let i = 0; i < times; i++) if (table.admit(charge, segment.nowUs()) === VERDICT.admitted) passed++
  return passed
}

function openBreaker(segment: Segment): void {
  const breaker = new Breaker(new BreakerTable(segment), SERVICE, 0)
  for (let i = 0; i < 5; i++) breaker.report(breaker.admit(segment.nowUs()), OUTCOME.failed, segment.nowUs())
  expect(breaker.state).toBe('open')
}

function breakerState(segment: Segment): string {
  return new Breaker(new BreakerTable(segment), SERVICE, 0).state
}

describe('sections', () => {
  it('lie behind each other, on pages of their own, within the segment', () => {
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })
    for (const names of [['breakers', 'rates'] as const, ['endpoints', 'workers', 'counters'] as const]) {
      let end = 4096
      for (const name of names) {
        const { buffer, offset, bytes } = segment.section(name)
        expect(offset % 4096).toBe(0)
        expect(offset).toBeGreaterThanOrEqual(end)
        end = offset + bytes
        expect(end).toBeLessThanOrEqual(buffer.byteLength)
      }
    }
    expect(segment.section('counters').bytes).toBe(2 * countersBytesPerWorker(4))
  })

  it('hold a million live keys in 512 MiB, as buckets or as windows', () => {
    const { bytes } = openSegment(
      SECTIONS,
      { ...SPEC, rateLimitKeys: 1e6 },
      { path: null, isolation: 'thread' },
    ).section('rates')
    expect(bytes).toBeLessThan(512 * 2 ** 20)
  })
})

describe('the clock', () => {
  it('is the same for all who attached, and is not behind the wall clock', () => {
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })
    const other = attachSegment(segmentHandle(segment))
    const before = segment.nowUs()
    const between = other.nowUs()
    const after = segment.nowUs()
    // Two measurements of one clock: a microsecond of rounding.
    expect(between).toBeGreaterThanOrEqual(before - 1)
    expect(between).toBeLessThanOrEqual(after + 1)
    expect(Math.abs(before - Date.now() * 1000)).toBeLessThan(1e6)
    expect(Number.isInteger(before)).toBe(true)
  })

  it('starts in 2025 where the machine believes it is 1970', () => {
    const machine = new Machine()
    machine.wall = 0
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread', clock: machine })
    expect(new Date(segment.nowUs() / 1000).getUTCFullYear()).toBe(2025)
    expect(admitted(segment, 1001)).toBe(1000)
  })

  it('ignores a step of the wall clock, either way', () => {
    const machine = new Machine()
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread', clock: machine })
    machine.wall -= MINUTE_US
    segment.touch()
    expect(segment.nowUs()).toBe(NOON_US)
    machine.wall += HOUR_US
    segment.touch()
    machine.pass(1000)
    expect(segment.nowUs()).toBe(NOON_US + 1000)
  })

  it('catches up with time slept through', () => {
    const machine = new Machine()
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread', clock: machine })
    machine.suspend(HOUR_US)
    segment.touch()
    segment.touch()
    expect(segment.nowUs()).toBe(NOON_US + HOUR_US)
  })

  it('does not believe an uptime that the wall clock knows nothing of', () => {
    const machine = new Machine()
    const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread', clock: machine })
    machine.slept += HOUR_US
    segment.touch()
    expect(segment.nowUs()).toBe(NOON_US)
  })
})

describe.skipIf(native === null)(`a segment in a file${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  let folder: string
  let path: string
  let machine: Machine
  let current: Segment | null

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidegate-state-'))
    path = join(folder, 'segment')
    machine = new Machine()
    current = null
  })
  afterEach(() => {
    stop()
    rmSync(folder, { recursive: true })
  })

  function stop(): void {
    if (current !== null) native?.closeFd(current.fd)
    current = null
  }

  function start(spec: Partial<SegmentSpec> = {}, options: Partial<OpenOptions> = {}): Segment {
    stop()
    current = openSegment(SECTIONS, { ...SPEC, ...spec }, { path, isolation: 'process', clock: machine, ...options })
    return current
  }

  it('says that it is fresh, and the next time what it restored', () => {
    const first = start()
    expect(first).toMatchObject({ kind: 'mapped', restored: false, notice: `fresh state in ${path}` })
    expect(admitted(first, 600)).toBe(600)
    openBreaker(first)
    const second = start()
    expect(second).toMatchObject({
      restored: true,
      notice: `state restored from ${path}: 1 rate limit keys, 1 breakers`,
    })
    expect(admitted(second, 600)).toBe(400)
    expect(breakerState(second)).toBe('open')
  })

  it('zeroes what does not outlive a start', () => {
    const first = start()
    for (const name of ['endpoints', 'workers', 'counters'] as const) {
      const { buffer, offset, bytes } = first.section(name)
      new Uint8Array(buffer, offset, bytes).fill(7)
    }
    const second = start()
    for (const name of ['endpoints', 'workers', 'counters'] as const) {
      const { buffer, offset, bytes } = second.section(name)
      expect(new Uint8Array(buffer, offset, bytes).every((byte) => byte === 0)).toBe(true)
    }
  })

  it('keeps its state when workers, routes, endpoints and counters change in number', () => {
    admitted(start(), 600)
    expect(admitted(start({ workers: 9, endpoints: 500, routes: 40 }), 0)).toBe(0)
    const size = statSync(path).size
    expect(admitted(start({ workers: 1, endpoints: 1, routes: 1 }), 600)).toBe(400)
    expect(statSync(path).size).toBe(size)
  })

  it.each([
    ['more', { rateLimitKeys: 50_000, services: 500 }],
    ['fewer', { rateLimitKeys: 50, services: 2 }],
  ])('takes its state along into tables for %s keys and services', (_, resized) => {
    const first = start({ rateLimitKeys: 2000, services: 100 })
    admitted(first, 600)
    openBreaker(first)
    machine.pass(1000)
    const second = start(resized)
    expect(second.notice).toBe(`state restored from ${path}: 1 rate limit keys, 1 breakers; tables resized`)
    expect(second.nowUs()).toBe(NOON_US + 1000)
    expect(admitted(second, 600)).toBe(400)
    expect(breakerState(second)).toBe('open')
    expect(admitted(start(resized), 1)).toBe(0)
  })

  it('gives a table of somebody else its section, and knows nothing of it', () => {
    const notes: KeptSection<{ notes: number }> = {
      name: 'notes',
      kept: true,
      bytes: ({ notes }) => notes,
      adopt(before, after) {
        const [from, to] = [before, after].map((one) => viewOf(one, 'notes')) as [Uint8Array, Uint8Array]
        to.set(from.subarray(0, to.length))
        return `${to.filter((byte) => byte > 0).length} notes`
      },
    }
    const scratch: LiveSection<unknown> = { name: 'scratch', kept: false, bytes: () => 5000 }
    const startWith = (over: Partial<SegmentSpec & { notes: number }>): Segment => {
      stop()
      const spec = { ...SPEC, notes: 100, ...over }
      current = openSegment([...SECTIONS, notes, scratch], spec, { path, isolation: 'process', clock: machine })
      return current
    }
    admitted(start(), 600)
    // Of an earlier run without it: the others keep what they have.
    const first = startWith({})
    expect(first.notice).toBe(`state restored from ${path}: 1 rate limit keys, 0 breakers; tables resized`)
    viewOf(first, 'notes').set([1, 2, 3])
    viewOf(first, 'scratch').fill(7)
    const second = startWith({})
    expect(second.notice).toBe(`state restored from ${path}: 1 rate limit keys, 0 breakers, 3 notes`)
    expect(viewOf(second, 'scratch')).toEqual(new Uint8Array(5000))
    // Others change in size, then it does.
    const third = startWith({ rateLimitKeys: 5000, workers: 9, replayKeys: 100 })
    expect([...viewOf(third, 'notes').subarray(0, 5)]).toEqual([1, 2, 3, 0, 0])
    expect([...viewOf(startWith({ notes: 2 }), 'notes')]).toEqual([1, 2])
    expect(start().notice).toBe(`state restored from ${path}: 1 rate limit keys, 0 breakers; tables resized`)
    expect(admitted(current as Segment, 600)).toBe(400)
  })

  it('refuses two sections of one name, and a name that the header has no room for', () => {
    const named = (name: string) => [...SECTIONS, { name, kept: true, bytes: () => 8, adopt: () => '' } as const]
    const open = (name: string) => openSegment(named(name), SPEC, { path: null, isolation: 'thread' })
    expect(() => open('rates')).toThrow('two tables have registered a section rates')
    expect(() => open('x'.repeat(25))).toThrow('its name is longer than 24 bytes')
    expect(() => openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' }).section('notes')).toThrow(
      'the segment has no section notes',
    )
  })

  // Written by the code of layout 4: 600 of a day's 1000 on one key, 4 of an hour's 7 on another, an open breaker, a
  // signature.
  it.each([
    ['of the same sizes', {}],
    ['of other sizes', { rateLimitKeys: 1000, replayKeys: 300 }],
  ])('takes the state of a file of layout 4 along, into tables %s', (_, over) => {
    const written = gunzipSync(readFileSync(join(import.meta.dirname, 'files/segment-of-layout-4.gz')))
    const spec = { rateLimitKeys: 15, replayKeys: 16, ...over }
    const startOn = (host: string) => start(spec, { host })
    const host = 'the host of the fixture'
    // With a whole header, and with one that only its copy tells of.
    for (const damaged of [false, true]) {
      if (damaged) written.fill(0xa5, 32, 128)
      writeFileSync(path, written, { mode: 0o600 })
      const kept = `state restored from ${path}: 2 rate limit keys, 1 breakers, 1 signatures`
      const first = startOn(host)
      const mended = damaged ? '; its header was damaged' : ''
      expect(first.notice).toBe(`${kept}; rewritten in a new layout${mended}`)
      expect(first.nowUs()).toBe(NOON_US)
      expect(admitted(first, 600)).toBe(400)
      expect(breakerState(first)).toBe('open')
      const now = NOON_US / 1e6
      expect(new ReplayTable(first, 0).insert({ a: 1, b: 2, c: 3, d: 4 }, now + 3600, now)).toBe(REPLAY.repeated)
      const charge = chargeFor(first, 'exact', new Window(7, 3600))
      const passes = Array.from({ length: 9 }, () => new RateTable(first, 0).admit(charge, first.nowUs()))
      expect(passes.filter((verdict) => verdict === VERDICT.admitted)).toHaveLength(3)
      expect(startOn(host).notice).toBe(kept)
      stop()
      rmSync(path)
    }
    writeFileSync(path, written.fill(0xa5, 4096 + 32, 4096 + 128), { mode: 0o600 })
    expect(startOn(host).notice).toBe(`state in ${path} discarded: its header is damaged`)
  })

  it.each([
    ['back a minute', -MINUTE_US],
    ['forward an hour', HOUR_US],
  ])('finds buckets and breakers as they were after the clock stepped %s', (_, us) => {
    const first = start()
    admitted(first, 1000)
    openBreaker(first)
    machine.wall += us
    const second = start()
    expect(second.nowUs()).toBe(NOON_US)
    expect(admitted(second, 10)).toBe(0)
    expect(breakerState(second)).toBe('open')
    machine.pass(864e6)
    expect(admitted(second, 20)).toBe(10)
  })

  it('counts the time that the machine was off', () => {
    admitted(start(), 1000)
    machine.reboot(864e6)
    expect(admitted(start(), 20)).toBe(10)
  })

  it('does not go back when the clock lost time over a reboot', () => {
    const first = start()
    admitted(first, 1000)
    machine.pass(864e6)
    first.touch()
    machine.reboot(-HOUR_US)
    const second = start()
    expect(second.nowUs()).toBe(NOON_US + 864e6)
    expect(admitted(second, 20)).toBe(10)
  })

  it('takes a start that died while it set the clock for a reboot', () => {
    admitted(start(), 1000)
    damage(128, 0xff)
    machine.pass(864e6)
    const second = start()
    expect(second.restored).toBe(true)
    expect(second.nowUs()).toBe(NOON_US + 864e6)
  })

  it('survives kill -9 with exactly what was left', () => {
    const child = `
      const { openSegment } = await import(${JSON.stringify(dist('state/open-segment.js'))})
      const { SECTIONS } = await import(${JSON.stringify(dist('state/sections.js'))})
      const { RateTable } = await import(${JSON.stringify(dist('state/rate-table.js'))})
      const { Charge } = await import(${JSON.stringify(dist('state/charge.js'))})
      const { Bucket } = await import(${JSON.stringify(dist('state/bucket.js'))})
      const { KeyHash } = await import(${JSON.stringify(dist('state/key-hash.js'))})
      const segment = openSegment(SECTIONS, ${JSON.stringify(SPEC)}, { path: ${JSON.stringify(path)}, isolation: 'process' })
      const table = new RateTable(segment, 0)
      const bucket = new Bucket(1000, 86400, 1000)
      const charge = new Charge()
      const start = new KeyHash().seed(...segment.seed).text('limit')
      const share = { mark: 1, own: 6, others: 0, common: 1, commonKeys: start }
      charge.set(bucket, bucket.cost(1), share, new KeyHash().from(start).text(bucket.salt).text('daily').finish())
      let passed = 0
      for (let i = 0; i < 600; i++) if (table.admit(charge, segment.nowUs()) === 0) passed++
      process.stdout.write(String(passed), () => process.kill(process.pid, 'SIGKILL'))
    `
    const { signal, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', child])
    expect(String(stderr)).toBe('')
    expect({ signal, passed: String(stdout) }).toEqual({ signal: 'SIGKILL', passed: '600' })
    current = openSegment(SECTIONS, SPEC, { path, isolation: 'process' })
    expect(admitted(current, 1000)).toBe(400)
  })

  const discards: [string, (() => void) | Partial<OpenOptions>, string][] = [
    ['of another layout', () => damageBoth(8, LAYOUT + 1), `written with layout ${LAYOUT + 1}, this is ${LAYOUT}`],
    ['whose start did not finish', () => damageBoth(12, 0), 'the start that made it did not finish'],
    ['with a torn header', () => damageBoth(40, 0xa5), 'its header is damaged'],
    ['that says it is larger than the file', () => enlarge(), 'its header is damaged'],
    ['from another host', { host: 'another' }, 'written on another host'],
  ]
  it.each(discards)('discards one %s, in a line that says why', (_, spoil, why) => {
    admitted(start(), 600)
    if (typeof spoil === 'function') spoil()
    const second = start({}, typeof spoil === 'function' ? {} : spoil)
    expect(second).toMatchObject({ restored: false, notice: `state in ${path} discarded: ${why}` })
    expect(admitted(second, 1001)).toBe(1000)
  })

  it('takes an empty file for one whose start did not finish', () => {
    writeFileSync(path, '', { mode: 0o600 })
    expect(start().notice).toBe(`state in ${path} discarded: the start that made it did not finish`)
  })

  it.each([
    ['a text', Buffer.from('routes: []\n')],
    ['as large as a page', Buffer.alloc(4096, 'x')],
    ['as large as a segment', Buffer.alloc(4096 * 300, 'x')],
    ['of zeros', Buffer.alloc(4096)],
    ['that has the magic elsewhere', Buffer.from(`x${'TIDEGATE'.repeat(2000)}`)],
  ])("leaves somebody else's file alone: %s", (_, bytes) => {
    for (const file of [path, `${path}.new`]) {
      writeFileSync(file, bytes, { mode: 0o600 })
      // The second is in the way where a file of ours is replaced.
      const begin = () => (file === path ? start() : start({ rateLimitKeys: 5000 }))
      expect(begin).toThrow(
        `not a state file of Tidegate, and so not overwritten (move it away, or name another path), ${file}`,
      )
      expect(readFileSync(file).equals(bytes)).toBe(true)
      rmSync(file)
      start()
      admitted(current as Segment, 600)
    }
  })

  it.each([
    ['its header', 0],
    ['the copy of it', 4096],
  ])('keeps its state where a page is damaged that says what lies where: %s', (_, at) => {
    admitted(start(), 600)
    stop()
    writeSync(openSync(path, 'r+'), randomBytes(4096), 0, 4096, at)
    const second = start()
    expect(second.notice).toBe(`state restored from ${path}: 1 rate limit keys, 0 breakers; its header was damaged`)
    expect(Math.abs(second.nowUs() - NOON_US)).toBeLessThan(1e6)
    expect(admitted(second, 1001)).toBe(400)
    expect(start().notice).toBe(`state restored from ${path}: 1 rate limit keys, 0 breakers`)
  })

  // Any page, over and over: damage costs what it hits.
  const styles = ['one page of noise', 'pages of noise', 'pages of one byte', 'single bits']
  it.each([...styles.entries()])(
    'starts with damage of kind %i, %s, and keeps the state of what was not hit',
    (style) => {
      const spec = { rateLimitKeys: 400, services: 40, replayKeys: 600 }
      const random = seededRandom(11 + style)
      const below = (n: number): number => Math.floor(random() * n)
      const lost: number[] = []
      for (let round = 0; round < 50; round++) {
        rmSync(path, { force: true })
        const first = start(spec)
        const pages = first.bytes / 4096
        const keys = Array.from({ length: 300 }, (_, i) => `key ${i}`)
        const table = new RateTable(first, 0)
        // One that holds an index, as after a kill.
        new Owners(first).take(process.pid)
        for (const [i, key] of keys.entries()) {
          const charge = chargeFor(first, key, THREE[i % 2] as Meter)
          for (let n = 0; n < 3; n++) table.admit(charge, first.nowUs())
        }
        openBreaker(first)
        const { offset: rates, bytes: ratesBytes } = first.section('rates')
        stop()
        const file = openSync(path, 'r+')
        const hit = new Set<number>()
        for (let n = style === 0 ? 1 : 1 + below(3); n > 0; n--) {
          const page = below(pages)
          hit.add(page)
          const bytes = readFileSync(path).subarray(page * 4096, page * 4096 + 4096)
          if (style < 2) for (let i = 0; i < 4096; i++) bytes[i] = below(256)
          else if (style === 2) bytes.fill([0, 0xff, 1][below(3)] as number)
          else for (let i = 0; i < 20; i++) bytes[below(4096)]! ^= 1 << below(8)
          writeSync(file, bytes, 0, 4096, page * 4096)
        }
        closeSync(file)
        if (hit.has(0) && hit.has(1)) continue

        const second = start(spec)
        expect(second.restored, second.notice).toBe(true)
        // A slot that was emptied is given to another key only when that is a while ago.
        machine.pass(200_000)
        const after = new RateTable(second, 1)
        const usedUp = (key: string, i: number): boolean =>
          after.admit(chargeFor(second, key, THREE[i % 2] as Meter), second.nowUs()) === VERDICT.refused
        const whole = keys.filter(usedUp).length
        // A page has four rows of up to 15 keys.
        const hitRates = [...hit].filter((page) => page * 4096 >= rates && page * 4096 < rates + ratesBytes).length
        lost.push(keys.length - whole)
        expect(keys.length - whole, second.notice).toBeLessThanOrEqual(hitRates * 60)
        expect(admitted(second, 1001, 'another')).toBe(1000)
        const replays = new ReplayTable(second, 1)
        expect(replays.insert({ a: 1, b: 2, c: 3, d: 4 }, Date.now() / 1000 + 60, Date.now() / 1000)).toBe(REPLAY.fresh)
        const breakers = new BreakerTable(second)
        for (let i = 0; i < 40; i++) breakers.record(`service ${i}`)
        expect(Object.values(after.totals()).every((count) => Number.isInteger(count) && count >= 0)).toBe(true)
        for (const record of breakers.records().values())
          expect(() => new Date(record.snapshot(second.nowUs()).sinceUs / 1000).toISOString()).not.toThrow()
      }
      expect(Math.max(...lost)).toBeGreaterThan(0)
      expect(lost.filter((count) => count === 0).length).toBeGreaterThan(12)
    },
  )

  it.each([
    ['as it is', {}],
    ['into a larger table', { rateLimitKeys: 5000 }],
    ['into a smaller table', { rateLimitKeys: 60 }],
  ])('keeps what windows and quotas have counted, %s', (_, over) => {
    const meters = () => ({
      exact: new Window(7, 3600),
      grouped: new Window(100, 60),
      quota: new Quota(
        9,
        'month',
        () => NOON_US / 1000 + 86_400_000,
        () => NOON_US / 1000,
      ),
    })
    const passes = (segment: Segment, key: keyof ReturnType<typeof meters>, times: number): number => {
      const table = new RateTable(segment, 0)
      const charge = chargeFor(segment, key, meters()[key])
      return Array.from({ length: times }, () => table.admit(charge, segment.nowUs())).filter((is) => is === 0).length
    }
    const first = start()
    expect([passes(first, 'exact', 4), passes(first, 'grouped', 40), passes(first, 'quota', 4)]).toEqual([4, 40, 4])
    machine.pass(30e6)
    expect(passes(first, 'grouped', 30)).toBe(30)
    const second = start(over)
    expect(second.notice).toContain('3 rate limit keys')
    expect([passes(second, 'exact', 9), passes(second, 'grouped', 90), passes(second, 'quota', 9)]).toEqual([3, 30, 5])
    machine.pass(30e6)
    // The forty of before, in groups of three: the last one's third unit came later.
    expect(passes(second, 'grouped', 90)).toBe(39)
    machine.pass(3540e6)
    expect(passes(second, 'exact', 9)).toBe(4)
  })

  it('drops windows with times that nobody can have written', () => {
    const first = start()
    const window = new Window(5, 3600)
    new RateTable(first, 0).admit(chargeFor(first, 'k', window), first.nowUs())
    const { wide } = new RateTable(first, 0)
    const at = wide.find(chargeFor(first, 'k', window).key)
    wide.floats[at + 20] = first.nowUs() + HOUR_US
    expect(start().notice).toBe(`state restored from ${path}: 0 rate limit keys (1 damaged ones dropped), 0 breakers`)
  })

  it('drops slots that nobody can have written, and keeps the rest', () => {
    const first = start()
    admitted(first, 1000, 'a')
    admitted(first, 600, 'b')
    const { offset, bytes } = first.section('rates')
    const words = new BigInt64Array(first.buffer, offset, bytes / 8)
    // Behind head and owners: of each line the first word, of each row the lines after the first.
    const slots = [...words.keys()].filter(
      (at) => at >= 16_384 && at % 8 === 0 && at % 128 !== 0 && (words[at] as bigint) > NOON_TICKS,
    )
    expect(slots).toHaveLength(2)
    words[slots[0] as number] = 2n ** 62n
    const second = start()
    expect(second.notice).toBe(`state restored from ${path}: 1 rate limit keys (1 damaged ones dropped), 0 breakers`)
    expect([admitted(second, 1000, 'a'), admitted(second, 1000, 'b')].sort()).toContain(1000)
  })

  it('ends the claims that the dead left behind', () => {
    const first = start()
    admitted(first, 600)
    const table = new RateTable(first, 3)
    const store = Atomics.store
    Atomics.store = () => {
      throw new Error('killed')
    }
    try {
      expect(() => table.admit(chargeFor(first, 'new', DAILY), first.nowUs())).toThrow('killed')
    } finally {
      Atomics.store = store
    }
    const second = start()
    expect(admitted(second, 1001, 'new')).toBe(1000)
    expect(admitted(second, 600)).toBe(400)
  })

  it('is attached by threads without costing the primary its lock', async () => {
    const first = start({}, { isolation: 'thread' })
    expect(segmentHandle(first).kind).toBe('mapped')
    const source = `
      import { parentPort, workerData } from 'node:worker_threads'
      import { attachSegment } from ${JSON.stringify(dist('state/segment.js'))}
      const segment = attachSegment(workerData)
      new Uint8Array(segment.live)[segment.section('counters').offset] = 42
      parentPort.postMessage('written')
    `
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
      workerData: segmentHandle(first),
    })
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    expect(new Uint8Array(first.live)[first.section('counters').offset]).toBe(42)
    expect(() => openSegment(SECTIONS, SPEC, { path, isolation: 'process' })).toThrow(/another process holds it/)
    await worker.terminate()
  })

  const NOON_TICKS = BigInt(NOON_US - Date.UTC(2025, 0, 1) * 1000) * 5040n

  function damageBoth(offset: number, byte: number): void {
    damage(offset, byte)
    damage(4096 + offset, byte)
  }

  function damage(offset: number, byte: number): void {
    stop()
    writeSync(openSync(path, 'r+'), Uint8Array.of(byte), 0, 1, offset)
  }

  /** A header that is whole, but promises a table beyond the file's end. */
  function enlarge(): void {
    stop()
    const large = join(folder, 'large')
    const made = openSegment(
      SECTIONS,
      { ...SPEC, rateLimitKeys: 1_000_000 },
      { path: large, isolation: 'process', clock: machine },
    )
    native?.closeFd(made.fd)
    writeSync(openSync(path, 'r+'), readFileSync(large).subarray(0, 8192), 0, 8192, 0)
  }
})

/** mulberry32: the same damage in every run. */
function seededRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

function viewOf(segment: Segment, name: string): Uint8Array {
  const { buffer, offset, bytes } = segment.section(name)
  return new Uint8Array(buffer, offset, bytes)
}

function dist(file: string): string {
  return new URL(`../../../dist/src/${file}`, import.meta.url).href
}
