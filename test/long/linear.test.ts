// No input that a client or an upstream may send (test/support/worst-inputs.mjs, worst-responses.mjs) holds a worker's
// event loop for 5 ms. Measured as CPU time of the loop's thread, which does not depend on what else the machine does.
// The cheapest of several batches counts: in the others V8 may have compiled or collected.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { Connection, call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'
import { configFor, worstRequests } from '../support/worst-inputs.mjs'
import { startWorstOrigin, worstResponses } from '../support/worst-responses.mjs'

const MOST_MS = 5
/** undici's own parser takes half of it for thousands of fields, on a busy machine. */
const MOST_MS_UNDICI = 15
/** At the same time: what a worker does without requests counts less the sooner it is through. */
const BATCH = 10
const BATCHES = 6

let origin: Awaited<ReturnType<typeof startWorstOrigin>>
let gateway: Gateway
let pid = 0

beforeAll(async () => {
  origin = await startWorstOrigin()
  gateway = await startGateway({
    workers: 1,
    // On a busy machine heads that come in pieces take their time.
    env: { TIDEGATE_ACCESS_LOG: '/dev/null', TIDEGATE_HEADER_TIMEOUT_MS: '120000' },
    config: configFor(origin.url),
  })
  pid = (await gateway.status()).workers[0]!.pid
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

/** CPU time that the thread with the worker's event loop has had, in ms. */
function loopMs(): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6
}

/**
 * One request on a connection of its own. Reads its response carelessly: the strict client of the other tests takes
 * longer than the gateway.
 */
function ask(bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port: gateway.port, host: '127.0.0.1', noDelay: true })
    let text = ''
    socket.setEncoding('latin1')
    socket.on('data', (part) => {
      text += part
      const headEnd = text.indexOf('\r\n\r\n') + 4
      if (headEnd < 4) return
      const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text.slice(0, headEnd))?.[1]
      if (length === undefined ? !text.endsWith('0\r\n\r\n') : text.length < headEnd + Number(length)) return
      resolve()
      socket.destroy()
    })
    socket.on('error', reject)
    // uWebSockets.js' own refusals end with their connection.
    socket.on('close', () => (text.startsWith('HTTP/1.1 4') ? resolve() : reject(new Error('no whole response'))))
    socket.write(bytes)
  })
}

/** What one request costs, where that is over the limit; else ''. */
async function tooMuch(name: string, bytes: Buffer, mostMs = MOST_MS): Promise<string> {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < BATCHES && least > mostMs; i++) {
    const before = loopMs()
    await Promise.all(Array.from({ length: BATCH }, () => ask(bytes)))
    // The access line is written after the response.
    await gateway.status()
    least = Math.min(least, (loopMs() - before) / BATCH)
  }
  return least > mostMs ? `${name}: ${least.toFixed(1)} ms` : ''
}

test('no request holds the event loop for 5 ms', { timeout: 60_000 }, async (context) => {
  requireProcesses(context, gateway)
  const slow: string[] = []
  for (const { name, bytes } of worstRequests()) slow.push(await tooMuch(name, bytes))
  expect(slow.filter((text) => text !== '')).toEqual([])
})

test('a Host that is longer than any name is refused', async () => {
  expect((await call(gateway.port, { host: `${'a.'.repeat(131)}a` })).status).toBe(400)
  expect((await call(gateway.port, { host: `${'a.'.repeat(127)}a:65535` })).status).toBe(200)
})

test.for([
  ['/', MOST_MS],
  ['/undici/', MOST_MS_UNDICI],
] as const)(
  'no response to %s holds the event loop for %i ms',
  { timeout: 60_000 },
  async ([path, mostMs], context) => {
    requireProcesses(context, gateway)
    const slow: string[] = []
    for (const [at, { name }] of worstResponses().entries()) {
      // undici hands over each chunk, and each is a write to the client (2 us); the lean client joins those of one
      // read.
      if (path === '/undici/' && name === 'chunks of one byte') continue
      slow.push(await tooMuch(name, Buffer.from(`GET ${path}r${at} HTTP/1.1\r\nHost: a\r\n\r\n`), mostMs))
    }
    expect(slow.filter((text) => text !== '')).toEqual([])
  },
)

/** The addon reads a connection's first head in another place than later ones. */
const IN_PIECES: [name: string, first: boolean, line: string][] = [
  ['a first head of short lines', true, 'a:\r\na:\r\n'],
  ['a later head of bytes above ASCII', false, '\xe9'.repeat(8)],
]
const CONNECTIONS = 64

test.for(IN_PIECES)(
  'the last pieces of %s cost as much as the first',
  { timeout: 60_000 },
  async ([, first, piece], context) => {
    requireProcesses(context, gateway)
    const start = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nA: ')
    const bytes = Buffer.from(piece, 'latin1')
    const barrier = await Connection.open(gateway.port)
    /** Per piece. */
    const cost = async (pieces: number): Promise<number> => {
      const connections = await Promise.all(Array.from({ length: CONNECTIONS }, () => Connection.open(gateway.port)))
      if (!first) for (const connection of connections) await connection.exchange({ host: 'a' })
      for (const connection of connections) await connection.write(start)
      const before = loopMs()
      for (let i = 0; i < pieces; i++) {
        for (const connection of connections) await connection.write(bytes)
        // When this one is answered, the worker has read all that was written before. Else it would read several pieces
        // as one.
        await barrier.exchange({ host: 'a' })
      }
      const spent = loopMs() - before
      for (const connection of connections) connection.destroy()
      return spent / pieces
    }
    await cost(100)
    const few = await cost(200)
    const many = await cost(1_800)
    barrier.destroy()
    expect(many / few).toBeLessThan(1.5)
  },
)
