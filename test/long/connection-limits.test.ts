// How many connections there may be, in all and for one client address, over all workers; what is counted, and that
// what is gone is not.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

let origin: Origin
const open: Connection[] = []
const silent: (() => void)[] = []

beforeAll(async () => {
  origin = await startScripted({
    '/silent': (exchange) => {
      for (const tell of silent.splice(0)) tell()
      return exchange.closed()
    },
  })
})

beforeEach((context) => requireAcceptor(context))

afterEach(() => {
  for (const connection of open.splice(0)) connection.destroy()
})

afterAll(() => origin.close())

const start = (env: Record<string, string>, rest: object = {}, losesWorkers = false): Promise<Gateway> =>
  startGateway({
    env,
    workers: 2,
    losesWorkers,
    config: {
      services: { origin: { endpoints: [origin.url] } },
      routes: [{ match: { path: '/' }, service: 'origin', auth: 'none' }],
      ...rest,
    },
  })

async function dial(gateway: Gateway, from = '127.0.0.1'): Promise<Connection> {
  const connection = await Connection.open(gateway.port, '127.0.0.1', undefined, from)
  open.push(connection)
  return connection
}

/** One that stays: its status, 200 or 503. */
async function served(gateway: Gateway, from?: string): Promise<number> {
  const connection = await dial(gateway, from)
  const answer = await connection.exchange({})
  if (answer.status === 503) {
    expect([answer.one('connection'), answer.one('retry-after')]).toEqual(['close', '1'])
    await connection.closedByPeer()
  }
  return answer.status
}

const refused = (gateway: Gateway, reason: string) =>
  gateway.metric(`tidegate_connections_refused_total{reason="${reason}"}`)

const connections = async (gateway: Gateway): Promise<number> =>
  (await gateway.status()).workers.reduce((sum, one) => sum + one.connections, 0)

/** Until a new one is served: that a connection is gone reaches its worker after its client. */
async function servedAgain(gateway: Gateway, from?: string): Promise<void> {
  await eventually('a new connection to be served', () => served(gateway, from), 200)
}

describe('in all', () => {
  test('no more connections than TIDEGATE_MAX_CONNECTIONS are served at a time, by all workers together', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS: '5' })
    for (let i = 0; i < 5; i++) expect(await served(gateway, `127.0.0.${i + 1}`)).toBe(200)
    for (let i = 0; i < 3; i++) expect(await served(gateway)).toBe(503)
    expect(await refused(gateway, 'connections')).toBe(3)
    open[0]!.destroy()
    await servedAgain(gateway)
    expect(await served(gateway)).toBe(503)
    await gateway.close()
  })
})

describe('for one address', () => {
  test('no more than TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS, by all workers together', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '4' })
    for (const from of ['127.0.0.1', '127.0.0.2']) {
      for (let i = 0; i < 4; i++) expect(await served(gateway, from)).toBe(200)
      expect(await served(gateway, from)).toBe(503)
    }
    expect(await refused(gateway, 'address')).toBe(2)
    open[1]!.destroy()
    await servedAgain(gateway, '127.0.0.1')
    expect(await served(gateway, '127.0.0.1')).toBe(503)
    expect(await served(gateway, '127.0.0.2')).toBe(503)
    await gateway.close()
  })

  test('those whose head is not complete count, and those of HTTP/1.0', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '4' })
    const slow = await dial(gateway)
    await slow.write('GET / HTTP/1.1\r\nX: ')
    const old = await dial(gateway)
    const reached = new Promise<void>((resolve) => silent.push(resolve))
    await old.send({ version: '1.0', target: '/silent' })
    await reached
    await eventually('both connections to be counted', () => connections(gateway), 2)
    expect(await served(gateway)).toBe(200)
    expect(await served(gateway)).toBe(200)
    expect(await served(gateway)).toBe(503)
    slow.destroy()
    await servedAgain(gateway)
    old.destroy()
    await servedAgain(gateway)
    expect(await served(gateway)).toBe(503)
    await gateway.close()
  })

  test('any number of connections one after the other leaves nothing behind', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '2' })
    for (let i = 0; i < 100; i++) {
      const connection = await dial(gateway)
      const version = i % 2 === 0 ? '1.0' : '1.1'
      expect((await connection.exchange({ version, headers: { Connection: 'close' } })).status).toBe(200)
      await connection.closedByPeer()
      await eventually('no connection to be counted', () => connections(gateway), 0)
    }
    expect(await refused(gateway, 'address')).toBe(0)
    await gateway.close()
  })

  test('trusted proxies have no limit', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '1' }, { trustedProxies: ['127.0.0.1'] })
    for (let i = 0; i < 3; i++) expect(await served(gateway)).toBe(200)
    expect([await served(gateway, '127.0.0.2'), await served(gateway, '127.0.0.2')]).toEqual([200, 503])
    await gateway.close()
  })

  test('whom a PROXY header announces has one', async () => {
    const env = { TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '2', TIDEGATE_PROXY_PROTOCOL: 'on' }
    const gateway = await start(env, { trustedProxies: ['127.0.0.1'] })
    const statuses: number[] = []
    // Of IPv6 one /64 is one client.
    for (const source of [
      'TCP6 2001:db8::1 ::1',
      'TCP6 2001:db8::2 ::1',
      'TCP6 2001:db8::3 ::1',
      'TCP6 2001:db8:0:1::1 ::1',
    ]) {
      const connection = await dial(gateway)
      // In one: who is refused is answered where there is a request, and just closed where none has come yet.
      await connection.write(`PROXY ${source} 1 2\r\nGET / HTTP/1.1\r\nHost: demo.test\r\n\r\n`)
      statuses.push((await connection.answer()).status)
    }
    expect(statuses).toEqual([200, 200, 503, 200])
    await gateway.close()
  })

  test('what a worker that was killed had open is free again', async () => {
    const gateway = await start({ TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: '4' }, {}, true)
    for (let i = 0; i < 4; i++) expect(await served(gateway)).toBe(200)
    expect(await served(gateway)).toBe(503)
    for (const { pid } of (await gateway.status()).workers) process.kill(pid, 'SIGKILL')
    for (const connection of open.splice(0)) connection.destroy()
    await eventually('both workers again', async () => (await gateway.admin('/readyz')).status, 200)
    for (let i = 0; i < 4; i++) expect(await served(gateway)).toBe(200)
    expect(await served(gateway)).toBe(503)
    await gateway.close()
  })
})
