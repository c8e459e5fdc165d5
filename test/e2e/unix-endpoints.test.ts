// Endpoints that are Unix sockets, with both clients: requests and bodies, what a service is told of its host, and
// each way in which a socket cannot be connected to.
import { writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type FullBacklog, fillBacklog } from '../support/full-backlog.js'
import { cleanEnvironment, type Gateway, runCommand, startGateway, temporaryFolder } from '../support/gateway.js'
import { headerOf, type Origin, sha256, startEcho, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'

const folder = temporaryFolder()
const at = (name: string): string => join(folder, name)
const CLIENTS = ['lean', 'undici'] as const
const LARGE = 3_000_000

let echo: Origin
let tcp: Origin
let scripted: Origin
let backlogs: Record<(typeof CLIENTS)[number], FullBacklog>
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho({ path: at('echo'), headers: { 'x-origin': 'unix' } })
  tcp = await startEcho({ headers: { 'x-origin': 'tcp' } })
  scripted = await startScripted(
    {
      '/cut': async (exchange) => {
        await exchange.send('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf')
        exchange.end()
      },
      '/large': async (exchange) => {
        await exchange.body()
        await exchange.answer(200, {}, 'x'.repeat(LARGE))
      },
    },
    at('scripted'),
  )
  backlogs = { lean: await fillBacklog(at('full-lean')), undici: await fillBacklog(at('full-undici')) }
  writeFileSync(at('file'), '')
  const health = { path: '/', interval: '100ms', timeout: '100ms', healthyAfter: 1, unhealthyAfter: 2 }
  const services = (client: string): Record<string, object> => ({
    echo: { endpoints: [echo.url] },
    scripted: { endpoints: [scripted.url] },
    mixed: { endpoints: [echo.url, tcp.url], balance: 'round-robin' },
    half: { endpoints: [`unix:${at('missing')}`, tcp.url] },
    missing: { endpoints: [`unix:${at('missing')}`] },
    refusing: { endpoints: [`unix:${at('file')}`] },
    full: { endpoints: [`unix:${at(`full-${client}`)}`], timeouts: { connect: '300ms' } },
    later: { endpoints: [`unix:${at(`full-${client}`)}`], timeouts: { connect: '10s' } },
    again: { endpoints: [`unix:${at(`again-${client}`)}`] },
    checked: { endpoints: [`unix:${at(`checked-${client}`)}`, tcp.url], health, slowStart: '0s' },
  })
  const all = CLIENTS.flatMap((client) =>
    Object.entries(services(client)).map(([name, service]) => [`${client}-${name}`, { client, ...service }] as const),
  )
  gateway = await startGateway({
    config: {
      services: Object.fromEntries(all),
      routes: [
        ...all.map(([service]) => ({ match: { path: `/${service}` }, service, auth: 'none', stripPrefix: true })),
        { match: { path: '/kept' }, service: 'lean-echo', auth: 'none', preserveHost: true },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  for (const backlog of Object.values(backlogs)) backlog.close()
  await Promise.all([echo, tcp, scripted].map((origin) => origin.close()))
})

describe.each(CLIENTS)('with the %s client', (client) => {
  const target = (service: string, path = '/'): string => `/${client}-${service}${path}`

  test('a request and its body arrive, and the log, /status and /metrics name the socket', async () => {
    const body = 'a body '.repeat(100_000)
    const answer = await call(gateway.port, { method: 'POST', target: target('echo', '/a?b'), body })
    expect(answer.status).toBe(200)
    expect(answer.one('x-origin')).toBe('unix')
    expect(answer.json()).toMatchObject({ method: 'POST', url: '/a?b', bodySha256: sha256(body) })
    expect(await gateway.logged(answer)).toMatchObject({ endpoint: echo.url, status: 200 })
    const { services } = await gateway.status<{ services: { name: string; endpoints: object[] }[] }>()
    expect(services.find(({ name }) => name === `${client}-echo`)!.endpoints).toMatchObject([
      { origin: `unix:${at('echo')}`, health: 'unknown' },
    ])
    expect(await gateway.metric(`tidegate_endpoint_up{service="${client}-echo",endpoint="${echo.url}"}`)).toBe(1)
  })

  test('connections are kept alive', async () => {
    const before = echo.connections
    const connection = await Connection.open(gateway.port)
    for (let i = 0; i < 10; i++) expect((await connection.exchange({ target: target('echo') })).status).toBe(200)
    connection.destroy()
    expect(echo.connections - before).toBeLessThan(2)
  })

  test('a large response arrives, and one that is cut short is cut', async () => {
    expect((await call(gateway.port, { target: target('scripted', '/large') })).body).toHaveLength(LARGE)
    await expect(call(gateway.port, { target: target('scripted', '/cut') })).rejects.toThrow()
    const line = await gateway.access.find(({ path }) => path === target('scripted', '/cut'), 'the one cut short')
    expect(line.code).toBe('upstream_error')
  })

  test('beside an endpoint over TCP: each in turn', async () => {
    const connection = await Connection.open(gateway.port)
    const answers = []
    for (let i = 0; i < 6; i++) answers.push(await connection.exchange({ target: target('mixed') }))
    connection.destroy()
    expect(answers.map((answer) => answer.one('x-origin')).sort()).toEqual([
      ...Array(3).fill('tcp'),
      ...Array(3).fill('unix'),
    ])
  })

  test('one that is not there costs another attempt where there is another endpoint', async () => {
    const answers = await Promise.all(
      ['GET', 'POST', 'GET', 'POST'].map((method) =>
        call(gateway.port, { method, target: target('half'), ...(method === 'POST' && { body: 'must arrive' }) }),
      ),
    )
    expect(answers.map((answer) => answer.status)).toEqual(Array(4).fill(200))
  })

  test.each([
    ['missing', 'ENOENT'],
    ['refusing', 'ECONNREFUSED'],
  ])('%s, and no other: 502 and %s', async (service, reason) => {
    const answer = await call(gateway.port, { target: target(service) })
    expect(answer.status).toBe(502)
    expect(await gateway.logged(answer)).toMatchObject({ code: 'upstream_error', reason, attempts: 1 })
  })

  test('a backlog that stays full is a connect timeout; one that has room in time is not noticed', async () => {
    const late = await call(gateway.port, { target: target('full') })
    expect(late.status).toBe(504)
    expect(await gateway.logged(late)).toMatchObject({ code: 'upstream_timeout', reason: 'connect timeout' })
    const waiting = Array.from({ length: 8 }, () => call(gateway.port, { target: target('later') }))
    setTimeout(() => backlogs[client].goOn(), 50)
    for (const answer of await Promise.all(waiting)) expect([answer.status, answer.text]).toEqual([200, 'ok'])
  })

  test('a server that begins anew with another socket of that name is found again', async () => {
    const path = at(`again-${client}`)
    const ask = () => call(gateway.port, { method: 'POST', target: target('again'), body: 'once' })
    const first = await startEcho({ path, headers: { 'x-origin': 'first' } })
    expect((await ask()).one('x-origin')).toBe('first')
    await first.close()
    expect((await ask()).status).toBe(502)
    const second = await startEcho({ path, headers: { 'x-origin': 'second' } })
    expect((await ask()).one('x-origin')).toBe('second')
    // What lies there is another one's, and the former listens on.
    await rm(path)
    const third = await startEcho({ path, headers: { 'x-origin': 'third' } })
    await Promise.all([second.close(), third.close()])
  })

  test('health checks ask it', async () => {
    const path = at(`checked-${client}`)
    const is = (msg: string) =>
      gateway.log.find((line) => line.msg === msg && line.endpoint === `unix:${path}`, `${msg}: ${path}`)
    expect((await is('endpoint is down')).reason).toContain('ENOENT')
    for (let i = 0; i < 4; i++) {
      const answer = await call(gateway.port, { target: target('checked') })
      expect([answer.status, answer.one('x-origin')]).toEqual([200, 'tcp'])
      expect((await gateway.logged(answer)).attempts).toBe(1)
    }
    const origin = await startEcho({ path, headers: { 'x-origin': 'checked' } })
    await is('endpoint is up')
    expect(headerOf(origin.requests.all[0]!, 'host')).toEqual(['localhost'])
    expect(headerOf(origin.requests.all[0]!, 'user-agent')).toEqual(['tidegate-health'])
    await expect
      .poll(async () => (await call(gateway.port, { target: target('checked') })).one('x-origin'))
      .toBe('checked')
    await origin.close()
  })
})

test('the service is told localhost, or what the client has asked for where preserveHost says so', async () => {
  const told = async (target: string): Promise<string[]> =>
    headerOf((await call(gateway.port, { target, host: 'shop.example' })).json(), 'host')
  expect(await told('/lean-echo/')).toEqual(['localhost'])
  expect(await told('/undici-echo/')).toEqual(['localhost'])
  expect(await told('/kept')).toEqual(['shop.example'])
})

test('diff shows what changes between a port and a socket', async () => {
  const file = (name: string, endpoint: string): string => {
    const path = at(name)
    const routes = [{ match: { path: '/' }, service: 's', auth: 'none' }]
    writeFileSync(path, JSON.stringify({ services: { s: { endpoints: [endpoint] } }, routes }))
    return path
  }
  const files = [file('a.yaml', 'http://h:1'), file('b.yaml', 'unix:/run/s.sock')]
  const { stdout } = await runCommand(['diff', ...files], cleanEnvironment())
  expect(stdout.text).toContain('~ services.s.endpoints: ["http://h:1"] → ["unix:/run/s.sock"]')
})
