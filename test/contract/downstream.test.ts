// The client's side of an exchange, held to its interface (src/exchange/downstream.ts): the same cases over
// uWebSockets.js, with a real client on a socket, and in memory. What one of them cannot do is skipped with the reason;
// that it does no harm is tested all the same.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { native, nativeProblem } from '../../native/index.js'
import { MemoryDownstream } from '../../src/downstream/memory.js'
import { accept, checkFraming } from '../../src/downstream/uws/accept.js'
import { guard, openGate } from '../../src/downstream/uws/gate.js'
import { uWS, uwsVersion } from '../../src/downstream/uws/load.js'
import type { BodyListener, Downstream, DrainListener, TunnelListener } from '../../src/exchange/downstream.js'
import { HeadLines, StatusLine } from '../../src/exchange/response-head.js'
import { Connection } from '../support/raw-client.js'
import { ConnectionCut, chunkOf } from '../support/wire.js'

interface RequestKind {
  readonly method?: string
  /** Its body comes in chunks, or with this length; null for none. */
  readonly body?: 'chunked' | number | null
  readonly expects?: boolean
}

interface Seen {
  readonly status: number
  /** `200 OK`. */
  readonly line: string
  /** By lower-case name, values as bytes. */
  field(name: string): string
  readonly length: number | null
  readonly body: Buffer
}

/** The client's end. */
interface Client {
  /** The next of the request's body, as fast as it is taken. */
  send(part: Buffer, isLast: boolean): Promise<void>
  sendMalformed(): Promise<void>
  /** It does not read, from now until it is asked for the response. */
  stall(): void
  /** The complete response; 'cut' where it never gets that. */
  response(): Promise<Seen | 'cut'>
  /** The first line of the response has arrived: its status. */
  status(): Promise<number>
  /** It was told to continue. */
  continued(): Promise<void>
  leave(): Promise<void>
}

/** What an owner hears. */
interface Events {
  left: number
  readonly errors: unknown[]
}

interface Side {
  readonly name: string
  /** What it cannot do, and why. */
  readonly cannot: Readonly<Record<'interims' | 'trailers' | 'tunnels' | 'continue' | 'malformed' | 'flush', string>>
  open(kind: RequestKind, serve: (downstream: Downstream, events: Events) => void): Promise<Client>
}

const noGate = native === null ? `no gate: ${nativeProblem}` : ''
const rules = { underscoresInHeaders: 'drop', paths: { mergeSlashes: true, escapedSlashes: 'refuse' } } as const

const OK = new StatusLine(200, 'OK')
const PLAIN = new HeadLines('\r\ncontent-type: text/plain')
const OWN = '\r\nx-rid: r'
const LARGE = Buffer.alloc(16 << 20, 'tidegate')
const nobody: DrainListener = { onDrain() {} }

let serving: (downstream: Downstream, events: Events) => void
let app: ReturnType<typeof uWS.App>
let port = 0

beforeAll(async () => {
  if (native !== null) {
    const limits = { headerTimeoutMs: 10_000, idleTimeoutMs: 10_000, maxHeaderBytes: 16_384 }
    expect(openGate(new Float64Array(12), limits)).toBe('')
  }
  app = uWS.App()
  guard(app, false, false)
  app.any('/*', (res, req) => {
    const exchange = accept(res, req, 0)
    const events: Events = { left: 0, errors: [] }
    exchange.ends = { crash: (_, error) => events.errors.push(error), clientLeft: () => events.left++ }
    expect(checkFraming(exchange, rules)).toBeNull()
    serving(exchange.downstream, events)
  })
  port = await new Promise((resolve) => {
    app.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
})

afterAll(() => app.close())

const uws: Side = {
  name: `uWebSockets.js ${uwsVersion}`,
  cannot: {
    interims: 'uWebSockets.js sends no interim response but 100',
    trailers: 'uWebSockets.js writes no trailers',
    tunnels: 'WebSocket is not served',
    continue: noGate,
    malformed: noGate,
    flush: uwsVersion.startsWith('20.69') ? 'uWebSockets.js 20.69 sends no head without a body' : '',
  },
  async open({ method = 'GET', body = null, expects = false }, serve) {
    let served = () => {}
    const arrived = new Promise<void>((resolve) => {
      served = resolve
    })
    serving = (downstream, events) => {
      downstream.watch()
      serve(downstream, events)
      served()
    }
    const connection = await Connection.open(port)
    const length =
      body === null ? '' : body === 'chunked' ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${body}\r\n`
    const expectation = expects ? 'Expect: 100-continue\r\n' : ''
    await connection.write(`${method} / HTTP/1.1\r\nHost: demo.test\r\n${length}${expectation}\r\n`)
    await arrived
    return {
      async send(part, isLast) {
        if (body !== 'chunked') return connection.write(part)
        if (part.length > 0) await connection.write(chunkOf(part))
        if (isLast) await connection.write('0\r\n\r\n')
      },
      sendMalformed: () => connection.write('no size\r\n'),
      stall() {},
      async response() {
        try {
          const answer = await connection.answer(method)
          const declared = answer.one('content-length')
          return {
            status: answer.status,
            line: `${answer.status} ${answer.phrase}`,
            field: (name) => answer.one(name) ?? '',
            length: declared === null || declared === undefined ? null : Number(declared),
            body: answer.body,
          }
        } catch (error) {
          if (!(error instanceof ConnectionCut)) throw error
          return 'cut'
        } finally {
          connection.destroy()
        }
      },
      status: async () => Number((await connection.reader.until('\r\n')).toString().split(' ')[1]),
      async continued() {
        const [line] = (await connection.reader.until('\r\n\r\n')).toString().split('\r\n')
        expect(line).toBe('HTTP/1.1 100 Continue')
      },
      async leave() {
        connection.destroy()
      },
    }
  },
}

const memory: Side = {
  name: 'memory',
  cannot: { interims: '', trailers: '', tunnels: '', continue: '', malformed: '', flush: '' },
  async open({ method = 'GET', expects = false }, serve) {
    const downstream = new MemoryDownstream(method, { expects, upgrades: true })
    const events: Events = { left: 0, errors: [] }
    downstream.owner = { clientLeft: () => events.left++, crash: (error) => events.errors.push(error) }
    downstream.watch()
    serve(downstream, events)
    return {
      async send(part, isLast) {
        for (let from = 0; ; from += 65_536) {
          while (downstream.bodyPaused) await nextTurn()
          const isEnd = from + 65_536 >= part.length
          downstream.send(part.subarray(from, from + 65_536), isLast && isEnd)
          if (isEnd) return
        }
      },
      async sendMalformed() {
        downstream.sendMalformed()
      },
      stall: () => downstream.stall(),
      async response() {
        while (!downstream.ended && downstream.open) {
          downstream.drain()
          await nextTurn()
        }
        if (!downstream.ended) return 'cut'
        const { head, length, body } = downstream
        return { status: head!.status, line: head!.line, field: (name) => downstream.field(name), length, body }
      },
      status: async () => downstream.head!.status,
      async continued() {
        expect(downstream.continued).toBe(true)
      },
      async leave() {
        downstream.leave()
      },
    }
  },
}

/** Parts written as fast as they are taken, then the end. Tells how often it had to wait. */
class Writer implements DrainListener {
  waits = 0
  private at = 0
  private isDone = false

  constructor(
    private readonly downstream: Downstream,
    private readonly parts: readonly Buffer[],
  ) {}

  begin(length: number | null): void {
    this.downstream.start(OK, PLAIN, OWN, length, this)
    this.onDrain()
  }

  onDrain(): void {
    while (this.at < this.parts.length) {
      if (this.downstream.write(this.parts[this.at++]!)) continue
      this.waits++
      return
    }
    if (this.isDone) return
    this.isDone = true
    expect(this.downstream.drained).toBe(true)
    this.downstream.end(null)
  }
}

/** A request's body as it came. */
class Reader implements BodyListener {
  readonly chunks: Buffer[] = []
  bytes = 0
  isComplete = false

  onBody(chunk: ArrayBuffer, isLast: boolean): void {
    this.chunks.push(Buffer.from(new Uint8Array(chunk)))
    this.bytes += chunk.byteLength
    this.isComplete = isLast
  }

  onMalformed(): void {
    throw new Error('malformed')
  }
}

async function respondTo(side: Side, kind: RequestKind, respond: (downstream: Downstream) => void): Promise<Seen> {
  const client = await side.open(kind, respond)
  return (await client.response()) as Seen
}

describe.each([uws, memory])('over $name', (side) => {
  const { cannot } = side
  const unless = (reason: string) => (reason === '' ? '' : ` (skipped: ${reason})`)

  describe('a whole response', () => {
    test('has its status, its fields and its body, byte for byte', async () => {
      const lines = new HeadLines('\r\ncontent-type: text/plain\r\nx-wide: \xe9\xff')
      const seen = await respondTo(side, {}, (downstream) => {
        expect([downstream.open, downstream.begun]).toEqual([true, false])
        downstream.respond(new StatusLine(404, 'N\xf6'), lines, OWN, 'hello', 5)
        expect([downstream.open, downstream.begun]).toEqual([false, true])
      })
      expect([seen.line, seen.field('content-type'), seen.field('x-rid')]).toEqual(['404 N\xf6', 'text/plain', 'r'])
      expect(seen.field('x-wide')).toBe('\xe9\xff')
      expect([seen.length, seen.body.toString()]).toEqual([5, 'hello'])
    })

    test.each([1, 10_000, 10_001, LARGE.length])('of %i bytes arrives whole', async (length) => {
      const body = LARGE.subarray(0, length)
      const seen = await respondTo(side, {}, (downstream) => downstream.respond(OK, PLAIN, OWN, body, length))
      expect([seen.length, seen.body.equals(body)]).toEqual([length, true])
    })

    test('may have a head of any length', async () => {
      const fields = Array.from({ length: 300 }, (_, i) => `\r\nx-${i}: ${'v'.repeat(i)}\xe9`)
      const seen = await respondTo(side, {}, (downstream) =>
        downstream.respond(OK, new HeadLines(fields.join('')), OWN, 'hello', 5),
      )
      for (const i of [0, 1, 150, 299]) expect(seen.field(`x-${i}`)).toBe(`${'v'.repeat(i)}\xe9`)
      expect([seen.field('x-rid'), seen.body.toString()]).toEqual(['r', 'hello'])
    })

    test.each([
      ['HEAD, of a body that is not sent', 'HEAD', 200, 'hello', 5, 5],
      ['HEAD, of a length alone', 'HEAD', 200, null, 7, 7],
      ['204', 'GET', 204, null, -1, null],
      ['304', 'GET', 304, null, 7, 7],
      ['304, without a length', 'GET', 304, null, -1, null],
    ] as const)('ends with its head: %s', async (_, method, status, body, length, declared) => {
      const seen = await respondTo(side, { method }, (downstream) =>
        downstream.respond(new StatusLine(status, 'X'), PLAIN, OWN, body, length),
      )
      expect([seen.status, seen.length, seen.body.length]).toEqual([status, declared, 0])
    })
  })

  describe('a response in parts', () => {
    test.each([6, null])('has all of them, with the length %s', async (length) => {
      const seen = await respondTo(side, {}, (downstream) => {
        new Writer(downstream, [Buffer.from('one'), Buffer.from('two')]).begin(length)
        expect([downstream.open, downstream.begun, downstream.drained]).toEqual([false, true, true])
      })
      expect([seen.line, seen.field('x-rid'), seen.length]).toEqual(['200 OK', 'r', length])
      expect(seen.body.toString()).toBe('onetwo')
    })

    test.each([0, null])('may have none, with the length %s', async (length) => {
      const seen = await respondTo(side, {}, (downstream) => new Writer(downstream, []).begin(length))
      expect([seen.length ?? 0, seen.body.length]).toEqual([0, 0])
    })

    test('begins with its first byte', async () => {
      await respondTo(side, {}, (downstream) => {
        downstream.start(OK, PLAIN, OWN, null, nobody)
        expect(downstream.begun).toBe(false)
        downstream.write(Buffer.from('x'))
        expect(downstream.begun).toBe(true)
        downstream.end(null)
      })
    })

    test.skipIf(cannot.flush !== '')(
      `sends its head before its body when asked to${unless(cannot.flush)}`,
      async () => {
        for (const length of [3, 0, null]) {
          let served!: Downstream
          const client = await side.open({}, (downstream) => {
            served = downstream
            downstream.start(OK, PLAIN, OWN, length, nobody)
            downstream.flush()
          })
          expect(await client.status()).toBe(200)
          if (length !== 0) served.write(Buffer.from('one'))
          served.end(null)
          expect(served.open).toBe(false)
          await client.leave()
        }
      },
    )

    test.each([
      ['a declared length', LARGE.length],
      ['no length', null],
    ])('waits for a client that does not read, and loses nothing: %s', async (_, length) => {
      const parts = Array.from({ length: 256 }, (_, i) => LARGE.subarray(i << 16, (i + 1) << 16))
      let writer!: Writer
      let start = () => {}
      const client = await side.open({}, (downstream) => {
        writer = new Writer(downstream, parts)
        start = () => writer.begin(length)
      })
      client.stall()
      start()
      expect(writer.waits).toBe(1)
      const seen = (await client.response()) as Seen
      expect([seen.length, seen.body.equals(LARGE)]).toEqual([length, true])
    })

    test('that is cut does not look complete', async () => {
      for (const length of [1000, null]) {
        let heard!: Events
        const client = await side.open({}, (downstream, events) => {
          heard = events
          downstream.start(OK, PLAIN, OWN, length, nobody)
          downstream.write(Buffer.from('some'))
          downstream.cut()
          expect(downstream.open).toBe(false)
          // Nothing of this does anything.
          downstream.cut()
          downstream.write(Buffer.from('more'))
          downstream.end(null)
        })
        expect(await client.response()).toBe('cut')
        expect(heard.errors).toEqual([])
      }
    })

    test('an exception of whoever waits for the client is its owner’s', async () => {
      let heard!: Events
      let served!: Downstream
      let start = () => {}
      const client = await side.open({}, (downstream, events) => {
        heard = events
        served = downstream
        const onDrain = () => {
          throw new Error('expected of this test')
        }
        start = () => {
          downstream.start(OK, PLAIN, OWN, null, { onDrain })
          while (downstream.write(LARGE.subarray(0, 1 << 20))) {}
        }
      })
      client.stall()
      start()
      const seen = client.response()
      await expect.poll(() => heard.errors.length).toBe(1)
      served.cut()
      expect(await seen).toBe('cut')
    })
  })

  describe('a client that leaves', () => {
    test('is its owner’s to hear of, once, and nothing is written to it any more', async () => {
      let heard!: Events
      let served!: Downstream
      const client = await side.open({}, (downstream, events) => {
        heard = events
        served = downstream
        downstream.start(OK, PLAIN, OWN, null, nobody)
        downstream.write(Buffer.from('some'))
      })
      await client.leave()
      await expect.poll(() => heard.left).toBe(1)
      expect(served.open).toBe(false)
      served.write(Buffer.from('more'))
      served.end(null)
      served.respond(OK, PLAIN, OWN, 'late', 4)
      served.pauseBody()
      served.resumeBody()
      served.continueBody()
      served.renewTimeout()
      served.cut()
      expect(heard).toEqual({ left: 1, errors: [] })
    })

    test('is not heard of where it has its response', async () => {
      let heard!: Events
      const client = await side.open({}, (downstream, events) => {
        heard = events
        downstream.respond(OK, PLAIN, OWN, 'hello', 5)
      })
      await client.response()
      await client.leave()
      for (let turn = 0; turn < 20; turn++) await nextTurn()
      expect(heard).toEqual({ left: 0, errors: [] })
    })
  })

  describe('the request’s body', () => {
    test.each([11, 'chunked'] as const)('arrives in order, and its end is told: %s', async (body) => {
      const reader = new Reader()
      let served!: Downstream
      const client = await side.open({ method: 'POST', body }, (downstream) => {
        served = downstream
        downstream.listen(reader)
      })
      await client.send(Buffer.from('hello '), false)
      await client.send(Buffer.from('world'), true)
      await expect.poll(() => reader.isComplete).toBe(true)
      expect(Buffer.concat(reader.chunks).toString()).toBe('hello world')
      served.respond(OK, PLAIN, OWN, 'ok', 2)
      expect(((await client.response()) as Seen).body.toString()).toBe('ok')
    })

    test('is held back while it is paused', async () => {
      const reader = new Reader()
      let served!: Downstream
      const client = await side.open({ method: 'POST', body: LARGE.length }, (downstream) => {
        served = downstream
        downstream.listen(reader)
        downstream.pauseBody()
      })
      const sent = client.send(LARGE, true)
      for (let turn = 0; turn < 50; turn++) await nextTurn()
      expect(reader.bytes).toBeLessThan(LARGE.length / 2)
      served.renewTimeout()
      served.resumeBody()
      await sent
      await expect.poll(() => reader.isComplete).toBe(true)
      expect(Buffer.concat(reader.chunks).equals(LARGE)).toBe(true)
      served.respond(OK, PLAIN, OWN, 'ok', 2)
      await client.response()
    })

    test.skipIf(cannot.malformed !== '')(
      `may be malformed, which its listener is told${unless(cannot.malformed)}`,
      async () => {
        const client = await side.open({ method: 'POST', body: 'chunked' }, (downstream) => {
          const onMalformed = () => {
            downstream.closes = true
            downstream.respond(new StatusLine(400, 'Bad Request'), PLAIN, OWN, 'bad', 3)
          }
          downstream.listen({ onBody() {}, onMalformed })
        })
        await client.sendMalformed()
        expect(((await client.response()) as Seen).status).toBe(400)
      },
    )

    test('an exception of its listener is its owner’s', async () => {
      let heard!: Events
      let served!: Downstream
      const client = await side.open({ method: 'POST', body: 5 }, (downstream, events) => {
        heard = events
        served = downstream
        const onBody = () => {
          throw new Error('expected of this test')
        }
        downstream.listen({ onBody, onMalformed() {} })
      })
      await client.send(Buffer.from('hello'), true)
      await expect.poll(() => heard.errors.length).toBeGreaterThan(0)
      served.respond(new StatusLine(500, 'Internal Server Error'), PLAIN, OWN, 'bad', 3)
      expect(((await client.response()) as Seen).status).toBe(500)
    })

    test.skipIf(cannot.continue !== '')(`comes once it is asked for${unless(cannot.continue)}`, async () => {
      const reader = new Reader()
      let served!: Downstream
      const client = await side.open({ method: 'POST', body: 5, expects: true }, (downstream) => {
        served = downstream
        downstream.listen(reader)
      })
      expect(served.awaitsContinue).toBe(true)
      served.continueBody()
      expect(served.awaitsContinue).toBe(false)
      await client.continued()
      await client.send(Buffer.from('hello'), true)
      await expect.poll(() => reader.isComplete).toBe(true)
      served.respond(OK, PLAIN, OWN, 'ok', 2)
      expect(((await client.response()) as Seen).body.toString()).toBe('ok')
      expect(served.closes).toBe(false)
    })

    test.skipIf(cannot.continue !== '')(
      `that is not asked for ends its connection with the response${unless(cannot.continue)}`,
      async () => {
        let served!: Downstream
        const seen = await respondTo(side, { method: 'POST', body: 5, expects: true }, (downstream) => {
          served = downstream
          downstream.respond(new StatusLine(401, 'Unauthorized'), PLAIN, OWN, 'no', 2)
          downstream.continueBody()
        })
        expect([seen.status, served.closes]).toEqual([401, true])
      },
    )
  })

  describe('what not every protocol has', () => {
    test('interim responses, trailers and upgrades harm no response', async () => {
      const seen = await respondTo(side, {}, (downstream) => {
        downstream.interim(new StatusLine(103, 'Early Hints'), new HeadLines('\r\nlink: </a>'))
        downstream.start(OK, PLAIN, OWN, null, nobody)
        downstream.write(Buffer.from('hello'))
        expect(downstream.upgrade(PLAIN, OWN, { ...nobody, onData() {}, onEnd() {} })).toBeNull()
        downstream.end(new HeadLines('\r\nx-sum: 1'))
      })
      expect([seen.status, seen.body.toString()]).toEqual([200, 'hello'])
    })

    test.skipIf(cannot.interims !== '')(`interim responses come first${unless(cannot.interims)}`, async () => {
      let served!: MemoryDownstream
      await respondTo(side, {}, (downstream) => {
        served = downstream as MemoryDownstream
        downstream.interim(new StatusLine(103, 'Early Hints'), new HeadLines('\r\nlink: </a>'))
        downstream.respond(OK, PLAIN, OWN, 'hello', 5)
      })
      expect(served.interims).toEqual([{ status: 103, line: '103 Early Hints', fields: ['link', '</a>'] }])
    })

    test.skipIf(cannot.trailers !== '')(`trailers follow the body${unless(cannot.trailers)}`, async () => {
      let served!: MemoryDownstream
      await respondTo(side, {}, (downstream) => {
        served = downstream as MemoryDownstream
        downstream.start(OK, PLAIN, OWN, null, nobody)
        downstream.end(new HeadLines('\r\nx-sum: 1'))
      })
      expect(served.trailers).toEqual(['x-sum', '1'])
    })

    test.skipIf(cannot.tunnels !== '')(`an upgrade opens a tunnel${unless(cannot.tunnels)}`, async () => {
      let served!: MemoryDownstream
      const heard: string[] = []
      const listener: TunnelListener = {
        onData: (chunk) => heard.push(Buffer.from(chunk).toString()),
        onEnd: () => heard.push('end'),
        onDrain: () => heard.push('drain'),
      }
      await side.open({}, (downstream) => {
        served = downstream as MemoryDownstream
      })
      const tunnel = served.upgrade(new HeadLines('\r\nupgrade: echo'), OWN, listener)!
      expect([served.head!.status, served.field('upgrade'), served.begun]).toEqual([101, 'echo', true])
      served.tunnel!.send('ping')
      expect(tunnel.write(Buffer.from('pong'))).toBe(true)
      served.tunnel!.stall()
      expect(tunnel.write(Buffer.from('more'))).toBe(false)
      served.tunnel!.drain()
      served.tunnel!.sendEnd()
      tunnel.end()
      expect(heard).toEqual(['ping', 'drain', 'end'])
      expect(Buffer.concat(served.tunnel!.chunks).toString()).toBe('pongmore')
      tunnel.cut()
      expect([served.wasCut, served.open]).toEqual([true, false])
    })
  })
})

describe('over uWebSockets.js, a connection that ends with its response', () => {
  test.each([
    ['a whole one', 'GET', (one: Downstream) => one.respond(OK, PLAIN, OWN, 'hello', 5)],
    ['to HEAD', 'HEAD', (one: Downstream) => one.respond(OK, PLAIN, OWN, 'hello', 5)],
    ['in parts', 'GET', (one: Downstream) => new Writer(one, [Buffer.from('hello')]).begin(null)],
    ['in parts of a length', 'GET', (one: Downstream) => new Writer(one, [Buffer.from('hello')]).begin(5)],
    ['without a body', 'GET', (one: Downstream) => one.respond(new StatusLine(304, 'X'), PLAIN, OWN, null, -1)],
  ])('says so, and ends: %s', async (what, method, respond) => {
    serving = (downstream) => {
      downstream.watch()
      downstream.closes = true
      respond(downstream)
    }
    const connection = await Connection.open(port)
    const answer = await connection.exchange({ method })
    expect(answer.one('connection')).toBe('close')
    // Without a gate nobody can end what uWS could not be told to.
    if (native !== null || what === 'a whole one' || what === 'to HEAD') await connection.closedByPeer()
    connection.destroy()
  })
})

/** Most refusals: uWS is told nothing of them but the response. */
describe('over uWebSockets.js, a response on the spot, without watch()', () => {
  const wide = new HeadLines(Array.from({ length: 300 }, (_, i) => `\r\nx-${i}: ${'v'.repeat(i)}\xe9`).join(''))
  test.each([
    ['short', PLAIN, 100],
    ['of a cork', PLAIN, 10_000],
    ['behind a long head', wide, 10_000],
    ['in parts', PLAIN, 10_001],
    ['in parts, behind a long head', wide, 10_001],
    ['of more than the kernel takes', PLAIN, LARGE.length],
  ])('arrives whole, and then the next one: %s', async (_, lines, length) => {
    const body = LARGE.subarray(0, length)
    const connection = await Connection.open(port)
    for (const closes of [false, false, true]) {
      serving = (downstream, events) => {
        downstream.closes = closes
        downstream.respond(OK, lines, OWN, body, length)
        expect(events.errors).toEqual([])
      }
      const answer = await connection.exchange({})
      expect([answer.one('content-length'), answer.body.equals(body)]).toEqual([String(length), true])
      expect(answer.one('connection')).toBe(closes ? 'close' : null)
    }
    if (native !== null) await connection.closedByPeer()
    connection.destroy()
  })
})
