// Which endpoint of a service is asked: in turn, not those that are down, another one where a connection is refused.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, refusingPort, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'

let origins: Origin[]
let sick: Origin
let healthz = 200
let refusing: string
let gateway: Gateway

beforeAll(async () => {
  origins = await Promise.all([startEcho(), startEcho(), startEcho()])
  sick = await startEcho({ status: (path) => (path === '/healthz' ? healthz : 200) })
  refusing = `http://127.0.0.1:${await refusingPort()}`
  const health = { path: '/healthz', interval: '300ms', timeout: '300ms', healthyAfter: 2, unhealthyAfter: 2 }
  const [a, b, c] = origins.map((origin) => origin.url) as [string, string, string]
  const route = (path: string, service: string) => ({ match: { path }, service, auth: 'none' })
  gateway = await startGateway({
    config: {
      services: {
        three: { endpoints: [a, b, c], balance: 'round-robin' },
        checked: { endpoints: [sick.url, a], health, balance: 'round-robin', slowStart: '0s' },
        half: { endpoints: [refusing, a], balance: 'round-robin', outliers: false },
        none: { endpoints: [refusing] },
      },
      routes: [route('/three', 'three'), route('/checked', 'checked'), route('/half', 'half'), route('/none', 'none')],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await Promise.all([...origins, sick].map((origin) => origin.close()))
})

const asked = (origin: Origin, path: string): number => origin.requests.all.filter((seen) => seen.url === path).length

test('each is asked in turn', async () => {
  // One connection: one worker, one round.
  const connection = await Connection.open(gateway.port)
  for (let i = 0; i < 12; i++) await connection.exchange({ target: '/three' })
  connection.destroy()
  expect(origins.map((origin) => asked(origin, '/three'))).toEqual([4, 4, 4])
})

test('one that its checks find down is left out by every worker until they find it up again', async () => {
  const change = (msg: string, after = 0) =>
    gateway.log.find(
      (line) => line.msg === msg && line.endpoint === sick.url && line.time >= after,
      `${msg}: the sick one`,
    )
  await change('endpoint is up')
  healthz = 500
  const { time } = await change('endpoint is down')
  const before = asked(sick, '/checked')
  const answers = await Promise.all(Array.from({ length: 12 }, () => call(gateway.port, { target: '/checked' })))
  expect(answers.map((answer) => answer.status)).toEqual(Array(12).fill(200))
  expect(asked(sick, '/checked')).toBe(before)
  expect(await gateway.metric(`tidegate_endpoint_up{service="checked",endpoint="${sick.url}"}`)).toBe(0)

  healthz = 200
  await change('endpoint is up', time)
  await Promise.all(Array.from({ length: 12 }, () => call(gateway.port, { target: '/checked' })))
  expect(asked(sick, '/checked')).toBeGreaterThan(before)
})

describe('one that refuses connections', () => {
  test.each(['GET', 'POST'])('costs another attempt and no answer: %s', async (method) => {
    const parts = method === 'POST' ? { body: 'a body that must arrive' } : {}
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => call(gateway.port, { method, target: '/half', ...parts })),
    )
    expect(answers.map((answer) => answer.status)).toEqual(Array(8).fill(200))
    const lines = await Promise.all(answers.map((answer) => gateway.logged(answer)))
    expect(new Set(lines.map((line) => line.endpoint))).toEqual(new Set([origins[0]!.url]))
    // A retry takes its turn too: if each request's retry comes before the next request, all of them begin at the one
    // that refuses.
    const attempts = new Set(lines.map((line) => line.attempts))
    expect(attempts).toContain(2)
    expect([...attempts].filter((n) => n !== 1 && n !== 2)).toEqual([])
  })

  test('and is the only one: 502', async () => {
    const answer = await call(gateway.port, { target: '/none' })
    expect(answer.status).toBe(502)
    expect(await gateway.logged(answer)).toMatchObject({
      code: 'upstream_error',
      reason: 'ECONNREFUSED',
      attempts: 1,
      endpoint: refusing,
    })
  })
})
