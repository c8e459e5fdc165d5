// Workers that leave, all of them or one after the other, without a request being lost for it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forwardAll, type Gateway, type GatewayOptions, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

let origin: Origin
let config: object
let held: RawExchange[] = []

beforeAll(async () => {
  origin = await startScripted({ '/held': (exchange) => void held.push(exchange) })
  config = forwardAll(origin)
})

afterAll(() => origin.close())

const start = (options: Partial<GatewayOptions> = {}): Promise<Gateway> => startGateway({ config, ...options })

async function pidsOf(gateway: Gateway): Promise<number[]> {
  return (await gateway.status()).workers.map(({ pid }) => pid)
}

const closes = (answer: Answer): boolean => answer.one('connection') === 'close'

describe('SIGTERM', () => {
  test('fails readiness first, and serves on as before for TIDEGATE_SHUTDOWN_DELAY_MS', async () => {
    const gateway = await start({ env: { TIDEGATE_SHUTDOWN_DELAY_MS: '700' } })
    const connection = await Connection.open(gateway.port)
    await connection.exchange({})
    gateway.signal('SIGTERM')
    await gateway.log.find(({ msg }) => msg === 'not ready any more, serving on', 'the delay')
    expect((await gateway.admin('/readyz')).status).toBe(503)
    expect((await gateway.admin('/livez')).status).toBe(200)
    const [kept, fresh] = [await connection.exchange({}), await call(gateway.port)]
    expect([kept, fresh].map((answer) => [answer.status, closes(answer)])).toEqual(Array(2).fill([200, false]))
    expect(gateway.log.all.some(({ msg }) => msg === 'draining')).toBe(false)
    await gateway.log.find(({ msg }) => msg === 'draining', 'the drain')
    const states = async () => (await gateway.status()).workers.map(({ state }) => state)
    await eventually('all workers to leave', states, (seen) => !seen.includes('listening'))
    const last = await connection.exchange({})
    expect([last.status, closes(last)]).toEqual([200, true])
    await connection.closedByPeer()
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
  })

  test('lets in whoever is in the queue already', async (context) => {
    const gateway = await start()
    requireProcesses(context, gateway)
    const pids = await pidsOf(gateway)
    for (const pid of pids) process.kill(pid, 'SIGSTOP')
    // Nobody accepts: the kernel does, into the socket's queue.
    const waiting = await Promise.all(Array.from({ length: 20 }, () => Connection.open(gateway.port)))
    for (const one of waiting) await one.send({})
    gateway.signal('SIGTERM')
    await gateway.log.find(({ msg }) => msg === 'draining', 'the drain')
    for (const pid of pids) process.kill(pid, 'SIGCONT')
    for (const one of waiting) {
      const answer = await one.answer()
      expect([answer.status, closes(answer)]).toEqual([200, true])
      await one.closedByPeer()
    }
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
  })

  test.for(['1.1', '1.0'])('lets who has begun a head of HTTP/%s finish it', async (version, context) => {
    const gateway = await start()
    if (version === '1.0' && gateway.isolation === 'thread') {
      await gateway.close()
      context.skip('uWS listens by itself here, and answers HTTP/1.0 with 505 as soon as it has read the request line')
    }
    const begun = await Connection.open(gateway.port)
    await begun.write(`GET / HTTP/${version}\r\nHost: a.te`)
    const connections = async () => (await gateway.status()).workers.map((worker) => worker.connections)
    await eventually('a worker with the connection', connections, (seen) => Math.max(...seen) > 0)
    gateway.signal('SIGTERM')
    await gateway.log.find(({ msg }) => msg === 'draining', 'the drain')
    await begun.write('st\r\n\r\n')
    const answer = await begun.answer()
    expect([answer.status, closes(answer)]).toEqual([200, true])
    await begun.closedByPeer()
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
  })

  test('closes a connection on which nothing happens, and does not wait for it longer than that', async () => {
    const gateway = await start()
    const idle = await Connection.open(gateway.port)
    await idle.exchange({})
    gateway.signal('SIGTERM')
    await idle.closedByPeer()
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
  })
})

describe('a rolling restart', () => {
  test.each(['SIGUSR2', 'POST /restart'])(
    'by %s replaces each worker, and one that has requests finishes them',
    async (by) => {
      held = []
      const gateway = await start()
      if (gateway.isolation === 'thread') {
        const answer = await call(gateway.adminPort, { method: 'POST', target: '/restart', host: 'localhost' })
        expect([answer.status, answer.text]).toEqual([409, expect.stringContaining('workers are threads')])
        return gateway.close()
      }
      const before = await pidsOf(gateway)
      const connections = await Promise.all(Array.from({ length: 4 }, () => Connection.open(gateway.port)))
      // Spread over both workers.
      const seen = origin.requests.all.length
      for (const one of connections) await one.send({ target: '/held' })
      await origin.requests.take(seen + 4, () => true, 'the four in flight')

      if (by === 'SIGUSR2') gateway.signal(by)
      else {
        const answer = await call(gateway.adminPort, { method: 'POST', target: '/restart', host: 'localhost' })
        expect(answer.status).toBe(202)
      }
      const leaving = async () =>
        (await gateway.status()).workers.find(({ state }) => state === 'draining')?.inFlight ?? 0
      await eventually('a worker that leaves with requests in flight', leaving, (inFlight) => inFlight > 0)
      expect((await gateway.admin('/readyz')).status).toBe(200)
      for (const exchange of held) await exchange.answer(200, {}, 'finished')
      // Who leaves says so with its answer, to whomever it still owes one.
      const told: Connection[] = []
      for (const one of connections) {
        const answer = await one.answer()
        expect([answer.status, answer.text]).toEqual([200, 'finished'])
        if (closes(answer)) told.push(one)
      }
      expect(told.length).toBeGreaterThan(0)
      for (const one of connections) {
        for (let open = !told.includes(one); open; ) {
          const answer = await one.exchange({})
          expect(answer.status).toBe(200)
          open = !closes(answer)
        }
        await one.closedByPeer()
      }
      await gateway.log.find(({ msg }) => msg === 'all workers were restarted', 'the end')
      const after = await pidsOf(gateway)
      expect(after).toHaveLength(2)
      expect(after.filter((pid) => before.includes(pid))).toEqual([])
      expect((await call(gateway.port)).status).toBe(200)
      const { workers } = await gateway.status()
      expect(workers.map(({ restarts }) => restarts).reduce((a, b) => a + b)).toBe(2)
      expect(await gateway.metric('tidegate_requests_in_flight{worker="0"}')).toBe(0)
      await gateway.close()
    },
  )
})

test.each(['1.1', '1.0'])('a worker that is replaced waits for a head of HTTP/%s that has begun', async (version) => {
  const gateway = await start({ workers: 1 })
  if (gateway.isolation === 'thread') return gateway.close()
  const begun = await Connection.open(gateway.port)
  await begun.write(`GET / HTTP/${version}\r\nHost: a.te`)
  const workers = async () => (await gateway.status()).workers
  await eventually('a worker with the connection', async () => (await workers())[0]!.connections, 1)
  gateway.signal('SIGUSR2')
  const states = async () => (await workers()).map(({ state }) => state)
  await eventually('a worker that drains', states, (seen) => seen.includes('draining'))
  // The one that replaces it is at work already.
  expect((await call(gateway.port)).status).toBe(200)
  await begun.write('st\r\n\r\n')
  const answer = await begun.answer()
  expect([answer.status, closes(answer)]).toEqual([200, true])
  await begun.closedByPeer()
  await gateway.log.find(({ msg }) => msg === 'all workers were restarted', 'the end')
  await gateway.close()
})

test('what a killed primary leaves behind serves who is connected, and the next start goes on with the limits', async (context) => {
  held = []
  const limited = {
    ...config,
    limits: { quota: { by: 'route', rate: '5/d' } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'origin', auth: 'none', limits: ['quota'] }],
  }
  const state = `${temporaryFolder()}/state`
  const first = await startGateway({ config: limited, env: { TIDEGATE_STATE: state }, losesWorkers: true })
  requireProcesses(context, first)
  const env = { TIDEGATE_STATE: state, TIDEGATE_PORT: String(first.port) }
  const connection = await Connection.open(first.port)
  const seen = origin.requests.all.length
  await connection.send({ target: '/held' })
  await origin.requests.take(seen + 1, () => true, 'the one in flight')
  process.kill(first.command.child.pid!, 'SIGKILL')

  // At once, with the workers of the first still holding the port and a request.
  const second = await startGateway({ config: limited, env })
  const starting = second.log.all.find(({ msg }) => msg === 'starting')
  expect(starting).toMatchObject({ orphans: expect.any(Number), state: expect.stringContaining('state restored') })
  const statuses: number[] = []
  for (let i = 0; i < 5; i++) statuses.push((await call(second.port)).status)
  expect(statuses).toEqual([200, 200, 200, 200, 429])
  await held[0]!.answer(200, {}, 'finished by those left behind')
  const answer = await connection.answer()
  expect([answer.status, answer.text]).toEqual([200, 'finished by those left behind'])
  connection.destroy()
  await first.command.ended
  // What they count is their own: nothing of it is in the pages of the second.
  const open = async () => (await second.status()).workers.map(({ inFlight, connections }) => [inFlight, connections])
  // Its workers may hear of the last client's end a moment later.
  await eventually('no request and no connection', open, [
    [0, 0],
    [0, 0],
  ])
  expect(await second.metric('tidegate_requests_total{route="all",status="200"}')).toBe(4)
  await second.close()
})
