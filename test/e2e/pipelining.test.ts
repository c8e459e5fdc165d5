// Clients that ask again before they are answered (RFC 9112, 9.3.2): every request is answered, in order, however the
// bytes are cut. uWebSockets.js would close the connection; native/src/uws/gate.cc holds the next request back.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Authority, createAuthority, writePair } from '../support/certificates.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { residentBytes } from '../support/memory.js'
import { type Origin, type Seen, startEcho, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor, requireGate } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

const PAGE = 'p'.repeat(9000)

let echo: Origin
let scripted: Origin
let authority: Authority
let gateway: Gateway
let release = (): void => {}
const waiting: (() => void)[] = []

beforeAll(async () => {
  authority = await createAuthority()
  echo = await startEcho()
  scripted = await startScripted({
    '/slow': async (exchange) => {
      await new Promise<void>((resolve) => {
        release = resolve
      })
      await exchange.answer(200, {}, 'slow')
    },
    '/wait': async (exchange) => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      await exchange.answer(200, {}, 'waited')
    },
    '/late': async (exchange) => {
      await new Promise<void>((resolve) => {
        release = resolve
      })
      await exchange.answer(200, {}, 'l'.repeat(20_000_000))
    },
    '/streamed': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      for (const part of ['a', 'b'.repeat(50_000), 'c']) await exchange.chunk(part)
      await exchange.send('0\r\n\r\n')
    },
    '/large': (exchange) => exchange.answer(200, {}, 'l'.repeat(3_000_000)),
    '/quick': (exchange) => exchange.answer(200, {}, 'quick'),
    '/page': (exchange) => exchange.answer(200, {}, PAGE),
  })
  gateway = await start()
})
afterAll(async () => {
  await gateway.close()
  await echo.close()
  await scripted.close()
})

function start(tls: object = {}): Promise<Gateway> {
  return startGateway({
    workers: 1,
    config: {
      services: { echo: { endpoints: [echo.url] }, scripted: { endpoints: [scripted.url] } },
      routes: [
        { match: { path: '/echo' }, service: 'echo', auth: 'none' },
        { match: { path: '/closed' }, service: 'echo', auth: 'none', addresses: { allow: ['192.0.2.1'] } },
        { match: { path: '/' }, service: 'scripted', auth: 'none' },
      ],
      ...tls,
    },
  })
}

beforeEach((context) => requireGate(context, gateway))

const get = (target: string, more = ''): string => `GET ${target} HTTP/1.1\r\nHost: demo.test\r\n${more}\r\n`

// Each kind of body, one that is refused on the spot, and an answer without a body.
const mixed = (scheme: string): string =>
  [
    get('/echo/1'),
    'POST /echo/2 HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 5\r\n\r\nGET /',
    get('/echo/3').replace('GET', 'HEAD'),
    'POST /echo/4 HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n',
    `GET ${scheme}://demo.test/echo/5 HTTP/1.1\r\nHost: demo.test\r\n\r\n`,
    '\r\n',
    get('/echo/%2f'),
  ].join('')
const MIXED = mixed('http')

async function expectMixed(connection: Connection, parts: readonly string[]): Promise<void> {
  for (const part of parts) await connection.write(part)
  const seen: [number, string][] = []
  for (const method of ['GET', 'POST', 'HEAD', 'POST', 'GET', 'GET']) {
    const answer = await connection.answer(method)
    const { url, bodyBytes } =
      answer.status === 200 && method !== 'HEAD' ? answer.json<Seen>() : { url: '', bodyBytes: 0 }
    seen.push([answer.status, `${url} ${bodyBytes}`])
  }
  expect(seen).toEqual([
    [200, '/echo/1 0'],
    [200, '/echo/2 5'],
    [200, ' 0'],
    [200, '/echo/4 5'],
    [200, '/echo/5 0'],
    [400, ' 0'],
  ])
  await connection.closedByPeer()
}

test('requests behind each other are answered in order, cut anywhere', async () => {
  const cuts = Array.from({ length: MIXED.length }, (_, i) => i)
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let cut = cuts.pop(); cut !== undefined; cut = cuts.pop()) {
        await expectMixed(await Connection.open(gateway.port), [MIXED.slice(0, cut), MIXED.slice(cut)])
      }
    }),
  )
})

test('… and byte by byte', async () => {
  await expectMixed(await Connection.open(gateway.port), [...MIXED])
})

test('over TLS as well', async () => {
  const secure = await start({
    tls: { certificates: [writePair(await authority.issue({ cn: 'demo.test', dns: ['demo.test'] }))] },
  })
  try {
    const tls = { ca: authority.cert, servername: 'demo.test' }
    for (const parts of [[mixed('https')], [...mixed('https')]])
      await expectMixed(await Connection.open(secure.port, '127.0.0.1', tls), parts)
  } finally {
    await secure.close()
  }
})

test('what is wrong behind a good one is refused after its answer, over TLS as well', async () => {
  const secure = await start({
    tls: { certificates: [writePair(await authority.issue({ cn: 'demo.test', dns: ['demo.test'] }))] },
  })
  try {
    const connection = await Connection.open(secure.port, '127.0.0.1', { ca: authority.cert, servername: 'demo.test' })
    await connection.write(`${get('/quick')}GET /quick HTTP/1.1\r\n: x\r\n\r\n`)
    expect([(await connection.answer()).status, (await connection.answer()).status]).toEqual([200, 400])
    await connection.closedByPeer()
  } finally {
    await secure.close()
  }
})

test('answers that stream, and one larger than any buffer, come before the next', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.write(get('/streamed') + get('/large') + get('/quick') + get('/streamed'))
  const lengths: number[] = []
  for (let i = 0; i < 4; i++) lengths.push((await connection.answer()).body.length)
  expect(lengths).toEqual([50_002, 3_000_000, 5, 50_002])
  connection.destroy()
})

test('a request is not passed on before the one ahead of it is answered', async () => {
  const connection = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  await connection.write(get('/slow'))
  await scripted.requests.take(before + 1, () => true, 'the first request')
  await connection.write(get('/quick?behind'))
  // Whoever asks later elsewhere is answered meanwhile: those bytes are here, then.
  const other = await Connection.open(gateway.port)
  for (let i = 0; i < 3; i++) expect((await other.exchange({ target: '/quick' })).text).toBe('quick')
  expect(scripted.requests.all.slice(before).map(({ url }) => url)).toEqual(['/slow', '/quick', '/quick', '/quick'])
  release()
  expect([(await connection.answer()).text, (await connection.answer()).text]).toEqual(['slow', 'quick'])
  connection.destroy()
  other.destroy()
})

test('a thousand at once', async () => {
  const connection = await Connection.open(gateway.port)
  void connection.write(Array.from({ length: 1000 }, (_, i) => get(`/echo/${i}`)).join(''))
  for (let i = 0; i < 1000; i++) expect((await connection.answer()).json<Seen>().url).toBe(`/echo/${i}`)
  connection.destroy()
})

test('behind one that closes the connection nothing is answered or passed on', async () => {
  const connection = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  await connection.write(get('/quick?last', 'Connection: close\r\n') + get('/quick?never'))
  expect((await connection.answer()).text).toBe('quick')
  await connection.closedByPeer()
  expect(scripted.requests.all.slice(before).map(({ url }) => url)).toEqual(['/quick?last'])
})

// uWebSockets.js sees the wish in the first Connection field if it is all that this says, and can be told of it with a
// whole answer alone.
test.each([
  ['that has no body', 'HEAD', '/quick', 0],
  ['that streams', 'GET', '/streamed', 50_002],
  ['larger than any buffer', 'GET', '/large', 3_000_000],
  ['that is a refusal', 'HEAD', '/echo/%2f', 0],
])('… nor where it asks for that among other things, and gets an answer %s', async (_what, method, target, bytes) => {
  const connection = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  await connection.write(`${method}${get(target, 'Connection: TE, close\r\n').slice(3)}${get('/quick?never')}`)
  const answer = await connection.answer(method)
  expect([answer.one('connection'), answer.body.length]).toEqual(['close', bytes])
  // uWebSockets.js by itself ends it after 8 s.
  connection.reader.silenceMs = 6_000
  await connection.closedByPeer()
  expect(scripted.requests.all.slice(before).map(({ url }) => url)).not.toContain('/quick?never')
})

test('what is wrong behind a good one is refused after its answer', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.write(`${get('/quick')}GET /quick HTTP/1.1\r\n: x\r\n\r\n`)
  expect([(await connection.answer()).status, (await connection.answer()).status]).toEqual([200, 400])
  await connection.closedByPeer()
})

// Not of pipelining, but of the gate: uWebSockets.js takes a Host behind such names for the second one.
test.for(['1.1', '1.0'] as const)(
  'Host may come last, whatever the names before it, in HTTP/%s',
  async (version, context) => {
    if (version === '1.0') requireAcceptor(context)
    const hosts = version === '1.1' ? ['Host: demo.test\r\n'] : ['Host: demo.test\r\n', '']
    for (const host of hosts) {
      const connection = await Connection.open(gateway.port)
      const names = 'HosHost: a\r\nContent-Length: 5\r\n'
      await connection.write(`POST /echo HTTP/${version}\r\n${names}${host}\r\nhello`)
      const answer = await connection.answer()
      expect(answer.status).toBe(200)
      expect(answer.json<Seen>()).toMatchObject({ url: '/echo', bodyBytes: 5 })
      connection.destroy()
    }
  },
)

test('who leaves with requests held back leaves nothing behind', async () => {
  const before = scripted.requests.all.length
  const connection = await Connection.open(gateway.port)
  await connection.write(get('/slow') + get('/quick?gone'))
  await scripted.requests.take(before + 1, () => true, 'the first request')
  connection.destroy()
  release()
  // In its place, if places are given out again.
  const next = await Connection.open(gateway.port)
  expect((await next.exchange({ target: '/quick' })).text).toBe('quick')
  expect(scripted.requests.all.slice(before).map(({ url }) => url)).not.toContain('/quick?gone')
  next.destroy()
})

test('no more is held than a bound: then the connection ends, or the client waits', async () => {
  const connection = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  await connection.write(get('/slow'))
  await scripted.requests.take(before + 1, () => true, 'the first request')
  const flood = Buffer.alloc(64 * 1024 * 1024, get('/quick'))
  let taken = false
  connection.socket.on('error', () => {})
  connection.socket.write(flood, (error) => {
    taken = error === undefined || error === null
  })
  const other = await Connection.open(gateway.port)
  for (let i = 0; i < 20; i++) await other.exchange({ target: '/quick' })
  expect(taken).toBe(false)
  connection.destroy()
  release()
  other.destroy()
})

test('others are served between requests that one client sends at once and that are answered on the spot', async () => {
  const AT_ONCE = 1500
  const [connection, other] = [await Connection.open(gateway.port), await Connection.open(gateway.port)]
  for (const one of [connection, other]) await one.exchange({ target: '/quick' })
  const before = scripted.requests.all.length
  const { pid } = (await gateway.status()).workers[0]!
  process.kill(pid, 'SIGSTOP')
  try {
    // One read of the worker's has them all, and it comes to the other one next.
    await connection.write(get('/closed').repeat(AT_ONCE) + get('/quick?last'))
    await other.write(get('/quick?other'))
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  for (let i = 0; i < AT_ONCE; i++) expect((await connection.answer()).status).toBe(403)
  for (const one of [connection, other]) expect((await one.answer()).text).toBe('quick')
  expect(scripted.requests.all.slice(before).map(({ url }) => url)).toEqual(['/quick?other', '/quick?last'])
  connection.destroy()
  other.destroy()
})

test('who asks and does not read is not answered further than the kernel has room, and has every answer once it reads', async () => {
  const connection = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  const REQUESTS = 3000
  const written = connection.write(get('/page').repeat(REQUESTS))
  // As long as there is something to do for it, a round trip of somebody else's does some of it.
  const other = await Connection.open(gateway.port)
  let passedOn = -1
  for (let now = 0; now !== passedOn; ) {
    passedOn = now
    for (let i = 0; i < 5; i++) await other.exchange({ target: '/echo' })
    now = scripted.requests.all.length - before
  }
  other.destroy()
  expect(passedOn).toBeGreaterThan(0)
  expect(passedOn).toBeLessThan(REQUESTS)
  for (let i = 0; i < REQUESTS; i++) expect((await connection.answer()).body.length).toBe(PAGE.length)
  await written
  expect(scripted.requests.all.length - before).toBe(REQUESTS)
  connection.destroy()
})

test('who is held back is not read from either while it takes nothing of a long answer', async () => {
  const connection = await Connection.open(gateway.port)
  const other = await Connection.open(gateway.port)
  const before = scripted.requests.all.length
  await connection.write(get('/late'))
  await scripted.requests.take(before + 1, () => true, 'the first request')
  // 40 bytes each: 20 000 stop the reading; all of them are more than may be held, and less than that beyond the 16 KiB
  // at which it goes on.
  for (const count of [200, 300, 2822]) {
    await connection.write(get('/quick').repeat(count))
    for (let i = 0; i < 5; i++) await other.exchange({ target: '/quick' })
    if (count === 300) release()
  }
  other.destroy()
  expect((await connection.answer()).body.length).toBe(20_000_000)
  for (let i = 0; i < 3322; i++) expect((await connection.answer()).text).toBe('quick')
  connection.destroy()
})

test('what was held of a connection takes no room once it is handed on', async () => {
  const CONNECTIONS = 120
  const BODY_BYTES = 100_000
  const WAVES = 8
  const post = `POST /echo HTTP/1.1\r\nHost: demo.test\r\nContent-Length: ${BODY_BYTES}\r\n\r\n${'b'.repeat(BODY_BYTES)}`
  const { pid } = (await gateway.status()).workers[0]!
  const open: Connection[] = []
  const resident: number[] = []
  const other = await Connection.open(gateway.port)
  for (let wave = 0; wave < WAVES; wave++) {
    const some = await Promise.all(Array.from({ length: CONNECTIONS }, () => Connection.open(gateway.port)))
    await Promise.all(some.map((connection) => connection.write(get('/wait'))))
    await eventually('a request of each connection', () => waiting.length, CONNECTIONS)
    await Promise.all(some.map((connection) => connection.write(post)))
    for (let i = 0; i < 5; i++) await other.exchange({ target: '/quick' })
    for (const answer of waiting.splice(0)) answer()
    for (const connection of some) {
      expect((await connection.answer()).text).toBe('waited')
      expect((await connection.answer()).json<Seen>().bodyBytes).toBe(BODY_BYTES)
    }
    open.push(...some)
    resident.push(residentBytes(pid))
  }
  expect(resident.at(-1)! - resident[1]!).toBeLessThan(((WAVES - 2) * CONNECTIONS * BODY_BYTES) / 2)
  for (const connection of [...open, other]) connection.destroy()
})
