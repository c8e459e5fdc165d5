// A service that fails is left alone by every worker at once, and asked again after a while. The rules of the breaker
// itself are in test/unit/proxy.
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { fillBacklog } from '../support/full-backlog.js'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, refusingPort, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'

let failing = true
let origin: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/status': (exchange) => exchange.answer(failing ? 503 : 200, {}, 'from the service'),
    '/reset': (exchange) => exchange.reset(),
    '/reset/once': (exchange) => exchange.reset(),
    '/missing': (exchange) => exchange.answer(404),
    '/silent': (exchange) => exchange.closed(),
  })
  const service = (openFor: string, more: object = {}) => ({
    endpoints: [origin.url],
    breaker: { window: '60s', minRequests: 4, failureRatio: 0.5, openFor, maxOpenFor: '60s', probes: 1, ramp: '0s' },
    ...more,
  })
  const refusing = `http://127.0.0.1:${await refusingPort()}`
  const route = (path: string, name: string) => ({ match: { path }, service: name, auth: 'none' })
  gateway = await startGateway({
    config: {
      services: {
        recovering: service('300ms'),
        reset: service('60s'),
        missing: service('60s'),
        silent: service('60s'),
        half: service('60s', { endpoints: [refusing, origin.url] }),
        fragile: service('60s', { client: 'undici', breaker: { minRequests: 1, openFor: '60s' } }),
      },
      routes: [
        route('/status', 'recovering'),
        route('/reset', 'reset'),
        route('/missing', 'missing'),
        route('/silent', 'silent'),
        route('/half', 'half'),
        route('/reset/once', 'fragile'),
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

const changed = (service: string, to: string) =>
  gateway.log.find(
    (line) => line.msg === 'breaker changed state' && line.service === service && line.to === to,
    `${service} ${to}`,
  )

test('opens for every worker, refuses without asking the service, and closes once the service is well', async () => {
  const connections = await Promise.all(Array.from({ length: 8 }, () => Connection.open(gateway.port)))
  // Both workers have some of them before anything has failed.
  for (const one of connections.slice(0, 4)) {
    const answer = await one.exchange({ target: '/status' })
    expect(answer.status).toBe(503)
    expect(answer.text).toBe('from the service')
  }
  await changed('recovering', 'open')
  const asked = origin.requests.all.length
  const refused = await Promise.all(connections.map((one) => one.exchange({ target: '/status' })))
  for (const answer of refused) {
    expect(answer.status).toBe(503)
    expect(answer.json()).toMatchObject({ code: 'breaker_open' })
    expect(answer.one('retry-after')).toMatch(/^[1-9]\d*$/)
  }
  expect(origin.requests.all.length).toBe(asked)
  const { breakers } = await gateway.status<{ breakers: { service: string; state: string }[] }>()
  expect(breakers.find(({ service }) => service === 'recovering')?.state).toBe('open')
  expect(await gateway.metric('tidegate_breaker_state{service="recovering",state="open"}')).toBe(1)

  failing = false
  // Whoever asks after the open time is the probe, and with it the breaker closes.
  let status = 503
  while (status !== 200) status = (await connections[0]!.exchange({ target: '/status' })).status
  await changed('recovering', 'closed')
  const served = await Promise.all(connections.map((one) => one.exchange({ target: '/status' })))
  expect(served.map((answer) => answer.status)).toEqual(Array(8).fill(200))
  for (const one of connections) one.destroy()
})

test('opens on connections that are reset', async () => {
  for (let i = 0; i < 4; i++)
    expect((await call(gateway.port, { method: 'POST', target: '/reset', body: 'x' })).status).toBe(502)
  expect((await call(gateway.port, { target: '/reset' })).status).toBe(503)
})

test('judges a request after its retry', async () => {
  const answer = await call(gateway.port, { target: '/reset/once' })
  expect(answer.status).toBe(502)
  expect(await gateway.logged(answer)).toMatchObject({ code: 'upstream_error', attempts: 2 })
  expect(origin.requests.all.filter(({ url }) => url === '/reset/once')).toHaveLength(2)
  expect((await call(gateway.port, { target: '/reset/once' })).status).toBe(503)
})

test('stays closed for an endpoint that refuses connections beside one that does not', async () => {
  for (let i = 0; i < 12; i++) expect((await call(gateway.port, { target: '/half' })).status).toBe(200)
  expect(await gateway.metric('tidegate_breaker_state{service="half",state="closed"}')).toBe(1)
})

test('opens on an endpoint that cannot be reached where no other is left to ask', async () => {
  const folder = temporaryFolder()
  const backlog = await fillBacklog(join(folder, 'full'))
  // Both are down by the time at which the connection to the first one is given up.
  const site = {
    endpoints: ['full', 'missing'].map((name) => `unix:${join(folder, name)}`),
    timeouts: { connect: '2s' },
    balance: 'round-robin',
    health: { path: '/', interval: '1s', timeout: '1s', unhealthyAfter: 1 },
    breaker: { minRequests: 1, openFor: '60s' },
  }
  const routes = [{ match: { path: '/' }, service: 'site', auth: 'none' }]
  const alone = await startGateway({ workers: 1, config: { services: { site }, routes } })
  const answer = await call(alone.port)
  expect(answer.status).toBe(504)
  expect(await alone.logged(answer)).toMatchObject({ reason: 'connect timeout', attempts: 1 })
  expect(await alone.metric('tidegate_breaker_state{service="site",state="open"}')).toBe(1)
  await alone.close()
  backlog.close()
})

test('stays closed for answers that are the caller’s fault', async () => {
  for (let i = 0; i < 12; i++) expect((await call(gateway.port, { target: '/missing' })).status).toBe(404)
})

test('stays closed for callers that leave', async () => {
  for (let i = 0; i < 12; i++) {
    const asked = origin.requests.all.length
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: '/silent' })
    await origin.requests.take(asked + 1, () => true, 'a request nobody waits for')
    connection.destroy()
  }
  await gateway.access.take(12, (line) => line.path === '/silent' && line.code === 'client_closed', 'callers that left')
  expect(await gateway.metric('tidegate_breaker_state{service="silent",state="closed"}')).toBe(1)
})
