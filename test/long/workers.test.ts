// The primary and its workers: one that dies or hangs is replaced while the others serve, and SIGTERM lets everybody
// finish.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forwardAll, type Gateway, type GatewayOptions, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

let origin: Origin
let options: GatewayOptions
/** Requests for /held, whose answers wait for the test. */
let held: RawExchange[] = []

beforeAll(async () => {
  origin = await startScripted({ '/held': (exchange) => void held.push(exchange) })
  options = {
    losesWorkers: true,
    config: forwardAll(origin),
  }
})

afterAll(() => origin.close())

async function using(run: (gateway: Gateway) => Promise<void>): Promise<void> {
  const gateway = await startGateway(options)
  try {
    await run(gateway)
  } finally {
    await gateway.close()
  }
}

/** Open connections that have been served, spread over the workers by the acceptor. */
async function served(gateway: Gateway, count: number): Promise<Connection[]> {
  const connections = await Promise.all(Array.from({ length: count }, () => Connection.open(gateway.port)))
  for (const one of connections) expect((await one.exchange({})).status).toBe(200)
  return connections
}

async function workerOf(gateway: Gateway, slot: number) {
  return (await gateway.status()).workers[slot]!
}

describe('a worker that is killed', () => {
  test('takes only its own connections with it, no fresh one is refused, and its place is taken again', (context) =>
    using(async (gateway) => {
      requireProcesses(context, gateway)
      const connections = await served(gateway, 12)
      const { pid, connections: own } = await workerOf(gateway, 0)
      // The one that asks for the status is on the admin listener and does not count.
      expect(own).toBeGreaterThan(0)
      expect(own).toBeLessThan(12)
      let cut = 0
      const watched = connections.map((one) => one.socket.once('close', () => cut++))
      process.kill(pid, 'SIGKILL')
      await gateway.log.find((line) => line.msg === 'worker died' && line.slot === 0, 'worker 0')

      // Its place is empty for 100 ms and the time of a start: the other one serves whoever comes.
      const before = gateway.log.all.filter((line) => line.msg === 'worker listens').length
      do expect((await call(gateway.port)).status).toBe(200)
      while (gateway.log.all.filter((line) => line.msg === 'worker listens').length === before)

      await eventually('the end of its connections', () => cut, own)
      const alive = connections.filter((_, i) => !watched[i]!.destroyed)
      expect(alive).toHaveLength(12 - own)
      for (const one of alive) expect((await one.exchange({})).status).toBe(200)
      for (const one of connections) one.destroy()

      const back = await workerOf(gateway, 0)
      expect(back).toMatchObject({ state: 'listening', restarts: 1 })
      expect(back.pid).not.toBe(pid)
      expect(await gateway.metric('tidegate_worker_restarts_total{worker="0"}')).toBe(1)
      expect(await gateway.metric('tidegate_worker_restarts_total{worker="1"}')).toBe(0)
      expect((await gateway.admin('/readyz')).status).toBe(200)
    }))

  test('keeps what it had counted', (context) =>
    using(async (gateway) => {
      requireProcesses(context, gateway)
      for (const one of await served(gateway, 10)) one.destroy()
      const counted = () => gateway.metric('tidegate_requests_total{route="/",status="200"}')
      expect(await counted()).toBe(10)
      for (const slot of [0, 1]) {
        process.kill((await workerOf(gateway, slot)).pid, 'SIGKILL')
        await gateway.log.find((line) => line.msg === 'worker died' && line.slot === slot, `worker ${slot}`)
      }
      expect((await gateway.admin('/readyz')).status).toBe(503)
      await gateway.log.take(4, (line) => line.msg === 'worker listens', 'both again')
      expect(await counted()).toBe(10)
      expect(await gateway.metric('tidegate_requests_in_flight{worker="0"}')).toBe(0)
    }))
})

test('a worker that hangs is ended and replaced', (context) =>
  using(async (gateway) => {
    requireProcesses(context, gateway)
    const { pid } = await workerOf(gateway, 1)
    process.kill(pid, 'SIGSTOP')
    const hangs = await gateway.log.find((line) => line.msg === 'worker hangs: ending it', 'the hung one')
    expect(hangs).toMatchObject({ slot: 1, pid })
    await gateway.log.take(2, (line) => line.msg === 'worker listens' && line.slot === 1, 'its successor')
    expect(await workerOf(gateway, 1)).toMatchObject({ state: 'listening', restarts: 1 })
    expect((await call(gateway.port)).status).toBe(200)
  }))

test('workers leave when their primary is killed', async (context) => {
  const gateway = await startGateway(options)
  requireProcesses(context, gateway)
  gateway.signal('SIGKILL')
  // Settles when nobody holds its output open any more.
  expect(await gateway.command.ended).toEqual({ code: null, signal: 'SIGKILL' })
})

describe('SIGTERM', () => {
  test('lets what is in flight finish, takes nothing new, says so, and ends with 0', async () => {
    held = []
    const gateway = await startGateway(options)
    const connections = await Promise.all(Array.from({ length: 4 }, () => Connection.open(gateway.port)))
    await Promise.all(connections.map((one) => one.send({ target: '/held' })))
    await origin.requests.take(4, (seen) => seen.url === '/held', 'the four in flight')
    const idle = await Connection.open(gateway.port)
    await idle.exchange({})

    gateway.signal('SIGTERM')
    await gateway.log.find((line) => line.msg === 'draining', 'draining')
    const ready = await gateway.admin('/readyz')
    expect(ready.status).toBe(503)
    expect(ready.text).toContain('draining')
    expect((await gateway.admin('/livez')).status).toBe(200)
    // One that has nothing in flight may be gone already.
    const states = async () => new Set((await gateway.status()).workers.map((one) => one.state))
    await eventually('no worker to listen', states, (seen) => !seen.has('listening'))
    expect(await states()).toContain('draining')
    const knock = () =>
      Connection.open(gateway.port).then(
        (connection) => connection.destroy(),
        (error: NodeJS.ErrnoException) => error.code,
      )
    await eventually('new connections to be refused', knock, 'ECONNREFUSED')

    for (const exchange of held) await exchange.answer(200, {}, 'finished')
    for (const one of connections) {
      const answer = await one.answer()
      expect([answer.status, answer.text]).toEqual([200, 'finished'])
      one.destroy()
    }
    idle.destroy()
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
    expect(gateway.access.all.filter((line) => line.path === '/held' && line.status === 200)).toHaveLength(4)
  })

  test('does not wait for ever', async () => {
    held = []
    const gateway = await startGateway({ ...options, env: { TIDEGATE_DRAIN_TIMEOUT_MS: '200' } })
    const connection = await Connection.open(gateway.port)
    const before = origin.requests.all.length
    await connection.send({ target: '/held' })
    await origin.requests.take(before + 1, () => true, 'the one in flight')
    expect(await gateway.stop()).toEqual({ code: 0, signal: null })
    await connection.closedByPeer()
    expect(gateway.access.all.filter((line) => line.path === '/held')).toHaveLength(1)
  })

  test('sent twice, ends it at once', async () => {
    const gateway = await startGateway(options)
    const connection = await Connection.open(gateway.port)
    const before = origin.requests.all.length
    await connection.send({ target: '/held' })
    await origin.requests.take(before + 1, () => true, 'the one in flight')
    gateway.signal('SIGTERM')
    await gateway.log.find((line) => line.msg === 'draining', 'draining')
    gateway.signal('SIGTERM')
    // Threads cannot be ended one by one.
    const killed = gateway.isolation === 'thread'
    expect(await gateway.command.ended).toEqual(killed ? { code: null, signal: 'SIGKILL' } : { code: 1, signal: null })
    connection.destroy()
  })
})
