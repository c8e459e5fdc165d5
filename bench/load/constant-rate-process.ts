// The process behind constant-rate.ts: raw keep-alive sockets, one request in flight on each, prebuilt bytes.
//
//   due: t0 + n/rate ──► a free connection? ── yes ─► write ─► answer: latency = now − due
//                              └─ no ─► stays due; written by whichever connection frees first
//
// Timers of the event loop have whole milliseconds, and spinning would take the core from the origin beside it. So each
// turn of the loop sleeps up to 100 µs in Atomics.wait: what this adds to a latency is the same for every target and
// small beside the tails it is for.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { encode, histogram, record } from '../histogram.js'
import type { ChildResult } from './child-load.js'
import type { Load } from './load.js'

const NAP_MS = 0.1
/**
 * Once the last is due: for those that no connection was free for yet, and then for the answers to all that were sent.
 */
const LAST_SENT_MS = 2000
const LAST_ANSWERS_MS = 2000

const load = JSON.parse(process.argv[2]!) as Load & { requestsPerSecond: number }
const latencyUs = histogram()
const lagUs = histogram()
const head = Object.entries(load.headers).map(([name, value]) => `${name}: ${value}\r\n`)
const request = Buffer.from(`${load.method} ${load.path} HTTP/1.1\r\n${head.join('')}\r\n`, 'latin1')
const everyMs = 1000 / load.requestsPerSecond
const total = Math.floor(load.durationMs / everyMs)
const nap = new Int32Array(new SharedArrayBuffer(4))
const free: Connection[] = []
const all: Connection[] = []
let sent = 0
let answered = 0
let errors = 0
let non2xx = 0
let t0 = 0

class Connection {
  private readonly buffer = Buffer.allocUnsafe(65_536)
  private pending = ''
  private socket: Socket = this.open()
  dueMs = -1

  open(): Socket {
    const onread = { buffer: this.buffer, callback: (bytes: number) => this.read(bytes) }
    const socket = connect({ host: '127.0.0.1', port: load.port, noDelay: true, onread })
    socket.on('error', () => {})
    socket.on('close', () => this.lost())
    return socket
  }

  get connected(): Promise<unknown> {
    return this.socket.connecting ? once(this.socket, 'connect') : Promise.resolve()
  }

  send(dueMs: number): void {
    this.dueMs = dueMs
    this.socket.write(request)
  }

  /** True: go on reading. */
  private read(bytes: number): boolean {
    this.pending += this.buffer.toString('latin1', 0, bytes)
    const end = this.pending.indexOf('\r\n\r\n')
    if (end < 0) return true
    const length = /\r\ncontent-length: *(\d+)/i.exec(this.pending)
    if (length === null) throw new Error('constant-rate needs answers with a Content-Length')
    if (this.pending.length < end + 4 + Number(length[1])) return true
    if (this.pending.charCodeAt(9) !== 50) non2xx++ // '2'
    this.pending = ''
    this.settle()
    free.push(this)
    return true
  }

  private lost(): void {
    if (this.dueMs >= 0) {
      errors++
      this.settle()
    }
    const at = free.indexOf(this)
    if (at >= 0) free.splice(at, 1)
    this.pending = ''
    if (answered === total) return
    this.socket = this.open()
    this.socket.once('connect', () => free.push(this))
  }

  private settle(): void {
    record(latencyUs, (performance.now() - this.dueMs) * 1000)
    this.dueMs = -1
    answered++
  }
}

function turn(): void {
  const nowMs = performance.now()
  const waited = free.length === 0
  const overMs = t0 + load.durationMs + LAST_SENT_MS
  const isOver = nowMs > overMs
  while (!isOver && sent < total && free.length > 0) {
    const dueMs = t0 + sent * everyMs
    if (dueMs > nowMs) break
    if (!waited) record(lagUs, (nowMs - dueMs) * 1000)
    free.shift()!.send(dueMs)
    sent++
  }
  if (answered === (isOver ? sent : total) || nowMs > overMs + LAST_ANSWERS_MS) {
    finish(nowMs)
    return
  }
  const untilDueMs = t0 + sent * everyMs - nowMs
  if (untilDueMs > 0 || free.length === 0 || isOver)
    Atomics.wait(nap, 0, 0, Math.min(NAP_MS, untilDueMs > 0 ? untilDueMs : NAP_MS))
  setImmediate(turn)
}

function finish(nowMs: number): void {
  // What never came is an error and counts with the time it was waited for, whether or not it could be written.
  for (const connection of all) if (connection.dueMs >= 0) record(latencyUs, (nowMs - connection.dueMs) * 1000)
  for (let n = sent; n < total; n++) record(latencyUs, (nowMs - (t0 + n * everyMs)) * 1000)
  const result: ChildResult = {
    requests: answered,
    durationMs: nowMs - t0,
    errors: errors + total - answered,
    unsent: total - sent,
    non2xx,
    latencyUs: encode(latencyUs),
    lagUs: encode(lagUs),
  }
  console.log(JSON.stringify(result))
  process.exit()
}

for (let i = 0; i < load.connections; i++) all.push(new Connection())
await Promise.all(all.map((connection) => connection.connected))
free.push(...all)
t0 = performance.now() + 5
setImmediate(turn)
