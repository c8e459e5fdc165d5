// What uWS makes of answers that its client is slow to read. 20.51 loses a write that does not fit the rest of its cork
// buffer where flushing that meets a full socket.
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { StreamedAnswer } from '../../src/downstream/answer.js'
import { accept } from '../../src/downstream/uws/accept.js'
import { uWS } from '../../src/downstream/uws/load.js'
import { turns } from '../support/waiting.js'

const CHUNKS = 20_000
const source = Buffer.alloc(65_536, 'tidegate')

let port = 0
let listening: ReturnType<typeof uWS.App>

beforeAll(async () => {
  listening = uWS.App().any('/*', (res, req) => void stream(accept(res, req, 0)))
  port = await new Promise((resolve) => {
    listening.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
})

afterAll(() => listening.close())

async function stream(exchange: ReturnType<typeof accept>): Promise<void> {
  exchange.status = 200
  exchange.rid = 'r'
  exchange.downstream.watch()
  let drained = () => {}
  const answer = new StreamedAnswer(exchange, 'OK', {}, -1, () => drained())
  await turns(1)
  for (let i = 0; i < CHUNKS && exchange.downstream.open; i++) {
    const full = new Promise<void>((resolve) => {
      drained = resolve
    })
    if (answer.send(source.subarray(0, sizeOf(i)))) continue
    await full
    await turns(1)
  }
  answer.end()
}

/** Of these sizes uWS 20.51 loses one chunk in a few hundred; of others fewer. */
function sizeOf(i: number): number {
  return 30_000 + ((i * 40_503) % 1000)
}

/**
 * The length of a chunked body, read in large parts by someone who stops for a millisecond every few. Throws where a
 * chunk is not whole.
 */
async function bytesOfBody(): Promise<number> {
  let bytes = 0
  /** Of the chunk that is being read, with its CRLF. */
  let missing = 0
  let line = ''
  const socket = connect({
    port,
    host: '127.0.0.1',
    onread: {
      buffer: Buffer.alloc(1 << 20),
      callback: (count, buffer) => {
        for (let at = 0; at < count; ) {
          if (missing > 0) {
            const part = Math.min(missing, count - at)
            missing -= part
            at += part
            if (missing === 0 && buffer[at - 1] !== 10) socket.destroy(new Error('no CRLF after a chunk'))
            continue
          }
          line += String.fromCharCode(buffer[at++] as number)
          if (!line.endsWith('\r\n')) continue
          const size = /^([0-9a-f]+)\r\n$/i.exec(line)?.[1]
          line = ''
          if (size === undefined) continue // a line of the head
          bytes += Number.parseInt(size, 16)
          missing = Number.parseInt(size, 16) + 2
        }
        return true
      },
    },
  })
  socket.write('GET / HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n')
  const stalls = setInterval(() => {
    socket.pause()
    setTimeout(() => socket.resume(), 1)
  }, 3)
  await once(socket, 'close')
  clearInterval(stalls)
  return bytes
}

test('every chunk arrives whole, whenever the reader stalls', async () => {
  let expected = 0
  for (let i = 0; i < CHUNKS; i++) expected += sizeOf(i)
  // Lost in one round of three, when it was.
  for (let round = 0; round < 8; round++) expect(await bytesOfBody()).toBe(expected)
}, 60_000)
