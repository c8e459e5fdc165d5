// A running gateway is given another configuration: by signal, by the admin listener, by the file itself.
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cleanEnvironment, type Gateway, runCommand, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, type RawExchange, startEcho, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { signedHeaders } from '../support/signing.js'
import { eventually } from '../support/waiting.js'

interface ReloadAnswer {
  readonly ok: boolean
  readonly generation: number
  readonly changes: readonly string[]
  readonly errors: readonly string[]
}

let blue: Origin
let green: Origin
let slow: Origin
let held: RawExchange[] = []

beforeAll(async () => {
  blue = await startEcho({ headers: { 'x-origin': 'blue' } })
  green = await startEcho({ headers: { 'x-origin': 'green' } })
  slow = await startScripted({ '/held': (exchange) => void held.push(exchange) })
})

afterAll(() => Promise.all([blue.close(), green.close(), slow.close()]))

const site = (origin: Origin, more: object = {}) => ({
  services: { site: { endpoints: [origin.url], ...more } },
  routes: [{ name: 'all', match: { path: '/' }, service: 'site', auth: 'none' }],
})

/** A gateway and its file. */
async function using(
  config: object,
  run: (gateway: Gateway, write: (config: object | string) => void) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  const file = join(temporaryFolder(), 'tidegate.yaml')
  const write = (next: object | string): void => {
    // In one step: whoever looks sees one or the other.
    writeFileSync(`${file}.next`, typeof next === 'string' ? next : JSON.stringify(next, null, 1))
    renameSync(`${file}.next`, file)
  }
  write(config)
  const gateway = await startGateway({ config, env: { TIDEGATE_CONFIG: file, ...env } })
  try {
    await run(gateway, write)
  } finally {
    await gateway.close()
  }
}

const post = (gateway: Gateway, target: string, headers: Record<string, string> = {}): Promise<Answer> =>
  call(gateway.adminPort, { method: 'POST', target, host: 'localhost', headers })

async function reload(gateway: Gateway): Promise<ReloadAnswer> {
  const answer = await post(gateway, '/reload')
  const result = answer.json<ReloadAnswer>()
  expect(answer.status).toBe(result.ok ? 200 : 422)
  return result
}

const originOf = (answer: Answer): string | undefined => answer.one('x-origin')

test('POST /reload answers what changed once every worker serves it, on connections that were open before', () =>
  using(site(blue), async (gateway, write) => {
    const connections = await Promise.all(Array.from({ length: 8 }, () => Connection.open(gateway.port)))
    for (const one of connections) expect(originOf(await one.exchange({}))).toBe('blue')
    write({ ...site(green, { timeouts: { total: '5s' } }), trustedProxies: ['127.0.0.1'] })
    expect(await reload(gateway)).toMatchObject({
      ok: true,
      generation: 2,
      errors: [],
      changes: [
        '~ services.site.timeouts.total: 0 → 5000',
        `~ services.site.endpoints: ["${blue.url}"] → ["${green.url}"]`,
        '~ trustedProxies: [] → ["127.0.0.1"]',
      ].sort(),
    })
    for (const one of connections) {
      const answer = await one.exchange({ headers: { 'x-forwarded-for': '203.0.113.7' } })
      expect(originOf(answer)).toBe('green')
      expect((await gateway.logged(answer)).client).toBe('203.0.113.7')
      one.destroy()
    }
    expect((await gateway.status<{ config: object }>()).config).toMatchObject({
      generation: 2,
      lastReload: { ok: true, by: 'admin' },
    })
    expect(await reload(gateway)).toMatchObject({ ok: true, generation: 2, changes: [] })
  }))

test('a configuration that is not sound changes nothing, and says why in the answer, the log, /status and /metrics', () =>
  using(site(blue), async (gateway, write) => {
    write('services:\n  site: { endpoints: [nowhere] }\nroutes:\n  - { servce: site }\n')
    const { ok, generation, errors } = await reload(gateway)
    expect([ok, generation]).toEqual([false, 1])
    expect(errors.join('\n')).toMatch(/tidegate\.yaml:2:\d+: services\.site\.endpoints\[0\]: must be an http/)
    expect(errors.join('\n')).toMatch(/tidegate\.yaml:4:\d+: routes\[0\]\.servce: unknown key; did you mean "service"/)
    const line = await gateway.log.find(({ msg }) => msg.startsWith('configuration not reloaded'), 'the refusal')
    expect(line).toMatchObject({ level: 50, by: 'admin', errors })
    expect((await gateway.status<{ config: object }>()).config).toMatchObject({ lastReload: { ok: false, errors } })
    expect(await gateway.metric('tidegate_config_last_reload_successful')).toBe(0)
    expect(await gateway.metric('tidegate_config_reloads_total{result="failed"}')).toBe(1)
    expect(originOf(await call(gateway.port))).toBe('blue')
    write(site(green))
    expect((await reload(gateway)).ok).toBe(true)
    expect(await gateway.metric('tidegate_config_last_reload_successful')).toBe(1)
    expect(originOf(await call(gateway.port))).toBe('green')
  }))

test('SIGHUP reloads', () =>
  using(site(blue), async (gateway, write) => {
    write(site(green))
    gateway.signal('SIGHUP')
    const line = await gateway.log.find(({ msg }) => msg === 'configuration reloaded', 'the reload')
    expect(line).toMatchObject({ by: 'signal', generation: 2 })
    expect(originOf(await call(gateway.port))).toBe('green')
  }))

test('with TIDEGATE_WATCH_CONFIG=on the file that changes is taken up by itself', () =>
  using(
    site(blue),
    async (gateway, write) => {
      write(site(green))
      await gateway.log.find(({ msg, by }) => msg === 'configuration reloaded' && by === 'file', 'the reload')
      expect(originOf(await call(gateway.port))).toBe('green')
    },
    { TIDEGATE_WATCH_CONFIG: 'on' },
  ))

test('web pages cannot ask for it', () =>
  using(site(blue), async (gateway) => {
    for (const target of ['/reload', '/restart'])
      expect((await post(gateway, target, { origin: 'http://evil.example' })).status).toBe(403)
    expect((await gateway.admin('/reload')).status).toBe(405)
    expect((await gateway.status<{ config: object }>()).config).toMatchObject({ lastReload: null })
  }))

test('requests on their way finish on the old configuration, and its connections go with the last of them', () =>
  using({ ...site(slow), routes: [...site(slow).routes] }, async (gateway, write) => {
    held = []
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: '/held' })
    await slow.requests.find(({ url }) => url === '/held', 'the held one')
    write({
      services: { other: { endpoints: [green.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'other', auth: 'none' }],
    })
    expect((await reload(gateway)).changes).toEqual([
      '+ services.other',
      '- services.site',
      '~ routes.all.service: "site" → "other"',
    ])
    expect(originOf(await call(gateway.port))).toBe('green')
    const [exchange] = held as [RawExchange]
    await exchange.answer(200, { 'x-origin': 'slow' }, 'late')
    const answer = await connection.answer()
    expect([answer.status, answer.text]).toEqual([200, 'late'])
    expect((await gateway.logged(answer)).service).toBe('site')
    await exchange.closed()
    connection.destroy()
  }))

test('a request whose body is still on its way is checked and forwarded as the old configuration says', () => {
  const body = 'first half, second half'
  const route = { match: { path: '/' }, service: 'site', auth: 'x-m' }
  const consumers = { shop: { secret: 'secret-of-the-old-one' } }
  return using({ ...site(blue), consumers, routes: [route] }, async (gateway, write) => {
    const connection = await Connection.open(gateway.port)
    const headers = signedHeaders({ source: 'shop', secret: 'secret-of-the-old-one' }, { method: 'POST', body })
    const fields = Object.entries({ host: 'demo.test', 'content-length': String(body.length), ...headers })
    const head = `POST / HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
    await connection.write(head + body.slice(0, 10))
    const begun = async () => (await gateway.status()).workers.some(({ inFlight }) => inFlight > 0)
    await eventually('the request in flight', begun, true)
    write({ ...site(green), consumers: { shop: { secret: 'secret-of-the-new-one' } }, routes: [route] })
    expect((await reload(gateway)).ok).toBe(true)
    await connection.write(body.slice(10))
    const answer = await connection.answer()
    expect([answer.status, originOf(answer)]).toEqual([200, 'blue'])
    connection.destroy()
  })
})

test('connections to endpoints that stay are kept, whatever else changes', () =>
  using({ ...site(blue), trustedProxies: [] }, async (gateway, write) => {
    const connections = await Promise.all(Array.from({ length: 6 }, () => Connection.open(gateway.port)))
    const ask = async (): Promise<void> => {
      for (const one of connections) expect(originOf(await one.exchange({}))).toBe('blue')
    }
    await ask()
    const before = blue.connections
    write({
      services: {
        first: { endpoints: [green.url] },
        site: { endpoints: [green.url], breaker: {}, timeouts: { total: '9s' } },
        renamed: { endpoints: [blue.url] },
      },
      routes: [
        { name: 'new', match: { path: '/new' }, service: 'first', auth: 'none' },
        { name: 'all', match: { path: '/' }, service: 'renamed', auth: 'none' },
      ],
    })
    expect((await reload(gateway)).ok).toBe(true)
    await ask()
    // Each worker had one, and goes on with it: asked one after the other, none needs more.
    expect(blue.connections).toBe(before)
    for (const one of connections) one.destroy()
  }))

test('limits, breakers and what was counted stay with their names, over any number of reloads', () => {
  const config = (n: number) => ({
    services: {
      // Moved about, so that no index is what it was.
      ...Object.fromEntries(
        Array.from({ length: n % 5 }, (_, i) => [`s${n}-${i}`, { endpoints: [green.url], breaker: {} }]),
      ),
      site: { endpoints: [blue.url], breaker: {} },
    },
    limits: { quota: { by: 'route', rate: '10/d' } },
    routes: [
      ...Array.from({ length: n % 7 }, (_, i) => ({
        name: `r${n}-${i}`,
        match: { path: `/r${i}` },
        service: 'site',
        auth: 'none',
      })),
      { name: 'limited', match: { path: '/limited' }, service: 'site', auth: 'none', limits: ['quota'] },
      { name: 'all', match: { path: '/' }, service: 'site', auth: 'none' },
    ],
  })
  return using(config(0), async (gateway, write) => {
    expect((await post(gateway, '/breakers?service=site&hold=closed')).status).toBe(200)
    const statuses: number[] = []
    for (let n = 1; n <= 60; n++) {
      write(config(n))
      expect(await reload(gateway)).toMatchObject({ ok: true, generation: n + 1 })
      if (n % 4 === 0) statuses.push((await call(gateway.port, { target: '/limited' })).status)
    }
    expect(statuses).toEqual([...Array(10).fill(200), ...Array(5).fill(429)])
    const { breakers } = await gateway.status<{ breakers: { service: string; held: string | null }[] }>()
    expect(breakers.find(({ service }) => service === 'site')).toMatchObject({ held: 'closed' })
    expect(await gateway.metric('tidegate_requests_total{route="limited",status="200"}')).toBe(10)
    expect(await gateway.metric('tidegate_requests_total{route="limited",status="429"}')).toBe(5)
    // The name of a route that took over another's place, in the last of them.
    expect(await gateway.metric('tidegate_requests_total{route="r60-0",status="200"}')).toBeUndefined()
    expect((await call(gateway.port, { target: '/r0' })).status).toBe(200)
    expect(await gateway.metric('tidegate_requests_total{route="r60-0",status="200"}')).toBe(1)
  })
})

test('what does not fit into shared memory is refused with a word on what to do', () =>
  using(site(blue), async (gateway, write) => {
    const routes = Array.from({ length: 200 }, (_, i) => ({
      match: { path: `/${i}` },
      service: 'site',
      auth: 'none',
    }))
    write({ ...site(blue), routes })
    const { ok, errors } = await reload(gateway)
    expect(ok).toBe(false)
    expect(errors).toEqual([expect.stringMatching(/the routes need more room .* \(66\): restart$/)])
    expect(originOf(await call(gateway.port))).toBe('blue')
    write({ ...site(green), routes: routes.slice(0, 60) })
    expect((await reload(gateway)).ok).toBe(true)
    expect(originOf(await call(gateway.port, { target: '/59' }))).toBe('green')
  }))

test('secrets are read again from their files, and none is in what is said of it', () => {
  const folder = temporaryFolder()
  const secretFile = join(folder, 'secret')
  writeFileSync(secretFile, 'first-secret-of-all')
  const config = {
    consumers: { shop: { secret: `file:${secretFile}` } },
    services: { site: { endpoints: [blue.url] } },
    routes: [{ match: { path: '/' }, service: 'site', auth: 'x-m' }],
  }
  const signed = (secret: string) => ({ headers: signedHeaders({ source: 'shop', secret }) })
  return using(config, async (gateway) => {
    expect((await call(gateway.port, signed('first-secret-of-all'))).status).toBe(200)
    writeFileSync(secretFile, 'another-secret-of-shop')
    const answer = await post(gateway, '/reload')
    expect(answer.json<ReloadAnswer>().changes).toEqual(['~ consumers.shop.secret'])
    expect(answer.text).not.toMatch(/first-secret|another-secret-of-shop/)
    expect((await call(gateway.port, signed('another-secret-of-shop'))).status).toBe(200)
    expect((await call(gateway.port, signed('first-secret-of-all'))).status).toBe(401)
    expect(gateway.command.stderr.text).not.toMatch(/first-secret|another-secret-of-shop/)
  })
})

test('passwords that are what they were have not changed', () => {
  const folder = temporaryFolder()
  const passwordFile = join(folder, 'password')
  writeFileSync(passwordFile, 'correct horse')
  const config = {
    consumers: { person: { password: `file:${passwordFile}` } },
    services: { site: { endpoints: [blue.url] } },
    routes: [{ match: { path: '/' }, service: 'site', auth: 'basic' }],
  }
  return using(config, async (gateway) => {
    expect((await post(gateway, '/reload')).json<ReloadAnswer>().changes).toEqual([])
    writeFileSync(passwordFile, 'battery staple')
    const answer = await post(gateway, '/reload')
    expect(answer.json<ReloadAnswer>().changes).toEqual(['~ consumers.person.password'])
    const { code, stdout } = await runCommand(['diff', gateway.configFile, gateway.configFile], cleanEnvironment())
    expect({ code, text: stdout.text }).toEqual({ code: 0, text: 'nothing changes\n' })
  })
})

test('workers that start later start with it', () =>
  using(site(blue), async (gateway, write) => {
    write(site(green))
    expect((await reload(gateway)).ok).toBe(true)
    if (gateway.isolation === 'thread') return
    gateway.signal('SIGUSR2')
    await gateway.log.find(({ msg }) => msg === 'all workers were restarted', 'new workers')
    expect(originOf(await call(gateway.port))).toBe('green')
    write(site(blue))
    expect(await reload(gateway)).toMatchObject({ ok: true, generation: 3 })
    expect(originOf(await call(gateway.port))).toBe('blue')
  }))

describe('health checks', () => {
  test('follow, and an endpoint that is no longer looked at is not down for ever', () => {
    const health = { path: '/', interval: '1s', timeout: '1s', healthyAfter: 1, unhealthyAfter: 1 }
    const dead = { endpoints: ['http://127.0.0.1:9'], health }
    const config = { services: { site: dead }, routes: site(blue).routes }
    return using(config, async (gateway, write) => {
      await gateway.log.find(({ msg }) => msg === 'endpoint is down', 'the dead one')
      expect((await call(gateway.port)).json<{ code: string }>().code).toBe('no_endpoint')
      write({ ...config, services: { site: { endpoints: dead.endpoints } } })
      await reload(gateway)
      expect((await call(gateway.port)).json<{ code: string }>().code).toBe('upstream_error')
      write({ ...config, services: { site: { endpoints: [blue.url], health } } })
      await reload(gateway)
      await gateway.log.find(({ msg, endpoint }) => msg === 'endpoint is up' && endpoint === blue.url, 'the living one')
      expect((await call(gateway.port)).status).toBe(200)
    })
  })
})
