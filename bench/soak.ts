// npm run soak -- --minutes N: half of what the gateway can do, for long, with what goes wrong in real life mixed in.
// Watches what must not grow: memory, descriptors, the event loop's delay, latency. Ends with 1 where it does, or where
// a request failed. Requests that could not be sent in time tell of too high a rate, or a busy machine, and are counted
// apart.
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { soakCharts } from './charts.js'
import { percentileMs } from './histogram.js'
import { Origin } from './instances.js'
import { constantRate } from './load/constant-rate.js'
import type { Load } from './load/load.js'
import { freePort, processTree, stop, workFolder } from './processes.js'
import { sign } from './signature.js'
import { slopePerMinute } from './stats.js'
import { tidegate } from './targets/tidegate.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
/** One sample. Signatures are made anew for each: they are good for five minutes. */
const SLICE_SECONDS = 10
const MOST_MIB_PER_MINUTE = 1
/** Of the whole time: caches fill, code is compiled, the heap finds its size. */
const WARM_UP = 0.2
/** Above this share of requests that could not be sent it was not the rate that was asked for. */
const MOST_UNSENT = 0.01

export interface Sample {
  readonly minute: number
  readonly workers: readonly { readonly pid: number; readonly rssMiB: number; readonly descriptors: number }[]
  readonly loopDelayMs: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
  readonly requests: number
  readonly failed: number
  readonly unsent: number
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    rate: { type: 'string' },
    connections: { type: 'string', default: '64' },
  },
})
const minutes = Number(values.minutes)
const connections = Number(values.connections)
if (!(minutes >= 1) || !(connections >= 1)) {
  console.error('npm run soak -- [--minutes N] [--rate REQUESTS_PER_SECOND] [--connections N]; N is at least 1')
  process.exit(2)
}

const origin = await Origin.start(null)
const [port, adminPort] = [await freePort(), await freePort()]
const directory = path.join(workFolder(), 'soak')
const started = await tidegate('tidegate', ROOT).start(
  { job: 'whole', workers: 2, cpus: null },
  { directory, port, adminPort, originPort: origin.port },
)
while (!(await started.ready())) {
  if (started.process.exitCode !== null) throw new Error('the gateway did not start')
  await wait(50)
}

function load(seconds: number): Load {
  return {
    ...{
      port,
      method: 'GET',
      path: '/',
      bodyFile: null,
      bodyBytes: 0,
      connections,
      keepAlive: true,
      cpus: null,
      threads: 1,
    },
    headers: { host: 'bench.test', ...sign('GET', '/', Buffer.alloc(0)) },
    durationMs: seconds * 1000,
  }
}

/** What the generator gets through when asked for more than there is. */
async function ceiling(): Promise<number> {
  const { requests, durationMs } = await constantRate(load(5), 100_000)
  return (requests / durationMs) * 1000
}

/**
 * Beside the load, all the time: callers that are refused, connections used once, long signed bodies, and clients that
 * leave in the middle of a request or of an answer. Resolves with how many of those that should have been served were
 * not.
 */
async function disturb(until: number): Promise<number> {
  let failed = 0
  const body = Buffer.alloc(100_000, 'soak')
  while (Date.now() < until) {
    const once = { connection: 'close' }
    if ((await status('GET', '/', { ...once, 'x-source': 'bench', 'x-time': '1', 'x-m': 'ff' })) !== 401) failed++
    if ((await status('GET', '/', { ...once, ...sign('GET', '/', Buffer.alloc(0)) })) !== 200) failed++
    if ((await status('POST', '/', { ...once, ...sign('POST', '/', body) }, body)) !== 200) failed++
    for (const sent of ['GET / HT', `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n`]) {
      const socket = connect(port, '127.0.0.1', () => socket.write(sent, () => socket.resetAndDestroy()))
      socket.on('error', () => {})
    }
    await wait(50)
  }
  return failed
}

function status(method: string, target: string, headers: Record<string, string>, body?: Buffer): Promise<number> {
  return new Promise((resolve) => {
    const sent = request({ host: '127.0.0.1', port, method, path: target, headers, agent: false }, (answer) => {
      answer.resume()
      answer.on('close', () => resolve(answer.complete ? answer.statusCode! : 0))
    })
    sent.on('error', () => resolve(0))
    sent.end(body)
  })
}

async function loopDelayMs(): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
  const delays = [...text.matchAll(/^tidegate_worker_event_loop_delay_max_seconds\{.*\} (\S+)$/gm)].map((match) =>
    Number(match[1]),
  )
  return Math.max(0, ...delays) * 1000
}

function workers(): Sample['workers'] {
  return processTree(started.process.pid!)
    .filter((pid) => pid !== started.process.pid)
    .map((pid) => ({
      pid,
      rssMiB: Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) / 1024,
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
    }))
}

const rate = values.rate === undefined ? Math.round((await ceiling()) / 2) : Number(values.rate)
console.log(`${rate} requests/s over ${connections} connections for ${minutes} min, and a few that go wrong`)
const samples: Sample[] = []
const startedMs = Date.now()
while (Date.now() - startedMs < minutes * 60_000) {
  const [result, failed] = await Promise.all([
    constantRate(load(SLICE_SECONDS), rate),
    disturb(Date.now() + SLICE_SECONDS * 1000),
  ])
  // Descriptors are counted between slices, when no client is connected: what is left is the gateway's own.
  await wait(500)
  const sample: Sample = {
    minute: (Date.now() - startedMs) / 60_000,
    workers: workers(),
    loopDelayMs: await loopDelayMs(),
    p50Ms: percentileMs(result.latencyUs, 50),
    p99Ms: percentileMs(result.latencyUs, 99),
    p999Ms: percentileMs(result.latencyUs, 99.9),
    requests: result.requests,
    failed: failed + result.errors - result.unsent + result.non2xx,
    unsent: result.unsent,
  }
  samples.push(sample)
  truncateSync(started.accessLog!)
  console.log(
    `${sample.minute.toFixed(1).padStart(5)} min  ${sample.workers.map((one) => `${one.rssMiB.toFixed(1)} MiB ${one.descriptors} fds`).join('  ')}` +
      `  p50 ${sample.p50Ms.toFixed(2)} p99 ${sample.p99Ms.toFixed(2)} p99.9 ${sample.p999Ms.toFixed(2)} ms  loop ${sample.loopDelayMs.toFixed(0)} ms  failed ${sample.failed} unsent ${sample.unsent}`,
  )
}
await stop(started.process)
await origin.stop()

const steady = samples.filter((one) => one.minute >= minutes * WARM_UP)
const verdicts = samples[0]!.workers.map(({ pid }, i) => {
  const of = (what: 'rssMiB' | 'descriptors') =>
    steady.map((one) => [one.minute, one.workers[i]!] as const).map(([x, y]) => [x, y[what]] as const)
  const [rss, descriptors] = [slopePerMinute(of('rssMiB')), slopePerMinute(of('descriptors'))]
  return { pid, mibPerMinute: rss, descriptorsPerMinute: descriptors }
})
const requests = samples.reduce((sum, one) => sum + one.requests, 0)
const failed = samples.reduce((sum, one) => sum + one.failed, 0)
const unsent = samples.reduce((sum, one) => sum + one.unsent, 0)
const replaced = samples.some(
  (one) => one.workers.map(({ pid }) => pid).join() !== samples[0]!.workers.map(({ pid }) => pid).join(),
)
const folder = path.join(ROOT, 'bench/results')
mkdirSync(folder, { recursive: true })
writeFileSync(
  path.join(folder, 'soak.json'),
  `${JSON.stringify({ rate, connections, requests, failed, unsent, verdicts, samples }, null, 1)}\n`,
)
writeFileSync(path.join(folder, 'soak.html'), soakCharts(samples))
for (const { pid, mibPerMinute, descriptorsPerMinute } of verdicts) {
  console.log(
    `worker ${pid}: ${mibPerMinute.toFixed(3)} MiB and ${descriptorsPerMinute.toFixed(3)} descriptors a minute after warm-up`,
  )
}
console.log(
  `${requests} requests, ${failed} failed, ${unsent} unsent${replaced ? ', a worker was replaced' : ''}; bench/results/soak.html`,
)
const unsentShare = unsent / (requests + unsent)
if (unsentShare > MOST_UNSENT) {
  const percent = (unsentShare * 100).toFixed(1)
  console.log(
    `${percent} % of the requests could not be sent in time: ask for less with --rate, or let the machine rest`,
  )
}
const grows = verdicts.some((one) => one.mibPerMinute > MOST_MIB_PER_MINUTE || one.descriptorsPerMinute > 0.5)
process.exit(grows || failed > 0 || replaced ? 1 : 0)
