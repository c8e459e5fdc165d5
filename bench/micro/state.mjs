// state/, policy/rate-limit.ts and proxy/breaker.ts: what a decision costs, alone and against another process, in tables of different
// sizes and fills. Key hashing is part of each decision.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Exchange } from '../../dist/src/ingress/exchange.js'
import { Fields } from '../../dist/src/ingress/fields.js'
import { createRateLimit } from '../../dist/src/policy/rate-limit.js'
import { Breaker, OUTCOME } from '../../dist/src/proxy/breaker.js'
import { BreakerTable } from '../../dist/src/state/breaker-table.js'
import { Charge } from '../../dist/src/state/charge.js'
import { KeyHash } from '../../dist/src/state/key-hash.js'
import { Rate } from '../../dist/src/state/rate.js'
import { RateTable } from '../../dist/src/state/rate-table.js'
import { attachSegment, openSegment } from '../../dist/src/state/segment.js'
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
const wide = new Rate(1_000_000, 1, 1_000_000_000)
const cost = wide.costTicks(1)

function tables(segment, owner) {
  const table = new RateTable(segment, owner)
  const start = new KeyHash().seed(...segment.seed).text('demo#0')
  const hash = new KeyHash()
  const charge = new Charge()
  return {
    table,
    breaker: new Breaker(new BreakerTable(segment), SERVICE, owner),
    decide(key, nowUs) {
      charge.set(wide, cost, hash.from(start).text(key).finish())
      return table.admit(charge, nowUs)
    },
  }
}

const open = (rateLimitKeys, isolation = 'process') =>
  openSegment(
    { workers: 2, rateLimitKeys, services: 4, endpoints: 1, routes: 1, countersBytesPerWorker: 64 },
    { path: null, isolation },
  )

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
  measure('decision, one key, admitted', () => decide('consumer-1', ++nowUs) + 1)
  measure('decision, 1024 keys in turn, admitted', (i) => decide(names[i & 1023], ++nowUs) + 1)
  const greedy = new Charge()
  greedy.set(wide, wide.burstTicks, new KeyHash().from(hash).text('consumer-1').finish())
  table.admit(greedy, nowUs)
  measure('decision, one key, refused (key hashed before)', () => table.admit(greedy, nowUs))
  measure('decision, a key never seen', (i) => {
    nowUs += 10
    return decide(`new-${i}`, nowUs) + 1
  })

  const exchange = new Exchange(null, nowUs, 'GET', '/', undefined, Fields.of(['x-key', 'abcdef']))
  exchange.clientAddress = '192.0.2.17'
  const limit = (name, kind) => ({
    name,
    by: [{ kind }],
    quantity: 1_000_000,
    windowSeconds: 1,
    burst: 1_000_000_000,
    cost: 1,
    costByMethod: null,
    mode: 'enforce',
    onFull: 'allow',
    headers: false,
  })
  const phase = createRateLimit(table, segment)
  const routes = [[limit('a', 'address')], [limit('b', 'route')], [limit('a', 'address'), limit('b', 'route')]]
  for (const [index, limits] of routes.entries()) {
    const route = { name: 'demo', index, limits }
    measure(`phase, ${limits.map(({ by }) => by[0].kind).join(' and ')}`, () => {
      exchange.route = route
      return phase(exchange)
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

  byFill([0.1, 0.5, 0.9, 0.95])

  await against(segment, 'one key', 1, decide)
  await against(segment, '1024 keys', 1024, decide)
}

/**
 * Tables of a million slots, filled to different shares; decisions on 20,000 keys of each, whatever its fill. In turn, and in CPU time: the
 * ratio is what counts, and a neighbour on the machine must not make it.
 */
function byFill(fills) {
  const arms = fills.map((fill) => {
    const segment = open(1_000_000)
    const { table, decide } = tables(segment, 0)
    const { slots } = table.occupancy()
    const keys = Math.floor(slots * fill)
    const nowUs = segment.nowUs()
    const hour = new Rate(1, 3600, 1000)
    const charge = new Charge()
    const hash = new KeyHash()
    const seed = new KeyHash().seed(...segment.seed).text('demo#0')
    for (let i = 0; i < keys; i++) {
      charge.set(hour, hour.costTicks(1), hash.from(seed).text(`user-${i}`).finish())
      table.admit(charge, nowUs)
    }
    const { full } = table.totals()
    const sample = Array.from({ length: 20_000 }, (_, i) => `user-${Math.floor((i * keys) / 20_000)}`)
    return { fill, slots, full, sample, nowUs, decide, ns: [] }
  })
  for (let round = 0; round < 21; round++) {
    for (const { sample, nowUs, decide, ns } of arms) {
      const before = process.cpuUsage()
      for (let turn = 0; turn < 5; turn++) for (const key of sample) decide(key, nowUs)
      const { user, system } = process.cpuUsage(before)
      ns.push(((user + system) * 1000) / (5 * sample.length))
    }
  }
  for (const { fill, slots, full, ns } of arms) {
    ns.sort((a, b) => a - b)
    const what = `decision, ${fill * 100} % of ${slots} slots live`
    console.log(
      `${what.padEnd(48)} ${ns[10].toFixed(0).padStart(7)} ns  (${ns[0].toFixed(0)}–${ns[20].toFixed(0)})  ${full} keys without room`,
    )
  }
}

async function against(segment, what, keys, decide) {
  const child = fork(import.meta.filename, ['rival'], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', segment.fd, segment.liveFd],
  })
  child.send({ bytes: segment.bytes, liveBytes: segment.live.byteLength, keys })
  await once(child, 'message')
  const names = Array.from({ length: keys }, (_, i) => `rival-${i}`)
  const nowUs = segment.nowUs()
  measure(`decision, two processes on ${what}`, (i) => decide(names[i % keys], nowUs) + 1)
  child.kill('SIGKILL')
  await once(child, 'exit')
}

async function rival() {
  const [{ bytes, liveBytes, keys }] = await once(process, 'message')
  const segment = attachSegment({ kind: 'mapped', fd: 4, bytes, liveFd: 5, liveBytes })
  const { decide } = tables(segment, 1)
  const names = Array.from({ length: keys }, (_, i) => `rival-${i}`)
  const nowUs = segment.nowUs()
  for (let i = 0; i < 1e5; i++) decide(names[i % keys], nowUs)
  process.send('fighting')
  // Until it is killed; a minute at most.
  const until = performance.now() + 60_000
  for (let i = 0; (i & 0xfff) !== 0 || performance.now() < until; i++) decide(names[i % keys], nowUs)
  process.exit()
}
