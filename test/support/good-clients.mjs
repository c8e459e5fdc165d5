// Clients that ask as they should, in a process of their own so that nothing else delays their clocks: good-clients.mjs
// PORT COUNT PACE_MS FOR_MS. Each asks once in PACE_MS on a connection that it keeps; every answer must be 200, and be
// there before the next is asked for. Tells the latencies in ms, or what went wrong.
import { connect } from 'node:net'

const [port, count, paceMs, forMs] = process.argv.slice(2).map(Number)
const REQUEST = 'GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n'
const latencies = []
const untilMs = performance.now() + forMs
let asking = count

function fail(why) {
  if (!process.connected) return
  process.send({ why })
  process.disconnect()
}

for (let i = 0; i < count; i++) {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let text = ''
  let sentMs = 0
  const ask = () => {
    if (performance.now() >= untilMs) {
      socket.destroy()
      if (--asking > 0) return
      // A minute's worth is more than a pipe holds.
      process.send({ latencies }, () => process.disconnect())
      return
    }
    sentMs = performance.now()
    socket.write(REQUEST)
  }
  socket.setEncoding('latin1')
  socket.on('connect', () => setTimeout(ask, (paceMs * i) / count))
  socket.on('error', (error) => fail(error.message))
  socket.on('end', () => fail(`a connection was ended after ${latencies.length} answers, with ${asking} asking`))
  socket.on('data', (part) => {
    text += part
    const end = text.indexOf('\r\n\r\n')
    if (end < 0) return
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text)?.[1]
    const complete = length === undefined ? text.endsWith('\r\n0\r\n\r\n') : text.length >= end + 4 + Number(length)
    if (!complete) return
    if (!text.startsWith('HTTP/1.1 200 ')) return fail(text)
    const tookMs = performance.now() - sentMs
    latencies.push(tookMs)
    text = ''
    setTimeout(ask, Math.max(0, paceMs - tookMs))
  })
}
