// The process in which autocannon runs. It keeps a histogram of its own: autocannon's result has only percentiles,
// which cannot be merged.
import { readFileSync } from 'node:fs'
import autocannon from 'autocannon'
import { encode, histogram, record } from '../histogram.js'
import type { ChildResult } from './child-load.js'
import type { Load } from './load.js'

const load = JSON.parse(process.argv[2]!) as Load
const latencyUs = histogram()
let requests = 0
let non2xx = 0

function answered(status: number, tookMs: number): void {
  requests++
  if (status < 200 || status > 299) non2xx++
  record(latencyUs, tookMs * 1000)
}

const startedMs = performance.now()
const run = autocannon({
  url: `http://127.0.0.1:${load.port}${load.path}`,
  method: load.method,
  headers: { ...load.headers, ...(load.keepAlive ? {} : { connection: 'close' }) },
  ...(load.bodyFile === null ? {} : { body: readFileSync(load.bodyFile) }),
  connections: load.connections,
  duration: Math.ceil(load.durationMs / 1000) + 2,
  ...(load.keepAlive ? {} : { reconnectRate: 1 }),
  setupClient: load.keepAlive
    ? (client) => client.on('response', (status, _bytes, responseTimeMs) => answered(status, responseTimeMs))
    : (client) => {
        // Where it reconnects, autocannon tells of heads alone. A client connects anew with one answer: the next took
        // that long in all.
        let sinceMs = performance.now()
        client.on('headers', ({ statusCode }) => {
          const nowMs = performance.now()
          answered(statusCode, nowMs - sinceMs)
          sinceMs = nowMs
        })
      },
})
setTimeout(() => run.stop(), load.durationMs)
const { errors } = await run
const result: ChildResult = {
  requests,
  durationMs: performance.now() - startedMs,
  errors,
  non2xx,
  latencyUs: encode(latencyUs),
}
console.log(JSON.stringify(result))
process.exit()
