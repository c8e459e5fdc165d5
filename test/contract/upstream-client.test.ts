// One suite for both upstream clients: undici's Pool and the lean one, over each of its transports. What the forwarder is told must be the same, whoever tells it; the
// few cases where they differ say so and why.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type Dispatcher, errors } from 'undici'
import { afterEach, describe, expect, test } from 'vitest'
import { type Origin, type RawExchange, refusingPort, type Script, startScripted } from '../support/origins.js'
import { type ClientOptions, clients, leans, type UpstreamClient } from '../support/upstream-clients.js'
import { ask, send, type Verdict } from '../support/upstream-verdict.js'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

async function serve(script: Script, others: Readonly<Record<string, Script>> = {}): Promise<Origin> {
  const origin = await startScripted({ '/': script, ...others })
  cleanup.push(() => origin.close())
  return origin
}

function open(client: UpstreamClient, origin: string, options?: ClientOptions): Dispatcher {
  const pool = client.create(origin, options)
  cleanup.push(() => pool.destroy())
  return pool
}

/** In one write; a byte a write; in two halves with a turn of the loop between them. */
const splits = {
  whole: (bytes: string) => [bytes],
  'byte by byte': (bytes: string) => [...bytes],
  halves: (bytes: string) => [bytes.slice(0, bytes.length / 2), bytes.slice(bytes.length / 2)],
}

async function sendSplit(exchange: RawExchange, parts: readonly string[]): Promise<void> {
  for (const part of parts) {
    await exchange.send(part)
    await new Promise(setImmediate)
  }
}

/** undici lets a turn of the loop pass before it uses a connection again, and takes another one meanwhile. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

interface AnswerCase {
  readonly what: string
  readonly bytes: string
  readonly method?: 'GET' | 'HEAD'
  readonly expected: Partial<Verdict>
  /** Another outcome with undici, and why that is. */
  readonly undici?: { readonly expected: Partial<Verdict>; readonly why: string }
}

const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
const refused = { status: 0, failure: 'upstream_error' }
const cutShort = { failure: 'upstream_error' }
const lost = { status: 0, failure: 'upstream_error, lost' }

const answers: readonly AnswerCase[] = [
  {
    what: 'a length',
    bytes: OK,
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ok', trailers: {} },
  },
  { what: 'no body', bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', expected: { body: '', trailers: {} } },
  {
    what: 'no reason phrase',
    bytes: 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n',
    expected: { status: 200, phrase: '' },
  },
  {
    what: 'chunks',
    bytes: `${chunked}3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n`,
    expected: { body: 'abc0123456789', trailers: {} },
  },
  {
    what: 'trailers',
    bytes: `${chunked}1\r\na\r\n0\r\nX-Sum: 1\r\nx-two: 2\r\n\r\n`,
    expected: { body: 'a', trailers: { 'x-sum': '1', 'x-two': '2' } },
  },
  { what: 'chunk extensions', bytes: `${chunked}1;a=b;c="d;\\"e"\r\na\r\n0;x\r\n\r\n`, expected: { body: 'a' } },
  {
    what: 'a body up to the end of the connection',
    bytes: 'HTTP/1.1 200 OK\r\n\r\nuntil the end',
    expected: { body: 'until the end' },
  },
  {
    what: 'HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    expected: { status: 200, body: 'ok', trailers: {} },
  },
  {
    what: 'repeated fields, empty ones, and names an object has of its own',
    bytes:
      'HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSET-COOKIE: b\r\nX-E:\r\nconstructor: c\r\n__proto__: d\r\nContent-Length: 0\r\n\r\n',
    expected: {
      headers: Object.fromEntries([
        ['set-cookie', ['a', 'b']],
        ['x-e', ''],
        ['constructor', 'c'],
        ['__proto__', 'd'],
        ['content-length', '0'],
      ]),
    },
  },
  {
    what: 'bytes above ASCII in a value',
    bytes: 'HTTP/1.1 200 OK\r\nX-L: caf\xe9\r\nContent-Length: 0\r\n\r\n',
    expected: { headers: { 'x-l': 'caf\xe9', 'content-length': '0' } },
  },
  {
    what: 'HEAD with a length',
    method: 'HEAD',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n',
    expected: { body: '', trailers: {} },
  },
  { what: 'HEAD with chunks', method: 'HEAD', bytes: chunked, expected: { body: '', trailers: {} } },
  { what: '204', bytes: 'HTTP/1.1 204 No Content\r\n\r\n', expected: { status: 204, body: '', trailers: {} } },
  {
    what: '304',
    bytes: 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
    expected: { status: 304, body: '', trailers: {} },
  },
  {
    what: '304 with the length of what it stands for',
    bytes: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n',
    expected: { status: 304, body: '', trailers: {} },
    undici: { expected: cutShort, why: 'it waits for the nine bytes; RFC 9112, 6.3 says there are none' },
  },
  {
    what: 'early hints',
    bytes: `HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${OK}`,
    expected: { interim: [103, 102], status: 200, body: 'ok' },
  },
  {
    what: '100 that nobody asked for',
    bytes: `HTTP/1.1 100 Continue\r\n\r\n${OK}`,
    expected: { interim: [], status: 200, body: 'ok' },
    undici: { expected: { interim: [102], status: 200, body: 'ok' }, why: 'it is told of as another one' },
  },
  {
    what: 'an empty line behind a 100',
    bytes: `HTTP/1.1 100 Continue\r\n\r\n\r\n${OK}`,
    expected: { status: 200, body: 'ok' },
  },
  { what: 'empty lines before it', bytes: `\r\n\r\n${OK}`, expected: { status: 200, body: 'ok' } },
  { what: 'an empty line that is cut short', bytes: '\r\n\r', expected: lost },
  { what: 'a CR before it', bytes: `\r${OK}`, expected: refused, undici: { expected: {}, why: 'llhttp lets it pass' } },
  {
    what: 'a reason phrase that is not ASCII',
    bytes: 'HTTP/1.1 200 caf\xe9 \xc4\x8a\r\nContent-Length: 0\r\n\r\n',
    expected: { status: 200, phrase: 'caf\xe9 \xc4\x8a' },
  },
  ...['\0', '\x0b', '\x1b', '\x7f'].map((byte) => ({
    what: `${JSON.stringify(byte)} in a reason phrase`,
    bytes: `HTTP/1.1 200 O${byte}K\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['\0', '\x0b', '\x1b', '\x7f'].map((byte) => ({
    what: `${JSON.stringify(byte)} in a value`,
    bytes: `HTTP/1.1 200 OK\r\nX: a${byte}b\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['', 'a b', 'a\x7f', 'a\xe9', 'a(b', 'a"'].map((name) => ({
    what: `a field called ${JSON.stringify(name)}`,
    bytes: `HTTP/1.1 200 OK\r\n${name}: x\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['0.9', '1.2', '2.0'].map((version) => ({
    what: `HTTP/${version}`,
    bytes: `HTTP/${version} 200 OK\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  {
    what: 'a coding in HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  ...['099', '000', '20', '2000', '-20', '2 0'].map((status) => ({
    what: `status ${status}`,
    bytes: `HTTP/1.1 ${status} OK\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  {
    what: 'several Connection fields',
    bytes: 'HTTP/1.1 200 OK\r\nConnection: x-a\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok',
    expected: { status: 200, body: 'ok' },
  },
  {
    what: '101 that nobody asked for',
    bytes: 'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
    expected: lost,
  },
  // What is not HTTP.
  {
    what: 'two lengths',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    expected: refused,
  },
  {
    what: 'the same length twice',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab',
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ab' },
    undici: { expected: refused, why: 'llhttp refuses it' },
  },
  {
    what: 'a list of equal lengths',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab',
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ab' },
    undici: { expected: refused, why: 'llhttp refuses it' },
  },
  ...['2, 3', '2,', ',2', '2, 02', '2;2'].map((list) => ({
    what: `a length of ${JSON.stringify(list)}`,
    bytes: `HTTP/1.1 200 OK\r\nContent-Length: ${list}\r\n\r\nab`,
    expected: refused,
  })),
  { what: 'a signed length', bytes: 'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab', expected: refused },
  {
    what: 'an enormous length',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab',
    expected: refused,
  },
  {
    what: 'a length and chunks',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'chunks and a length',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'another transfer coding',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx',
    expected: refused,
  },
  {
    what: 'chunked twice',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'chunked and another coding',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  { what: 'a bare LF', bytes: 'HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n', expected: refused },
  {
    what: 'a bare LF between fields',
    bytes: 'HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  { what: 'a bare CR', bytes: 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'NUL', bytes: 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'a folded line', bytes: 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n', expected: refused },
  {
    what: 'a blank before the colon',
    bytes: 'HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'a line without a colon',
    bytes: 'HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  { what: 'a status of letters', bytes: 'HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'another protocol', bytes: 'SSH-2.0-OpenSSH_9.2\r\n', expected: refused },
  { what: 'fields over the limit', bytes: `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`, expected: refused },
  { what: 'a chunk size of letters', bytes: `${chunked}xyz\r\nabc\r\n`, expected: cutShort },
  { what: 'a signed chunk size', bytes: `${chunked}-3\r\nabc\r\n`, expected: cutShort },
  { what: 'an enormous chunk size', bytes: `${chunked}fffffffffffffffff\r\nabc\r\n`, expected: cutShort },
  { what: 'a blank after a chunk size', bytes: `${chunked}3 \r\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a chunk longer than it says', bytes: `${chunked}3\r\nabcd\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a bare LF after a chunk size', bytes: `${chunked}3\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a bare LF in a chunk extension', bytes: `${chunked}3;a\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a malformed trailer', bytes: `${chunked}0\r\nX : a\r\n\r\n`, expected: cutShort },
  // What is cut short.
  { what: 'the end before the answer', bytes: '', expected: lost },
  { what: 'the end in the status line', bytes: 'HTTP/1.1 20', expected: lost },
  { what: 'the end in the fields', bytes: 'HTTP/1.1 200 OK\r\nX: a\r\n', expected: lost },
  {
    what: 'the end in a body',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc',
    expected: { status: 200, body: 'abc', ...cutShort },
  },
  { what: 'the end in a chunk', bytes: `${chunked}9\r\nabc`, expected: { body: 'abc', ...cutShort } },
  { what: 'the end before the last chunk', bytes: `${chunked}3\r\nabc\r\n`, expected: { body: 'abc', ...cutShort } },
  { what: 'the end in the trailers', bytes: `${chunked}0\r\nX: a\r\n`, expected: cutShort },
]

describe.each(clients)('an answer, as $name understands it', (client) => {
  describe.each(Object.entries(splits))('%s', (_, split) => {
    test.each(answers)('$what', async ({ bytes, method = 'GET', expected, undici: other }) => {
      // Byte by byte a long head is a long test, and no other case.
      if (bytes.length > 1000 && split === splits['byte by byte']) return
      const origin = await serve(async (exchange) => {
        await sendSplit(exchange, split(bytes)).catch(() => {})
        exchange.end()
      })
      const verdict = await ask(open(client, origin.url), { method })
      expect(verdict).toMatchObject({
        failure: null,
        ...(client.name === 'undici' && other ? other.expected : expected),
      })
    })
  })

  test('nonsense is known at once, not when the connection ends', async () => {
    const origin = await serve(async (exchange) => {
      await exchange.send('220 mail.example ESMTP\r\n')
      await exchange.closed()
    })
    expect(await ask(open(client, origin.url))).toMatchObject(refused)
  })

  test('a reset is a failure wherever it comes', async () => {
    const reset =
      (bytes: string): Script =>
      async (exchange) => {
        await exchange.send(bytes)
        exchange.reset()
      }
    const origin = await serve(reset(''), {
      '/head': reset('HTTP/1.1 200 OK\r\nX: '),
      '/body': reset('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'),
    })
    const pool = open(client, origin.url)
    expect(await ask(pool)).toMatchObject(lost)
    expect(await ask(pool, { path: '/head' })).toMatchObject(lost)
    expect((await ask(pool, { path: '/body' })).failure).toContain('upstream_error')
  })

  test('no connection, no answer', async () => {
    const verdict = await ask(open(client, `http://127.0.0.1:${await refusingPort()}`))
    expect(verdict).toMatchObject({ status: 0, failure: 'upstream_error, not reached' })
  })

  test('a connection that is not accepted in time', async () => {
    const listener = spawn(process.execPath, [join(import.meta.dirname, '../support/stuck-listener.mjs')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    cleanup.push(() => stop(listener))
    const port = Number(await once(listener.stdout!, 'data'))
    for (let i = 0; i < 4; i++) {
      const filler: Socket = connect({ host: '127.0.0.1', port }).on('error', () => {})
      cleanup.push(() => filler.destroy())
      if (i < 2) await once(filler, 'connect')
    }
    const sent = send(open(client, `http://127.0.0.1:${port}`, { connectTimeoutMs: 100 }))
    expect(await sent.verdict).toMatchObject({ failure: 'upstream_timeout, not reached' })
    expect(sent.error).toBeInstanceOf(errors.ConnectTimeoutError)
  })
})

async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

describe.each(clients)('a request, as $name sends it', (client) => {
  async function received(options: Parameters<typeof ask>[1], answer = OK) {
    let seen: { line: string; head: RawExchange['head']; body: string; trailers: unknown } | undefined
    const origin = await serve(async (exchange) => {
      const body = await exchange.body()
      seen = {
        line: exchange.head.startLine,
        head: exchange.head,
        body: body.bytes.toString('latin1'),
        trailers: body.trailers,
      }
      await exchange.send(answer)
    })
    const verdict = await ask(open(client, origin.url), options)
    return { verdict, origin, ...seen! }
  }

  test('request line, Host and fields', async () => {
    const { line, head, origin } = await received({ headers: ['x-a', '1', 'X-A', 'caf\xe9', 'accept', '*/*'] })
    expect(line).toBe('GET / HTTP/1.1')
    expect(head.one('host')).toBe(`127.0.0.1:${origin.port}`)
    expect(head.all('x-a')).toEqual(['1', 'caf\xe9'])
    expect(head.one('accept')).toBe('*/*')
    expect([head.one('content-length'), head.one('transfer-encoding')]).toEqual([null, null])
  })

  test('a Host of its own', async () => {
    const { head } = await received({ headers: ['host', 'a.example'] })
    expect(head.one('host')).toBe('a.example')
  })

  test.each(['POST', 'PUT', 'PATCH'] as const)('%s without a body says so', async (method) => {
    const { head, body } = await received({ method })
    expect([head.one('content-length'), body]).toEqual(['0', ''])
  })

  test.each([3, 8192, 8193, 300_000])('a body of %i bytes in memory', async (bytes) => {
    const body = Buffer.alloc(bytes, 'abc\xff', 'latin1')
    const seen = await received({ method: 'POST', headers: ['content-length', String(bytes)], body })
    expect(seen.head.all('content-length')).toEqual([String(bytes)])
    expect(seen.body).toBe(body.toString('latin1'))
  })

  test('a streamed body of known length', async () => {
    const { head, body } = await received({
      method: 'PUT',
      headers: ['content-length', '6'],
      body: Readable.from([Buffer.from('abc'), Buffer.from('def')]),
    })
    expect([head.one('content-length'), head.one('transfer-encoding'), body]).toEqual(['6', null, 'abcdef'])
  })

  test('a streamed body of unknown length', async () => {
    const { head, body } = await received({
      method: 'POST',
      body: Readable.from([Buffer.from('abc'), Buffer.from('def')]),
    })
    expect([head.one('content-length'), head.one('transfer-encoding'), body]).toEqual([null, 'chunked', 'abcdef'])
  })

  test('a stream that is there already leaves with nothing missing', async () => {
    const body = new Readable({ read() {} })
    body.push(Buffer.from('there'))
    body.push(null)
    expect((await received({ method: 'POST', body })).body).toBe('there')
  })

  test('a stream is read no faster than the upstream reads', async () => {
    let pulled = 0
    const body = new Readable({
      read() {
        pulled++
        this.push(pulled <= 1000 ? Buffer.alloc(65536) : null)
      },
    })
    let proceed!: () => void
    const origin = await serve(async (exchange) => {
      await new Promise<void>((resolve) => {
        proceed = resolve
      })
      expect((await exchange.body()).bytes.length).toBe(65_536_000)
      await exchange.send(OK)
    })
    const sent = send(open(client, origin.url), { method: 'POST', body })
    await origin.requests.take(1, () => true, 'the request')
    // Until what the kernel and the stream hold is full, and a few turns in which nothing more is asked for.
    for (let still = 0, before = -1; still < 20; still = pulled === before ? still + 1 : 0) {
      before = pulled
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(pulled).toBeLessThan(500)
    proceed()
    expect((await sent.verdict).body).toBe('ok')
  })

  test.each([
    ['longer', 'abcdef'],
    ['shorter', 'ab'],
  ])('a stream %s than it was announced fails, and does not look complete', async (_, text) => {
    const origin = await serve(async (exchange) => {
      await expect(exchange.body().then((body) => body.bytes.length > 3)).rejects.toThrow()
    })
    const sent = send(open(client, origin.url), {
      method: 'PUT',
      headers: ['content-length', '4'],
      body: Readable.from([Buffer.from(text)]),
    })
    expect(await sent.verdict).toMatchObject({ failure: 'bad_request' })
  })

  test('a stream that fails takes the request with it', async () => {
    const body = new Readable({ read() {} })
    body.push(Buffer.from('half'))
    const origin = await serve((exchange) => exchange.closed())
    const sent = send(open(client, origin.url), { method: 'POST', body })
    await origin.requests.take(1, () => true, 'the request')
    body.destroy(new Error('gone'))
    expect((await sent.verdict).failure).not.toBeNull()
    expect(sent.error!.message).toBe('gone')
  })

  test.each([
    ['CR LF in a value', { headers: ['x-a', 'b\r\nx-evil: c'] }],
    ['LF in a value', { headers: ['x-a', 'b\nc'] }],
    ['CR in a value', { headers: ['x-a', 'b\rc'] }],
    ['NUL in a value', { headers: ['x-a', 'b\0c'] }],
    ['a value that would turn into CR LF', { headers: ['x-a', 'b\u010d\u010ac'] }],
    ['CR LF in a Host', { headers: ['host', 'a\r\nx: y'] }],
    ['CR LF in a name', { headers: ['x\r\ny', 'b'] }],
    ['a colon in a name', { headers: ['x: y\r\nz', 'b'] }],
    ['an empty name', { headers: ['', 'b'] }],
    ['two Hosts', { headers: ['host', 'a', 'host', 'b'] }],
    [
      'two lengths',
      { method: 'POST', headers: ['content-length', '1', 'content-length', '1'], body: Buffer.from('a') },
    ],
    ['a length of letters', { method: 'POST', headers: ['content-length', 'x'], body: Buffer.from('a') }],
    ['a wrong length', { method: 'POST', headers: ['content-length', '2'], body: Buffer.from('a') }],
    ['Transfer-Encoding', { method: 'POST', headers: ['transfer-encoding', 'chunked'] }],
    ['Upgrade', { headers: ['upgrade', 'x'] }],
    ['Expect', { headers: ['expect', '100-continue'] }],
    ['CR LF in the path', { path: '/a\r\nb' }],
    ['a blank in the path', { path: '/a b' }],
    ['a path that is none', { path: 'a' }],
    ['a blank in the method', { method: 'GET / HTTP/1.1\r\nx: y' }],
  ])('%s is refused before a byte is sent', async (_, options) => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    expect(await ask(pool, options as Parameters<typeof ask>[1])).toMatchObject({
      status: 0,
      failure: 'bad_request',
    })
    expect(origin.requests.all).toEqual([])
    expect((await ask(pool)).body).toBe('ok')
  })
})

describe.each(clients)('connections, as $name keeps them', (client) => {
  test('the same head again and again is told each time; bytes of a body that look like it are not', async () => {
    const head = (length: number, name: string): string =>
      `HTTP/1.1 200 OK\r\nX: ${name}\r\nContent-Length: ${length}\r\n\r\n`
    const one = head(70, 'one')
    const bodies = [...'abcdef'].map((letter) => letter.repeat(70))
    const looksLikeIt = `${one}${'-'.repeat(70 - one.length)}`
    const answers = [
      ...bodies.map((body) => [one + body]),
      // In a write of its own, so that it is read like an answer.
      [one, looksLikeIt],
      [one, looksLikeIt],
      [one.slice(0, 20), one.slice(20), bodies[0]!],
      ...bodies.map((body, i) => [head(70, i % 2 === 0 ? 'one' : 'two') + body]),
      ...bodies.map((body) => [one + body]),
      ...bodies.map((body) => [head(70, 'two') + body]),
    ]
    let asked = 0
    const origin = await serve(async (exchange) => {
      for (const part of answers[asked++]!) {
        await exchange.send(part)
        await turn()
      }
    })
    const pool = open(client, origin.url)
    for (const parts of answers) {
      const text = parts.join('')
      const { headers, body } = await ask(pool)
      expect(`${headers.x} ${body}`).toBe(`${text.includes('X: one') ? 'one' : 'two'} ${text.slice(-70)}`)
      await turn()
    }
    expect(origin.connections).toBe(1)
  })

  test('one serves request after request', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    for (let i = 0; i < 5; i++) {
      expect((await ask(pool, { method: i === 2 ? 'HEAD' : 'GET' })).status).toBe(200)
      await turn()
    }
    // The HEAD's body came all the same and cost the connection.
    expect(origin.connections).toBe(2)
  })

  test.each([
    'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
  ])('one that the upstream will close is not used again: %j', async (answer) => {
    const origin = await serve(async (exchange) => {
      await exchange.send(answer)
      await exchange.closed()
    })
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    expect((await ask(pool)).body).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  test('bytes that nobody asked for cost the connection, and are nobody’s answer', async () => {
    let intruded!: Promise<void>
    const origin = await serve(async (exchange) => {
      if (origin.connections > 1) return exchange.send(OK)
      await exchange.send(`${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`)
      intruded = exchange.closed()
    })
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    await intruded
    expect((await ask(pool)).body).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  test('bytes on an idle connection cost it', async () => {
    let intrude!: () => Promise<void>
    const origin = await serve(async (exchange) => {
      await exchange.send(OK)
      if (origin.connections > 1) return
      await new Promise<void>((resolve) => {
        intrude = async () => {
          await exchange.send('HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n')
          await exchange.closed()
          resolve()
        }
      })
    })
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    await intrude()
    expect((await ask(pool)).status).toBe(200)
    expect(origin.connections).toBe(2)
  })

  test('there are never more than allowed; the rest wait in order', async () => {
    const order: string[] = []
    const waiting: (() => void)[] = []
    const hold: Script = async (exchange) => {
      order.push(exchange.target)
      await new Promise<void>((resolve) => waiting.push(resolve))
      await exchange.send(OK)
    }
    const paths = ['/0', '/1', '/2', '/3', '/4', '/5']
    const origin = await serve(hold, Object.fromEntries(paths.map((path) => [path, hold])))
    const pool = open(client, origin.url, { connections: 1 })
    const verdicts = paths.map((path) => ask(pool, { path }))
    for (const path of paths) {
      await origin.requests.find((seen) => seen.url === path, path)
      waiting.shift()!()
    }
    expect((await Promise.all(verdicts)).map((verdict) => verdict.body)).toEqual(paths.map(() => 'ok'))
    expect([origin.connections, order]).toEqual([1, paths])
  })

  test('an answer that comes before the body is taken ends the exchange and the connection', async () => {
    let closed!: Promise<void>
    const origin = await serve(
      async (exchange) => {
        await exchange.send('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno')
        closed = exchange.closed()
        await closed
      },
      { '/next': (exchange) => exchange.send(OK) },
    )
    const pool = open(client, origin.url)
    const body = new Readable({ read() {} })
    body.push(Buffer.from('the first part'))
    expect(await ask(pool, { method: 'POST', body })).toMatchObject({ status: 413, body: 'no', failure: null })
    await closed
    expect((await ask(pool, { path: '/next' })).body).toBe('ok')
    expect([body.destroyed, origin.connections]).toEqual([true, 2])
  })

  test('an aborted exchange closes its connection', async () => {
    let closed!: Promise<void>
    const origin = await serve(
      async (exchange) => {
        await exchange.send('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
        closed = exchange.closed()
        await closed
      },
      { '/next': (exchange) => exchange.send(OK) },
    )
    const pool = open(client, origin.url)
    const sent = send(pool)
    await sent.started
    sent.controller!.abort(new Error('enough'))
    await sent.verdict
    expect(sent.error!.message).toBe('enough')
    await closed
    expect((await ask(pool, { path: '/next' })).body).toBe('ok')
  })

  test('one aborted after its end leaves the connection alone', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    const sent = send(pool)
    expect((await sent.verdict).body).toBe('ok')
    sent.controller!.abort(new Error('too late'))
    await turn()
    expect((await ask(pool)).body).toBe('ok')
    expect([origin.connections, sent.error]).toEqual([1, null])
  })

  test.each([
    ['a length', 'Content-Length: 33554432\r\n\r\n', (data: Buffer) => data],
    ['the end of the connection', '\r\n', (data: Buffer) => data],
  ])('a reader that pauses holds the upstream back: a body delimited by %s', async (_, fields, encode) => {
    const block = Buffer.alloc(1_048_576, 'abcdefg')
    let written = 0
    const origin = await serve(async (exchange) => {
      await exchange.send(`HTTP/1.1 200 OK\r\n${fields}`)
      for (; written < 32; written++) await exchange.send(encode(block))
      exchange.end()
    })
    let paused!: (controller: Dispatcher.DispatchController) => void
    const pausedOnce = new Promise<Dispatcher.DispatchController>((resolve) => {
      paused = resolve
    })
    let bytes = 0
    let chunksWhilePaused = 0
    const sent = send(open(client, origin.url), {}, (chunk, controller) => {
      if (bytes > 0 && controller.paused) chunksWhilePaused++
      bytes += chunk.length
      if (bytes > 100_000 && bytes - chunk.length <= 100_000) {
        controller.pause()
        paused(controller)
      }
    })
    const controller = await pausedOnce
    for (let still = 0, before = -1; still < 20; still = written === before ? still + 1 : 0) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect([written < 30, bytes < 300_000, chunksWhilePaused]).toEqual([true, true, 0])
    controller.resume()
    const verdict = await sent.verdict
    expect(verdict.failure).toBeNull()
    expect(Buffer.from(verdict.body, 'latin1').equals(Buffer.concat(Array(32).fill(block)))).toBe(true)
  })

  test('a reader that pauses in the middle of what was read loses nothing', async () => {
    const text = `${chunked}${Array.from({ length: 50 }, (_, i) => `2\r\n${String(i).padStart(2, '0')}\r\n`).join('')}0\r\nX-T: 1\r\n\r\n`
    const origin = await serve((exchange) => exchange.send(text))
    const pool = open(client, origin.url)
    for (let i = 0; i < 2; i++) {
      const sent = send(pool, {}, (_, controller) => {
        controller.pause()
        setImmediate(() => controller.resume())
      })
      const verdict = await sent.verdict
      expect(verdict.body).toBe(Array.from({ length: 50 }, (_, n) => String(n).padStart(2, '0')).join(''))
      expect(verdict.trailers).toEqual({ 'x-t': '1' })
      await turn()
    }
    expect(origin.connections).toBe(1)
  })

  test('close lets go of what is idle and waits for what is not', async () => {
    let answer!: () => void
    const origin = await serve(
      async (exchange) => {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        await exchange.send(OK)
      },
      { '/idle': (exchange) => exchange.send(OK) },
    )
    const pool = open(client, origin.url)
    const slow = ask(pool)
    await origin.requests.take(1, () => true, 'the slow one')
    await ask(pool, { path: '/idle' })
    const closed = pool.close()
    expect((await ask(pool, { path: '/idle' })).failure).toBe('upstream_error')
    answer()
    expect((await slow).body).toBe('ok')
    await closed
  })

  test('destroy ends everything, also what waits', async () => {
    const origin = await serve((exchange) => exchange.closed())
    const pool = open(client, origin.url, { connections: 1 })
    const verdicts = [ask(pool), ask(pool)]
    await origin.requests.take(1, () => true, 'the first')
    await pool.destroy()
    for (const verdict of verdicts) expect((await verdict).failure).toMatch(/^upstream_error/)
  })
})

describe.each(leans)('what $name does beyond undici', (lean) => {
  /** Answers the first request of the first connection, and what comes after it with `then`. */
  async function stale(then: (exchange: RawExchange) => void): Promise<Origin> {
    let served = 0
    const script: Script = async (exchange) => {
      if (++served === 2) return then(exchange)
      await exchange.send(OK)
    }
    return serve(script)
  }

  test.each([
    ['reset', (exchange: RawExchange) => exchange.reset()],
    ['closed', (exchange: RawExchange) => exchange.end()],
  ])('a used connection that is %s before the answer: the request is sent again on a fresh one', async (_, then) => {
    const origin = await stale(then)
    const pool = open(lean, origin.url)
    await ask(pool)
    expect(await ask(pool)).toMatchObject({ body: 'ok', failure: null })
    expect([origin.connections, origin.requests.all.length]).toEqual([2, 3])
  })

  test('a body in memory is sent again with it, where the method allows', async () => {
    const origin = await stale((exchange) => exchange.reset())
    const pool = open(lean, origin.url)
    await ask(pool)
    expect(await ask(pool, { method: 'PUT', body: Buffer.from('') })).toMatchObject({ body: 'ok', failure: null })
    expect(origin.requests.all.length).toBe(3)
  })

  test('a POST is not sent twice, and the error says what is known', async () => {
    const origin = await stale((exchange) => exchange.reset())
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool, { method: 'POST', body: Buffer.from('') })
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: true, responseStarted: false })
    expect(origin.requests.all.length).toBe(2)
  })

  test('nor is anything once a byte of the answer has come', async () => {
    const origin = await stale(async (exchange) => {
      await exchange.send('H')
      exchange.end()
    })
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool)
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: true, responseStarted: true })
    expect(origin.requests.all.length).toBe(2)
  })

  test('nor a third time, and not on a fresh connection', async () => {
    let served = 0
    const origin = await serve(async (exchange) => {
      if (++served === 1) await exchange.send(OK)
      else exchange.end()
    })
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool)
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: false, responseStarted: false })
    expect(origin.requests.all.length).toBe(3)
  })

  test.each([
    ['after its time', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    [
      'at once where the upstream says it soon will',
      'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok',
    ],
  ])('an idle connection is let go %s', async (_, answer) => {
    let closed!: Promise<void>
    const origin = await serve(async (exchange) => {
      await exchange.send(answer)
      closed = exchange.closed()
      await closed
    })
    expect((await ask(open(lean, origin.url, { keepAliveMs: 500 }))).body).toBe('ok')
    await closed
  })

  test('a length without a body is refused', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(lean, origin.url)
    expect(await ask(pool, { method: 'POST', headers: ['content-length', '2'] })).toMatchObject({
      failure: 'bad_request',
    })
    expect(origin.requests.all).toEqual([])
  })

  test('a request that waits for a connection can be aborted, and is never sent', async () => {
    let answer!: () => void
    const origin = await serve(
      async (exchange) => {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        await exchange.send(OK)
      },
      { '/after': (exchange) => exchange.send(OK) },
    )
    const pool = open(lean, origin.url, { connections: 1 })
    const first = ask(pool)
    const waits = send(pool, { path: '/never' })
    const after = ask(pool, { path: '/after' })
    await origin.requests.take(1, () => true, 'the first')
    waits.controller!.abort(new Error('enough'))
    expect((await waits.verdict).failure).not.toBeNull()
    answer()
    expect([(await first).body, (await after).body]).toEqual(['ok', 'ok'])
    expect(origin.requests.all.map((seen) => seen.url)).toEqual(['/', '/after'])
  })
})
