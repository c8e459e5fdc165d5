// What an upstream client costs: uWS in front, the client, an origin that answers 20 bytes, and nothing else. CPU per
// request of the proxy process, arms interleaved. Needs `npm run build` and wrk.
//
//   node bench/micro/upstream.mjs [ROUNDS] [SECONDS]
import { execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Pool } from 'undici'
import { LeanPool } from '../../dist/src/upstream/http1/pool.js'

const ARMS = { undici: [], 'lean, alone': ['1'], 'lean, 32 deep': ['32'] }
/** Proxies on core 0; origin and load on core 1. */
const PIN = 'taskset'
const BODY = '<p>hello, world</p>\n'
const dropped = new Set(['content-length', 'connection', 'keep-alive', 'transfer-encoding', 'date', 'host'])

class Forwarding {
  headers = null
  sent = false
  constructor(res) {
    this.res = res
    res.onAborted(() => {
      this.sent = true
    })
  }
  onRequestStart() {}
  onResponseStart(_, __, headers) {
    this.headers = headers
  }
  onResponseData(_, chunk) {
    if (this.sent) return
    this.sent = true
    this.res.cork(() => {
      this.res.writeStatus('200 OK')
      for (const name in this.headers) if (!dropped.has(name)) this.res.writeHeader(name, this.headers[name])
      this.res.end(chunk)
    })
  }
  onResponseEnd() {}
  onResponseError(_, error) {
    if (!this.sent) throw error
  }
}

function serve(handler) {
  const uWS = createRequire(import.meta.url)('uWebSockets.js')
  const app = uWS.App().any('/*', handler)
  process.once('disconnect', () => process.exit())
  app.listen('127.0.0.1', 0, (socket) => process.send(uWS.us_socket_local_port(socket)))
}

function proxy(upstream, depth) {
  const origin = `http://127.0.0.1:${upstream}`
  const pool = depth
    ? new LeanPool(origin, { connections: 128, pipelining: Number(depth) })
    : new Pool(origin, { connections: 128, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 })
  serve((res, req) => {
    const headers = []
    req.forEach((name, value) => {
      if (!dropped.has(name)) headers.push(name, value)
    })
    const options = { method: req.getMethod().toUpperCase(), path: req.getUrl(), headers, body: null, reset: false }
    pool.dispatch(options, new Forwarding(res))
  })
}

/** A process of this file on one core, and its port. */
function start(core, ...args) {
  const child = spawn(PIN, ['-c', core, process.execPath, import.meta.filename, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  return new Promise((resolve) => child.once('message', (port) => resolve({ child, port })))
}

function cpuUs(pid) {
  let ns = 0
  for (const thread of readdirSync(`/proc/${pid}/task`))
    ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0])
  return ns / 1000
}

function load(port, seconds) {
  const out = execFileSync(PIN, ['-c', '1', 'wrk', '-t1', '-c64', `-d${seconds}s`, `http://127.0.0.1:${port}/`], {
    encoding: 'utf8',
  })
  if (/Non-2xx|Socket errors/.test(out)) throw new Error(out)
  return Number(/(\d+) requests in/.exec(out)[1])
}

async function compare(rounds, seconds) {
  const origin = await start('1', 'origin')
  const arms = []
  for (const [name, args] of Object.entries(ARMS))
    arms.push({ name, costs: [], ...(await start('0', 'proxy', String(origin.port), ...args)) })
  for (const { port } of arms) load(port, 1)
  for (let round = 0; round < rounds; round++) {
    for (const { child, port, costs } of arms) {
      const before = cpuUs(child.pid)
      const requests = load(port, seconds)
      costs.push((cpuUs(child.pid) - before) / requests)
    }
  }
  for (const { name, costs, child } of arms) {
    costs.sort((a, b) => a - b)
    console.log(
      `${name.padEnd(16)} ${costs[costs.length >> 1].toFixed(2)} µs/request  (${costs[0].toFixed(2)}–${costs.at(-1).toFixed(2)})`,
    )
    child.kill()
  }
  origin.child.kill()
}

const [task = '3', ...rest] = process.argv.slice(2)
if (task === 'origin') serve((res) => res.writeHeader('content-type', 'text/html').end(BODY))
else if (task === 'proxy') proxy(...rest)
else await compare(Number(task), Number(rest[0] ?? 2))
