// A limit with inFlight: nobody has more requests in flight than that, over all workers, and each is given back however
// it ends. Measured at the service.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { eventually } from '../support/waiting.js'

let origin: Origin
let gateway: Gateway
let held: RawExchange[] = []
const open: Connection[] = []

beforeAll(async () => {
  origin = await startScripted({
    '/': (exchange) => {
      held.push(exchange)
      exchange.socket.once('close', () => {
        held = held.filter((one) => one !== exchange)
      })
    },
    '/resets': (exchange) => exchange.reset(),
  })
  const route = (path: string, more: object) => ({ match: { path }, service: 'site', auth: 'none', ...more })
  gateway = await startGateway({
    workers: 2,
    losesWorkers: true,
    config: {
      consumers: {
        small: { apiKeys: ['sha256:d8484842191ca22753c34aa50a10220331c45ca5e3cc419ee26c61a54630bd52'] },
        large: {
          apiKeys: ['sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b'],
          groups: ['gold'],
        },
      },
      services: { site: { endpoints: [origin.url] } },
      limits: {
        users: { by: 'header:x-user', inFlight: 2 },
        callers: { by: 'consumer', inFlight: 1, tiers: { 'group:gold': 3 }, headers: true },
        reported: { by: 'address', inFlight: 1, mode: 'report' },
      },
      routes: [
        route('/', { limits: ['users'] }),
        route('/resets', { limits: ['users'] }),
        route('/calls', { auth: 'api-key', limits: ['callers'], stripPrefix: true }),
        route('/reported', { limits: ['reported'], stripPrefix: true }),
      ],
    },
  })
})

afterEach(async () => {
  for (const one of open.splice(0)) one.destroy()
  await eventually('the origin to be idle', () => held.length, 0)
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

/** Each on a connection of its own: both workers have some. */
async function ask(count: number, target: string, headers: Record<string, string>): Promise<Promise<Answer>[]> {
  const connections = await Promise.all(Array.from({ length: count }, () => Connection.open(gateway.port)))
  open.push(...connections)
  return connections.map((one) => {
    const answer = one.exchange({ target, headers })
    answer.catch(() => {})
    return answer
  })
}

/** All but so many, which the service holds. */
async function refusals(asked: readonly Promise<Answer>[], admitted: number): Promise<Answer[]> {
  const early: Answer[] = []
  for (const one of asked) void one.then((answer) => early.push(answer)).catch(() => {})
  await eventually('refusals', () => early.length, asked.length - admitted)
  await eventually('requests at the origin', () => held.length, admitted)
  return early
}

const answerAll = async (): Promise<void> => {
  while (held.length > 0) await held.shift()!.answer(200)
}

/** Its own requests have ended in the gateway, and so many more are admitted. */
const free = (target: string, headers: Record<string, string>, count: number) =>
  eventually(
    `${count} to be admitted again`,
    async () => {
      const asked = await ask(count, target, headers)
      let refused = 0
      for (const one of asked) void one.then(({ status }) => (refused += status === 429 ? 1 : 0)).catch(() => {})
      await eventually('all to be decided', () => held.length + refused, count)
      await answerAll()
      return refused
    },
    0,
  )

test('refuses what is beyond it with 429, over both workers, and each key has its own', async () => {
  const asked = await ask(8, '/', { 'x-user': 'a' })
  for (const answer of await refusals(asked, 2)) {
    expect(answer.status).toBe(429)
    expect(answer.json()).toMatchObject({ code: 'rate_limited' })
    expect(answer.one('retry-after')).toBe('1')
    expect(answer.one('ratelimit-policy')).toBe('"users";q=2;qu="concurrent-requests"')
    expect(answer.one('ratelimit')).toBe('"users";r=0')
    expect((await gateway.logged(answer)).reason).toBe('limit users: too many requests in flight')
  }
  const [other] = await ask(1, '/', { 'x-user': 'b' })
  await eventually('requests at the origin', () => held.length, 3)
  await answerAll()
  expect((await other!).status).toBe(200)
  await free('/', { 'x-user': 'a' }, 2)
})

test('a consumer has the number of its group, and is told what is left', async () => {
  const small = await ask(4, '/calls', { 'x-api-key': 'small-key' })
  expect((await refusals(small, 1)).map(({ status }) => status)).toEqual([429, 429, 429])
  const large = await ask(4, '/calls', { 'x-api-key': '1' })
  await eventually('requests at the origin', () => held.length, 4)
  await answerAll()
  const answers = (await Promise.all(large)).filter(({ status }) => status === 200)
  expect(answers).toHaveLength(3)
  for (const answer of answers) {
    expect(answer.one('ratelimit-policy')).toBe('"callers";q=3;qu="concurrent-requests"')
    expect(answer.one('ratelimit')).toMatch(/^"callers";r=[0-2]$/)
  }
})

test('gives back what a client that leaves had, and a request that failed', async () => {
  const headers = { 'x-user': 'leaves' }
  await refusals(await ask(3, '/', headers), 2)
  for (const one of open.splice(0)) one.destroy()
  await eventually('the origin to be idle', () => held.length, 0)
  await free('/', headers, 2)
  // A response may come a moment before its worker gives back the place.
  const failing = async (): Promise<number> => (await call(gateway.port, { target: '/resets', headers })).status
  for (let i = 0; i < 5; i++) await eventually('a request that fails', failing, 502)
  await free('/', headers, 2)
})

test('in report mode it marks the log line and admits', async () => {
  const asked = await ask(3, '/reported', {})
  await eventually('requests at the origin', () => held.length, 3)
  await answerAll()
  const lines = await Promise.all((await Promise.all(asked)).map((answer) => gateway.logged(answer)))
  expect(lines.filter(({ limitReported }) => limitReported)).toHaveLength(2)
})

test('gives back what a killed worker had', async ({ skip }) => {
  if (gateway.isolation === 'thread') skip('threads cannot be killed')
  const headers = { 'x-user': 'killed' }
  await refusals(await ask(8, '/', headers), 2)
  const { workers } = await gateway.status()
  for (const { pid, slot } of workers) {
    process.kill(pid, 'SIGKILL')
    await eventually(
      'the killed worker to be replaced',
      async () => {
        const worker = (await gateway.status()).workers.find((one) => one.slot === slot)
        return worker?.restarts === 1 && worker.state === 'listening'
      },
      true,
    )
  }
  await eventually('the origin to be idle', () => held.length, 0)
  await free('/', headers, 2)
})
