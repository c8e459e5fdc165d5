// How often a request is sent, whatever layer sends it again: the access line says as many attempts as the services
// have seen, and one more for an endpoint that cannot be reached.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, refusingPort, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { readHead } from '../support/wire.js'

let origin: Origin
let gateway: Gateway
/** Requests that their connection has answered before, by their socket. */
const answered = new WeakSet<object>()
/** Requests for /slow, which wait until they are answered here. */
const slow: RawExchange[] = []
/** Clients that have lost a connection with two requests on it. */
const lost = new Set<string>()
/** Heads that a script has read behind its own request. */
const behind: string[] = []

const WARM_MS = 100
const CLIENTS = ['lean', 'undici'] as const

async function readBehind({ reader }: RawExchange): Promise<void> {
  behind.push((await readHead(reader)).startLine.split(' ')[1]!)
}

beforeAll(async () => {
  const reused = async (exchange: RawExchange): Promise<void> => {
    await exchange.body()
    if (answered.has(exchange.socket)) return exchange.reset()
    answered.add(exchange.socket)
    await exchange.answer(200, {}, 'ok')
  }
  // The connection is lost with two requests on it, of which the service has seen both.
  const lostWithTwo = async (exchange: RawExchange): Promise<void> => {
    const { query } = exchange
    if (lost.has(query.get('with')!)) return exchange.answer(200)
    lost.add(query.get('with')!)
    await readBehind(exchange)
    exchange.reset()
  }
  origin = await startScripted({
    '/reused-lean': reused,
    '/reused-undici': reused,
    // Responses take so long that none is late before four times that.
    '/warm': async (exchange) => {
      await new Promise((resolve) => setTimeout(resolve, WARM_MS))
      await exchange.answer(200)
    },
    '/lost': lostWithTwo,
    '/slow': async (exchange) => {
      slow.push(exchange)
      for (;;) await readBehind(exchange)
    },
  })
  const refusing = `http://127.0.0.1:${await refusingPort()}`
  const services = Object.fromEntries(
    CLIENTS.flatMap((client) => [
      [client, { endpoints: [origin.url], client }],
      [`half-${client}`, { endpoints: [refusing, origin.url], client, balance: 'round-robin' }],
      [`shared-${client}`, { endpoints: [origin.url], client, pipelining: 8 }],
    ]),
  )
  const routes = CLIENTS.flatMap((client) => [
    { match: { path: `/reused-${client}` }, service: client, auth: 'none' },
    { match: { path: `/half-${client}` }, service: `half-${client}`, auth: 'none' },
  ])
  const shared = CLIENTS.map((client) => ({
    match: { path: '/', host: `${client}.test` },
    service: `shared-${client}`,
    auth: 'none',
  }))
  gateway = await startGateway({ workers: 1, config: { services, routes: [...routes, ...shared] } })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

const seen = (target: string): number =>
  origin.requests.all.filter(({ url }) => url === target).length + behind.filter((url) => url === target).length
const attempts = async (answer: Answer): Promise<number> => (await gateway.logged(answer)).attempts

describe.each(CLIENTS)('with %s', (client) => {
  test('a connection that is refused is an attempt that no service has seen', async () => {
    const targets = Array.from({ length: 4 }, (_, n) => `/half-${client}?${n}`)
    // One worker and one retry each: every first attempt is at the endpoint that refuses.
    const answers: Answer[] = []
    for (const target of targets) answers.push(await call(gateway.port, { target }))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(targets.map(seen)).toEqual([1, 1, 1, 1])
    expect(await Promise.all(answers.map(attempts))).toEqual([2, 2, 2, 2])
  })

  test('a connection that was used before and is lost: each time that the request is sent is one', async () => {
    const connection = await Connection.open(gateway.port)
    const ask = async (targets: readonly string[], method: string): Promise<[answers: Answer[], sent: number[]]> => {
      const answers: Answer[] = []
      const body = method === 'POST' ? { body: 'x' } : {}
      for (const target of targets) answers.push(await connection.exchange({ method, target, ...body }))
      const sent = targets.map(seen)
      expect(await Promise.all(answers.map(attempts))).toEqual(sent)
      return [answers, sent]
    }
    const gets = Array.from({ length: 6 }, (_, n) => `/reused-${client}?get-${n}`)
    const [, sent] = await ask(gets, 'GET')
    expect([sent[0], Math.max(...sent)]).toEqual([1, 2])
    const posts = Array.from({ length: 4 }, (_, n) => `/reused-${client}?post-${n}`)
    const [answers, sentOnce] = await ask(posts, 'POST')
    expect(answers.map(({ status }) => status)).toContain(502)
    expect(sentOnce).toEqual([1, 1, 1, 1])
    connection.destroy()
  })

  test('a connection that is lost with several requests on it', async () => {
    const host = `${client}.test`
    await call(gateway.port, { target: '/warm', host })
    const targets = [1, 2].map((n) => `/lost?with=${client}&n=${n}`)
    // undici puts nothing behind a GET before that has a response.
    const first = call(gateway.port, { method: 'HEAD', target: targets[0]!, host })
    await origin.requests.find(({ url }) => url === targets[0], 'the first')
    const answers = await Promise.all([first, call(gateway.port, { method: 'HEAD', target: targets[1]!, host })])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(targets.map(seen)).toEqual([2, 2])
    expect(await Promise.all(answers.map(attempts))).toEqual([2, 2])
  })
})

test('requests that are moved off a connection whose response is late', async () => {
  const host = 'lean.test'
  await call(gateway.port, { target: '/warm', host })
  const first = call(gateway.port, { target: '/slow', host })
  await expect.poll(() => slow.length).toBe(1)
  const targets = Array.from({ length: 5 }, (_, n) => `/moved?${n}`)
  const answers = await Promise.all(targets.map((target) => call(gateway.port, { target, host })))
  expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(200))
  await slow[0]!.answer(200, {}, 'at last')
  expect((await first).text).toBe('at last')
  expect(targets.map(seen)).toContain(2)
  expect(await Promise.all(answers.map(attempts))).toEqual(targets.map(seen))
})
