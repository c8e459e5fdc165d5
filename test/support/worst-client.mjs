// A client that does its worst, in a process of its own: worst-client.mjs PORT CONNECTIONS PER_SECOND worst|harmless.
// On each of its connections it sends one request after the other, a request once the last one is answered, PER_SECOND
// of them in all; each connection goes through all of worst-inputs.mjs from a place of its own. `harmless`: the same
// bytes at the same pace, in one field that nobody reads. Tells each second how many requests were answered and how
// many bytes they had.
import { connect } from 'node:net'
import { worstRequests } from './worst-inputs.mjs'

const [port, count, perSecond] = process.argv.slice(2, 5).map(Number)
const harmless = process.argv[5] === 'harmless'
const TICK_MS = 5

function plain({ bytes }) {
  const start = 'GET / HTTP/1.1\r\nHost: demo.test\r\nX-Nobody-Reads: '
  return Buffer.from(`${start}${'a'.repeat(bytes.length - start.length - 4)}\r\n\r\n`)
}

const worst = worstRequests()
const requests = harmless ? worst.map(plain) : worst.map(({ bytes }) => bytes)
const ready = []
let answered = 0
let bytes = 0

class Client {
  constructor(at) {
    this.at = at
    this.open()
  }

  open() {
    this.text = ''
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.socket.setEncoding('latin1')
    this.socket.on('connect', () => ready.push(this))
    this.socket.on('error', () => {})
    // What the gateway refuses may end the connection.
    this.socket.on('close', () => this.open())
    this.socket.on('data', (part) => this.read(part))
  }

  read(part) {
    this.text += part
    const headEnd = this.text.indexOf('\r\n\r\n') + 4
    if (headEnd < 4) return
    const head = this.text.slice(0, headEnd)
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(head)?.[1]
    const complete =
      length === undefined ? this.text.endsWith('0\r\n\r\n') : this.text.length >= headEnd + Number(length)
    if (!complete) return
    answered++
    bytes += requests[this.at].length
    this.at = (this.at + 1) % requests.length
    this.text = ''
    if (/\r\nconnection: close\r\n/i.test(head)) this.socket.destroy()
    else ready.push(this)
  }
}

for (let i = 0; i < count; i++) new Client(Math.floor((i * requests.length) / count))

let due = 0
let lastMs = performance.now()
setInterval(() => {
  const nowMs = performance.now()
  // Who is late does not make up for more than a tenth of a second.
  due = Math.min(due + ((nowMs - lastMs) * perSecond) / 1000, perSecond / 10)
  lastMs = nowMs
  for (; due >= 1 && ready.length > 0; due--) {
    const client = ready.shift()
    if (client.socket.destroyed) continue
    client.socket.write(requests[client.at])
  }
}, TICK_MS)
setInterval(() => {
  if (process.connected) process.send({ answered, bytes })
  else process.exit()
}, 1000)
