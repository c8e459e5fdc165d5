// The admin listener of a running gateway: probes, numbers that agree with the traffic there was, and the state of
// every part.
import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireTool } from '../support/requirements.js'

let echo: Origin
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho({ status: (path) => (path === '/counted/teapot' ? 418 : 200) })
  gateway = await startGateway({
    config: {
      consumers: { test: { secret: 'the-secret-of-test' } },
      services: {
        echo: {
          endpoints: [echo.url],
          breaker: {},
          health: { path: '/healthz', interval: '1s', timeout: '1s', healthyAfter: 1 },
        },
      },
      routes: [
        { name: 'counted', match: { path: '/counted' }, service: 'echo', auth: 'none' },
        {
          name: 'signed',
          match: { path: '/signed' },
          service: 'echo',
          auth: 'x-m',
          replay: 'once',
          limits: [{ by: 'consumer', rate: '1000/s' }],
        },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
})

test.each(['/livez', '/readyz'])('%s answers 200 once every worker listens', async (target) => {
  expect((await gateway.admin(target)).status).toBe(200)
})

test('any other path is 404', async () => {
  expect((await gateway.admin('/')).status).toBe(404)
  expect((await gateway.admin('/livez/')).status).toBe(404)
})

test('the admin pages are not on the gateway’s own port', async () => {
  expect((await call(gateway.port, { target: '/status' })).status).toBe(404)
})

describe('/metrics', () => {
  test('count every request by route, status and code, and every duration, over both workers', async () => {
    const connections = await Promise.all(Array.from({ length: 6 }, () => Connection.open(gateway.port)))
    for (let round = 0; round < 5; round++) {
      await Promise.all(connections.map((one) => one.exchange({ method: 'POST', target: '/counted', body: '12345' })))
    }
    for (const one of connections) one.destroy()
    for (let i = 0; i < 3; i++) await call(gateway.port, { target: '/counted/teapot' })
    for (let i = 0; i < 4; i++) await call(gateway.port, { target: '/signed' })

    expect(await gateway.metric('tidegate_requests_total{route="counted",status="200"}')).toBe(30)
    // A status without a counter of its own is counted by its class.
    expect(await gateway.metric('tidegate_requests_total{route="counted",status="4xx"}')).toBe(3)
    expect(await gateway.metric('tidegate_requests_total{route="signed",status="401"}')).toBe(4)
    expect(await gateway.metric('tidegate_rejections_total{route="signed",code="unauthorized"}')).toBe(4)
    expect(await gateway.metric('tidegate_request_bytes_total{route="counted"}')).toBe(150)
    expect(await gateway.metric('tidegate_request_duration_seconds_count{route="counted"}')).toBe(33)
    expect(await gateway.metric('tidegate_request_duration_seconds_bucket{route="counted",le="+Inf"}')).toBe(33)
    expect(await gateway.metric('tidegate_upstream_attempts_total{route="counted"}')).toBe(33)
    expect(await gateway.metric('tidegate_workers{state="listening"}')).toBe(2)
    expect(await gateway.metric('tidegate_requests_in_flight{worker="0"}')).toBe(0)
    expect(await gateway.metric('tidegate_breaker_state{service="echo",state="closed"}')).toBe(1)
    expect(await gateway.metric(`tidegate_endpoint_up{service="echo",endpoint="${echo.url}"}`)).toBe(1)
  })

  test('are what Prometheus takes: each family announced once, each series once, buckets that only grow', async () => {
    const answer = await gateway.admin('/metrics')
    expect(answer.one('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
    const types = new Map<string, string>()
    const series = new Set<string>()
    let lastBucket: [string, number] = ['', 0]
    for (const line of answer.text.split('\n').filter((one) => one !== '')) {
      const announced = /^# TYPE ([a-z_]+) (counter|gauge|histogram|summary)$/.exec(line)
      if (announced !== null) {
        expect(types.has(announced[1]!), line).toBe(false)
        types.set(announced[1]!, announced[2]!)
        continue
      }
      if (line.startsWith('# HELP ')) continue
      const sample = /^(([a-z_]+?)(?:_(?:bucket|sum|count))?)(\{[^}]*\})? (\S+)$/.exec(line)
      expect(sample, line).not.toBeNull()
      const [, name, family, labels = '', value] = sample as unknown as [
        string,
        string,
        string,
        string | undefined,
        string,
      ]
      expect(types.has(name) || types.has(family), line).toBe(true)
      expect(series.has(name + labels), line).toBe(false)
      series.add(name + labels)
      expect(Number(value), line).not.toBeNaN()
      if (!name.endsWith('_bucket')) continue
      const of = labels.replace(/,?le="[^"]*"/, '')
      if (lastBucket[0] === of) expect(Number(value), line).toBeGreaterThanOrEqual(lastBucket[1])
      lastBucket = [of, Number(value)]
    }
    expect(series.size).toBeGreaterThan(40)
  })
})

test('/status tells of the workers, the endpoints and the breakers, and of no secret', async () => {
  await gateway.log.find((line) => line.msg === 'endpoint is up', 'the endpoint')
  const answer = await gateway.admin('/status')
  expect(answer.one('content-type')).toMatch(/^application\/json/)
  const status = answer.json<Record<string, unknown>>()
  expect(status).toMatchObject({
    ready: true,
    draining: false,
    isolation: gateway.isolation,
    workers: [
      { slot: 0, state: 'listening', restarts: 0, pid: expect.any(Number) },
      { slot: 1, state: 'listening', restarts: 0, pid: expect.any(Number) },
    ],
    services: [
      {
        name: 'echo',
        endpoints: [
          { origin: echo.url, health: 'up', healthSince: expect.stringMatching(/^20.+Z$/), lastFailedCheck: null },
        ],
      },
    ],
    breakers: [{ service: 'echo', state: 'closed' }],
  })
  expect(answer.text).not.toContain('the-secret-of-test')
})

test('the first log lines say which isolation runs and why, and which uWebSockets.js', () => {
  const starting = gateway.log.all.find((line) => line.msg === 'starting')
  expect(starting).toMatchObject({ isolation: gateway.isolation, why: expect.stringMatching(/./) })
  const listens = gateway.log.all.find((line) => line.msg === 'worker listens')
  expect(listens?.uWebSockets).toMatch(/^20\.\d+\.\d+$/)
})

// Last: it replaces the workers.
test('the metrics are what promtool takes, also with a breaker that is held and after a rolling restart', async (context) => {
  requireTool(context, 'promtool')
  const post = (target: string) => call(gateway.adminPort, { method: 'POST', target, host: 'localhost' })
  const check = async () => {
    const { text } = await gateway.admin('/metrics')
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
    expect([status, stdout, stderr]).toEqual([0, '', ''])
    return new Set(Array.from(text.matchAll(/\{worker="(\d+)"\}/g), ([, slot]) => slot))
  }
  expect((await post('/breakers?service=echo&hold=open')).status).toBe(200)
  expect(await gateway.metric('tidegate_breaker_state{service="echo",state="open"}')).toBe(1)
  expect(await gateway.metric('tidegate_breaker_held{service="echo",state="open"}')).toBe(1)
  expect(await check()).toEqual(new Set(['0', '1']))
  await post('/breakers?service=echo&hold=none')
  expect(await gateway.metric('tidegate_breaker_state{service="echo",state="closed"}')).toBe(1)
  if (gateway.isolation === 'thread') return
  expect((await post('/restart')).status).toBe(202)
  await gateway.log.find(({ msg }) => msg === 'all workers were restarted', 'the end of it')
  expect(await check()).toEqual(new Set(['0', '1', '2']))
})
