// What the acceptor does with connections before uWebSockets.js has them, where they speak TLS: limits, PROXY headers,
// and time for the first bytes.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Authority, createAuthority, writePair } from '../support/certificates.js'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

const HEADER = 'PROXY TCP4 192.0.2.7 192.0.2.2 1 2\r\n'

let authority: Authority
let echo: Origin
let config: object
let gateway: Gateway

beforeAll(async () => {
  authority = await createAuthority()
  echo = await startEcho()
  config = {
    services: { echo: { endpoints: [echo.url] } },
    routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    trustedProxies: ['127.0.0.1'],
    tls: { certificates: [writePair(await authority.issue({ cn: 'site', dns: ['a.test'] }), temporaryFolder())] },
  }
})

afterAll(() => echo.close())

beforeEach((context) => requireAcceptor(context))

const start = (env: Record<string, string>): Promise<Gateway> => startGateway({ workers: 1, env, config })

const tls = (socket?: Socket) => ({
  ca: authority.cert,
  servername: 'a.test',
  ...(socket === undefined ? {} : { socket }),
})

const refused = (reason: string) => gateway.metric(`tidegate_connections_refused_total{reason="${reason}"}`)

async function dial(said: string, from = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port: gateway.port, host: '127.0.0.1', localAddress: from })
  await once(socket, 'connect')
  socket.write(said)
  return socket
}

/** What it was told before its end. */
async function lastWords(socket: Socket): Promise<string> {
  let said = ''
  socket.on('data', (bytes) => {
    said += bytes.toString('latin1')
  })
  socket.on('error', () => {})
  await once(socket, 'close')
  return said
}

test('a PROXY header before the handshake says who the client is', async () => {
  gateway = await start({ TIDEGATE_PROXY_PROTOCOL: 'on' })
  const connection = await Connection.open(gateway.port, '127.0.0.1', tls(await dial(HEADER)))
  for (let i = 0; i < 2; i++) {
    const seen = (await connection.exchange({})).json<Seen>()
    expect([headerOf(seen, 'x-forwarded-for'), headerOf(seen, 'x-forwarded-proto')]).toEqual([['192.0.2.7'], ['https']])
  }
  connection.destroy()
  const unannounced = await dial('\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00')
  expect(await lastWords(unannounced)).toBe('')
  expect(await refused('proxy_header')).toBe(1)
  await gateway.close()
})

test.each(['1.1', '1.0'])('HTTP/%s in cleartext is neither served nor answered', async (version) => {
  gateway = await start({})
  const before = echo.requests.all.length
  expect(await lastWords(await dial(`GET / HTTP/${version}\r\nHost: a.test\r\n\r\n`))).toBe('')
  expect(echo.requests.all.length).toBe(before)
  await gateway.close()
})

test('a handshake that does not begin in time is cut off without a word, and the head within it is not looked at', async () => {
  gateway = await start({ TIDEGATE_PROXY_PROTOCOL: 'on', TIDEGATE_HEADER_TIMEOUT_MS: '1000' })
  const connection = await Connection.open(gateway.port, '127.0.0.1', tls(await dial(HEADER)))
  await connection.write('GET / HTTP/1.1\r\nHost: a.te')
  expect(await lastWords(await dial(HEADER))).toBe('')
  expect(await refused('slow_head')).toBe(1)
  // As long as the other one had, and more.
  await connection.write('st\r\n\r\n')
  expect((await connection.answer()).status).toBe(200)
  const ancient = await connection.exchange({ version: '1.0' })
  expect(ancient.status).toBe(505)
  await gateway.close()
})

test('the limits on connections hold, and who is turned away is told nothing in cleartext', async () => {
  gateway = await start({ TIDEGATE_MAX_CONNECTIONS: '2', TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '1' })
  const open = (from: string) => Connection.open(gateway.port, '127.0.0.1', tls(), from)
  const first = await open('127.0.0.2')
  expect((await first.exchange({})).status).toBe(200)
  expect(await lastWords(await dial('\x16\x03\x01', '127.0.0.2'))).toBe('')
  expect(await refused('address')).toBe(1)
  const second = await open('127.0.0.3')
  expect((await second.exchange({})).status).toBe(200)
  expect(await lastWords(await dial('\x16\x03\x01', '127.0.0.4'))).toBe('')
  expect(await refused('connections')).toBe(1)
  // A place that is left is free again.
  first.destroy()
  await eventually('one connection', async () => (await gateway.status()).workers[0]?.connections, 1)
  const third = await open('127.0.0.2')
  expect((await third.exchange({})).status).toBe(200)
  for (const one of [second, third]) one.destroy()
  await gateway.close()
})
