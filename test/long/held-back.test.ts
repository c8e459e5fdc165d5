// A client that was held back because its upload came faster than the service took it: its connection goes on, however
// the exchange ends. One that stays held back is neither read nor timed, and its next request waits for ever.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority, writePair } from '../support/certificates.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor } from '../support/requirements.js'
import { settled } from '../support/waiting.js'
import { chunkOf } from '../support/wire.js'

/** More than the gateway holds of a body, and less than it reads at a time. */
const UPLOAD = randomBytes(100_000)
/** More than a service, its kernel and ours take of a body that nobody reads. */
const ENDLESS = randomBytes(24 << 20)
/** Of a mebibyte: more than four sockets' buffers grow to (tcp_rmem and tcp_wmem). */
const PIECES = 160
/** Longer than an answer that leaves in one write. */
const LONG = 20_000

let service: Origin
let flooding: Promise<RawExchange>
let cleartext: Gateway
let encrypted: Gateway
let ca: string

const answers: Record<string, (exchange: RawExchange) => Promise<void>> = {
  long: (exchange) => exchange.answer(200, {}, 'x'.repeat(LONG)),
  short: (exchange) => exchange.answer(200, {}, 'x'),
  chunked: (exchange) =>
    exchange.send(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunkOf('x'.repeat(LONG))}0\r\n\r\n`),
}

beforeAll(async () => {
  let flooded: (exchange: RawExchange) => void
  flooding = new Promise((resolve) => {
    flooded = resolve
  })
  service = await startScripted({
    '/whole': async (exchange) => {
      await exchange.body()
      await answers[exchange.query.get('answer')!]!(exchange)
    },
    // Answers once the gateway has stopped sending, and has read nothing of the body.
    '/early': async (exchange) => {
      await settled('the upload', () => exchange.socket.bytesRead)
      await answers[exchange.query.get('answer')!]!(exchange)
      // Where buffers have grown, the whole upload may be on its way: the gateway then keeps the connection.
      await exchange.body()
    },
    // The same, with more than anybody takes.
    '/flood': async (exchange) => {
      await settled('the upload', () => exchange.socket.bytesRead)
      flooded(exchange)
      await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${2 ** 40}\r\n\r\n`)
      while (!exchange.socket.destroyed) await exchange.send(ENDLESS).catch(() => {})
    },
  })
  const authority = await createAuthority()
  ca = authority.cert
  const site = writePair(await authority.issue({ cn: 'site', dns: ['site.test'] }))
  const config = {
    services: { service: { endpoints: [service.url] } },
    routes: [{ match: { path: '/' }, service: 'service', auth: 'none', maxBody: 'unlimited' }],
  }
  cleartext = await startGateway({ workers: 1, config })
  encrypted = await startGateway({ workers: 1, config: { ...config, tls: { certificates: [site] } } })
})

afterAll(async () => {
  await cleartext.close()
  await encrypted.close()
  await service.close()
})

const open = (over: string): Promise<Connection> =>
  over === 'TLS'
    ? Connection.open(encrypted.port, '127.0.0.1', { ca, servername: 'site.test' })
    : Connection.open(cleartext.port)

const head = (target: string, framing: string, version = '1.1') =>
  `POST ${target} HTTP/${version}\r\nHost: demo.test\r\nConnection: keep-alive\r\n${framing}\r\n\r\n`

describe.each(['cleartext', 'TLS'])('over %s', (over) => {
  // Whether the last chunk comes in the same read as those before it is the kernel's to say: twenty times it mostly
  // does.
  test.each(['long', 'short', 'chunked'])(
    'behind chunked uploads that came at once, and %s answers',
    async (answer) => {
      const connection = await open(over)
      const request = Buffer.concat([
        Buffer.from(head(`/whole?answer=${answer}`, 'Transfer-Encoding: chunked')),
        chunkOf(UPLOAD),
        Buffer.from('0\r\n\r\n'),
      ])
      for (let i = 0; i < 20; i++) {
        await connection.write(request)
        expect((await connection.answer()).body.length).toBe(answer === 'short' ? 1 : LONG)
      }
      connection.destroy()
    },
  )

  test.each(['long', 'short', 'chunked'])(
    'behind an upload that the service answered early, with a %s answer',
    async (answer) => {
      const connection = await open(over)
      const written = connection.write(
        Buffer.concat([Buffer.from(head(`/early?answer=${answer}`, `Content-Length: ${ENDLESS.length}`)), ENDLESS]),
      )
      expect((await connection.answer()).status).toBe(200)
      await written
      expect((await connection.exchange({ target: '/after' })).status).toBe(200)
      connection.destroy()
    },
  )
})

test('an upload that nobody reads is not gathered while its client does not read the answer either', async (context) => {
  // By itself uSockets reads on from a paused connection for as long as each of its reads is full, and threads have no
  // other way in.
  requireAcceptor(context)
  const connection = await Connection.open(cleartext.port)
  const { socket } = connection
  socket.pause()
  await connection.write(head('/flood', `Content-Length: ${2 ** 40}`))
  let taken = 0
  const piece = ENDLESS.subarray(0, 1 << 20)
  const send = () => socket.write(piece, () => ++taken <= PIECES && send())
  send()
  const exchange = await flooding
  await settled('what the gateway takes of the upload', () => taken)
  expect(taken).toBeLessThan(PIECES)
  // The gateway does not read, and so does not hear of this.
  connection.destroy()
  expect(await cleartext.access.find((line) => line.path === '/flood', 'the line')).toMatchObject({
    status: 200,
    code: 'request_timeout',
    reason: 'answer not taken in time',
  })
  await exchange.closed()
})

test('behind uploads of HTTP/1.0, early answers among them', async (context) => {
  requireAcceptor(context)
  const connection = await Connection.open(cleartext.port)
  for (let i = 0; i < 20; i++) {
    await connection.write(
      Buffer.concat([Buffer.from(head('/whole?answer=long', `Content-Length: ${UPLOAD.length}`, '1.0')), UPLOAD]),
    )
    expect((await connection.answer()).body.length).toBe(LONG)
  }
  const written = connection.write(
    Buffer.concat([Buffer.from(head('/early?answer=long', `Content-Length: ${ENDLESS.length}`, '1.0')), ENDLESS]),
  )
  expect((await connection.answer()).body.length).toBe(LONG)
  // What it still sends goes nowhere, and the connection ends with this answer.
  await written.catch(() => {})
  connection.destroy()
})
