// Two attempts of one request at once: for a route that hedges, and where an endpoint is taken out while a request
// waits for it. Two replicas: whichever gets a request first does what the path says, and the other one something else.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Script, startScripted } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'
import { after, type Replicas, silent, startReplicas } from '../support/replicas.js'
import { eventually } from '../support/waiting.js'

const answer =
  (status: number, text: string): Script =>
  (exchange) =>
    exchange.answer(status, {}, text)
const reset: Script = (exchange) => exchange.reset()

let replicas: Replicas
let gateway: Gateway
let ids = 0

beforeAll(async () => {
  replicas = await startReplicas(2, {
    '/silent': silent,
    '/mute': [silent, silent],
    '/first': [after(300, answer(200, 'first')), silent],
    '/bad-first': [after(200, answer(503, 'first')), after(400, answer(200, 'second'))],
    '/bad-second': [after(400, answer(200, 'first')), answer(503, 'second')],
    '/lost-first': [after(200, reset), after(400, answer(200, 'second'))],
    '/lost-second': [after(400, answer(200, 'first')), reset],
    '/lost-both': [after(200, reset), after(400, reset)],
  })
  const endpoints = replicas.origins.map(({ url }) => url)
  const of = (more: object) => ({ endpoints, ...more })
  // One failed call would open it.
  const breaker = { minRequests: 1, failureRatio: 0.01, openFor: '60s', maxOpenFor: '60s' }
  const services = {
    lean: of({ breaker }),
    undici: of({ client: 'undici', breaker }),
    opens: of({ breaker }),
    percentile: of({}),
    short: of({ retries: false, timeouts: { firstByte: '500ms' } }),
  }
  const hedges: Record<string, object> = { percentile: { after: 'p95' }, short: { after: '50ms', budget: 0.01 } }
  const routes = Object.keys(services).map((service) => ({
    match: { path: `/${service}` },
    service,
    auth: 'none',
    stripPrefix: true,
    hedge: hedges[service] ?? { after: '50ms' },
  }))
  gateway = await startGateway({ workers: 1, config: { services, routes } })
})

afterAll(async () => {
  await gateway.close()
  await replicas.close()
})

async function ask(service: string, path: string, parts: RequestParts = {}) {
  const target = `${path}?id=${ids++}`
  const response = await call(gateway.port, { ...parts, target: `/${service}${target}` })
  return { response, exchanges: replicas.exchanges.get(target) ?? [] }
}

describe.each(['lean', 'undici'])('with %s', (client) => {
  test('the second attempt wins, the first is given up, and the log says so', async () => {
    const { response, exchanges } = await ask(client, '/silent')
    expect([response.status, response.text, exchanges.length]).toEqual([200, 'second', 2])
    expect(exchanges[0]!.socket.localPort).not.toBe(exchanges[1]!.socket.localPort)
    await exchanges[0]!.closed()
    const line = await gateway.logged(response)
    expect([line.attempts, line.retried]).toEqual([2, 'hedge'])
    expect(line.endpoint).toBe(`http://127.0.0.1:${exchanges[1]!.socket.localPort}`)
  })

  test('the first attempt wins, and the second is given up', async () => {
    const { response, exchanges } = await ask(client, '/first')
    expect([response.text, exchanges.length]).toEqual(['first', 2])
    await exchanges[1]!.closed()
  })

  test.each([
    ['/bad-first', 'second'],
    ['/bad-second', 'first'],
    ['/lost-first', 'second'],
    ['/lost-second', 'first'],
  ])('%s: the other one goes on', async (path, text) => {
    const { response, exchanges } = await ask(client, path)
    expect([response.status, response.text]).toEqual([200, text])
    // A connection that was used before: the client may have sent it once more by itself.
    expect(new Set(exchanges.map(({ socket }) => socket.localPort)).size).toBeGreaterThan(1)
  })

  test('a request that must not be repeated has one attempt', async () => {
    const { response, exchanges } = await ask(client, '/first', { method: 'POST', body: 'x' })
    expect([response.text, exchanges.length]).toEqual(['first', 1])
  })

  test('a body that is here as a whole goes to both', async () => {
    const { response, exchanges } = await ask(client, '/silent', { method: 'PUT', body: 'x'.repeat(10_000) })
    expect([response.text, exchanges.length]).toEqual(['second', 2])
  })

  test('a client that leaves ends both', async () => {
    const target = `/mute?id=${ids++}`
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: `/${client}${target}` })
    await eventually('two attempts', () => replicas.exchanges.get(target)?.length, 2)
    connection.destroy()
    await Promise.all(replicas.exchanges.get(target)!.map((exchange) => exchange.closed()))
  })

  test('nothing of this was a failure of the service', async () => {
    expect(await gateway.metric(`tidegate_breaker_state{service="${client}",state="closed"}`)).toBe(1)
  })
})

test('if both fail the client gets an error, and the breaker counts one failure', async () => {
  const { response } = await ask('opens', '/lost-both')
  expect(response.status).toBe(502)
  expect(await gateway.metric('tidegate_breaker_state{service="opens",state="open"}')).toBe(1)
})

test('a percentile of the route is known after some responses', async () => {
  const quick = Array.from({ length: 64 }, () => call(gateway.port, { target: '/percentile/quick' }))
  expect(new Set((await Promise.all(quick)).map(({ status }) => status))).toEqual(new Set([200]))
  const { response, exchanges } = await ask('percentile', '/silent')
  expect([response.text, exchanges.length]).toEqual(['second', 2])
})

test('the budget of hedges is their own, and the metrics say what it refused', async () => {
  const all = await Promise.all(Array.from({ length: 20 }, () => ask('short', '/silent')))
  const good = all.filter(({ response }) => response.status === 200).length
  const late = all.filter(({ response }) => response.status === 504).length
  expect([good + late, late > 0, good >= 10]).toEqual([20, true, true])
  expect(await gateway.metric('tidegate_hedges_total{route="/short",result="sent"}')).toBe(good)
  expect(await gateway.metric('tidegate_hedges_total{route="/short",result="refused"}')).toBe(late)
})

test('a request that waits at an endpoint which is taken out is sent to another one, too', async () => {
  /** The port of the one that has the request: its health checks fail from then on. */
  let ill = 0
  const scripts: Record<string, Script> = {
    '/wait': (exchange) => {
      if (ill !== 0) return exchange.answer(200, {}, 'from the other')
      ill = exchange.socket.localPort!
      return exchange.closed()
    },
    '/health': (exchange) => exchange.answer(exchange.socket.localPort === ill ? 503 : 200),
  }
  const origins = await Promise.all([startScripted(scripts), startScripted(scripts)])
  const health = { path: '/health', interval: '100ms', timeout: '100ms', unhealthyAfter: 1, healthyAfter: 1 }
  const one = { endpoints: origins.map(({ url }) => url), health }
  const routes = [{ match: { path: '/' }, service: 'one', auth: 'none' }]
  const rescuing = await startGateway({ workers: 1, config: { services: { one }, routes } })
  const response = await call(rescuing.port, { target: '/wait' })
  expect(response.text).toBe('from the other')
  const line = await rescuing.logged(response)
  expect([line.attempts, line.retried]).toEqual([2, 'out'])
  expect(await rescuing.metric('tidegate_retries_total{route="/",reason="out"}')).toBe(1)
  await rescuing.close()
  await Promise.all(origins.map((origin) => origin.close()))
})
