// The PROXY protocol: whom a trusted proxy says it speaks for is the client, and nobody else is believed, or even
// listened to.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { startHaproxy } from '../support/other-proxies.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor, requireTool } from '../support/requirements.js'

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const V4 = Buffer.from([192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 4, 1, 0xbb])
const V6 = Buffer.concat([Buffer.from('20010db8000000000000000000000001', 'hex'), Buffer.alloc(16, 1), Buffer.alloc(4)])
const TLVS = Buffer.concat([
  Buffer.from([0x02, 0, 9]),
  Buffer.from('demo.test'),
  Buffer.from([0x04, 0x01, 0x00]),
  Buffer.alloc(256),
])

/** A version 2 header. */
function v2(command: number, family: number, rest: Buffer = Buffer.alloc(0), length = rest.length): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.from([command, family, length >> 8, length & 255]), rest])
}
const latin1 = (text: string) => Buffer.from(text, 'latin1')

/** What is said before the first request, and whom the gateway then takes for the client. */
const GOOD: readonly (readonly [name: string, header: Buffer, client: string])[] = [
  ['version 1, IPv4', latin1('PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n'), '192.0.2.1'],
  ['version 1, IPv6', latin1('PROXY TCP6 2001:db8:0:0::1 ::1 56324 443\r\n'), '2001:db8::1'],
  ['version 1, unknown', latin1('PROXY UNKNOWN\r\n'), '127.0.0.1'],
  ['version 1, unknown, with more', latin1('PROXY UNKNOWN fe80::1 whatever 1\r\n'), '127.0.0.1'],
  ['version 2, IPv4', v2(0x21, 0x11, V4), '192.0.2.1'],
  ['version 2, IPv6', v2(0x21, 0x21, V6), '2001:db8::1'],
  ['version 2, with extensions', v2(0x21, 0x11, Buffer.concat([V4, TLVS])), '192.0.2.1'],
  ['version 2, of its own', v2(0x20, 0x00), '127.0.0.1'],
  ['version 2, of its own, with an address', v2(0x20, 0x11, V4), '127.0.0.1'],
  ['version 2, not specified', v2(0x21, 0x00, TLVS), '127.0.0.1'],
  ['version 2, a Unix socket', v2(0x21, 0x31, Buffer.alloc(216, 'x')), '127.0.0.1'],
]

const BAD: readonly (readonly [name: string, header: Buffer])[] = [
  ['no header', latin1('')],
  ['version 1 without addresses', latin1('PROXY TCP4\r\n')],
  ['version 1 with the wrong family', latin1('PROXY TCP4 2001:db8::1 ::1 1 2\r\n')],
  ['version 1 with a bad address', latin1('PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n')],
  ['version 1 with a bad port', latin1('PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n')],
  ['version 1 with two spaces', latin1('PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n')],
  ['version 1 with a bare LF', latin1('PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n')],
  ['version 1 without an end', latin1(`PROXY UNKNOWN ${'x'.repeat(120)}`)],
  ['version 1 of something new', latin1('PROXY SCTP4 192.0.2.1 198.51.100.7 1 2\r\n')],
  ['version 2 of another version', v2(0x11, 0x11, V4)],
  ['version 2 with another command', v2(0x22, 0x11, V4)],
  ['version 2 of datagrams', v2(0x21, 0x12, V4)],
  ['version 2 that is too short for its addresses', v2(0x21, 0x11, V4.subarray(0, 11))],
  ['version 2 that is too long', v2(0x21, 0x11, V4, 60_000)],
]

const REFUSED = 'tidegate_connections_refused_total{reason="proxy_header"}'

let echo: Origin
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho()
  gateway = await startGateway({
    workers: 1,
    env: { TIDEGATE_PROXY_PROTOCOL: 'on' },
    config: {
      trustedProxies: ['127.0.0.1'],
      services: { echo: { endpoints: [echo.url] } },
      routes: [
        { match: { path: '/' }, service: 'echo', auth: 'none' },
        {
          match: { path: '/limited' },
          service: 'echo',
          auth: 'none',
          limits: [{ by: 'address', rate: '1/h', burst: 1 }],
        },
      ],
    },
  }).catch((error: Error) => {
    // Threads refuse the setting, which is a test below.
    if (process.env.TIDEGATE_ISOLATION !== 'thread') throw error
    return { isolation: 'thread' } as Gateway
  })
})

afterAll(async () => {
  if (gateway.isolation === 'process') await gateway.close()
  await echo.close()
})

beforeEach((context) => requireAcceptor(context))

async function say(header: Buffer, from?: string): Promise<Connection> {
  const connection = await Connection.open(gateway.port, '127.0.0.1', undefined, from)
  await connection.write(header)
  return connection
}

describe.each(GOOD)('a header of %s', (_name, header, client) => {
  test.each(['1.1', '1.0'] as const)('says who the client is, in HTTP/%s', async (version) => {
    const connection = await say(header)
    for (let i = 0; i < (version === '1.1' ? 3 : 1); i++) {
      const answer = await connection.exchange({ version })
      const seen = answer.json<Seen>()
      expect(headerOf(seen, 'x-forwarded-for')).toEqual([client])
      expect(headerOf(seen, 'via')).toEqual([`${version} tidegate`])
    }
    connection.destroy()
  })

  test('is understood byte by byte', async () => {
    const connection = await Connection.open(gateway.port)
    for (const byte of header) await connection.write(Buffer.of(byte))
    expect(headerOf((await connection.exchange({})).json<Seen>(), 'x-forwarded-for')).toEqual([client])
    connection.destroy()
  })
})

test.each(['1.1', '1.0'] as const)(
  'the client that is announced is the one in the log, of HTTP/%s',
  async (version) => {
    const connection = await say(GOOD[0]![1])
    expect((await gateway.logged(await connection.exchange({ version }))).client).toBe('192.0.2.1')
    connection.destroy()
  },
)

test('a client that is announced is not a proxy, and not believed about others', async () => {
  const connection = await say(GOOD[0]![1])
  const answer = await connection.exchange({ headers: { 'X-Forwarded-For': '203.0.113.9' } })
  expect(headerOf(answer.json<Seen>(), 'x-forwarded-for')).toEqual(['192.0.2.1'])
  connection.destroy()
})

test('a limit by address is by that which is announced', async () => {
  const statuses: number[] = []
  for (const last of [1, 1, 2]) {
    const connection = await say(latin1(`PROXY TCP4 203.0.113.${last} 198.51.100.7 1 2\r\n`))
    statuses.push((await connection.exchange({ target: '/limited' })).status)
    connection.destroy()
  }
  expect(statuses).toEqual([200, 429, 200])
})

test('more clients than have an app of their own by default keep their addresses', async () => {
  const connections = await Promise.all(
    Array.from({ length: 300 }, (_, i) => say(latin1(`PROXY TCP4 198.18.${i >> 8}.${i & 255} 198.51.100.7 1 2\r\n`))),
  )
  for (let round = 0; round < 2; round++) {
    const answers = await Promise.all(connections.map((connection) => connection.exchange({})))
    const clients = answers.map((answer) => headerOf(answer.json<Seen>(), 'x-forwarded-for')[0])
    expect(clients).toEqual(connections.map((_, i) => `198.18.${i >> 8}.${i & 255}`))
  }
  for (const connection of connections) connection.destroy()
})

test('more clients one after the other than have an app keep their addresses, also when they come back', async () => {
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 300; i++) {
      const client = `198.19.${i >> 8}.${i & 255}`
      const connection = await say(latin1(`PROXY TCP4 ${client} 198.51.100.7 1 2\r\n`))
      const answer = await connection.exchange({ headers: { Connection: 'close' } })
      expect(headerOf(answer.json<Seen>(), 'x-forwarded-for')).toEqual([client])
      await connection.closedByPeer()
    }
  }
})

describe.each(BAD)('%s', (_name, header) => {
  test('ends the connection, and is counted', async () => {
    const before = (await gateway.metric(REFUSED))!
    const forwarded = echo.requests.all.length
    const connection = await say(header)
    await connection.send({}).catch(() => {})
    await connection.closedByPeer()
    expect(await gateway.metric(REFUSED)).toBe(before + 1)
    expect(echo.requests.all.length).toBe(forwarded)
  })
})

test('a header that does not come is not waited for for ever, and not answered', async () => {
  const impatient = await startGateway({
    workers: 1,
    env: { TIDEGATE_PROXY_PROTOCOL: 'on', TIDEGATE_HEADER_TIMEOUT_MS: '300' },
    config: {
      trustedProxies: ['127.0.0.1'],
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
  })
  const connection = await Connection.open(impatient.port)
  await connection.write('PROXY TCP4 192.0')
  await connection.closedByPeer()
  expect(await impatient.metric('tidegate_connections_refused_total{reason="slow_head"}')).toBe(1)
  await impatient.close()
})

describe('who is not trusted', () => {
  test('is served without a header, under its own address', async () => {
    const connection = await Connection.open(gateway.port, '127.0.0.1', undefined, '127.0.0.2')
    expect((await gateway.logged(await connection.exchange({}))).client).toBe('127.0.0.2')
    connection.destroy()
  })

  test.each(GOOD)('is cut off with one of %s', async (_name, header) => {
    const before = (await gateway.metric(REFUSED))!
    const connection = await say(header, '127.0.0.2')
    // Version 1 is text, and gets what any other bad request line gets.
    if (header.includes('PROXY')) expect((await connection.answer()).status).toBe(400)
    else await connection.send({}).catch(() => {})
    await connection.closedByPeer()
    expect(await gateway.metric(REFUSED)).toBe(before + 1)
  })
})

test('where the protocol is off, a version 2 header is refused, which uWebSockets.js would read', async () => {
  const off = await startGateway({
    workers: 1,
    config: {
      trustedProxies: ['127.0.0.1'],
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
  })
  const connection = await Connection.open(off.port)
  await connection.write(v2(0x21, 0x11, V4))
  await connection.send({}).catch(() => {})
  await connection.closedByPeer()
  expect(await off.metric(REFUSED)).toBe(1)
  await off.close()
})

describe.each(['send-proxy', 'send-proxy-v2'])('HAProxy with %s', (mode) => {
  test('is understood, and so are its checks', async (context) => {
    requireTool(context, 'haproxy')
    const server = `127.0.0.1:${gateway.port} ${mode} check inter 50ms`
    const haproxy = await startHaproxy(`option httpchk GET /checked/${mode}`, server)
    try {
      await gateway.access.find((line) => line.path === `/checked/${mode}` && line.status === 200, 'the check')
      const connection = await Connection.open(haproxy.port, '127.0.0.1', undefined, '127.0.0.3')
      expect((await gateway.logged(await connection.exchange({ target: '/through' }))).client).toBe('127.0.0.3')
      connection.destroy()
    } finally {
      await haproxy.close()
    }
  })
})
