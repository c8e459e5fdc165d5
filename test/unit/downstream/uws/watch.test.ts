// The watch over connections, with handlers that have the faults it is there for: real connections, through the real
// gate, of an app that forgets to read on or to answer. None of those that are merely slow is touched.

import type { HttpRequest, HttpResponse } from 'uWebSockets.js'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { native, nativeProblem } from '../../../../native/index.js'
import { accept, checkFraming } from '../../../../src/downstream/uws/accept.js'
import { answered, guard, openGate, watchConnections } from '../../../../src/downstream/uws/gate.js'
import { uWS } from '../../../../src/downstream/uws/load.js'
import { Deadlines } from '../../../../src/exchange/deadlines.js'
import type { Exchange } from '../../../../src/exchange/exchange.js'

/** As the gate counts them. */
const UNREAD = 10
const UNANSWERED = 11
const LARGE = Buffer.alloc(16 << 20, 'x')

const tallies = new Float64Array(12)
const deadlines = new Deadlines(() => 0)
const lookedAt = { ended: 0, tell: (_: number) => {} }
let app: ReturnType<typeof uWS.App>
let port = 0
let timer: NodeJS.Timeout

const handlers: Record<string, (exchange: Exchange, res: HttpResponse) => void> = {
  // As src/downstream/body.ts had it: paused by the body, and answered in parts before anybody let it go on.
  '/unread': (exchange, res) => {
    res.onData((_, isLast) => {
      if (!isLast) return
      res.pause()
      const body = Buffer.alloc(20_000, 'x')
      res.cork(() => res.tryEnd(body.subarray(0, 10_000), body.length))
      res.cork(() => res.tryEnd(body.subarray(10_000), body.length))
      answered(exchange.downstream.connection, false)
    })
  },
  '/unanswered': () => {},
  '/owned': (exchange) =>
    deadlines.add({
      deadlineUs: Number.POSITIVE_INFINITY,
      exchange,
      slot: -1,
      expire: () => {},
    }),
  '/held-back': (exchange, res) => {
    handlers['/owned']!(exchange, res)
    res.pause()
  },
  '/large': (exchange, res) => {
    const send = (offset: number) => {
      const [ok, done] = res.tryEnd(LARGE.subarray(offset), LARGE.length)
      if (done) answered(exchange.downstream.connection, false)
      return ok
    }
    res.onWritable(send)
    res.cork(() => send(0))
  },
  '/': (exchange, res) => {
    res.end('x')
    answered(exchange.downstream.connection, false)
  },
}

beforeAll(async () => {
  if (native === null) return
  expect(openGate(tallies, { headerTimeoutMs: 60_000, idleTimeoutMs: 60_000, maxHeaderBytes: 16_384 })).toBe('')
  app = uWS.App()
  guard(app, false, false)
  app.any('/*', (res: HttpResponse, req: HttpRequest) => {
    const exchange = accept(res, req, 0)
    checkFraming(exchange, { underscoresInHeaders: 'drop', paths: { mergeSlashes: true, escapedSlashes: 'refuse' } })
    res.onAborted(() => {})
    handlers[exchange.path]!(exchange, res)
  })
  port = await new Promise((resolve) => {
    app.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
  timer = watchConnections(deadlines, (connections) => {
    lookedAt.ended += connections
    lookedAt.tell(lookedAt.ended)
  })
})

afterAll(() => {
  clearInterval(timer)
  app?.close()
})

async function open(request: string, isRead = true): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => {})
  await once(socket, 'connect')
  if (isRead) socket.resume()
  socket.write(request)
  return socket
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`
const post = (path: string) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello`

test.skipIf(native === null)(
  `ends and counts connections that nobody reads from or answers, and no others${nativeProblem}`,
  async () => {
    const good = await Promise.all([
      open(get('/owned')),
      open(post('/held-back')),
      open(get('/large'), false),
      open(get('/')),
      // More than is answered in a turn, or read before it is.
      open(get('/').repeat(20_000), false),
      open('GET / HTTP/1.1\r\nHost:'),
    ])
    let gone = 0
    for (const socket of good) socket.once('close', () => gone++)
    const bad = await Promise.all([open(post('/unread')), open(get('/unanswered')), open(get('/unanswered'))])
    const closed = Promise.all(bad.map((socket) => once(socket, 'close')))
    await new Promise<void>((resolve) => {
      lookedAt.tell = (ended) => ended >= bad.length && resolve()
    })
    await closed
    expect([tallies[UNREAD], tallies[UNANSWERED]]).toEqual([1, 2])
    // The same again, so that the others have been looked at as often.
    const another = await open(get('/unanswered'))
    await once(another, 'close')
    expect([gone, lookedAt.ended]).toEqual([0, 4])
    for (const socket of good) socket.destroy()
  },
)
