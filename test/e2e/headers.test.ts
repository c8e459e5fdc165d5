// Which header fields cross the gateway, which stay on their hop, and which it writes itself, both ways.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho, startScripted } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'

const body = 'tidegate'.repeat(4000)
const manyFields = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`x-field-${i}`, `caf\xe9 ${i}`.repeat(12)]))

let echo: Origin
let scripted: Origin
let gateway: Gateway
/** Trusts the loopback address as a proxy. */
let behindProxy: Gateway

beforeAll(async () => {
  echo = await startEcho()
  scripted = await startScripted({
    '/answers/hop': (exchange) =>
      exchange.answer(200, {
        Connection: 'keep-alive, X-Private',
        'Keep-Alive': 'timeout=60',
        'X-Private': 'this hop only',
        'Proxy-Authenticate': 'Basic',
        Trailer: 'X-Sum',
        Upgrade: 'h2c',
        'X-Public': 'end to end',
      }),
    '/answers/own': (exchange) =>
      exchange.answer(200, { Date: 'Thu, 01 Jan 2015 00:00:00 GMT', 'x-rid': 'not yours', Server: 'origin/1' }, 'body'),
    '/answers/cookies': (exchange) =>
      exchange.send(
        'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nSet-Cookie: a=3\r\nVary: x\r\nVary: y\r\nContent-Length: 0\r\n\r\n',
      ),
    '/answers/bytes': (exchange) => exchange.answer(200, { 'X-Name': 'caf\xe9 \xc3\xa9 \xff end' }),
    '/answers/long': (exchange) => exchange.answer(200, { ...manyFields, 'X-Long': 'l'.repeat(10_000) }, body),
    '/answers/phrase': (exchange) => exchange.send('HTTP/1.1 299 Fine By Me\r\nContent-Length: 0\r\n\r\n'),
    '/answers/no-phrase': (exchange) => exchange.send('HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n'),
  })
  const open = (match: object, rest: object = {}) => ({ match, service: 'echo', auth: 'none', ...rest })
  const config = {
    services: {
      echo: { endpoints: [echo.url] },
      undici: { endpoints: [echo.url], client: 'undici' },
      scripted: { endpoints: [scripted.url] },
    },
    routes: [
      open({ path: '/' }),
      open({ path: '/trusted-rid' }, { trustRid: true }),
      open({ path: '/host' }, { preserveHost: true }),
      open({ path: '/strip/this' }, { stripPrefix: true }),
      open({ path: '/old' }, { rewrite: '/new/place' }),
      open({ path: '/root' }, { rewrite: '/' }),
      open({ exactPath: '/exact' }, { rewrite: '/elsewhere' }),
      { match: { path: '/undici' }, service: 'undici', auth: 'none' },
      { match: { path: '/answers' }, service: 'scripted', auth: 'none' },
    ],
  }
  gateway = await startGateway({ config, workers: 1 })
  behindProxy = await startGateway({
    config: { ...config, trustedProxies: ['127.0.0.0/8', '192.0.2.0/24'] },
    workers: 1,
  })
})

afterAll(async () => {
  await gateway.close()
  await behindProxy.close()
  await echo.close()
  await scripted.close()
})

async function seen(parts: RequestParts, at: Gateway = gateway): Promise<Seen> {
  const answer = await call(at.port, parts)
  expect(answer.status).toBe(200)
  return answer.json<Seen>()
}

describe('on the way to the service', () => {
  test('end-to-end fields keep their values, their order and their number', async () => {
    const request = await seen({
      headers: {
        'X-One': ['1', '2'],
        Accept: 'text/html;q=0.5, */*',
        'X-Empty': '',
        Cookie: 'a=1; b="2"',
        Authorization: 'Bearer x',
      },
    })
    expect(headerOf(request, 'x-one')).toEqual(['1', '2'])
    expect(headerOf(request, 'accept')).toEqual(['text/html;q=0.5, */*'])
    expect(headerOf(request, 'x-empty')).toEqual([''])
    expect(headerOf(request, 'cookie')).toEqual(['a=1; b="2"'])
    expect(headerOf(request, 'authorization')).toEqual(['Bearer x'])
  })

  test.each([
    ['Connection', 'keep-alive'],
    ['Keep-Alive', 'timeout=5'],
    ['Proxy-Connection', 'keep-alive'],
    ['Proxy-Authorization', 'Basic eDp5'],
    ['TE', 'gzip'],
    ['Upgrade', 'websocket'],
  ])('%s stays on its hop', async (name, value) => {
    const request = await seen({ headers: { [name]: value } })
    if (name !== 'Connection') expect(headerOf(request, name.toLowerCase())).toEqual([])
    // In HTTP/1.1 that is what no Connection says as well.
    expect(['', 'keep-alive']).toContain(headerOf(request, 'connection').join())
  })

  test('and so do those that Connection names, in any case and over several fields', async () => {
    const request = await seen({
      headers: {
        Connection: ['X-Private, keep-alive', 'x-also-private'],
        'X-Private': '1',
        'X-Also-Private': '2',
        'X-Public': '3',
      },
    })
    expect(headerOf(request, 'x-private')).toEqual([])
    expect(headerOf(request, 'x-also-private')).toEqual([])
    expect(headerOf(request, 'x-public')).toEqual(['3'])
  })

  test('Host is the endpoint’s, or the caller’s where the route says so', async () => {
    expect(headerOf(await seen({ host: 'demo.test:81' }), 'host')).toEqual([new URL(echo.url).host])
    expect(headerOf(await seen({ host: 'demo.test:81', target: '/host' }), 'host')).toEqual(['demo.test:81'])
  })

  test('Via gets one more entry', async () => {
    expect(headerOf(await seen({}), 'via')).toEqual(['1.1 tidegate'])
    expect(headerOf(await seen({ headers: { Via: ['1.0 fred', '1.1 p.example'] } }), 'via')).toEqual([
      '1.0 fred, 1.1 p.example, 1.1 tidegate',
    ])
  })

  const claims = {
    'X-Forwarded-For': '203.0.113.9, 192.0.2.1',
    'X-Forwarded-Proto': 'https',
    'X-Forwarded-Host': 'outer.test',
    Forwarded: 'for=203.0.113.9;proto=https',
  }
  const forwarding = (request: Seen) => ({
    for: headerOf(request, 'x-forwarded-for'),
    proto: headerOf(request, 'x-forwarded-proto'),
    host: headerOf(request, 'x-forwarded-host'),
    forwarded: headerOf(request, 'forwarded'),
  })

  test('what just anybody says about forwarding is dropped', async () => {
    expect(forwarding(await seen({ host: 'demo.test:81', headers: claims }))).toEqual({
      for: ['127.0.0.1'],
      proto: ['http'],
      host: ['demo.test:81'],
      forwarded: ['for=127.0.0.1;host="demo.test:81";proto=http'],
    })
  })

  test('what a trusted proxy says is continued, and the caller is who it vouches for', async () => {
    const answer = await call(behindProxy.port, { headers: claims })
    expect(forwarding(answer.json<Seen>())).toEqual({
      for: ['203.0.113.9, 192.0.2.1, 127.0.0.1'],
      proto: ['https'],
      host: ['outer.test'],
      forwarded: ['for=203.0.113.9;proto=https, for=127.0.0.1;host="demo.test";proto=http'],
    })
    expect(await behindProxy.logged(answer)).toMatchObject({ client: '203.0.113.9' })
  })

  test('an IPv6 address in Forwarded stands in brackets and quotes', async () => {
    const answer = await call(behindProxy.port, { headers: { 'X-Forwarded-For': '2001:db8::0:1, 192.0.2.1' } })
    expect(headerOf(answer.json<Seen>(), 'x-forwarded-for')).toEqual(['2001:db8::0:1, 192.0.2.1, 127.0.0.1'])
    expect(await behindProxy.logged(answer)).toMatchObject({ client: '2001:db8::1' })
  })

  const OWN_RID = '0123456789abcdef0123456789abcdef'
  test.each([
    ['of the caller is replaced', '/', OWN_RID, false],
    ['of the caller is kept where the route trusts it', '/trusted-rid', OWN_RID, true],
    ['that is none is replaced also there', '/trusted-rid', 'ABCDEF', false],
  ])('a request id %s', async (_name, target, own, kept) => {
    const answer = await call(gateway.port, { target, headers: { 'X-Rid': own } })
    expect(headerOf(answer.json<Seen>(), 'x-rid')).toEqual([answer.rid])
    expect(answer.rid).toMatch(/^[0-9a-f]{32}$/)
    expect(answer.rid === own).toBe(kept)
  })

  const TRACE = '0af7651916cd43dd8448eb211c80319c'
  test('a trace is continued under a parent of our own', async () => {
    const request = await seen({
      headers: { traceparent: `00-${TRACE}-b7ad6b7169203331-01`, tracestate: ['a=1', 'b=2'] },
    })
    const [parent] = headerOf(request, 'traceparent')
    expect(parent).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`))
    expect(parent).not.toContain('b7ad6b7169203331')
    expect(headerOf(request, 'tracestate')).toEqual(['a=1,b=2'])
  })

  test.each([[{}], [{ traceparent: 'nonsense', tracestate: 'a=1' }]])(
    'or started with the request id: %j',
    async (headers) => {
      const answer = await call(gateway.port, { headers })
      const request = answer.json<Seen>()
      expect(headerOf(request, 'traceparent')).toEqual([
        expect.stringMatching(new RegExp(`^00-${answer.rid}-[0-9a-f]{16}-01$`)),
      ])
      expect(headerOf(request, 'tracestate')).toEqual([])
    },
  )

  // RFC 9110, 5.5: bytes over 127 are opaque. 0xa0 is one that some take for a blank, 0x85 for the end of a line.
  const everyByte = String.fromCharCode(...Array.from({ length: 128 }, (_, i) => 128 + i))
  const wide = [
    '\xff',
    'caf\xe9',
    '\xa0 both ends \xa0',
    Buffer.from('grüße – ✓').toString('latin1'),
    '\xef\xbf\xbd',
    everyByte,
  ]

  test.each([['/'], ['/undici']])('values beyond ASCII arrive byte for byte, UTF-8 or not: %s', async (target) => {
    for (const value of wide) {
      const request = await seen({ target, headers: { 'X-Name': ['a', value], 'X-Sum': value } })
      expect(headerOf(request, 'x-name')).toEqual(['a', value])
      expect(headerOf(request, 'x-sum')).toEqual([value])
    }
  })

  test('and where their lines have other blanks than one behind the colon, and come in parts', async () => {
    const connection = await Connection.open(gateway.port)
    for (const part of ['GET / HTTP/1.1\r\nHost: a\r\nX-A:\t \xe9', '\xff \t\r\nX-B:\xa0\r\n\r\n'])
      await connection.write(Buffer.from(part, 'latin1'))
    const request = (await connection.answer()).json<Seen>()
    connection.destroy()
    expect(headerOf(request, 'x-a')).toEqual(['\xe9\xff'])
    expect(headerOf(request, 'x-b')).toEqual(['\xa0'])
  })

  test('a DEL is none of them, and refused', async () => {
    const answer = await call(gateway.port, { headers: { 'X-Name': 'a\x7fb' } })
    expect(answer.status).toBe(400)
    expect(await gateway.logged(answer)).toMatchObject({ code: 'bad_request', reason: 'bad header' })
  })

  test.each([
    ['/a/b?c=d', '/a/b?c=d'],
    ['/a//b/?//', '/a/b/?//'],
    ['/%61%20%7e%c3%a9?%61', '/a%20~%C3%A9?%61'],
    ['/a/./b/../c', '/a/c'],
    ['/strip/x/../this//that', '/that'],
    ['/strip/this/and/that?q', '/and/that?q'],
    ['/strip/this', '/'],
    ['/strip/this?q', '/?q'],
    ['/strip/th%69s/that', '/that'],
    ['/old', '/new/place'],
    ['/old/and?q', '/new/place/and?q'],
    ['/root/x', '/x'],
    ['/root', '/'],
    ['/exact?q', '/elsewhere?q'],
  ])('the target %s becomes %s', async (sent, received) => {
    expect((await seen({ target: sent })).url).toBe(received)
  })
})

describe('on the way back', () => {
  test('fields of the hop stay there, with those that Connection names', async () => {
    const answer = await call(gateway.port, { target: '/answers/hop' })
    expect(answer.one('x-public')).toBe('end to end')
    for (const name of ['connection', 'keep-alive', 'x-private', 'proxy-authenticate', 'trailer', 'upgrade']) {
      expect(answer.all(name), name).toEqual([])
    }
  })

  test('Date, Content-Length and x-rid are there once; Server is the service’s', async () => {
    const answer = await call(gateway.port, { target: '/answers/own' })
    expect(answer.all('date')).toHaveLength(1)
    expect(answer.all('content-length')).toEqual(['4'])
    expect(answer.all('x-rid')).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/)])
    expect(answer.one('server')).toBe('origin/1')
  })

  test('several cookies stay several, in order', async () => {
    const answer = await call(gateway.port, { target: '/answers/cookies' })
    expect(answer.all('set-cookie')).toEqual(['a=1', 'b=2; Path=/', 'a=3'])
    expect(answer.all('vary').join(', ')).toBe('x, y')
  })

  test('values beyond ASCII arrive byte for byte', async () => {
    expect((await call(gateway.port, { target: '/answers/bytes' })).one('x-name')).toBe('caf\xe9 \xc3\xa9 \xff end')
  })

  test('a head of 16 KiB arrives whole, with its body behind it', async () => {
    const answer = await call(gateway.port, { target: '/answers/long' })
    for (const [name, value] of Object.entries(manyFields)) expect(answer.one(name)).toBe(value)
    expect(answer.one('x-long')).toBe('l'.repeat(10_000))
    expect(answer.text).toBe(body)
  })

  test('status and phrase are the service’s, known or not', async () => {
    const answer = await call(gateway.port, { target: '/answers/phrase' })
    expect([answer.status, answer.phrase]).toEqual([299, 'Fine By Me'])
    expect((await call(gateway.port, { target: '/answers/no-phrase' })).status).toBe(200)
  })
})
