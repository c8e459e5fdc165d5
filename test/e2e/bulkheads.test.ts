// A service never has more requests in flight than its configuration says, over all workers, and each place comes back
// however its request ends. Measured at the service.
import { renameSync, writeFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { eventually } from '../support/waiting.js'
import { ConnectionCut } from '../support/wire.js'

let origin: Origin
let gateway: Gateway
/** Requests that the origin has and has not answered, in order of arrival. */
let held: RawExchange[] = []
let most = 0
const uploads: string[] = []
let busy = 0
let mostBusy = 0
const open: Connection[] = []

const config = (few: object = { maxInFlight: { most: 2, queue: { size: 8, wait: '20s' } } }) => {
  const endpoints = [origin.url]
  return {
    services: {
      strict: { endpoints, maxInFlight: 3 },
      few: { endpoints, ...few },
      brief: { endpoints, maxInFlight: { most: 1, queue: { size: 2, wait: '200ms' } } },
      short: { endpoints, maxInFlight: { most: 1, queue: { size: 2, wait: '20s' } }, timeouts: { total: '300ms' } },
      failing: { endpoints, maxInFlight: 1, client: 'undici' },
      busy: { endpoints, maxInFlight: { most: 4, queue: { size: 100, wait: '20s' } } },
      unbound: { endpoints },
      shadow: { endpoints, maxInFlight: 1 },
      spare: { endpoints, maxInFlight: 1 },
    },
    routes: ['strict', 'few', 'brief', 'short', 'failing', 'busy', 'mirrored'].map((service) => ({
      match: { path: `/${service}` },
      service,
      auth: 'none',
      ...(service === 'failing' && { fallback: { service: 'spare' } }),
      ...(service === 'mirrored' && { service: 'unbound', mirror: 'shadow' }),
    })),
  }
}

beforeAll(async () => {
  const hold = (exchange: RawExchange): void => {
    held.push(exchange)
    most = Math.max(most, held.length)
    exchange.socket.once('close', () => {
      held = held.filter((one) => one !== exchange)
    })
  }
  origin = await startScripted({
    '/strict': hold,
    '/few': hold,
    '/brief': async (exchange) => {
      if (exchange.method === 'POST') uploads.push((await exchange.body()).bytes.toString('latin1'))
      hold(exchange)
    },
    '/short': (exchange) => exchange.closed(),
    '/busy': async (exchange) => {
      busy++
      mostBusy = Math.max(mostBusy, busy)
      await pause(5)
      busy--
      if (!exchange.socket.closed) await exchange.answer(200)
    },
    '/mirrored': (exchange) => {
      if (exchange.head.one('x-tidegate-mirror') === null) return exchange.answer(200)
      hold(exchange)
    },
    '/failing': (exchange) => exchange.reset(),
  })
  gateway = await startGateway({ config: config(), workers: 2, losesWorkers: true })
})

afterEach(async () => {
  for (const one of open.splice(0)) one.destroy()
  await eventually('the origin to be idle', () => held.length, 0)
  most = 0
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

async function connect(): Promise<Connection> {
  const connection = await Connection.open(gateway.port)
  open.push(connection)
  return connection
}

const reach = (count: number) => eventually(`${count} requests at the origin`, () => held.length, count)

function answerOne(body = ''): Promise<void> {
  return held.shift()!.answer(200, {}, body)
}

interface Bulkhead {
  readonly limit: number
  readonly inFlight: number
  readonly waiting: number
}

async function bulkheadOf(service: string): Promise<Bulkhead> {
  const { services } = await gateway.status<{ services: { name: string; bulkhead: Bulkhead }[] }>()
  return services.find(({ name }) => name === service)!.bulkhead
}

const idle = (service: string) =>
  eventually(`${service} to be idle`, async () => {
    const { inFlight, waiting } = await bulkheadOf(service)
    return [inFlight, waiting]
  }, [0, 0])

const refusedBy = async (answer: Answer): Promise<string | undefined> => {
  expect(answer.status).toBe(503)
  expect(answer.json()).toMatchObject({ code: 'overloaded' })
  expect(answer.one('retry-after')).toBe('1')
  return (await gateway.logged(answer)).reason
}

test('refuses what comes beyond the limit, over both workers, and says which bulkhead', async () => {
  const clients = await Promise.all(Array.from({ length: 12 }, connect))
  const answers = clients.map((one) => one.exchange({ target: '/strict' }))
  const early: Answer[] = []
  for (const answer of answers)
    void answer.then(
      (one) => early.push(one),
      () => {},
    )
  await eventually('nine refusals', () => early.length, 9)
  await reach(3)
  for (const answer of early) expect(await refusedBy(answer)).toBe('bulkhead strict: too many requests in flight')
  expect(await bulkheadOf('strict')).toMatchObject({ limit: 3, inFlight: 3, waiting: 0 })
  expect(await gateway.metric('tidegate_bulkhead_in_flight{service="strict"}')).toBe(3)
  expect(await gateway.metric('tidegate_bulkhead_refusals_total{service="strict",reason="full"}')).toBe(9)
  while (held.length > 0) await answerOne()
  expect((await Promise.all(answers)).filter(({ status }) => status === 200)).toHaveLength(3)
  await idle('strict')
})

test('what waits gets its turn in order, and never more at once than the limit', async () => {
  // Each begins once the one before waits.
  const clients = await Promise.all(Array.from({ length: 7 }, connect))
  const answers: Promise<Answer>[] = []
  for (const [at, one] of clients.entries()) {
    answers.push(one.exchange({ target: `/few?${at}` }))
    await eventually(
      `${at + 1} requests`,
      async () => {
        const { inFlight, waiting } = await bulkheadOf('few')
        return inFlight + waiting
      },
      at + 1,
    )
  }
  expect(await bulkheadOf('few')).toMatchObject({ inFlight: 2, waiting: 5 })
  const order: number[] = []
  for (let answered = 0; answered < 7; answered++) {
    await eventually('a request', () => held.length > 0, true)
    order.push(Number(held[0]!.target.split('?')[1]))
    await answerOne()
  }
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200)
  expect(order.slice(0, 2).sort()).toEqual([0, 1])
  // Each worker serves its own queue: one request may overtake those that came milliseconds before it, elsewhere.
  expect([...order].sort()).toEqual([0, 1, 2, 3, 4, 5, 6])
  expect(most).toBe(2)
  await idle('few')
})

test('what cannot wait any longer is refused: by the wait of the queue', async () => {
  const first = await connect()
  void first.send({ target: '/brief' })
  await reach(1)
  const before = performance.now()
  expect(await refusedBy(await call(gateway.port, { target: '/brief' }))).toBe(
    'bulkhead brief: waited too long for a place',
  )
  expect(performance.now() - before).toBeGreaterThanOrEqual(199)
  expect(await gateway.metric('tidegate_bulkhead_refusals_total{service="brief",reason="late"}')).toBe(1)
  await answerOne()
  await idle('brief')
})

test('or by the total timeout of the service, where that is shorter', async () => {
  const first = await connect()
  // The clocks of its service stand still while its client sends.
  await first.write('POST /short HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf')
  await eventually('a place', async () => (await bulkheadOf('short')).inFlight, 1)
  expect(await refusedBy(await call(gateway.port, { target: '/short' }))).toBe(
    'bulkhead short: waited too long for a place',
  )
  first.destroy()
  await idle('short')
})

test('a client that leaves frees its place, in the queue and at the service', async () => {
  const [first, second, third] = await Promise.all([connect(), connect(), connect()])
  void first.send({ target: '/brief' })
  await reach(1)
  void second.send({ target: '/brief' })
  await eventually('one that waits', async () => (await bulkheadOf('brief')).waiting, 1)
  second.destroy()
  await eventually('none that waits', async () => (await bulkheadOf('brief')).waiting, 0)
  first.destroy()
  await idle('brief')
  await eventually('the first request to be gone', () => held.length, 0)
  const answer = third.exchange({ target: '/brief' })
  await eventually('the third request', () => held.length === 1 && held[0]!.target === '/brief', true)
  await answerOne()
  expect((await answer).status).toBe(200)
})

test('a failed request gives its place back, and so does the fallback that takes over', async () => {
  for (let i = 0; i < 5; i++) {
    const answer = await call(gateway.port, { method: 'POST', target: '/failing', body: 'x' })
    // The body was sent: no other service can have it.
    expect([502, 200]).toContain(answer.status)
    const other = await call(gateway.port, { target: '/failing' })
    expect(other.status).toBe(502)
    expect(await gateway.logged(other)).toMatchObject({ fallback: 'upstream_error', service: 'spare' })
  }
  await idle('failing')
  await idle('spare')
})

test('an upload waits with its body, and the service gets all of it', async () => {
  const [first, second] = await Promise.all([connect(), connect()])
  void first.send({ target: '/brief' })
  await reach(1)
  const body = 'a'.repeat(50_000)
  const answer = second.exchange({ method: 'POST', target: '/brief', body })
  await eventually('one that waits', async () => (await bulkheadOf('brief')).waiting, 1)
  await answerOne()
  await reach(1)
  expect(uploads).toEqual([body])
  await answerOne()
  expect((await answer).status).toBe(200)
  await idle('brief')
})

test('the copies of a mirror take places too, and those that find none are dropped', async () => {
  for (let i = 0; i < 4; i++) expect((await call(gateway.port, { target: '/mirrored' })).status).toBe(200)
  await reach(1)
  expect(await bulkheadOf('shadow')).toMatchObject({ inFlight: 1, waiting: 0 })
  await answerOne()
  await idle('shadow')
  expect((await call(gateway.port, { target: '/mirrored' })).status).toBe(200)
  await reach(1)
  expect(most).toBe(1)
  await answerOne()
  await idle('shadow')
})

test('a reload changes the limit for what is already in flight, and for what waits', async () => {
  const clients = await Promise.all(Array.from({ length: 6 }, connect))
  const answers = clients.map((one) => one.exchange({ target: '/few' }))
  await reach(2)
  await eventually('four that wait', async () => (await bulkheadOf('few')).waiting, 4)
  const use = async (few: object): Promise<void> => {
    writeFileSync(`${gateway.configFile}.next`, JSON.stringify(config(few)))
    renameSync(`${gateway.configFile}.next`, gateway.configFile)
    const answer = await call(gateway.adminPort, { method: 'POST', target: '/reload', host: 'localhost' })
    expect(answer.json()).toMatchObject({ ok: true })
  }
  await use({ maxInFlight: { most: 4, queue: { size: 8, wait: '20s' } } })
  await reach(4)
  await use({ maxInFlight: { most: 1, queue: { size: 8, wait: '20s' } } })
  for (let left = 6; left > 0; left--) {
    // Those above the new limit end first; then it is one at a time.
    await eventually('requests at the origin', () => held.length, Math.max(1, Math.min(4, left - 2)))
    await answerOne()
  }
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200)
  expect(most).toBe(4)
  await idle('few')
  await use({})
  const unbounded = Array.from({ length: 6 }, () => call(gateway.port, { target: '/few' }))
  await reach(6)
  while (held.length > 0) await answerOne()
  await Promise.all(unbounded)
  await use({ maxInFlight: { most: 2, queue: { size: 8, wait: '20s' } } })
})

test('what a killed worker held comes back, and under load there are never more', async ({ skip }) => {
  if (gateway.isolation === 'thread') skip('threads cannot be killed')
  let running = true
  let served = 0
  const client = async (): Promise<void> => {
    while (running) {
      const connection = await Connection.open(gateway.port)
      try {
        while (running) {
          expect((await connection.exchange({ target: '/busy' })).status).toBe(200)
          served++
        }
      } catch (error) {
        // The worker that was killed took it along.
        if (!(error instanceof ConnectionCut) && (error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error
      } finally {
        connection.destroy()
      }
    }
  }
  const clients = Array.from({ length: 24 }, client)
  await eventually('requests that were served', () => served > 200, true)
  expect(mostBusy).toBe(4)
  const { workers } = await gateway.status()
  process.kill(workers[0]!.pid, 'SIGKILL')
  await eventually('the killed worker to be replaced', async () => (await gateway.status()).workers[0]!.restarts, 1)
  // Until now, the origin may have had requests of the dead worker that it had not seen end.
  mostBusy = 0
  const before = served
  await eventually('requests that were served', () => served > before + 200, true)
  expect(mostBusy).toBe(4)
  running = false
  await Promise.all(clients)
  await idle('busy')
})
