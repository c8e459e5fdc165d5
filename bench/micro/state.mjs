// state/, policy/rate-limit.ts and upstream/breaker.ts: what a decision costs, alone and against another process, in
// tables of different sizes and fills. Key hashing is part of each decision.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { nextPeriodStartMs } from '../../dist/src/config/calendar.js'
import { MemoryDownstream } from '../../dist/src/downstream/memory.js'
import { Exchange } from '../../dist/src/exchange/exchange.js'
import { Fields } from '../../dist/src/exchange/fields.js'
import { createRateLimit } from '../../dist/src/policy/rate-limit.js'
import { BreakerTable } from '../../dist/src/state/breaker-table.js'
import { Bucket } from '../../dist/src/state/bucket.js'
import { Charge } from '../../dist/src/state/charge.js'
import { KeyHash } from '../../dist/src/state/key-hash.js'
import { openSegment } from '../../dist/src/state/open-segment.js'
import { Quota } from '../../dist/src/state/quota.js'
import { RateTable } from '../../dist/src/state/rate-table.js'
import { SECTIONS } from '../../dist/src/state/sections.js'
import { attachSegment, segmentHandle } from '../../dist/src/state/segment.js'
import { shareOf } from '../../dist/src/state/share.js'
import { Window } from '../../dist/src/state/window.js'
import { Breaker, OUTCOME } from '../../dist/src/upstream/breaker.js'
import { measure } from './measure.mjs'

const RULES = {
  windowMs: 10_000,
  minRequests: 20,
  failureRatio: 0.5,
  slowCallMs: 1000,
  slowRatio: 0.8,
  openForMs: 5000,
  maxOpenForMs: 60_000,
  probes: 3,
  rampMs: 1000,
  failureStatuses: new Set(),
}
const SERVICE = { name: 'demo', totalTimeoutMs: 10_000, breaker: RULES }
const bucket = new Bucket(1_000_000, 1, 1_000_000_000)
/** Of each kind one that admits all, or nearly so: what a decision costs must not be that of refusing. */
const METERS = {
  bucket,
  'window of 30': new Window(30, 1),
  'window of 100,000': new Window(100_000, 1),
  quota: new Quota(1_000_000_000, 'day UTC', (ms) => nextPeriodStartMs('day', 'UTC', ms)),
}

function tables(segment, owner) {
  const table = new RateTable(segment, owner)
  const start = new KeyHash().seed(...segment.seed).text('demo#0')
  const share = shareOf(1, start, table.narrow.rows, new KeyHash().from(start).text('common'))
  const hash = new KeyHash()
  const charge = new Charge()
  charge.admitsUndecided = true
  const costs = new Map(Object.values(METERS).map((meter) => [meter, meter.cost(1)]))
  return {
    table,
    breaker: new Breaker(new BreakerTable(segment), SERVICE, owner),
    share,
    decide(key, nowUs, meter = bucket) {
      charge.set(meter, costs.get(meter), share, hash.from(start).text(meter.salt).text(key).finish())
      return table.admit(charge, nowUs)
    },
  }
}

const open = (rateLimitKeys, isolation = 'process') =>
  openSegment(SECTIONS, { workers: 2, rateLimitKeys, services: 4, endpoints: 1, routes: 1 }, { path: null, isolation })

if (process.argv[2] === 'rival') await rival()
else await main()

async function main() {
  const segment = open(131_072)
  const { table, breaker, decide } = tables(segment, 0)
  const names = Array.from({ length: 1024 }, (_, i) => `consumer-${i}`)
  let nowUs = segment.nowUs()

  measure('clock', () => segment.nowUs())
  const hash = new KeyHash().seed(...segment.seed)
  measure(
    'hash of a 12-character key',
    (i) =>
      hash
        .from(hash)
        .text(names[i & 1023])
        .finish().a,
  )
  for (const [what, meter] of Object.entries(METERS)) {
    const isWindow = what.startsWith('window')
    // As far apart as the window lets them be admitted.
    const stepUs = isWindow ? 40_000 : 1
    measure(`${what}: one key, admitted`, () => {
      nowUs += stepUs
      return decide('consumer-1', nowUs, meter) + 1
    })
    measure(`${what}: 1024 keys in turn, admitted`, (i) => decide(names[i & 1023], ++nowUs, meter) + 1)
    if (isWindow) {
      for (let i = 0; i < 200_000; i++) decide('consumer-2', nowUs, meter)
      measure(`${what}: one key, refused`, () => decide('consumer-2', nowUs, meter) + 1)
      // Each lets one out, and the next in.
      const everyUs = Math.ceil(1e6 / (what.endsWith('30') ? 30 : 100_000))
      measure(`${what}: one key, filled and moving`, () => {
        nowUs += everyUs
        return decide('consumer-2', nowUs, meter) + 1
      })
    }
    measure(`${what}: a key never seen`, (i) => {
      nowUs += 10
      return decide(`new-${i}`, nowUs, meter) + 1
    })
  }

  const exchange = new Exchange(new MemoryDownstream(), nowUs, 'GET', '/', undefined, Fields.of(['x-key', 'abcdef']))
  exchange.clientAddress = '192.0.2.17'
  const limit = (
    name,
    kind,
    measure = { kind: 'bucket', quantity: 1_000_000, windowSeconds: 1, burst: 1_000_000_000 },
  ) => ({
    name,
    by: [{ kind }],
    measure,
    tiers: [],
    cost: 1,
    costByMethod: null,
    mode: 'enforce',
    onFull: 'allow',
    headers: false,
  })
  const window = { kind: 'window', quantity: 1_000_000, windowSeconds: 1 }
  const routes = [
    [limit('a', 'address')],
    [limit('b', 'route')],
    [limit('a', 'address'), limit('b', 'route')],
    [limit('c', 'address', window)],
    [limit('c', 'address', window), limit('b', 'route')],
  ].map((limits, index) => ({ name: 'demo', index, limits, guessLimits: [] }))
  const checkOf = createRateLimit(table, segment, routes)
  for (const route of routes) {
    const check = checkOf(route)
    const what = route.limits.map(({ by, measure }) => `${measure.kind} by ${by[0].kind}`)
    measure(`phase, ${what.join(' and ')}`, () => {
      exchange.route = route
      return check(exchange)
    })
  }

  measure('breaker, admit + report ok', () => {
    nowUs += 5
    breaker.report(breaker.admit(nowUs), OUTCOME.ok, nowUs)
  })
  breaker.report(breaker.admit(nowUs), OUTCOME.failed, nowUs)
  measure('breaker, the same with a failure in the window', () => {
    breaker.report(breaker.admit(nowUs), OUTCOME.ok, nowUs)
  })

  byFill([0.1, 0.5, 0.9, 0.95], 'bucket', 1_000_000)
  byFill([0.1, 0.5, 0.9, 0.95], 'window of 100,000', 250_000)

  for (const what of ['bucket', 'window of 100,000']) {
    await against(segment, what, 1, decide)
    await against(segment, what, 1024, decide)
  }
}

/**
 * Tables of a million slots, filled to different shares; decisions on 20,000 keys of each, whatever its fill. In turn,
 * and in CPU time: the ratio is what counts, and a neighbour on the machine must not make it.
 */
function byFill(fills, what, rateLimitKeys) {
  const meter = METERS[what]
  const arms = fills.map((fill) => {
    const segment = open(rateLimitKeys)
    const { table, share, decide } = tables(segment, 0)
    // Of the slots that are for keys.
    const slots = Math.floor(((meter.wide ? table.occupancy().windowSlots : table.occupancy().slots) * 13) / 15)
    const keys = Math.floor(slots * fill)
    const nowUs = segment.nowUs()
    const charge = new Charge()
    const lasting = meter.wide ? new Window(100_000, 3600) : new Bucket(1, 3600, 1000)
    const hash = new KeyHash()
    const seed = new KeyHash().seed(...segment.seed).text('demo#0')
    for (let i = 0; i < keys; i++) {
      charge.set(lasting, lasting.cost(1), share, hash.from(seed).text(meter.salt).text(`user-${i}`).finish())
      table.admit(charge, nowUs)
    }
    const { full } = table.totals()
    const sample = Array.from({ length: 20_000 }, (_, i) => `user-${Math.floor((i * keys) / 20_000)}`)
    return { fill, slots, full, sample, nowUs, decide, ns: [] }
  })
  for (let round = 0; round < 21; round++) {
    for (const { sample, nowUs, decide, ns } of arms) {
      const before = process.cpuUsage()
      for (let turn = 0; turn < 5; turn++) for (const key of sample) decide(key, nowUs, meter)
      const { user, system } = process.cpuUsage(before)
      ns.push(((user + system) * 1000) / (5 * sample.length))
    }
  }
  for (const { fill, slots, full, ns } of arms) {
    ns.sort((a, b) => a - b)
    const line = `${what}: ${fill * 100} % of ${slots} slots live`
    console.log(
      `${line.padEnd(48)} ${ns[10].toFixed(0).padStart(7)} ns  (${ns[0].toFixed(0)}–${ns[20].toFixed(0)})  ${full} keys without room`,
    )
  }
}

async function against(segment, what, keys, decide) {
  const meter = METERS[what]
  const child = fork(import.meta.filename, ['rival'], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', segment.fd, segment.liveFd],
  })
  child.send({ handle: segmentHandle(segment, { fd: 4, liveFd: 5 }), keys, what })
  await once(child, 'message')
  const names = Array.from({ length: keys }, (_, i) => `rival-${i}`)
  const nowUs = segment.nowUs()
  measure(
    `${what}: two processes on ${keys === 1 ? 'one key' : `${keys} keys`}`,
    (i) => decide(names[i % keys], nowUs, meter) + 1,
  )
  child.kill('SIGKILL')
  await once(child, 'exit')
}

async function rival() {
  const [{ handle, keys, what }] = await once(process, 'message')
  const segment = attachSegment(handle)
  const { decide } = tables(segment, 1)
  const meter = METERS[what]
  const names = Array.from({ length: keys }, (_, i) => `rival-${i}`)
  const nowUs = segment.nowUs()
  for (let i = 0; i < 1e5; i++) decide(names[i % keys], nowUs, meter)
  process.send('fighting')
  // Until it is killed; a minute at most.
  const until = performance.now() + 60_000
  for (let i = 0; (i & 0xfff) !== 0 || performance.now() < until; i++) decide(names[i % keys], nowUs, meter)
  process.exit()
}
